"""Every source on small real files in its format, and every way in which such files are bad."""

import gzip
import shutil
import struct
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from latent_al import data
from latent_al.data import digest, load
from latent_al.data.arrays import assemble, to_split
from latent_al.runtime.files import expand
from latent_al.runtime.mesh import gather_on_first
from latent_al.types import BadInput, Split


def write_idx(path, array):
    content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 5, 6), dtype=np.uint8)
    return dict(
        x_train=images[:20], y_train=np.arange(20) % 4, x_test=images[20:], y_test=np.arange(10, dtype=np.uint8) % 4
    )


@pytest.fixture(params=["", ".gz"])
def idx_root(request, tmp_path, arrays):
    for part, (x, y) in {"train": ("x_train", "y_train"), "t10k": ("x_test", "y_test")}.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{request.param}", arrays[x])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{request.param}", arrays[y].astype(np.uint8))
    return tmp_path


def load_idx(root, num_validation=4):
    return load(dict(name="idx", root=str(root), num_validation=num_validation))


def load_npz(path, num_validation=4):
    return load(dict(name="npz", root=str(path), num_validation=num_validation))


def check_arrays(data, arrays):
    """The splits hold the arrays over 255, the first four training rows as validation."""
    expected = np.float32(arrays["x_train"][..., None] / 255)
    np.testing.assert_allclose(data.validation.images, expected[:4], atol=1e-7)
    np.testing.assert_allclose(data.train.images, expected[4:], atol=1e-7)
    np.testing.assert_allclose(data.test.images, np.float32(arrays["x_test"][..., None] / 255), atol=1e-7)
    assert data.train.labels.tolist() == arrays["y_train"][4:].tolist()
    assert data.test.labels.tolist() == arrays["y_test"].tolist()
    assert data.ids[0] == "train/4"
    assert data.num_classes == 4


class TestDigits:
    def test_splits_cover_the_file_once(self):
        data = load(dict(name="digits", num_validation=200, num_test=300))
        assert [len(split.images) for split in data[:3]] == [1297, 200, 300]
        assert data.train.images.shape[1:] == (8, 8, 1)
        assert {split.images.max() for split in data[:3]} == {1}
        rows = np.concatenate([split.images for split in data[:3]]).reshape(1797, -1)
        from sklearn.datasets import load_digits

        assert sorted(map(tuple, rows * 16)) == sorted(map(tuple, load_digits().data))

    def test_ids_are_rows_of_the_file(self):
        from sklearn.datasets import load_digits

        data = load(dict(name="digits", num_validation=200, num_test=300))
        row = int(data.ids[7].split("/")[1])
        np.testing.assert_array_equal(data.train.images[7, :, :, 0] * 16, load_digits().images[row])

    @pytest.mark.parametrize("num_test", [-1, 1797])
    def test_bad_hold_out(self, num_test):
        with pytest.raises(BadInput, match=f"num_test is {num_test} of 1797 images; expected 0 to 1796"):
            load(dict(name="digits", num_validation=100, num_test=num_test))


