"""Cropped digits of SVHN in grey, from TensorFlow Datasets or their own files (ufldl.stanford.edu/housenumbers)."""

import numpy as np
import scipy

from latent_al.data.arrays import assemble
from latent_al.data.tfds import tfds
from latent_al.runtime.files import expand
from latent_al.types import BadInput, Data, Split


def svhn(*, root: str | None, data_dir: str | None, num_validation: int) -> Data:
    """Reads `train_32x32.mat` and `test_32x32.mat` in `root`, or TFDS's `svhn_cropped` where `root` is None.

    Images [n 32 32 1] are grey like those of Tonnaer (2017), section 4.1.2: 0.299 R + 0.587 G + 0.114 B. Classes are
    the digits 0 to 9. TFDS stores the same images in its own order, so its held-out rows and ids are not those of the
    files.

    Args:
        root: the folder of the files; the test file may be absent; None for TFDS.
        data_dir: where TFDS keeps its sets. The first time it downloads 1.6 GB, most of it a split that is not read.
        num_validation: the first training images to hold out, 5,000 in Tonnaer (2017).

    Raises:
        BadInput: no directory, no training file, a file that is not a MATLAB file up to version 7, fields missing or of
            another shape or type, labels outside 1 to 10; whatever `tfds` refuses.
    """
    if root is None:
        data = tfds(dataset="svhn_cropped", data_dir=data_dir, num_validation=num_validation)
        return data._replace(
            train=_grey_split(data.train), validation=_grey_split(data.validation), test=_grey_split(data.test)
        )
    root = expand(root, "config.data.root")
    train = _find_train(root)
    test = train.with_name("test_32x32.mat")
    return assemble(
        _read(train),
        _read(test) if test.exists() else None,
        num_validation=num_validation,
        num_classes=10,
    )


def _grey_split(split):
    return Split(_grey(split.images, white=1), split.labels)


def _find_train(folder):
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; set config.data.root to the folder of train_32x32.mat.")
    train = folder / "train_32x32.mat"
    if not train.is_file():
        raise BadInput(
            f"no file train_32x32.mat in {folder}, which holds {sorted(p.name for p in folder.iterdir())[:8]}; "
            "set config.data.root to the folder of SVHN's cropped digits."
        )
    return train


def _read(path):
    fields = _read_fields(path)
    # A field that is not an array, such as a sparse matrix, becomes one without axes here.
    images = np.asarray(fields["X"])
    labels = np.asarray(fields["y"])
    _check_images(path, images)
    _check_labels(path, labels, images.shape[3])
    # The files write the digit 0 as 10, since MATLAB counts from 1.
    return Split(_grey(images.transpose(3, 0, 1, 2), white=255), labels[:, 0].astype(np.int32) % 10)


def _read_fields(path):
    try:
        with path.open("rb") as file:
            fields = scipy.io.loadmat(file)
    except Exception as error:  # Foreign bytes lead loadmat into errors of any type.
        raise BadInput(
            f"{path} is not a whole MATLAB file of version 7 or lower ({type(error).__name__}: {str(error)[:200]}); "
            "fetch it again."
        ) from error
    if not {"X", "y"} <= set(fields):
        names = sorted(name for name in fields if not name.startswith("__"))
        raise BadInput(
            f"{path} has fields {names}; expected X and y; set config.data.root to the folder of SVHN's cropped digits "
            "(format 2)."
        )
    return fields


def _check_images(path, images):
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8:
        raise BadInput(
            f"X of {path} has shape {images.shape} and type {images.dtype}; expected (32, 32, 3, n) and uint8; "
            "set config.data.root to the folder of SVHN's cropped digits (format 2)."
        )


def _check_labels(path, labels, num):
    if labels.shape != (num, 1) or labels.dtype.kind not in "iuf":
        raise BadInput(
            f"y of {path} has shape {labels.shape} and type {labels.dtype} but X holds {num} images; "
            f"expected ({num}, 1) and numbers; give the file as it was fetched."
        )
    bad = ~np.isin(labels[:, 0], np.arange(1, 11))
    if bad.any():
        raise BadInput(
            f"y of {path} has {bad.sum()} labels outside 1 to 10, the first is {labels[bad][0, 0]} of row "
            f"{bad.argmax()}; digit 0 is label 10 there; give the file as it was fetched."
        )


def _grey(rgb: np.ndarray, *, white: int) -> np.ndarray:
    """Returns colours [n h w 3], from 0 to `white`, as grey [n h w 1] in [0, 1]."""
    # In thousandths all sums are whole numbers that float32 holds, so white is 1 and both sources give equal pixels.
    grey = np.zeros((*rgb.shape[:3], 1), np.float32)
    for channel, weight in enumerate((299, 587, 114)):
        grey += weight * np.rint(rgb[..., channel : channel + 1] * np.float32(255 / white))
    grey /= 255_000
    return grey
