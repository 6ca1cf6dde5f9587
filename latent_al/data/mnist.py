"""MNIST, from TensorFlow Datasets or from its own files."""

from latent_al.data.idx import idx
from latent_al.data.tfds import tfds
from latent_al.types import Data


def mnist(
    *,
    root: str | None,
    data_dir: str | None,
    num_validation: int,
    validation_rows: str = "first",
) -> Data:
    """Reads the IDX files in `root`, or TFDS's `mnist` in `data_dir` where `root` is None.

    TFDS stores the same images in its own order, so its held-out rows and ids are not those of the files.

    Args:
        root: the folder of the IDX files; None for TFDS.
        data_dir: where TFDS keeps its sets, by default its own folder in the home directory.
        num_validation: training images to hold out, the first 5,000 in Tonnaer (2017).
        validation_rows: which training images are held out, `first` or `last`; the last 10,000 in Killeen
            (2019).
    """
    if root is None:
        return tfds(dataset="mnist", data_dir=data_dir, num_validation=num_validation, validation_rows=validation_rows)
    return idx(root=root, num_validation=num_validation, validation_rows=validation_rows)
