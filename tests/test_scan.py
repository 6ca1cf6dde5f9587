"""Folders of images that grow, shrink, change and are bad, and the store of their pixels."""

import os
import shutil
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_al.data import listing
from latent_al.data import store as stores
from latent_al.data.store import Store
from latent_al.labelling.scan import check_latents, forecast, plan, scan, summary
from latent_al.runtime.files import read_csv
from latent_al.runtime.noise import noise_to_file
from latent_al.types import BadInput

RNG = np.random.default_rng(0)


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)).save(path)


def run(root, workdir, **change):
    return scan(plan(str(root), workdir, **dict(size=(4, 4), channels=1) | change))


def states(result):
    return dict(zip(result.table.file_name, result.table.status, strict=True))


@pytest.fixture
def root(tmp_path):
    """Three images, a copy of one in a sub-folder, and a text."""
    for seed, name in enumerate(["b.png", "a.bmp", "sub/c d.tif"]):
        save(tmp_path / "root" / name, seed)
    shutil.copy(tmp_path / "root/b.png", tmp_path / "root/sub/copy.PNG")
    (tmp_path / "root/notes.txt").write_text("x")
    return tmp_path / "root"


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "work"


class TestScan:
    def test_each_content_once(self, root, workdir):
        result = run(root, workdir)
        assert result.table.file_name.tolist() == ["a.bmp", "b.png", "sub/c d.tif"]
        assert result.table.copies.tolist() == [1, 2, 1]
        assert result.table.id.str.fullmatch("sha256:[0-9a-f]{32}").all()
        assert result.duplicates[["file_name", "same_as"]].to_numpy().tolist() == [["sub/copy.PNG", "b.png"]]
        assert result.duplicates.id.tolist() == [result.table.id[1]]
        np.testing.assert_array_equal(result.store[1][..., 0], np.asarray(Image.open(root / "b.png")))
        assert summary(result) == "3 images, 1 duplicate (duplicates.csv), 1 other file"

    def test_tables_hold_what_is_returned(self, root, workdir):
        (root / "torn.png").write_bytes(b"x")
        result = run(root, workdir)
        for name, table in zip(("manifest", "duplicates", "rejected"), (result[0], *result[2:4]), strict=True):
            pd.testing.assert_frame_equal(read_csv(workdir / f"{name}.csv").astype(table.dtypes), table)
        assert result.rejected.to_numpy().tolist() == [["torn.png", "it is not an image that Pillow can read"]]

    def test_a_second_scan_reads_nothing_and_writes_the_same(self, root, workdir):
        first = run(root, workdir)
        before = (workdir / "manifest.csv").read_bytes()
        assert plan(str(root), workdir, size=(4, 4), channels=1).new == []
        second = run(root, workdir)
        assert (workdir / "manifest.csv").read_bytes() == before
        pd.testing.assert_frame_equal(second.table, first.table)
        pd.testing.assert_frame_equal(second.duplicates, first.duplicates)
        assert second[4:7] == (0, 0, 0)

    def test_added_moved_changed_removed_and_back(self, root, workdir):
        ids = run(root, workdir).table.id.tolist()
        save(root / "0 new.png", 9)
        (root / "sub/c d.tif").rename(root / "moved.tif")
        save(root / "a.bmp", 10)
        (root / "b.png").rename(root.parent / "b.png")
        (root / "sub/copy.PNG").unlink()
        result = run(root, workdir)
        assert result.table.id.tolist()[:3] == ids
        assert result.table.file_name.tolist() == ["a.bmp", "b.png", "moved.tif", "0 new.png", "a.bmp"]
        assert result.table.status.tolist() == ["changed", "removed", "present", "present", "present"]
        assert result.table.copies.tolist() == [0, 0, 1, 1, 1]
        assert summary(result) == "3 images, 2 new since the last scan, 1 removed, 1 changed, 1 other file"
        assert run(root, workdir)[4:7] == (0, 0, 0)
        (root.parent / "b.png").rename(root / "b.png")
        result = run(root, workdir)
        assert result.table.status.tolist() == ["changed", "present", "present", "present", "present"]
        assert result.table.id.tolist()[:3] == ids
        assert len(result.store) == 5

    def test_an_image_whose_file_is_now_broken_is_removed(self, root, workdir):
        run(root, workdir)
        (root / "a.bmp").write_bytes(b"BM")
        result = run(root, workdir)
        assert states(result)["a.bmp"] == "removed"
        assert result.rejected.file_name.tolist() == ["a.bmp"]

    def test_interrupted_it_goes_on_after_the_last_shard(self, tmp_path, monkeypatch):
        monkeypatch.setattr(stores, "SHARD", 8)
        monkeypatch.setattr(listing, "GROUP", 2)
        root, whole, torn = (tmp_path / name for name in ("root", "whole", "torn"))
        for index in range(27):
            save(root / f"{index:02}.png", index % 25)
        result = run(root, whole)
        assert result.store.shards == [(0, 8), (8, 16), (16, 24), (24, 25)]
        (torn / "pool").mkdir(parents=True)
        for name in ("00000.npy", "00000.csv", "00001.npy", "00001.csv", "00002.npy"):
            shutil.copy(whole / "pool" / name, torn / "pool")
        (torn / "pool/00002.npy").write_bytes((torn / "pool/00002.npy").read_bytes()[:150])
        (torn / "pool/00003.npy.partial").write_bytes(b"half")
        assert len(plan(str(root), torn, size=(4, 4), channels=1).new) == 11
        resumed = run(root, torn)
        np.testing.assert_array_equal(resumed.store[0:25], result.store[0:25])
        assert resumed.num_new == 25
        for name in ("manifest.csv", "duplicates.csv", "rejected.csv", "pool/00003.csv"):
            assert (torn / name).read_bytes() == (whole / name).read_bytes()

    def test_names_of_every_kind(self, tmp_path, workdir):
        names = [
            "a  b.png",
            'say "a".png',
            "two\nlines.png",
            "a\r\nb.png",
            "=1+1.png",
            "é 猫.png",
            "'a,b.PNG",
            "\\xff.png",
        ]
        for seed, name in enumerate(names):
            save(tmp_path / "root" / name, seed)
        for _ in range(2):
            result = run(tmp_path / "root", workdir)
            assert result.table.file_name.tolist() == sorted(names)
        assert result.num_new == 0
        assert not plan(str(tmp_path / "root"), workdir, size=(4, 4), channels=1).new

    def test_what_is_not_followed_or_read_is_listed(self, root, workdir):
        (root / "loop").symlink_to("loop")
        (root / "up").symlink_to(root)
        (root / "link.png").symlink_to(root / "b.png")
        os.mkfifo(root / "pipe.png")
        os.close(os.open(os.fsencode(root) + b"/\xff.png", os.O_CREAT))
        (root / ".hidden").mkdir()
        save(root / ".hidden/a.png", 5)
        result = run(root, workdir)
        assert result.rejected.file_name.tolist() == sorted(["loop", "up", "link.png", "pipe.png", "\\xff.png"])
        reasons = result.rejected.set_index("file_name").reason
        assert all("symbolic link, which is not followed" in reasons[name] for name in ("loop", "up", "link.png"))
        assert "not UTF-8; rename it" in reasons["\\xff.png"]
        assert "neither a file nor a folder" in reasons["pipe.png"]
        assert len(result.table) == 3

    def test_the_root_may_be_a_link_and_hold_the_workdir(self, root):
        link = root.parent / "link"
        link.symlink_to(root)
        for _ in range(2):
            assert len(run(link, root / "work").table) == 3
            save(root / "work/rounds/000/contact_sheet.png", 7)

    def test_a_file_that_vanishes_is_rejected(self, root, workdir):
        planned = plan(str(root), workdir, size=(4, 4), channels=1)
        (root / "a.bmp").unlink()
        result = scan(planned)
        assert result.rejected.to_numpy().tolist() == [["a.bmp", "it has vanished since the folder was listed"]]
        assert len(result.table) == 2

    def test_images_of_several_sizes_become_one(self, root, workdir):
        Image.fromarray(np.full((9, 7, 3), 50, np.uint8)).save(root / "large.png")
        result = run(root, workdir, channels=3)
        row = result.table.index[result.table.file_name == "large.png"][0]
        assert result.table.loc[row, ["height", "width"]].tolist() == [9, 7]
        assert (result.store[row] == 50).all()


