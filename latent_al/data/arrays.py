"""What the sources share: pixels in [0, 1], rows held out of the training images, and images that are moved."""

import numpy as np
from scipy.ndimage import affine_transform

from latent_al.types import BadInput, Data, Split


def to_split(images: np.ndarray, labels: np.ndarray | None) -> Split:
    """Images [n h w] or [n h w c] of any unsigned integer type or float, scaled to [0, 1] by the type's largest value.

    Labels are classes where they are whole numbers, and angles in degrees where they are floats.

    Raises:
        BadInput: another number of axes, another type, labels that are not numbers.
    """
    images = scaled(with_channels(np.asarray(images)))
    return Split(images, None if labels is None else to_labels(labels))


def with_channels(images: np.ndarray) -> np.ndarray:
    """Images [n h w c] of [n h w] or [n h w c]; what is on disk stays there.

    Raises:
        BadInput: another number of axes, pixels that are not unsigned integers or floats.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise BadInput(f"images have shape {images.shape}; expected [n h w] or [n h w c].")
    if images.dtype.kind not in "ufb":
        raise BadInput(f"images have type {images.dtype}; expected unsigned integers, or floats in [0, 1].")
    return images


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Pixels as float32: unsigned integers over the largest of their type, floats as they are."""
    if pixels.dtype.kind == "u":
        pixels = pixels / np.float32(np.iinfo(pixels.dtype).max)
    return pixels.astype(np.float32, copy=False)


def to_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as int32 classes, or as float32 angles.

    Raises:
        BadInput: they are not numbers.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iuf":
        raise BadInput(
            f"labels have type {labels.dtype}; expected one an image, whole numbers as classes or floats as angles."
        )
    kind = np.float32 if labels.dtype.kind == "f" else np.int32
    return labels.astype(kind)


def take(split: Split, rows) -> Split:
    """The given rows (indices or a slice) of a split."""
    return Split(split.images[rows], None if split.labels is None else split.labels[rows])


def empty_like(split: Split) -> Split:
    """No image, of the same shape and with labels where `split` has them."""
    return take(split, slice(0, 0))


def assemble(
    train: Split,
    test: Split | None,
    *,
    num_validation: int,
    validation: Split | None = None,
    ids: np.ndarray | None = None,
    num_classes: int | None = None,
) -> Data:
    """Holds out the first `num_validation` training rows as validation, unless the set has a validation split.

    `ids` name the training rows before the hold-out, by default `train/ROW`; `num_classes` is by default one more than
    the largest class label.

    Raises:
        BadInput: `num_validation` is negative or leaves no training row, or comes with a validation split.
    """
    size = len(train.images)
    if num_validation < 0 or (num_validation and num_validation >= size):
        raise BadInput(f"num_validation is {num_validation} of {size} training images; expected 0 to {size - 1}.")
    if validation is not None and num_validation:
        raise BadInput(f"num_validation is {num_validation} but the set has its own validation split; set it to 0.")
    ids = np.array([f"train/{row}" for row in range(size)]) if ids is None else ids
    splits = [
        take(train, slice(num_validation, None)),
        take(train, slice(num_validation)) if validation is None else validation,
        empty_like(train) if test is None else test,
    ]
    if num_classes is None:
        num_classes = _count_classes([split.labels for split in splits])
    return Data(*splits, ids[num_validation:], num_classes)


def move(image: np.ndarray, angle: float, shift: np.ndarray | tuple[int, int]) -> np.ndarray:
    """An image [h w c], turned clockwise about its centre by `angle` in radians, then moved by `shift` pixels.

    `shift` is down and right. Pixels are interpolated linearly, and zeros come in at the edges.
    """
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - turn @ (centre + np.append(shift, 0))
    # SciPy's `constant` mode does not blend edge pixels with the zeros beyond them; it cuts them off.
    return affine_transform(image, turn, offset, order=1, mode="grid-constant", cval=0)


def _count_classes(labels):
    largest = [int(each.max()) for each in labels if each is not None and len(each) and each.dtype.kind != "f"]
    return max(largest) + 1 if largest else None
