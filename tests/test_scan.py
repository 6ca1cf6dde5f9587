"""Folders of images that grow, shrink, change and are bad, and the store of their pixels."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_al.data import listing
from latent_al.data import store as stores
from latent_al.data.store import Store
from latent_al.labelling.scan import forecast, plan, scan, summary
from latent_al.runtime.files import read_csv
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
