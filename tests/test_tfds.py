"""TFDS on sets in their original format, put where its downloads go: nothing is downloaded."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latent_al.data import load
from latent_al.types import BadInput

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("default")


def put_download(data_dir, dataset, url, content):
    """Writes a file, under the name that TFDS gives it, into the download cache of `data_dir`."""
    from tensorflow_datasets.core.download import checksums, resource

    info = checksums.get_all_url_infos()[url]
    path = data_dir / "downloads" / dataset / resource.get_dl_fname(url, info.checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    resource.write_info_file(url=url, path=path, dataset_name=dataset, original_fname=path.name, url_info=info)


def cifar10_archive(images, labels, num_test):
    """The binary version's layout: a label byte and 3,072 pixel bytes, channel by channel, an image."""
    records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1)
    files = {"test_batch.bin": records[:num_test]}
    files |= {f"data_batch_{i + 1}.bin": part for i, part in enumerate(np.array_split(records[num_test:], 5))}
    files = {name: rows.astype(np.uint8).tobytes() for name, rows in files.items()}
    files["batches.meta.txt"] = "\n".join(
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    ).encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def load_tfds(dataset, data_dir, num_validation=0):
    return load(dict(name="tfds", dataset=dataset, data_dir=str(data_dir), num_validation=num_validation))


def test_cifar10_in_its_original_format(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8), np.arange(80) % 10
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    put_download(tmp_path, "cifar10", url, cifar10_archive(images, labels, num_test=20))
    data = load_tfds("cifar10", tmp_path, num_validation=10)
    assert [split.images.shape for split in data[:3]] == [(50, 32, 32, 3), (10, 32, 32, 3), (20, 32, 32, 3)]
    assert data.num_classes == 10

    def rows(images, labels):
        return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))

    train = [np.concatenate(pair) for pair in zip(data.train[:2], data.validation[:2], strict=True)]
    assert rows(np.uint8(np.round(train[0] * 255)), train[1]) == rows(images[20:], labels[20:])
    assert rows(np.uint8(np.round(data.test.images * 255)), data.test.labels) == rows(images[:20], labels[:20])
    assert list((tmp_path / "cifar10").rglob("*.array_record*"))


