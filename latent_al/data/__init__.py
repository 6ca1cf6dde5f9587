"""The table of image sources, and the checks that each of them passes through."""

from latent_al.types import require

require(__name__, "experiments", "absl", "ml_collections", "orbax", "pandas", "PIL", "scipy", "sklearn")

import hashlib
import math
from itertools import islice

import numpy as np
from ml_collections import ConfigDict

from latent_al.data.angles import rotated
from latent_al.data.digits import digits
from latent_al.data.idx import idx
from latent_al.data.image_folder import image_folder
from latent_al.data.images import Images, Mapped
from latent_al.data.mnist import mnist
from latent_al.data.npz import npz
from latent_al.data.poses import poses
from latent_al.data.svhn import svhn
from latent_al.data.tfds import tfds
from latent_al.data.three_classes import three_classes
from latent_al.data.unbalanced import long_tail, perturbed_pairs, weighted_classes
from latent_al.runtime.processes import digest_by_share, share
from latent_al.types import BadInput, Data, Spec, build

PIXELS = 2**24
"""Pixels that are checked together: 64 MiB as floats."""
MENTIONED = 10
"""Missing classes that a message names."""

SOURCES = {
    "digits": digits,
    "idx": idx,
    "image_folder": image_folder,
    "long_tail": long_tail,
    "mnist": mnist,
    "npz": npz,
    "perturbed_pairs": perturbed_pairs,
    "poses": poses,
    "rotated": rotated,
    "svhn": svhn,
    "tfds": tfds,
    "three_classes": three_classes,
    "weighted_classes": weighted_classes,
}
"""Sources by name, each a factory that returns `Data`."""


def load(spec: Spec | ConfigDict) -> Data:
    """Returns the images that `spec` names, checked. A `source` in it is a spec too: its images are checked first.

    Args:
        spec: of an entry of `SOURCES`.

    Raises:
        BadInput: an unknown source, a negative seed, no training images, pixels outside [0, 1] or not finite, splits of
            different image shapes, labels of the wrong length or outside the classes, a class that no training image
            has, angles outside [0, 360) or alongside class labels.
    """
    keywords = dict(spec)
    if "source" in keywords:
        keywords["source"] = load(keywords["source"])
    if keywords.get("seed", 0) < 0:
        raise BadInput(f"{keywords.get('name')} has the seed {keywords['seed']}; expected 0 or more.")
    data = build(SOURCES, keywords, "data source")
    if not len(data.train.images):
        raise BadInput("there are no training images left; give more images or lower num_validation and num_test.")
    for name in ("train", "validation", "test"):
        _check_split(name, getattr(data, name), data.train.images.shape[1:], data.num_classes)
    if data.train.labels is not None and data.num_classes is not None:
        _check_classes(data)
    return data


def digest(data: Data) -> str:
    """Returns a hash of every pixel, label and id: equal for equal data, in all processes at once.

    Args:
        data: the images and their labels.
    """
    sha = hashlib.sha256(repr(data.num_classes).encode())
    for split in (data.train, data.validation, data.test):
        for array in (split.images, split.labels):
            sha.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
            if isinstance(array, Mapped):
                sha.update(f"{digest_by_share(array.on_disk)}{array.bits or ''}".encode())
            elif array is not None:
                sha.update(np.ascontiguousarray(array))
    sha.update("\n".join(data.ids).encode())
    return sha.hexdigest()


def rows_of_one_colour(images: Images) -> np.ndarray:
    """Returns the rows [k] of images all of whose pixels are equal.

    Args:
        images: [n h w c], an array or on disk.
    """
    block = max(1, PIXELS // math.prod(images.shape[1:]))
    rows = [np.zeros(0, int)]
    for start in range(0, len(images), block):
        some = np.asarray(images[start : start + block])
        rows.append(start + np.flatnonzero((some == some[:, :1, :1]).all(axis=(1, 2, 3))))
    return np.concatenate(rows)


def _check_split(name, split, image_shape, num_classes):
    images, labels = split.images, split.labels
    if images.shape[1:] != image_shape:
        raise BadInput(
            f"{name} images are {images.shape[1:]} but training images are {image_shape}; give all the same shape."
        )
    bad = _find_bad(images)
    if len(bad):
        raise BadInput(
            f"{len(bad)} of {len(images)} {name} images have pixels that are NaN, infinite or outside [0, 1], "
            f"the first is row {bad[0]}; give integers, or floats in [0, 1]."
        )
    if labels is None:
        return
    if labels.shape != (len(images),):
        raise BadInput(f"{name} has {len(images)} images but labels of shape {labels.shape}; give one label per image.")
    if labels.dtype.kind == "f":
        _check_angles(name, labels, num_classes)
    else:
        _check_labels(name, labels, num_classes)


def _find_bad(images):
    """Returns the rows with impossible pixels; each of several processes looks at its part."""
    first, end = share(len(images))
    block = max(1, PIXELS // math.prod(images.shape[1:]))
    bad_rows = [np.zeros(0, int)]
    for start in range(first, end, block):
        some = np.asarray(images[start : min(start + block, end)])
        good = (np.isfinite(some) & (some >= 0) & (some <= 1)).all(axis=(1, 2, 3))
        bad_rows.append(start + np.flatnonzero(~good))
    return np.concatenate(bad_rows)


def _check_angles(name, angles, num_classes):
    if num_classes is not None:
        raise BadInput(
            f"{name} labels are floats, that is angles, but there are {num_classes} classes; give whole numbers "
            "in each split, or angles in each."
        )
    within = (angles >= 0) & (angles < 360)
    if not within.all():
        raise BadInput(
            f"{name} label {angles[~within][0]} of row {within.argmin()} is outside [0, 360); labels that are floats "
            "are angles in degrees: take them modulo 360 as float32, or give classes as whole numbers."
        )


def _check_labels(name, labels, num_classes):
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise BadInput(
            f"{name} label {labels[outside][0]} of row {outside.argmax()} is outside the {num_classes} classes, "
            f"0 to {num_classes - 1}; correct the label file or the number of classes."
        )


def _check_classes(data):
    if data.num_classes < 2:
        raise BadInput(f"the labels show {data.num_classes} class; a classifier needs 2 or more.")
    present = set(data.train.labels.tolist())
    # Labels may be numbers of another kind, such as keys of a database, up to billions.
    missing = list(islice((label for label in range(data.num_classes) if label not in present), MENTIONED))
    splits = (data.train, data.validation, data.test)
    if missing == [0] and not any((split.labels == 0).any() for split in splits if split.labels is not None):
        raise BadInput(
            f"labels run from 1 to {data.num_classes - 1}; expected classes that start at 0: subtract 1 from each."
        )
    if missing:
        raise BadInput(
            f"training labels show {len(present)} of {data.num_classes} classes; none of class {missing}: no query "
            "could find it. Give images of each class, or leave that class out everywhere and number the others from 0."
        )
