"""Any image-classification set of TensorFlow Datasets. Preparing one needs TFDS and TensorFlow, reading it neither.

A set is prepared as array_record files of `tf.train.Example` messages with `dataset_info.json` and `features.json`, as
www.tensorflow.org/datasets/external_tfrecord describes; each image is a PNG or JPEG file in its message.
"""

import io
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from latent_al.data.arrays import assemble, to_split
from latent_al.data.depth import find_bits
from latent_al.runtime.files import expand
from latent_al.runtime.processes import after_the_first
from latent_al.types import BadInput, Data, Split, require

EXAMPLE = """
name: "example.proto" syntax: "proto3" package: "latent_al"
message_type { name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: "BytesList" }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: "Int64List" }
}
message_type {
  name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "Feature" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type: TYPE_MESSAGE type_name: "Entry" label: LABEL_REPEATED }
}
message_type { name: "Example" field { name: "features" number: 1 type: TYPE_MESSAGE type_name: "Features" } }
"""
"""The part of TensorFlow's example.proto and feature.proto that images and classes need."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels of bytes -> Pillow's name of such pixels."""


class Prepared(NamedTuple):
    """A set on disk.

    shards: the files of each split, in order.
    image, label: the features of an example that hold them.
    dtype: of the pixels.
    channels: of the images; None where the set leaves them open. Their files may have others.
    """

    shards: dict[str, list[str]]
    image: str
    label: str
    dtype: str
    channels: int | None
    num_classes: int


def tfds(
    *,
    dataset: str,
    data_dir: str | None,
    num_validation: int,
    validation_rows: str = "first",
    depth: int | None = None,
) -> Data:
    """Returns the splits `train`, `test` and `validation` of `dataset`, the last two where it has them.

    If a set is prepared in several versions, the newest is read, unless the name says which.

    Args:
        dataset: a TFDS name, such as `mnist`, `cifar10`, `cifar100` or `svhn_cropped`; `NAME/CONFIG` for a set that has
            configs; with a version, `NAME:3.0.1`.
        data_dir: where TFDS keeps its sets, by default its own folder in the home directory.
        num_validation: rows of `train` to hold out; 0 where the set has a validation split.
        validation_rows: which training images are held out, `first` or `last`.
        depth: bits of integers that are stored with more than eight; by default as many as the highest of all images
            takes.

    Raises:
        BadInput: the set is not prepared and TFDS or TensorFlow not installed, the name is unknown, the set cannot be
            downloaded, has no images with class labels, no split `train`, or has images of several sizes.
    """
    data_dir = None if data_dir is None else str(expand(data_dir, "config.data.data_dir"))
    with after_the_first():
        folder = _find_prepared(dataset, data_dir) or _prepare(dataset, data_dir)
    prepared = _describe(folder, dataset)
    if "train" not in prepared.shards:
        raise BadInput(
            f"TFDS set {dataset!r} has the splits {', '.join(prepared.shards)}; expected one named train: choose "
            "another set."
        )
    read = {
        name: _read(prepared, shards, f"{dataset}'s split {name}")
        for name, shards in prepared.shards.items()
        if name in ("train", "validation", "test")
    }
    bits = find_bits([split.images for split in read.values()], depth)
    splits = {name: to_split(split.images, split.labels, bits) for name, split in read.items()}
    return assemble(
        splits["train"],
        splits.get("test"),
        validation=splits.get("validation"),
        num_validation=num_validation,
        validation_rows=validation_rows,
        num_classes=prepared.num_classes,
    )


