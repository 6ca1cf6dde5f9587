"""Draws angles, most of them near one angle, and turns the images of another source by them."""

import numpy as np

from latent_al.data.arrays import move
from latent_al.types import BadInput, Data, Split, check_name

TEST_POSES = ("pool", "uniform")
"""The ways to draw test angles: as the training angles, or uniformly over the circle."""


def rotated(
    *, source: Data, share_near: float | int, spread: float | int, seed: int, test_poses: str = "uniform"
) -> Data:
    """Turns the images of a source counter-clockwise about their centres by angles, which become their labels.

    Most training images stay nearly upright: their angles are those of `draw_angles`. Validation angles are uniform
    over the circle, so that an error there counts all poses equally; test angles are too, or are drawn like the
    training angles. Pixels are interpolated linearly, zeros come in at the edges, and what leaves the frame is lost.
    Class labels are dropped. An id becomes `ID turned by 12.3 degrees`.

    An angle can only be learned if upright images look alike and none looks like another one turned, as the digits 6
    and 9 do.

    Args:
        source: the images, upright, with class labels or none.
        share_near: share of the training images that are turned only a little, in [0, 1].
        spread: standard deviation of these small turns in degrees, 0 or more.
        seed: random seed of the angles. Those of one split do not depend on the sizes of the others.
        test_poses: `uniform` over the circle, or drawn like those of the `pool`, the training images.

    Raises:
        BadInput: the source has angles already, a number outside its range, an unknown `test_poses`.
    """
    check_peak(share_near, spread)
    test_share = share_near_of_test(test_poses, share_near)
    if source.train.labels is not None and source.num_classes is None:
        raise BadInput("the source has angles already; give one whose images are upright, with class labels or none.")
    rngs = np.random.default_rng(seed).spawn(3)
    train = _turn(rngs[0], source.train, share_near, spread)
    validation = _turn(rngs[1], source.validation, 0, spread)
    test = _turn(rngs[2], source.test, test_share, spread)
    ids = [f"{name} turned by {angle:.1f} degrees" for name, angle in zip(source.ids, train.labels, strict=True)]
    return Data(train, validation, test, np.array(ids), None)


def draw_angles(
    rng: np.random.Generator, num: int, share_near: float | int, spread: float | int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns angles [num] in degrees in [0, 360), float32, and a mask [num] of those drawn near 0.

    round(share_near * num) of them, at random places, are normal about 0 with standard deviation `spread` in degrees,
    and wrapped; the rest are uniform over the circle.
    """
    near = rng.permutation(num) < round(share_near * num)
    angles = np.where(near, rng.normal(0, spread, num), rng.uniform(0, 360, num)) % 360
    # The float32 nearest to 359.99999 is 360.
    return angles.astype(np.float32) % np.float32(360), near


def check_peak(share_near: float | int, spread: float | int) -> None:
    """Raises BadInput where `draw_angles` cannot use these numbers."""
    if not 0 <= share_near <= 1:
        raise BadInput(f"share_near is {share_near}; expected a share of the training images, 0 to 1.")
    if not 0 <= spread < np.inf:
        raise BadInput(f"spread is {spread}; expected degrees, finite and 0 or more.")


def share_near_of_test(test_poses: str, share_near: float | int) -> float | int:
    """Returns the share of the test images that are near 0: none, or `share_near` as in the training images.

    Args:
        test_poses: one of `TEST_POSES`.
        share_near: of the training images.

    Raises:
        BadInput: an unknown `test_poses`.
    """
    check_name(test_poses, TEST_POSES, "test_poses")
    return share_near if test_poses == "pool" else 0


def _turn(rng, split, share_near, spread):
    angles, _ = draw_angles(rng, len(split.images), share_near, spread)
    images = np.empty_like(split.images)
    for row, angle in enumerate(np.radians(angles, dtype=np.float64)):
        images[row] = move(split.images[row], -angle, (0, 0))
    return Split(images, angles)
