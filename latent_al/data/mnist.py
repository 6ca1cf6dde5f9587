"""MNIST, from TensorFlow Datasets or from its own files."""

from latent_al.data.idx import idx
from latent_al.data.tfds import tfds
from latent_al.types import Data


def mnist(*, root: str | None, data_dir: str | None, num_validation: int) -> Data:
    """Reads the IDX files in `root`, or TFDS's `mnist` in `data_dir` where `root` is None.

    The first `num_validation` training images are held out, 5,000 by Tonnaer (2017). TFDS stores the same images in
    its own order, so its held-out rows and ids are not those of the files.
    """
    if root is None:
        return tfds(dataset="mnist", data_dir=data_dir, num_validation=num_validation)
    return idx(root=root, num_validation=num_validation)