def _find_prepared(dataset: str, data_dir: str | None) -> Path | None:
    """Returns the folder of the newest version that is prepared as array_record, if there is one."""
    home = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    name, _, version = dataset.partition(":")
    folders = [
        path.parent
        for path in (Path(home).expanduser() / name).glob(f"{version or '*'}/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
        and json.loads(path.read_text()).get("fileFormat") == "array_record"
    ]
    return max(folders, key=lambda folder: tuple(map(int, folder.name.split("."))), default=None)


def _prepare(dataset: str, data_dir: str | None) -> Path:
    """Downloads the set and writes it as array_record; returns its folder."""
    try:
        require(f"preparing TFDS set {dataset!r}", "tfds", "tensorflow_datasets", "tensorflow")
        import tensorflow_datasets
    except ImportError as error:
        raise BadInput(f"{error}; or put a prepared copy under config.data.data_dir.") from error
    try:
        builder = tensorflow_datasets.builder(dataset, data_dir=data_dir, file_format="array_record")
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise BadInput(
            f"TFDS does not know the set {dataset!r}; tensorflow_datasets.list_builders() gives the names."
        ) from error
    expected = (tensorflow_datasets.features.Image, tensorflow_datasets.features.ClassLabel)
    supervised = [builder.info.features[key] for key in builder.info.supervised_keys or ()]
    if len(supervised) != 2 or not all(map(isinstance, supervised, expected)):
        raise _not_images(dataset)
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises whatever its downloader or the set's own code raised.
        raise BadInput(
            f"TFDS set {builder.name!r} cannot be downloaded or prepared ({type(error).__name__}: {str(error)[:300]}); "
            "put a prepared copy under config.data.data_dir, or read files instead: --config.data.root=DIR where the "
            "config has it, or a source such as idx, npz or image_folder."
        ) from error
    return Path(builder.data_dir)


def _not_images(dataset: str) -> BadInput:
    return BadInput(
        f"TFDS set {dataset!r} does not consist of images with class labels; choose an image-classification set."
    )


def _describe(folder: Path, dataset: str) -> Prepared:
    info = json.loads((folder / "dataset_info.json").read_text())
    features = json.loads((folder / "features.json").read_text()).get("featuresDict", {}).get("features", {})
    keys = [item["featureKey"] for item in info.get("supervisedKeys", {}).get("tuple", {}).get("items", ())]
    if len(keys) != 2 or "image" not in features[keys[0]] or "classLabel" not in features[keys[1]]:
        raise _not_images(dataset)
    image, label = keys
    dimensions = features[image]["image"].get("shape", {}).get("dimensions", ())
    return Prepared(
        {split["name"]: _shards(folder, info["name"], split) for split in info["splits"]},
        image,
        label,
        features[image]["image"].get("dtype", "uint8"),
        int(dimensions[-1]) if dimensions else None,
        int(features[label]["classLabel"]["numClasses"]),
    )


def _shards(folder: Path, name: str, split: dict) -> list[str]:
    """Returns the files of a split, in order."""
    num_shards = len(split["shardLengths"])
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    fields = dict(DATASET=name, SPLIT=split["name"], FILEFORMAT="array_record")
    return [
        str(folder / template.format(**fields, SHARD_X_OF_Y=f"{shard:05d}-of-{num_shards:05d}"))
        for shard in range(num_shards)
    ]


def _read(prepared: Prepared, shards: list[str], what: str) -> Split:
    """Returns the images of a split as they are stored, and their labels."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    images, labels = [], []
    with ArrayRecordDataSource(shards) as records:
        for record in records.__getitems__(range(len(records))):
            features = {entry.key: entry.value for entry in _example().FromString(record).features.feature}
            images.append(_decode(features[prepared.image].bytes_list.value[0], prepared))
            labels.append(features[prepared.label].int64_list.value[0])
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise BadInput(f"images of {what} have {len(shapes)} shapes; choose a set of one size.")
    return Split(np.stack(images), np.array(labels))


def _decode(file: bytes, prepared: Prepared) -> np.ndarray:
    """Returns the pixels [h w c]; a file of floats has their four bytes as channels."""
    with Image.open(io.BytesIO(file)) as image:
        mode = MODES.get(prepared.channels, image.mode) if prepared.dtype == "uint8" else image.mode
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1).view(prepared.dtype)


@cache
def _example() -> type:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(text_format.Parse(EXAMPLE, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("latent_al.Example"))
