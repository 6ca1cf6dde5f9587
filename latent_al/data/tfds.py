"""Any image-classification set of TensorFlow Datasets, prepared as array_record so that reading needs no TensorFlow."""

import numpy as np

from latent_al.data.arrays import assemble, to_split
from latent_al.runtime.processes import after_the_first
from latent_al.types import BadInput, Data


def tfds(*, dataset: str, data_dir: str | None, num_validation: int) -> Data:
    """The splits `train`, `test` and `validation` of `dataset`, the last two where it has them.

    Preparing a set for the first time needs TensorFlow; reading a prepared one does not.

    Args:
        dataset: a TFDS name, such as `mnist`, `cifar10`, `cifar100` or `svhn_cropped`.
        data_dir: where TFDS keeps its sets, by default its own folder in the home directory.
        num_validation: the first rows of `train` to hold out; 0 where the set has a validation split.

    Raises:
        BadInput: TFDS is not installed, the name is unknown, the set cannot be downloaded, has no images with class
            labels, or has images of several sizes.
    """
    builder = _find(dataset, data_dir)
    image, label = builder.info.supervised_keys
    _prepare(builder)
    splits = {
        name: _read(builder, name, image, label)
        for name in ("train", "validation", "test")
        if name in builder.info.splits
    }
    return assemble(
        splits["train"],
        splits.get("test"),
        validation=splits.get("validation"),
        num_validation=num_validation,
        num_classes=builder.info.features[label].num_classes,
    )


def _find(dataset, data_dir):
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise BadInput(f"TFDS cannot be imported ({error}); pip install 'latent_al[tfds]'.") from error
    try:
        builder = tensorflow_datasets.builder(dataset, data_dir=data_dir, file_format="array_record")
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise BadInput(
            f"TFDS knows no set {dataset!r}; tensorflow_datasets.list_builders() gives the names."
        ) from error
    wanted = (tensorflow_datasets.features.Image, tensorflow_datasets.features.ClassLabel)
    found = [builder.info.features[key] for key in builder.info.supervised_keys or ()]
    if len(found) != 2 or not all(map(isinstance, found, wanted)):
        raise BadInput(f"TFDS set {dataset!r} is not images with class labels; choose an image-classification set.")
    return builder


def _prepare(builder):
    try:
        with after_the_first():
            builder.download_and_prepare()
    except Exception as error:  # TFDS raises whatever its downloader or the set's own code raised.
        raise BadInput(
            f"TFDS set {builder.name!r} cannot be downloaded or prepared ({type(error).__name__}: {str(error)[:300]}); "
            "put a prepared copy under config.data.data_dir, or read files instead: --config.data.root=DIR where the "
            "config has it, or a source such as idx, npz or image_folder."
        ) from error


def _read(builder, name, image_key, label_key):
    rows = [(row[image_key], row[label_key]) for row in builder.as_data_source(split=name)]
    shapes = {image.shape for image, _ in rows}
    if len(shapes) > 1:
        raise BadInput(f"images of {builder.name}'s split {name} have {len(shapes)} shapes; choose a set of one size.")
    return to_split(np.stack([image for image, _ in rows]), np.array([label for _, label in rows]))
