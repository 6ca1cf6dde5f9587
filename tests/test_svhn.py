"""SVHN on small files in its original format, and every way in which such files are bad."""

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_array
from test_tfds import put_download

from latent_al.data import load
from latent_al.types import BadInput

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"


def make_fields(num, seed):
    """X and y as the files have them; every label occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num) % 10 + 1).astype(np.uint8)
    return dict(X=rng.integers(0, 256, (32, 32, 3, num), dtype=np.uint8), y=labels[:, None])


@pytest.fixture
def fields():
    return make_fields(30, 0)


@pytest.fixture
def more_fields():
    return make_fields(20, 1)


@pytest.fixture
def root(tmp_path, fields, more_fields):
    savemat(tmp_path / TRAIN, fields, do_compression=True)
    savemat(tmp_path / TEST, more_fields, do_compression=True)
    return tmp_path


def load_svhn(root, num_validation=4):
    return load(dict(name="svhn", root=str(root), data_dir=None, num_validation=num_validation))


def slow_grey(fields):
    """One image after the other, in float64."""
    images = np.float64(fields["X"])
    red, green, blue = images[:, :, 0], images[:, :, 1], images[:, :, 2]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([grey[:, :, row, None] for row in range(grey.shape[2])]) / 255


def slow_digits(fields):
    return [0 if label == 10 else int(label) for label in fields["y"].ravel()]


class TestFiles:
    def test_the_first_rows_are_held_out(self, root, fields, more_fields):
        data = load_svhn(root)
        expected = slow_grey(fields)
        np.testing.assert_allclose(data.validation.images, expected[:4], rtol=1e-7)
        np.testing.assert_allclose(data.train.images, expected[4:], rtol=1e-7)
        np.testing.assert_allclose(data.test.images, slow_grey(more_fields), rtol=1e-7)
        assert {split.images.dtype for split in data[:3]} == {np.dtype(np.float32)}
        assert data.validation.labels.tolist() == slow_digits(fields)[:4]
        assert data.train.labels.tolist() == slow_digits(fields)[4:]
        assert data.test.labels.tolist() == slow_digits(more_fields)
        assert data.ids.tolist() == [f"train/{row}" for row in range(4, 30)]
        assert data.num_classes == 10

    @pytest.mark.parametrize("channel, weight", [(0, 0.299), (1, 0.587), (2, 0.114)])
    def test_axes_are_row_column_channel_image(self, root, channel, weight):
        fields = make_fields(30, 0) | dict(X=np.zeros((32, 32, 3, 30), np.uint8))
        fields["X"][5, 9, channel, 11] = 255
        savemat(root / TRAIN, fields)
        images = load_svhn(root, num_validation=0).train.images
        assert np.argwhere(images).tolist() == [[11, 5, 9, 0]]
        np.testing.assert_allclose(images[11, 5, 9, 0], weight, rtol=1e-7)

    def test_white_is_one_and_black_is_zero(self, root, fields):
        fields["X"][..., :15], fields["X"][..., 15:] = 255, 0
        savemat(root / TRAIN, fields)
        images = load_svhn(root, num_validation=0).train.images
        assert (images[:15] == 1).all()
        assert (images[15:] == 0).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
    def test_each_label_type(self, root, fields, dtype):
        savemat(root / TRAIN, fields | dict(y=fields["y"].astype(dtype)))
        labels = load_svhn(root, num_validation=0).train.labels
        assert labels.dtype == np.int32
        assert labels.tolist() == slow_digits(fields)

    def test_the_test_file_may_be_absent(self, root):
        (root / TEST).unlink()
        data = load_svhn(root)
        assert data.test.images.shape == (0, 32, 32, 1)
        assert data.num_classes == 10


class TestRefusals:
    def test_missing_directory(self, tmp_path):
        with pytest.raises(BadInput, match="not a directory; set config.data.root"):
            load_svhn(tmp_path / "none")

    def test_missing_training_file_lists_eight_names(self, root):
        (root / TRAIN).unlink()
        for index in range(9):
            (root / f"{index}.png").touch()
        with pytest.raises(BadInput, match=r"no file train_32x32.mat in .* holds \['0.png', .*'7.png'\]; set config"):
            load_svhn(root)

    @pytest.mark.parametrize("name", [TRAIN, TEST])
    @pytest.mark.parametrize("keep", [0, 60, 127, 150, 5000, -1])
    def test_truncated(self, root, name, keep):
        path = root / name
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(BadInput, match=f"{name} is not a whole MATLAB file.*fetch it again"):
            load_svhn(root)

    @pytest.mark.parametrize(
        "content, message",
        [
            (np.random.default_rng(0).bytes(5000), "ValueError"),
            (b"<html>404 Not Found</html>" * 20, "ValueError"),
            # The header of version 7.3, which is HDF5 below it.
            (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n", "matlab v7.3"),
        ],
        ids=["random", "html", "v7.3"],
    )
    def test_foreign(self, root, content, message):
        (root / TRAIN).write_bytes(content)
        with pytest.raises(BadInput, match=f"{TRAIN} is not a whole MATLAB file of version 7 or lower .*{message}"):
            load_svhn(root)

    def test_a_folder_in_the_place_of_the_test_file(self, root):
        (root / TEST).unlink()
        (root / TEST).mkdir()
        with pytest.raises(BadInput, match="test_32x32.mat is not a whole MATLAB file.*IsADirectoryError"):
            load_svhn(root)

    @pytest.mark.parametrize("missing, rest", [("X", "'other', 'y'"), ("y", "'X', 'other'")])
    def test_missing_field(self, root, fields, missing, rest):
        del fields[missing]
        savemat(root / TRAIN, fields | dict(other=1))
        with pytest.raises(BadInput, match=rf"{TRAIN} has fields \[{rest}\]; expected X and y"):
            load_svhn(root)

    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(X=np.zeros((30, 32, 32, 3), np.uint8)), r"X of .*shape \(30, 32, 32, 3\).*expected \(32, 32, 3, n\)"),
            (dict(X=np.zeros((32, 32, 30), np.uint8)), r"X of .*shape \(32, 32, 30\)"),
            (dict(X=np.zeros((32, 32, 3, 30))), "X of .*type float64; expected .*uint8"),
            (dict(X=np.zeros((32, 32, 3, 30), np.uint16)), "X of .*type uint16"),
            (dict(X="a name"), "X of .*type <U6"),
            (dict(y=np.ones((29, 1), np.uint8)), r"y of .*shape \(29, 1\).* X holds 30 images; expected \(30, 1\)"),
            (dict(y=np.ones((1, 30), np.uint8)), r"y of .*shape \(1, 30\).*; expected \(30, 1\)"),
            (dict(y=csc_array(np.ones((30, 1)))), r"y of .*shape \(\) and type object"),
            (dict(y=np.array(["digit"] * 30, object)[:, None]), "y of .*type object.*expected .* numbers"),
        ],
    )
    def test_another_shape_or_type(self, root, fields, change, message):
        savemat(root / TRAIN, fields | change)
        with pytest.raises(BadInput, match=message):
            load_svhn(root)

    @pytest.mark.parametrize("label", [0, 11, -1, 1.5, np.nan])
    def test_labels_outside(self, root, fields, label):
        labels = np.float64(fields["y"])
        labels[[7, 9]] = label
        savemat(root / TRAIN, fields | dict(y=labels))
        with pytest.raises(BadInput, match=rf"2 labels outside 1 to 10, the first is {float(label)} of row 7"):
            load_svhn(root)

    @pytest.mark.parametrize("num_validation", [-1, 30])
    def test_bad_hold_out(self, root, num_validation):
        with pytest.raises(BadInput, match=f"num_validation is {num_validation} of 30"):
            load_svhn(root, num_validation)


@pytest.mark.filterwarnings("default")
def test_tfds_gives_the_same_pixels(root, tmp_path_factory, monkeypatch):
    """TFDS on the files put where its downloads go, as in test_tfds: equal to reading them, but for the order."""
    import tensorflow_datasets
    from tensorflow_datasets.core.download import checksums, downloader

    data_dir = tmp_path_factory.mktemp("tfds")
    urls = tensorflow_datasets.builder_cls("svhn_cropped").url_infos
    monkeypatch.setattr(downloader, "MAX_RETRIES", 0)
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: urls)
    for url in urls:
        name = TRAIN if url.endswith(TRAIN) else TEST
        put_download(data_dir, "svhn_cropped", url, (root / name).read_bytes())
    prepared = load(dict(name="svhn", root=None, data_dir=str(data_dir), num_validation=4))
    files = load_svhn(root)
    assert [len(split.images) for split in prepared[:3]] == [26, 4, 20]
    assert prepared.num_classes == 10

    def rows(*splits):
        return sorted((int(y), x.tobytes()) for split in splits for x, y in zip(*split[:2], strict=True))

    assert rows(prepared.train, prepared.validation) == rows(files.train, files.validation)
    assert rows(prepared.test) == rows(files.test)
