"""Building blocks of sources: pixels in [0, 1], rows held out of the training images, images that are moved."""

import numpy as np
import scipy

from latent_al.types import BadInput, Data, Split, check_name

CHANNELS = 4
"""The maximum number of channels by which an image is told from one whose channels come first."""
VALIDATION_ROWS = ("first", "last")


def to_split(images: np.ndarray, labels: np.ndarray | None, bits: int | None = None) -> Split:
    """Scales images [n h w] or [n h w c], unsigned integers or floats, to [0, 1] as `scaled` does.

    Labels are classes where they are whole numbers, and angles in degrees where they are floats.

    Raises:
        BadInput: a wrong number of axes, another type, labels that are not numbers.
    """
    images = scaled(with_channels(np.asarray(images)), bits)
    return Split(images, None if labels is None else to_labels(labels))


def with_channels(images: np.ndarray) -> np.ndarray:
    """Returns images [n h w] or [n h w c] as [n h w c]; what is on disk stays there.

    Raises:
        BadInput: a wrong number of axes, pixels that are not unsigned integers or floats.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise BadInput(f"images have shape {images.shape}; expected [n h w] or [n h w c].")
    if images.shape[1] <= CHANNELS < min(images.shape[2:]):
        raise BadInput(
            f"images have shape {images.shape}, whose channels come first, [n c h w]; expected [n h w c]: write "
            "np.moveaxis(images, 1, -1) into the file."
        )
    if images.dtype.kind not in "ufb":
        raise BadInput(f"images have type {images.dtype}; expected unsigned integers, or floats in [0, 1].")
    return images


def scaled(pixels: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Returns pixels as float32: unsigned integers over the largest of their `bits`, floats as they are.

    Args:
        pixels: of any shape.
        bits: the bits that levels have, if more than eight; higher levels become 1. None for all bits of their type.
    """
    if pixels.dtype.kind == "u":
        top = np.iinfo(pixels.dtype).max
        highest = 2**bits - 1 if bits is not None and pixels.dtype.itemsize > 1 else top
        # Alongside an array of 32 bits, one of 16 may be read with more than it can hold.
        pixels = np.minimum(pixels, min(highest, top)) / np.float32(highest)
    return pixels.astype(np.float32, copy=False)


def to_labels(labels: np.ndarray) -> np.ndarray:
    """Returns labels as int32 classes where they are whole numbers, or as float32 angles.

    Raises:
        BadInput: they are not numbers.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iuf":
        raise BadInput(
            f"labels have type {labels.dtype}; expected one per image, whole numbers as classes or floats as angles."
        )
    kind = np.float32 if labels.dtype.kind == "f" else np.int32
    return labels.astype(kind)


def take(split: Split, rows) -> Split:
    """Returns some rows (indices or a slice) of a split."""
    labels = None if split.labels is None else split.labels[rows]
    return Split(split.images[rows], labels, None if split.originals is None else split.originals.take(rows))


def empty_like(split: Split) -> Split:
    """Returns a split without images, of the same shape and with labels where `split` has them."""
    return take(split, slice(0, 0))


def assemble(
    train: Split,
    test: Split | None,
    *,
    num_validation: int,
    validation: Split | None = None,
    ids: np.ndarray | None = None,
    num_classes: int | None = None,
    validation_rows: str = "first",
) -> Data:
    """Holds out the first or last `num_validation` training rows as validation, unless the set has a validation split.

    `ids` name the training rows before the hold-out, by default `train/ROW`; `num_classes` is by default one more than
    the largest class label.

    Raises:
        BadInput: `num_validation` is negative or leaves no training row, or comes with a validation split;
            `validation_rows` is neither `first` nor `last`.
    """
    size = len(train.images)
    check_name(validation_rows, VALIDATION_ROWS, "validation rows")
    if num_validation < 0 or (num_validation and num_validation >= size):
        raise BadInput(f"num_validation is {num_validation} of {size} training images; expected 0 to {size - 1}.")
    if validation is not None and num_validation:
        raise BadInput(f"num_validation is {num_validation} but the set has its own validation split; set it to 0.")
    ids = np.array([f"train/{row}" for row in range(size)]) if ids is None else ids
    if validation_rows == "first":
        held_out, kept = slice(num_validation), slice(num_validation, None)
    else:
        held_out, kept = slice(size - num_validation, None), slice(size - num_validation)
    selected = take(train, kept)
    if validation is None:
        validation = take(train, held_out)
    if test is None:
        test = empty_like(train)
    if num_classes is None:
        num_classes = _count_classes([selected.labels, validation.labels, test.labels])
    return Data(selected, validation, test, ids[kept], num_classes)


def check_num_test(num_test: int, num_images: int) -> None:
    """Raises BadInput where `num_test` of the images cannot be held out for test."""
    if not 0 <= num_test < num_images:
        raise BadInput(f"num_test is {num_test} of {num_images} images; expected 0 to {num_images - 1}.")


def move(image: np.ndarray, angle: float, shift: np.ndarray | tuple[int, int]) -> np.ndarray:
    """Turns an image [h w c] clockwise about its centre by `angle` in radians, then moves it by `shift` pixels.

    `shift` is down and right. Pixels are interpolated linearly, and zeros come in at the edges.
    """
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - turn @ (centre + np.append(shift, 0))
    # SciPy's `constant` mode does not blend edge pixels with the zeros beyond them; it cuts them off.
    return scipy.ndimage.affine_transform(image, turn, offset, order=1, mode="grid-constant", cval=0)


def _count_classes(labels):
    classes = [values for values in labels if values is not None and values.dtype.kind != "f"]
    largest = [int(values.max()) for values in classes if len(values)]
    return max(largest) + 1 if largest else None
