"""Sources that make the training split of another source unbalanced; validation and test stay as they are."""

from collections.abc import Sequence

import numpy as np

from latent_al.data.arrays import move, take
from latent_al.types import BadInput, Data, Split


def perturbed_pairs(
    *, source: Data, num_copies: int, max_angle: float | int, max_shift: float | int, seed: int
) -> Data:
    """Overwrites images of each odd class with perturbed copies of the even class before it; the size stays.

    For each even class i, `num_copies` random training images of class i + 1 become copies of as many random images of
    class i, all different, and take its label. Each copy is turned about its centre by an angle uniform in +-max_angle
    and then moved down and right by two real distances, each uniform in [0, max_shift], with linear interpolation and
    zeros coming in at the edges. The last of an odd number of classes has no partner and stays. A copy's id is
    `ID perturbed at ID`, with the ids of the image that was copied and of the one overwritten.

    Source: "unbalanced MNIST" of Killeen (2019): 2,000 copies, an angle of pi/36 and 2 pixels on 50,000 images, so
    that even digits have about 7,000 and odd ones 3,000. In radians the angle is 5 degrees; the experiments there took
    it as degrees, which turns the images hardly at all.

    Args:
        source: the images, with class labels.
        num_copies: copies in each pair of classes, 0 or more.
        max_angle: largest angle, degrees in [0, 180].
        max_shift: largest shift in pixels, 0 or more and below both image sides.
        seed: random seed of the choice of images, the angles and the distances.

    Raises:
        BadInput: no class labels, a number outside its range, an even class of fewer than `num_copies` images or an
            odd one that would keep none.
    """
    _check_labels(source)
    _check_perturbation(source, num_copies, max_angle, max_shift)
    rng = np.random.default_rng(seed)
    images = np.array(source.train.images)
    labels = source.train.labels.copy()
    ids = source.ids.tolist()
    for even in range(0, source.num_classes - 1, 2):
        originals = rng.choice(np.flatnonzero(source.train.labels == even), num_copies, replace=False)
        overwritten = rng.choice(np.flatnonzero(source.train.labels == even + 1), num_copies, replace=False)
        labels[overwritten] = even
        for original, row in zip(originals, overwritten, strict=True):
            angle = np.radians(rng.uniform(-max_angle, max_angle))
            images[row] = move(source.train.images[original], angle, rng.uniform(0, max_shift, 2))
            ids[row] = f"{source.ids[original]} perturbed at {source.ids[row]}"
    return source._replace(train=Split(images, labels), ids=np.array(ids))


def weighted_classes(*, source: Data, weights: Sequence[float | int], seed: int) -> Data:
    """Keeps the largest training subset, without replacement, whose class sizes are proportional to `weights`.

    Class c keeps floor(s * weights[c]) random rows, where s is the least of count[c] / weights[c] over the classes. The
    rows stay in their order and keep their ids.

    Args:
        source: the images, with class labels.
        weights: relative sizes of the classes, one per class, positive; only their ratios matter.
        seed: random seed of the choice of rows.

    Raises:
        BadInput: no class labels, not as many weights as classes, a weight that is zero, negative or not finite, or so
            small that its class would keep no row.
    """
    _check_labels(source)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (source.num_classes,):
        raise BadInput(f"there are {weights.size} weights of {source.num_classes} classes; give one weight per class.")
    bad = ~(np.isfinite(weights) & (weights > 0))
    if bad.any():
        raise BadInput(
            f"the weight of class {bad.argmax()} is {weights[bad][0]}; expected a positive, finite number: no query "
            "could find a class that has no image. To do without a class, leave it out of the data."
        )
    return _thin(source, weights, seed, "raise its weight, or leave that class out of the data")


def long_tail(*, source: Data, ratio: float | int, seed: int) -> Data:
    """Thins the classes exponentially, so that the first class has `ratio` times the size of the last.

    It is `weighted_classes` with ratio ** (-c / (C - 1)) for class c of C.

    Source: "long-tailed CIFAR" of Cui et al. (2019), Class-Balanced Loss Based on Effective Number of Samples.

    Args:
        source: the images, with class labels.
        ratio: size of the first class over that of the last, 1 or more and finite; 1 makes all classes equal.
        seed: random seed of the choice of rows.

    Raises:
        BadInput: no class labels, a ratio outside its range, or so large that a class would keep no row.
    """
    _check_labels(source)
    if not 1 <= ratio < np.inf:
        raise BadInput(f"ratio is {ratio}, largest class to smallest; expected a finite number, 1 or more.")
    weights = ratio ** -np.linspace(0, 1, source.num_classes)
    return _thin(source, weights, seed, "lower ratio")


def _check_labels(source):
    if source.train.labels is None:
        raise BadInput(
            f"the {len(source.train.images)} training images have no labels; expected one per image to change the "
            "class sizes by. Give labels, or use the source as it is."
        )
    if source.num_classes is None:
        raise BadInput(
            "class labels are needed to change the class sizes by, but the source has angles; give a source with "
            "class labels, or use this one as it is."
        )


def _check_perturbation(source, num_copies, max_angle, max_shift):
    side = min(source.train.images.shape[1:3])
    if not 0 <= max_angle <= 180:
        raise BadInput(f"max_angle is {max_angle}; expected degrees, 0 to 180.")
    if not 0 <= max_shift < side:
        raise BadInput(f"max_shift is {max_shift}; expected pixels, 0 or more and below the image side of {side}.")
    if num_copies < 0:
        raise BadInput(f"num_copies is {num_copies}; expected 0 or more.")
    counts = np.bincount(source.train.labels, minlength=source.num_classes)
    for even in range(0, source.num_classes - 1, 2):
        most = min(counts[even], counts[even + 1] - 1)
        if num_copies > most:
            raise BadInput(
                f"num_copies is {num_copies} but class {even} has {counts[even]} training images to copy and class "
                f"{even + 1} has {counts[even + 1]} to overwrite, of which one has to remain; lower it to {most} or "
                "give more images."
            )


def _thin(source, weights, seed, cure):
    """Returns the subset of `weighted_classes`; `cure` ends the message where a class would be left empty."""
    labels = source.train.labels
    counts = np.bincount(labels, minlength=source.num_classes)
    sizes = _proportional(counts, weights)
    if not sizes.all():
        label = sizes.argmin()
        raise BadInput(
            f"class {label} would keep 0 of its {counts[label]} training images, the largest class {sizes.max()}; each "
            f"needs 1 or more, or no query could find it: {cure}."
        )
    rng = np.random.default_rng(seed)
    kept = [rng.choice(np.flatnonzero(labels == label), size, replace=False) for label, size in enumerate(sizes)]
    rows = np.sort(np.concatenate(kept))
    return source._replace(train=take(source.train, rows), ids=source.ids[rows])


def _proportional(counts, weights):
    """Returns the largest whole numbers [c], none above its count, in proportion to the positive `weights` [c]."""
    weights = weights / weights.max()
    # Next to the largest weight a tiny one may be 0; it then bounds nothing.
    with np.errstate(divide="ignore", over="ignore"):
        scale = (counts / weights).min()
    # 0.3 of 1,000 is 300, though the product of floats may fall short by its rounding.
    return np.floor(scale * weights * (1 + 1e-9)).astype(int)