class TestIdx:
    def test_reads_plain_and_gzipped(self, idx_root, arrays):
        check_arrays(load_idx(idx_root), arrays)

    def test_labels_and_test_may_be_absent(self, idx_root):
        for path in idx_root.glob("*labels*"):
            path.unlink()
        next(idx_root.glob("t10k-images*")).unlink()
        data = load_idx(idx_root)
        assert data.train.labels is None
        assert data.num_classes is None
        assert len(data.test.images) == 0

    def test_holds_out_the_last_rows(self, idx_root, arrays):
        data = load(dict(name="idx", root=str(idx_root), num_validation=4, validation_rows="last"))
        assert data.train.labels.tolist() == arrays["y_train"][:-4].tolist()
        assert data.validation.labels.tolist() == arrays["y_train"][-4:].tolist()
        assert data.ids[0] == "train/0"

    def test_unknown_validation_rows_are_refused(self):
        split = Split(np.zeros((9, 2, 2, 1), np.float32), None)
        with pytest.raises(BadInput, match="'middle'; known: first, last"):
            assemble(split, None, num_validation=4, validation_rows="middle")

    def test_missing_directory(self, tmp_path):
        with pytest.raises(BadInput, match="not a directory; set config.data.root"):
            load_idx(tmp_path / "none")

    def test_missing_images(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(BadInput, match=r"no file \*train-images\*.*notes.txt"):
            load_idx(tmp_path)

    @pytest.mark.parametrize("keep", [0, 3, 9, 200])
    def test_truncated(self, idx_root, keep):
        path = next(idx_root.glob("train-images*"))
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(BadInput, match=r"train-images.*(truncated|not a whole gzip|expected 000008)"):
            load_idx(idx_root)

    def test_foreign_file(self, idx_root):
        next(idx_root.glob("train-images*")).write_bytes(b"P5 28 28 255 ....")
        with pytest.raises(BadInput, match="expected 000008"):
            load_idx(idx_root)

    def test_label_file_of_another_length(self, idx_root):
        path = next(idx_root.glob("train-labels*"))
        write_idx(path, np.zeros(19, np.uint8))
        with pytest.raises(BadInput, match="19 labels but .* 20 images"):
            load_idx(idx_root)

    def test_two_files_for_one_part(self, idx_root):
        (idx_root / "more-train-images").touch()
        with pytest.raises(BadInput, match="2 files for train-images"):
            load_idx(idx_root)

    def test_mnist_as_in_tonnaer(self, mnist_root):
        data = load(dict(name="mnist", root=str(mnist_root), data_dir=None, num_validation=5000))
        assert [len(split.images) for split in data[:3]] == [55_000, 5_000, 10_000]
        assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert data.validation.labels[:5].tolist() == [5, 0, 4, 1, 9]


class TestNpz:
    def test_reads(self, tmp_path, arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        check_arrays(load_npz(tmp_path / "a.npz"), arrays)

    def test_float_images_and_own_validation(self, tmp_path):
        images = np.random.default_rng(0).uniform(size=(6, 3, 3, 2))
        np.savez(tmp_path / "a.npz", x_train=images, x_validation=images[:2])
        data = load_npz(tmp_path / "a.npz", 0)
        np.testing.assert_array_equal(data.train.images, np.float32(images))
        assert len(data.validation.images) == 2

    @pytest.mark.parametrize("kind", [np.uint8, np.float32])
    def test_a_folder_of_files_is_the_same_and_stays_on_disk(self, tmp_path, arrays, kind):
        if kind == np.float32:
            arrays |= {name: kind(arrays[name] / 255) for name in ("x_train", "x_test")}
        np.savez(tmp_path / "a.npz", **arrays)
        (tmp_path / "files").mkdir()
        for name, array in arrays.items():
            np.save(tmp_path / "files" / f"{name}.npy", array)
        stored, whole = load_npz(tmp_path / "files"), load_npz(tmp_path / "a.npz")
        for found, expected in zip(jax.tree.leaves(stored), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(np.asarray(found), expected)
        images = stored.train.images
        assert isinstance(images.on_disk.base, np.memmap)
        assert (images.shape, images.dtype, len(images)) == (whole.train.images.shape, np.float32, 16)
        rows = np.array([3, 0])
        for index in (slice(2, 5), rows, 7, (slice(1, 9, 2), slice(None), slice(0, 1))):
            np.testing.assert_array_equal(np.asarray(images[index]), whole.train.images[index])
        np.testing.assert_array_equal(jnp.asarray(images.reshape(16, 30)), whole.train.images.reshape(16, 30))
        assert gather_on_first(images) is images
        assert digest(stored) != digest(whole)
        assert digest(stored) == digest(load_npz(tmp_path / "files"))

    def test_digest_tells_depths_apart(self, tmp_path, arrays):
        np.save(tmp_path / "x_train.npy", arrays["x_train"].astype(np.uint16))
        shallow, deep = (load(dict(name="npz", root=str(tmp_path), num_validation=0, depth=bits)) for bits in (8, 16))
        assert digest(shallow) != digest(deep)

    def test_each_process_looks_at_its_rows(self, tmp_path, arrays, monkeypatch):
        images = np.float32(arrays["x_train"] / 255)
        images[[9, 17]] = 2
        np.save(tmp_path / "x_train.npy", images)
        for part, message in ((0, "1 of 20 train images .* the first is row 9;"), (1, "the first is row 17;")):
            monkeypatch.setattr(data, "share", lambda size, part=part: (part * size // 2, (part + 1) * size // 2))
            with pytest.raises(BadInput, match=message):
                load_npz(tmp_path, 0)

    def test_large_images_are_looked_at_few_at_a_time(self, tmp_path, monkeypatch):
        images = np.zeros((100, 64, 64), np.float16)
        images[[7, 98]] = 2
        np.save(tmp_path / "x_train.npy", images)
        monkeypatch.setattr(data, "PIXELS", 3 * 64 * 64)
        tracemalloc.start()
        with pytest.raises(BadInput, match="2 of 100 train images .* the first is row 7;"):
            load_npz(tmp_path, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < images.nbytes / 2

    @pytest.mark.parametrize("content", [b"", b"no array"])
    def test_a_folder_with_a_broken_file_is_refused(self, tmp_path, content):
        (tmp_path / "x_train.npy").write_bytes(content)
        with pytest.raises(BadInput, match=r"x_train\.npy is not a whole \.npy file of plain .*write it again"):
            load_npz(tmp_path)

    def test_an_archive_by_the_name_of_a_file_is_refused(self, tmp_path, arrays):
        with (tmp_path / "x_train.npy").open("wb") as file:
            np.savez(file, **arrays)
        with pytest.raises(BadInput, match=r"x_train\.npy is not a whole \.npy file of plain .*write it again"):
            load_npz(tmp_path)

    def test_one_array_by_the_name_of_its_file_is_refused(self, tmp_path, arrays):
        np.save(tmp_path / "x_train.npy", arrays["x_train"])
        with pytest.raises(BadInput, match=r"x_train.npy holds one array; .* or to the folder of x_train.npy"):
            load_npz(tmp_path / "x_train.npy")

    def test_a_number_is_no_images(self, tmp_path, arrays):
        np.savez(tmp_path / "a.npz", **arrays | {"x_train": np.uint8(3)})
        with pytest.raises(BadInput, match=r"images have shape \(\); expected \[n h w\] or \[n h w c\]"):
            load_npz(tmp_path / "a.npz")

    def test_missing_file(self, tmp_path):
        with pytest.raises(BadInput, match=r"is not a file; set config\.data\.root to an \.npz file, or a folder of "):
            load_npz(tmp_path / "none.npz")

    @pytest.mark.parametrize("keep", [0, 100, 900])
    def test_truncated(self, tmp_path, arrays, keep):
        path = tmp_path / "a.npz"
        np.savez(path, **arrays)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(BadInput, match=r"not a whole \.npz"):
            load_npz(path)

    def test_pickles_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", x_train=np.array([{}], object))
        with pytest.raises(BadInput, match="plain arrays"):
            load_npz(tmp_path / "a.npz")

    def test_no_training_images(self, tmp_path, arrays):
        np.savez(tmp_path / "a.npz", images=arrays["x_train"])
        with pytest.raises(BadInput, match=r"arrays \['images'\] but no x_train"):
            load_npz(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(y_train=np.arange(19)), "shape .19,. but x_train holds 20"),
            (dict(y_train=np.arange(20) - 1), "label -1 of row 0 is outside"),
            (
                dict(y_train=np.full(20, "cat")),
                "labels have type <U3; expected one per image, whole numbers .* or floats",
            ),
            (dict(y_train=np.linspace(0, 1, 20)), "train labels are floats, that is angles, but there are 4 classes"),
            (dict(y_train=np.zeros(20, int), y_test=np.zeros(10, int)), "1 class; a classifier needs 2"),
            (dict(y_train=np.arange(20) % 3), "3 of 4 classes; none of class .3."),
            (dict(y_train=np.arange(20) % 2 * (2**31 - 2)), r"2 of 2147483647 classes; none of class \[1, .* number"),
            (dict(x_train=np.full((20, 5, 6), np.nan)), "16 of 16 train images have pixels that are NaN"),
            (dict(x_train=np.full((20, 5, 6), np.inf)), "NaN, infinite or outside"),
            (dict(x_train=np.full((20, 5, 6), 255.0)), r"outside \[0, 1\], the first is row 0"),
            (dict(x_train=np.zeros((20, 5, 6), int)), "images have type int64"),
            (dict(x_train=np.zeros((20, 3, 5, 6), np.uint8)), r"whose channels come first, \[n c h w\].*np.moveaxis"),
            (dict(y_train=np.arange(20) % 3 + 1, y_test=np.ones(10, int)), "labels run from 1 to 3; .* subtract 1"),
            (dict(x_train=np.zeros((20, 30), np.uint8)), r"shape \(20, 30\); expected \[n h w\]"),
            (
                dict(x_test=np.zeros((10, 6, 6), np.uint8)),
                r"test images are \(6, 6, 1\) but training images are \(5, 6, 1\)",
            ),
        ],
    )
    def test_bad_arrays(self, tmp_path, arrays, change, message):
        np.savez(tmp_path / "a.npz", **(arrays | change))
        with pytest.raises(BadInput, match=message):
            load_npz(tmp_path / "a.npz")

    def test_depth(self, tmp_path, arrays, capsys):
        for name in ("x_train", "x_test"):
            arrays[name] = arrays[name].astype(np.uint16)
        arrays["x_test"][0, 0, 0] = 300
        np.savez(tmp_path / "a.npz", **arrays)
        for path in ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"):
            np.save(tmp_path / path, arrays[path.removesuffix(".npy")])
        for root in (tmp_path / "a.npz", tmp_path):
            data = load_npz(root, 0)
            expected = (arrays["x_train"] / np.float32(511))[..., None]
            np.testing.assert_array_equal(np.asarray(data.train.images), expected)
            assert np.asarray(data.test.images).max() == np.float32(300 / 511)
            assert capsys.readouterr().out == "Depth: levels are read as 9 bits, which config.data.depth overrides.\n"
        data = load(dict(name="npz", root=str(tmp_path), num_validation=0, depth=8))
        np.testing.assert_array_equal(np.asarray(data.train.images), (arrays["x_train"] / np.float32(255))[..., None])
        assert np.asarray(data.test.images).max() == 1

    def test_arrays_of_several_types_have_one_depth(self, tmp_path, arrays):
        arrays["x_train"], arrays["x_test"] = np.uint16(arrays["x_train"]), np.uint32(arrays["x_test"])
        arrays["x_test"][0, 0, 0] = 2**17 - 1
        np.savez(tmp_path / "a.npz", **arrays)
        data = load_npz(tmp_path / "a.npz", 0)
        np.testing.assert_array_equal(data.train.images[..., 0], arrays["x_train"] / np.float32(2**17 - 1))
        assert data.test.images.max() == 1

    @pytest.mark.parametrize("num_validation", [-1, 20, 21])
    def test_bad_hold_out(self, tmp_path, arrays, num_validation):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(BadInput, match=f"num_validation is {num_validation} of 20"):
            load_npz(tmp_path / "a.npz", num_validation)


class TestImageFolder:
    SPEC = dict(name="image_folder", size=None, channels=3, num_validation=0, num_test=0, skip_broken=False)

    @pytest.fixture
    def root(self, tmp_path):
        """Two classes of three images, one of each file format, whose red channel tells the class."""
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / name).mkdir()
            for suffix in ("png", "bmp", "webp"):
                colour = Image.new("RGB", (6, 4), (200 * label, 10, 20))
                colour.save(
                    tmp_path / name / f"a {suffix}.{suffix}", **({"lossless": True} if suffix == "webp" else {})
                )
        return tmp_path

    def load(self, root, **change):
        return load(self.SPEC | dict(root=str(root)) | change)

    def test_a_folder_a_class(self, root):
        data = self.load(root)
        assert data.train.images.shape == (6, 4, 6, 3)
        assert data.num_classes == 2
        np.testing.assert_allclose(data.train.images[:, 0, 0, 0], data.train.labels * 200 / 255)
        assert {name.split("/")[0] for name in data.ids[data.train.labels == 1]} == {"dog"}

    def test_train_and_test_folders(self, root):
        (root / "train").mkdir()
        for name in ("cat", "dog"):
            (root / name).rename(root / "train" / name)
        (root / "test" / "dog").mkdir(parents=True)
        Image.new("RGB", (6, 4)).save(root / "test" / "dog" / "b.png")
        data = self.load(root, num_validation=1)
        assert [len(split.images) for split in data[:3]] == [5, 1, 1]
        assert data.test.labels.tolist() == [1]

    def test_hold_outs_are_disjoint_and_repeat(self, root):
        data, again = (self.load(root, num_validation=1, num_test=2, channels=1) for _ in range(2))
        assert [len(split.images) for split in data[:3]] == [3, 1, 2]
        assert digest(data) == digest(again)

    def test_a_flat_folder_has_no_labels(self, tmp_path):
        for index in range(3):
            Image.new("L", (4, 4), index).save(tmp_path / f"{index}.png")
        data = self.load(tmp_path, channels=1)
        assert data.train.labels is None
        assert sorted(data.ids) == ["0.png", "1.png", "2.png"]

    def test_resized_as_asked(self, root):
        Image.new("RGB", (9, 9)).save(root / "cat" / "other.png")
        assert self.load(root, size=(3, 2)).train.images.shape == (7, 3, 2, 3)

    def test_sixteen_bits_keep_their_scale(self, tmp_path):
        Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "a.png")
        np.testing.assert_allclose(self.load(tmp_path, channels=1).train.images, 128 / 255)

    def test_mixed_sizes(self, root):
        Image.new("RGB", (9, 9)).save(root / "dog" / "other.png")
        with pytest.raises(BadInput, match=r"other.png is \(9, 9\) pixels.*set config.data.size"):
            self.load(root)

    def test_broken_image_is_named_and_skipped_only_when_asked(self, root):
        whole = (root / "cat" / "a png.png").read_bytes()
        (root / "cat" / "torn.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BadInput, match=r"torn.png cannot be read.*skip_broken=True"):
            self.load(root)
        assert len(self.load(root, skip_broken=True).train.images) == 6

    def test_an_image_of_another_size_is_compared_with_one_that_was_read(self, root):
        (root / "cat" / "a broken.png").write_bytes(b"")
        Image.new("RGB", (9, 9)).save(root / "dog" / "other.png")
        with pytest.raises(BadInput, match=r"other.png is \(9, 9\) pixels but .*a bmp.bmp is \(4, 6\);"):
            self.load(root, skip_broken=True)

    def test_a_test_set_is_refused_before_images_are_read(self, root):
        (root / "cat" / "broken.png").write_bytes(b"")
        with pytest.raises(BadInput, match="num_test is 70 of 7 images; expected 0 to 6"):
            self.load(root, num_test=70)

    def test_links_are_named_and_skipped_only_when_asked(self, root):
        (root / "cat" / "link.png").symlink_to(root / "cat" / "a png.png")
        (root / "cat" / ".hidden.png").write_bytes(b"")
        with pytest.raises(BadInput, match=r"link.png cannot be read \(it is a symbolic link.*skip_broken=True"):
            self.load(root)
        assert len(self.load(root, skip_broken=True).train.images) == 6

    @pytest.mark.parametrize("train, validation, test", [("train", "val", "test"), ("Train", "VALID", "Testing")])
    def test_splits_in_any_case(self, root, train, validation, test, capsys):
        for split, change in ((validation, 10), (test, 20)):
            shutil.copytree(root / "cat", root / split / "cat")
            shutil.copytree(root / "dog", root / split / "dog")
            Image.new("RGB", (6, 4), (change, 0, 0)).save(root / split / "dog" / "a png.png")
        (root / train).mkdir()
        for name in ("cat", "dog"):
            (root / name).rename(root / train / name)
        data = self.load(root)
        assert [len(split.images) for split in data[:3]] == [6, 6, 6]
        assert data.num_classes == 2
        assert sorted(data.ids)[:2] == ["cat/a bmp.bmp", "cat/a png.png"]
        for split, change in ((data.validation, 10), (data.test, 20)):
            assert np.isclose(split.images[:, 0, 0, 0] * 255, change).sum() == 1
        said = capsys.readouterr().out
        for split in ("train", "validation", "test"):
            assert f"{split}: 6 images in 2 classes: cat 3, dog 3\n" in said

    @pytest.mark.parametrize(
        "moves, message",
        [
            (
                {"cat": "train"},
                r"holds images in dog/, train/ and dog/a bmp.bmp; expected folders of classes, or train",
            ),
            ({"cat": "val", "dog": "test"}, r"holds images in test/, val/; expected folders of classes, or train/"),
            ({"cat": "train/cat", "dog": "TRAIN/dog"}, r"holds images in TRAIN/, train/; expected"),
            ({"cat": "cat/train", "dog": "cat/test"}, "test is the folder of a split within that of a class"),
        ],
    )
    def test_splits_that_are_unclear(self, root, moves, message):
        for old, new in moves.items():
            (root / old).rename(root / "moving")
            (root / new).parent.mkdir(exist_ok=True)
            (root / "moving").rename(root / new)
        with pytest.raises(BadInput, match=message):
            self.load(root)

    def test_what_is_no_class(self, root, capsys):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            shutil.copytree(root / "cat", root / name)
        (root / "cat" / "notes.txt").touch()
        (root / "dog" / "scan.dcm").touch()
        assert self.load(root).num_classes == 2
        said = capsys.readouterr().out
        assert "train: 6 images in 2 classes: cat 3, dog 3\n" in said
        assert "passed over: .ipynb_checkpoints/, @eaDir/, __MACOSX/\n" in said
        assert "not read: 1 .dcm (save them as PNG, of 16 bits, as pydicom reads them), 1 .txt\n" in said

    def test_the_counts_come_before_any_work(self, root, capsys):
        (root / "cat" / "torn.png").write_bytes(b"x")
        with pytest.raises(BadInput, match="torn.png cannot be read"):
            self.load(root)
        assert "train: 7 images in 2 classes: cat 4, dog 3\n" in capsys.readouterr().out

    def test_one_depth_for_all_splits(self, tmp_path, capsys):
        for split, top in (("train", 100), ("test", 4000)):
            (tmp_path / split).mkdir()
            levels = np.linspace(0, top, 16).astype(np.uint16).reshape(4, 4)
            Image.fromarray(levels).save(tmp_path / split / "a.png")
        data = self.load(tmp_path, channels=1)
        assert data.train.images.max() == np.float32((100 >> 4) / 255)
        assert data.test.images.max() == np.float32((4000 >> 4) / 255)
        said = capsys.readouterr().out
        assert "Depth: 2 files hold more than 8 bits a level, up to 4,000 (test/a.png): read as 12 bits; 1 of" in said
        data = self.load(tmp_path, channels=1, depth=8)
        assert (data.train.images.max(), data.test.images.max()) == (np.float32(100 / 255), 1)
        assert "read as 8 bits, as config.data.depth says" in capsys.readouterr().out
        with pytest.raises(BadInput, match="depth is 7; expected bits from 8 to 32"):
            self.load(tmp_path, depth=7)

    def test_images_of_one_colour_are_named(self, tmp_path, capsys):
        Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "a.png")
        Image.new("L", (4, 4)).save(tmp_path / "b.png")
        self.load(tmp_path)
        assert f"of one colour: 1 image, the first is {tmp_path}/b.png\n" in capsys.readouterr().out

    def test_the_limit_of_pixels(self, root):
        with pytest.raises(BadInput, match="its 24 pixels are more than the limit of 20"):
            self.load(root, max_megapixels=20e-6)

    def test_no_images(self, tmp_path):
        (tmp_path / "readme.txt").touch()
        with pytest.raises(BadInput, match="no image files in"):
            self.load(tmp_path)
        with pytest.raises(BadInput, match="not a directory"):
            self.load(tmp_path / "none")

    def test_none_readable(self, tmp_path):
        (tmp_path / "a.png").touch()
        with pytest.raises(BadInput, match="none of the 1 image files can be read"):
            self.load(tmp_path, skip_broken=True)

    def test_images_beside_class_folders(self, root):
        Image.new("RGB", (6, 4)).save(root / "stray.png")
        with pytest.raises(BadInput, match="stray.png lies next to class folders"):
            self.load(root)
        for name in ("cat", "dog"):
            (root / "train").mkdir(exist_ok=True)
            (root / name).rename(root / "train" / name)
        (root / "test").mkdir()
        (root / "stray.png").rename(root / "test/stray.png")
        with pytest.raises(BadInput, match="test/stray.png lies next to .* or in a split without them; .* away"):
            self.load(root)

    def test_a_class_without_training_images_is_named(self, root):
        for path in (root / "cat").iterdir():
            path.write_bytes(b"")
        shutil.copytree(root / "dog", root / "emu")
        with pytest.raises(BadInput, match="none of the 6 training images of .* is of class 'cat': no query"):
            self.load(root, skip_broken=True)

    @pytest.mark.parametrize("change", [dict(channels=4), dict(size=(0, 3)), dict(num_test=6), dict(num_test=-1)])
    def test_bad_settings(self, root, change):
        with pytest.raises(BadInput, match=f"{next(iter(change))} is"):
            self.load(root, **change)


class TestPaths:
    def test_variables_and_home(self, tmp_path, monkeypatch):
        (tmp_path / "sub").mkdir()
        monkeypatch.setenv("PHOTOS", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("NONE", raising=False)
        for path in ("$PHOTOS/sub", "${PHOTOS}/sub", "~/sub"):
            assert expand(path, "root") == tmp_path / "sub"
        with pytest.raises(BadInput, match=r"root is \$NONE/sub, but the variable \$NONE is not set"):
            expand("$NONE/sub", "root")

    @pytest.mark.parametrize("name", ["idx", "image_folder", "mnist", "npz", "svhn"])
    def test_an_empty_root_is_no_folder(self, name):
        settings = dict(idx={}, npz={}, image_folder=TestImageFolder.SPEC, mnist=dict(data_dir=None))
        spec = settings.get(name, dict(data_dir=None)) | dict(name=name, root=" ", num_validation=0)
        with pytest.raises(BadInput, match=r"config.data.root is empty; set it to a path, which may be \."):
            load(spec)


def test_unknown_source_lists_the_known():
    with pytest.raises(BadInput, match="unknown data source 'imagenet'; known: digits, idx, image_folder"):
        load(dict(name="imagenet"))


def test_a_negative_seed_is_refused():
    spec = dict(name="long_tail", source=dict(name="digits", num_validation=0, num_test=0), ratio=2, seed=-1)
    with pytest.raises(BadInput, match="long_tail has the seed -1; expected 0 or more"):
        load(spec)


@pytest.mark.parametrize("dtype, top", [(np.uint8, 255), (np.uint16, 65535), (bool, 1), (np.float64, 1.0)])
def test_each_pixel_type_scales_to_one(dtype, top):
    assert to_split(np.full((1, 2, 2), top, dtype), None).images.max() == 1


def test_digest_tells_data_apart(make_data):
    data = make_data()
    pixels = data.train.images.copy()
    pixels[0, 0, 0, 0] += 1e-3
    changed = data._replace(train=data.train._replace(images=pixels))
    assert digest(data) == digest(make_data())
    assert len({digest(each) for each in (data, changed, make_data(num_train=59), make_data(labelled=False))}) == 4