WITHOUT_TENSORFLOW = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0].startswith("tensorflow"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from latent_al.data import load
from latent_al.types import BadInput

try:
    data = load(dict(name="tfds", dataset=sys.argv[1], data_dir=sys.argv[2], num_validation=10))
    np.savez(sys.argv[3], *data.train[:2], *data.validation[:2], *data.test[:2])
except BadInput as error:
    print(error)
"""


def load_without_tensorflow(dataset, tmp_path):
    """The arrays of the splits, or none and what was said, of a process that cannot import TensorFlow or TFDS."""
    out = tmp_path / "read.npz"
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, dataset, str(tmp_path), str(out)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return (list(np.load(out).values()) if out.exists() else None), said


def test_a_prepared_set_is_read_without_tensorflow(tmp_path):
    """Pixel for pixel and row for row what TFDS itself reads; the newest of two versions, and the one that is named."""
    import tensorflow_datasets

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8), np.arange(80) % 10
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    put_download(tmp_path, "cifar10", url, cifar10_archive(images, labels, num_test=20))
    load_tfds("cifar10", tmp_path)
    builder = tensorflow_datasets.builder("cifar10", data_dir=tmp_path, file_format="array_record")
    (version,) = (tmp_path / "cifar10").glob("[0-9]*")
    older = version.parent / "0.10.0"
    older.mkdir()
    shutil.copy(version / "dataset_info.json", older)
    expected = [list(builder.as_data_source(split=name)) for name in ("train", "test")]
    for dataset in ("cifar10", f"cifar10:{version.name}"):
        arrays, _ = load_without_tensorflow(dataset, tmp_path)
        # The rows held out are the first.
        train = [np.concatenate([arrays[2], arrays[0]]), np.concatenate([arrays[3], arrays[1]])]
        for (pixels, classes), rows in zip((train, arrays[4:]), expected, strict=True):
            np.testing.assert_array_equal(np.uint8(np.round(pixels * 255)), [row["image"] for row in rows])
            np.testing.assert_array_equal(classes, [row["label"] for row in rows])


def write_prepared(data_dir, images, split="train", **feature):
    """A set `scans` as TFDS prepares it, of one split whose files are these pictures, of two classes by turns."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from latent_al.data.tfds import _example

    folder = data_dir / "scans" / "1.0.0"
    folder.mkdir(parents=True)
    writer = ArrayRecordWriter(str(folder / f"scans-{split}.array_record-00000-of-00001"), "group_size:1")
    for number, image in enumerate(images):
        file = io.BytesIO()
        image.save(file, "PNG")
        example = _example()()
        entries = [example.features.feature.add(key=key) for key in ("image", "label")]
        entries[0].value.bytes_list.value.append(file.getvalue())
        entries[1].value.int64_list.value.append(number % 2)
        writer.write(example.SerializeToString())
    writer.close()
    keys = [dict(featureKey="image"), dict(featureKey="label")]
    splits = [dict(name=split, shardLengths=[str(len(images))])]
    supervised = dict(tuple=dict(items=keys))
    info = dict(name="scans", fileFormat="array_record", splits=splits, supervisedKeys=supervised)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    features = dict(image=dict(image=feature), label=dict(classLabel=dict(numClasses="2")))
    (folder / "features.json").write_text(json.dumps(dict(featuresDict=dict(features=features))))


def test_deep_images_are_read_with_the_bits_that_they_have(tmp_path, capsys):
    """A set of 12-bit images that are stored with 16 bits."""
    levels = np.linspace(0, 4095, 6 * 4 * 4).astype(np.uint16).reshape(6, 4, 4)
    write_prepared(tmp_path, [Image.fromarray(image) for image in levels], dtype="uint16")
    data = load_tfds("scans", tmp_path)
    np.testing.assert_allclose(data.train.images[..., 0], levels / 4095, rtol=1e-6)
    assert capsys.readouterr().out == "Depth: levels are read as 12 bits, which config.data.depth overrides.\n"
    data = load(dict(name="tfds", dataset="scans", data_dir=str(tmp_path), num_validation=0, depth=16))
    np.testing.assert_allclose(data.train.images[..., 0], levels / 65535, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_other_kinds_have_the_channels_that_the_set_names(tmp_path, channels):
    """As TFDS reads them, which keeps the files of some sets as they are, with palettes and alpha channels."""
    grey = Image.fromarray(np.uint8(np.arange(16).reshape(4, 4) % 2 * 255))
    kinds = [grey.quantize(2), *[grey.convert(mode) for mode in ("1", "L", "LA", "RGB", "RGBA")]]
    shape = dict(dimensions=["4", "4", str(channels)])
    write_prepared(tmp_path, kinds, shape=shape, dtype="uint8")
    images = load_tfds("scans", tmp_path).train.images
    assert images.shape == (6, 4, 4, channels)
    np.testing.assert_array_equal(images, np.broadcast_to(np.asarray(grey)[None, ..., None] / 255, images.shape))


def test_a_set_without_a_training_split(tmp_path):
    write_prepared(tmp_path, [Image.new("L", (4, 4))] * 2, split="test", dtype="uint8")
    with pytest.raises(BadInput, match="'scans' has the splits test; expected one named train: choose another set"):
        load_tfds("scans", tmp_path)


def test_preparing_without_tensorflow_names_the_extra(tmp_path):
    arrays, said = load_without_tensorflow("cifar10", tmp_path)
    assert arrays is None
    assert "preparing TFDS set 'cifar10' needs tensorflow_datasets, tensorflow, which are not installed" in said
    assert "pip install 'latent_al[tfds]'" in said


def test_unknown_name(tmp_path):
    with pytest.raises(BadInput, match="TFDS does not know the set 'mnits'"):
        load_tfds("mnits", tmp_path)


def test_no_download_says_how_to_use_files(tmp_path, monkeypatch):
    """The download is refused by a proxy at a closed port, whatever the network; TFDS's ten retries are left out."""
    from tensorflow_datasets.core.download import downloader

    monkeypatch.setattr(downloader, "MAX_RETRIES", 0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"cannot be downloaded.*--config.data.root=DIR"):
        load(dict(name="mnist", root=None, data_dir=str(tmp_path), num_validation=0))


def test_a_set_that_is_not_images_with_classes(tmp_path):
    with pytest.raises(BadInput, match="'imdb_reviews' does not consist of images with class labels"):
        load_tfds("imdb_reviews", tmp_path)


@pytest.mark.slow
def test_mnist_from_tfds_is_mnist_from_its_files(tmp_path, mnist_root):
    for path in mnist_root.glob("*.gz"):
        url = f"https://storage.googleapis.com/cvdf-datasets/mnist/{path.name}"
        put_download(tmp_path, "mnist", url, path.read_bytes())
    spec = dict(name="mnist", num_validation=0)
    prepared = load(spec | dict(root=None, data_dir=str(tmp_path)))
    files = load(spec | dict(root=str(mnist_root), data_dir=None))
    for ours, theirs in ((prepared.train, files.train), (prepared.test, files.test)):
        order, other = (np.lexsort(split.images.reshape(len(split.images), -1).T) for split in (ours, theirs))
        np.testing.assert_array_equal(ours.images[order], theirs.images[other])
        np.testing.assert_array_equal(ours.labels[order], theirs.labels[other])