def deepen(path, highest):
    """A file of 16 bits whose levels run from 0 to `highest`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.linspace(0, highest, 16).astype(np.uint16).reshape(4, 4)).save(path)


def rejected(result):
    return dict(result.rejected.to_numpy())


class TestDepth:
    def test_it_is_found_over_the_whole_pool_and_kept(self, tmp_path, workdir):
        root = tmp_path / "root"
        deepen(root / "a.png", 100)
        deepen(root / "b.png", 4000)
        save(root / "c.png", 1)
        planned = plan(str(root), workdir, size=(4, 4), channels=1)
        assert planned.remarks == [
            "Depth: 2 files hold more than 8 bits a level, up to 4,000 (b.png): read as 12 bits; 1 of them use 8 bits "
            "at most, and come out dark; config.data.depth overrides it."
        ]
        result = scan(planned)
        assert result.table.bits.tolist() == [12, 12, 8]
        assert result.store[0:2].max(axis=(1, 2, 3)).tolist() == [100 >> 4, 4000 >> 4]
        deepen(root / "d.png", 900)
        deepen(root / "e.png", 5000)
        result = run(root, workdir)
        assert result.store[3].max() == 900 >> 4
        assert "its levels go up to 5000, but the images before it were read with 12 bits" in rejected(result)["e.png"]
        with pytest.raises(BadInput, match=r"depth is 16, but the images in .*work were read with 12 bits"):
            run(root, workdir, depth=16)
        # The same bits, as a setting: they were found, so that what is higher stays refused.
        assert list(rejected(run(root, workdir, depth=12))) == ["e.png"]
        assert read_csv(workdir / "manifest.csv").bits.tolist() == ["12", "12", "8", "12"]

    def test_a_setting_overrules_it(self, tmp_path, workdir):
        deepen(tmp_path / "root/a.png", 4000)
        planned = plan(str(tmp_path / "root"), workdir, size=(4, 4), channels=1, depth=10)
        assert planned.remarks[0].endswith("read as 10 bits, as config.data.depth says.")
        expected = np.minimum(np.linspace(0, 4000, 16).astype(int) >> 2, 255)
        np.testing.assert_array_equal(scan(planned).store[0].ravel(), expected)
        deepen(tmp_path / "root/b.png", 1000)
        assert run(tmp_path / "root", workdir).store[1].max() == 250

    def test_deep_images_that_join_later_have_theirs(self, root, workdir):
        run(root, workdir)
        deepen(root / "deep.png", 255)
        assert run(root, workdir).store[3].max() == 255
        deepen(root / "deeper.png", 256)
        assert list(rejected(run(root, workdir))) == ["deeper.png"]

    def test_a_workdir_of_an_earlier_version(self, root, workdir):
        def forget():
            (workdir / "depth.json").unlink()
            for path in (workdir / "manifest.csv", workdir / "pool/00000.csv"):
                read_csv(path).drop(columns=["bits", "one_colour"], errors="ignore").to_csv(path, index=False)

        run(root, workdir)
        forget()
        save(root / "new.png", 9)
        result = run(root, workdir)
        assert result.table.bits.tolist() == [0, 0, 0, 8]
        forget()
        deepen(root / "deep.png", 4000)
        with pytest.raises(
            BadInput, match=r"read all deep images as 16 bits, but their levels go up to 4,000, which takes 12;"
        ):
            run(root, workdir)
        assert run(root, workdir, depth=16).store[4].max() == 4000 >> 8


class TestWhatIsNotRead:
    def test_it_is_listed_by_suffix_with_a_cure(self, root, workdir):
        for name in ("a.SVG", "b.svg", "c.exr", "sub/d.dcm", "e"):
            (root / name).write_text("none")
        shutil.copytree(root / "sub", root / ".ipynb_checkpoints")
        planned = plan(str(root), workdir, size=(4, 4), channels=1)
        assert planned.remarks == [
            "not read: 2 .svg (save them as PNG), 1 .dcm (save them as PNG, of 16 bits, as pydicom reads them), "
            "1 .exr (save them as PNG, of 8 or 16 bits), 1 without a suffix, 1 .txt",
            "passed over: .ipynb_checkpoints/",
        ]
        assert summary(scan(planned)) == "3 images, 1 duplicate (duplicates.csv), 6 other files"

    def test_the_figures_of_another_workdir_are_no_images(self, root, workdir):
        save(root / "runs/other/rounds/000/map.png", 7)
        for name in ("audit.json", "config.json", "manifest.csv"):
            (root / "runs/other" / name).touch()
        planned = plan(str(root), workdir, size=(4, 4), channels=1)
        assert planned.remarks[1] == "passed over: runs/other/"
        assert len(planned.files) == 4

    def test_heic_without_its_library(self, root, workdir, monkeypatch):
        monkeypatch.setattr(listing, "SUFFIXES", listing.SUFFIXES - {".heic"})
        for number in range(3):
            (root / f"{number}.HEIC").write_bytes(b"heic")
        remarks = plan(str(root), workdir, size=(4, 4), channels=1).remarks
        assert remarks == ["not read: 3 .heic (pip install pillow-heif), 1 .txt"]

    def test_images_without_a_suffix_are_read(self, root, workdir):
        (root / "b.png").rename(root / "IMG_0001")
        result = run(root, workdir)
        assert states(result) == dict.fromkeys(["IMG_0001", "a.bmp", "sub/c d.tif"], "present")

    def test_folders_of_splits_are_told(self, root, workdir):
        for name in ("Train/a.png", "val/b.png"):
            save(root / name, len(name))
        assert plan(str(root), workdir, size=(4, 4), channels=1).remarks[1] == (
            "the pool holds all images, including those in Train/, val/; to read only one of these, set "
            "config.data.root to it"
        )

    def test_too_many_pixels(self, root, workdir):
        Image.new("L", (5, 3)).save(root / "small.png")
        result = run(root, workdir, max_megapixels=15e-6)
        assert result.table.file_name.tolist() == ["small.png"]
        assert rejected(result)["b.png"] == (
            "its 16 pixels are more than the limit of 15; make it smaller, or raise config.data.max_megapixels"
        )


class TestOneColour:
    def test_it_is_named(self, root, workdir):
        for name, level in (("x.png", 7), ("y.png", 8)):
            Image.new("L", (4, 4), level).save(root / name)
        result = run(root, workdir)
        assert result.table.one_colour.tolist() == [0, 0, 0, 1, 1]
        assert summary(result).endswith("\nimages of one colour: 2, the first is x.png (one_colour in manifest.csv)")
        check_latents(np.float32([[0, 1], [0, 1], [0, 2], [0, 1], [0, 1]]), result.table)
        with pytest.raises(
            BadInput, match=r"all 5 latents are equal; 2 of 5 images have one colour, the first is x.png"
        ):
            check_latents(np.ones((5, 2), np.float32), result.table)
        with pytest.raises(BadInput, match="all 3 latents are equal; choose another encoder"):
            check_latents(np.ones((3, 2), np.float32), result.table[:3])


class TestNoise:
    @pytest.mark.filterwarnings("default")
    def test_it_goes_to_a_file(self, root, workdir, capfd, monkeypatch):
        # pytest keeps warnings to itself.
        monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: print(message, file=sys.stderr))
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\5"
        Image.new("L", (4, 4)).save(root / "odd.jpg", exif=exif)
        result = run(root, workdir)
        assert len(result.table) == 4
        assert "Corrupt EXIF data" in (workdir / "warnings.log").read_text()
        assert "Corrupt" not in capfd.readouterr().err

    def test_of_c_code_too_and_nothing_makes_no_file(self, tmp_path, capfd):
        with noise_to_file(tmp_path / "job/warnings.log") as terminal:
            print("progress", file=terminal)
        assert not (tmp_path / "job").exists()
        for _ in range(2):
            with noise_to_file(tmp_path / "job/warnings.log"):
                os.write(2, b"TIFFReadDirectory\n")
        assert (tmp_path / "job/warnings.log").read_text() == "TIFFReadDirectory\n" * 2
        assert capfd.readouterr().err == "progress\n"


class TestForecast:
    def test_what_is_new(self, root, workdir):
        planned = plan(str(root), workdir, size=(4, 4), channels=1)
        expected = forecast(planned)
        assert expected.num_images == 4
        assert expected.seconds > 0
        assert expected.disk_bytes >= 4 * 4 * 4
        scan(planned)
        assert forecast(plan(str(root), workdir, size=(4, 4), channels=1)) == (0, 0, 0)

    def test_a_disk_without_room(self, root, workdir):
        planned = plan(str(root), workdir, size=(4, 4), channels=1)
        planned.store.image_shape = (4, 10**16, 1)
        for name in planned.new:
            (root / name).unlink()
        with pytest.raises(BadInput, match=r"4 new images need [\d,]+ bytes in .*work, but its disk has [\d,]+ free"):
            forecast(planned)


class TestRefused:
    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(size=None), "config.data.size is None"),
            (dict(size=(0, 4)), "size is"),
            (dict(channels=2), "channels is 2"),
        ],
    )
    def test_settings(self, root, workdir, change, message):
        with pytest.raises(BadInput, match=message):
            run(root, workdir, **change)

    def test_folders(self, root, workdir, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "text").mkdir()
        (tmp_path / "text/a.txt").touch()
        (tmp_path / "text/b.png").symlink_to(root / "b.png")
        for folder, message in [
            (tmp_path / "none", "not a directory"),
            (tmp_path / "empty", r"no image files in .*empty \(0 others"),
            (
                tmp_path / "text",
                r"1 others; not read: 1 .txt; 1 that cannot be used; the first is 'b.png': it is a symbolic link",
            ),
            (workdir, "not a directory"),
        ]:
            with pytest.raises(BadInput, match=message):
                run(folder, workdir)
        with pytest.raises(BadInput, match="both config.data.root and --workdir"):
            run(root, root)
        with pytest.raises(BadInput, match="no folder of images is named"):
            plan(None, workdir, size=(4, 4), channels=1)

    def test_no_image_readable(self, tmp_path, workdir):
        (tmp_path / "root").mkdir()
        (tmp_path / "root/a.png").touch()
        with pytest.raises(BadInput, match=r"none of the 1 image files .*'a.png': it is not an image"):
            run(tmp_path / "root", workdir)
        assert read_csv(workdir / "rejected.csv").file_name.tolist() == ["a.png"]

    def test_a_workdir_that_cannot_be_written_keeps_what_was_scanned(self, root, workdir):
        (workdir / "manifest.csv.partial").mkdir(parents=True)
        with pytest.raises(IsADirectoryError, match="manifest.csv.partial"):
            run(root, workdir)
        assert len(Store(workdir / "pool", (4, 4, 1))) == 3

    def test_a_spoilt_manifest(self, root, workdir):
        run(root, workdir)
        (workdir / "manifest.csv").write_text((workdir / "manifest.csv").read_text().replace("bytes", "octets"))
        with pytest.raises(BadInput, match=r"manifest.csv is not as it was written .*delete it"):
            run(root, workdir)
        (workdir / "manifest.csv").unlink()
        assert states(run(root, workdir)) == dict.fromkeys(["a.bmp", "b.png", "sub/c d.tif"], "present")

    @pytest.mark.parametrize(
        "spoil, message",
        [
            (lambda pool: (pool / "00000.npy").unlink(), "00000.npy is missing"),
            (lambda pool: os.truncate(pool / "00000.npy", 140), "00000.npy is damaged"),
            (lambda pool: os.truncate(pool / "00000.npy", 0), "00000.npy is damaged"),
            (lambda pool: os.truncate(pool / "00000.csv", 10), "00000.csv is damaged"),
            (lambda pool: (pool / "00000.csv").rename(pool / "00001.csv"), "00000.csv is missing"),
            (lambda pool: np.save(pool / "00000.npy", np.zeros((2, 4, 4, 1), np.uint8)), "2 images, 00000.csv 3"),
            (lambda pool: np.save(pool / "00000.npy", np.zeros((3, 4, 5, 1), np.uint8)), "config.data.size or"),
        ],
    )
    def test_shards(self, root, workdir, spoil, message):
        run(root, workdir)
        spoil(workdir / "pool")
        with pytest.raises(BadInput, match=message):
            plan(str(root), workdir, size=(4, 4), channels=1)


def test_store_rows(tmp_path):
    store = Store(tmp_path / "pool", (2, 3, 1))
    pixels = RNG.integers(0, 256, (9, 2, 3, 1), dtype=np.uint8)
    table = pd.DataFrame(dict(id=[f"sha256:{row}" for row in range(9)], file_name="=a", height=2, width=3))
    table = table.assign(bytes=10**12, modified_ns=1_785_519_462_123_456_789 + np.arange(9), bits=8, one_colour=0)
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        store.append(table[start:stop], pixels[start:stop])
    for each in (store, Store(tmp_path / "pool", (2, 3, 1))):
        assert len(each) == 9
        assert each.shards == [(0, 4), (4, 8), (8, 9)]
        pd.testing.assert_frame_equal(each.rows, table, check_dtype=False)
        for row in range(9):
            np.testing.assert_array_equal(each[row], pixels[row])
        for start, stop in ((0, 9), (3, 5), (5, 5), (7, 20)):
            np.testing.assert_array_equal(each[start:stop], pixels[start:stop])
        with pytest.raises(IndexError, match="row 9 of 9"):
            each[9]
    with pytest.raises(ValueError, match="pixels are"):
        store.append(table[:2], pixels[:3])
