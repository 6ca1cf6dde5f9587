"""Draws greyscale images of a fish, labelled with the direction in which it swims; most are nearly the same."""

import numpy as np

from latent_al.data.angles import check_peak, draw_angles, share_near_of_test
from latent_al.types import BadInput, Data, Split

VARIATION = np.array([0.12, 0.08, 0.08, 0.2, 0.25])
"""Largest change of a fish's size (share), place to the right and up (half sides), height and brightness (shares)."""
ALIKE = 0.05
"""The share of that variation that the fish near the one pose have."""
NOISE = 0.015
"""Standard deviation of each pixel's noise."""
WATER = 0.08
UPPER_TAIL = ((-0.3, 0.0), (-0.85, 0.5), (-0.74, 0.0))
LOWER_TAIL = ((-0.3, 0.0), (-0.74, 0.0), (-0.85, -0.38))
FIN = ((0.4, 0.22), (-0.14, 0.52), (-0.2, 0.16))
"""Corners, counter-clockwise, of a fish that looks right, in half lengths of the fish."""


def poses(
    *,
    num_train: int,
    num_validation: int,
    num_test: int,
    side: int,
    share_near: float | int,
    spread: float | int,
    seed: int,
    test_poses: str = "uniform",
) -> Data:
    """Draws images [n side side 1] of one fish; labels are its direction in degrees, counter-clockwise from the right.

    The fish has a head, a tail and a fin on its back only, so that no turn leaves it the same. Its size, place, height
    and brightness vary, and pixels carry normal noise.

    Training angles are those of `draw_angles`, as from a camera that almost always sees the same pose. Near that pose
    the variation besides the angle is a twentieth, so that these images are near-duplicates of each other: the
    imbalance within a class of the images of Philipsen and Moeslund (2020), which are private. Validation angles are
    uniform over the circle, with all the variation, so that an error there counts all poses equally and not the common
    one most; test images are drawn in the same way, or like the training images. Ids are `poses/ROW at 12.3 degrees`.

    Args:
        num_train: number of training images, 1 or more.
        num_validation: number of validation images, 0 or more.
        num_test: number of test images, 0 or more.
        side: side of the images in pixels, 8 or more.
        share_near: share of the training images that are near 0 degrees, in [0, 1].
        spread: standard deviation of the angles near 0 in degrees, 0 or more.
        seed: seed of all that is random. One split does not depend on the sizes of the others.
        test_poses: `uniform` over the circle, or drawn like those of the `pool`, the training images.

    Raises:
        BadInput: a number outside its range, an unknown `test_poses`.
    """
    _check(num_train, num_validation, num_test, side)
    check_peak(share_near, spread)
    test_share = share_near_of_test(test_poses, share_near)
    rngs = np.random.default_rng(seed).spawn(3)
    train = _draw(rngs[0], num_train, share_near, spread, side)
    validation = _draw(rngs[1], num_validation, 0, spread, side)
    test = _draw(rngs[2], num_test, test_share, spread, side)
    ids = [f"poses/{row} at {angle:.1f} degrees" for row, angle in enumerate(train.labels)]
    return Data(train, validation, test, np.array(ids), None)


def render(angles: np.ndarray, looks: np.ndarray, side: int) -> np.ndarray:
    """Draws fish without noise, [n side side 1] in [0, 1], float32, at `angles` [n] in degrees.

    Args:
        angles: as the labels of `poses`.
        looks: [n 5] in [-1, 1], how much of each `VARIATION`; all 0 is the mean fish, in the middle.
        side: pixels.
    """
    images = np.empty((len(angles), side, side, 1), np.float32)
    # Few at a time: temporary arrays then fit into the processor's cache.
    for start in range(0, len(angles), 64):
        rows = slice(start, start + 64)
        images[rows, :, :, 0] = _render(angles[rows], looks[rows], side)
    return images


def _check(num_train, num_validation, num_test, side):
    least = dict(num_train=(num_train, 1), num_validation=(num_validation, 0), num_test=(num_test, 0), side=(side, 8))
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise BadInput(f"{name} is {value}; expected {smallest} or more.")


def _draw(rng, num, share_near, spread, side):
    angles, near = draw_angles(rng, num, share_near, spread)
    looks = rng.uniform(-1, 1, (num, len(VARIATION))) * np.where(near, ALIKE, 1)[:, None]
    images = render(angles, looks, side)
    images += NOISE * rng.standard_normal(images.shape, dtype=np.float32)
    return Split(images.clip(0, 1), angles)


def _render(angles, looks, side):
    size, right, up, height, brightness = np.float32(looks * VARIATION).T[..., None, None]
    half_length = 0.75 * (1 + size)
    along, across = _to_fish(angles, side, right, up) / half_length
    pixel = 2 / side / half_length
    bulge, body = _ellipse(along - 0.2, across, 0.7, 0.32 * (1 + height), pixel)
    _, eye = _ellipse(along - 0.64, across - 0.08, 0.1, 0.1, pixel)
    fins = np.max([_polygon(along, across, corners, pixel) for corners in (UPPER_TAIL, LOWER_TAIL, FIN)], axis=0)
    # A round body with a dark back and a light belly.
    skin = 0.3 + 0.4 * np.sqrt(bulge) - 0.4 * across
    image = np.full_like(body, WATER)
    for cover, shade in ((fins, 0.45), (body, skin), (eye, 0.0)):
        image += cover * ((1 + brightness) * shade - image)
    return image.clip(0, 1)


def _to_fish(angles, side, right, up):
    """Returns the pixel centres as places along and across the fish [2 n side side], in half sides from its middle."""
    place = (np.arange(side, dtype=np.float32) - (side - 1) / 2) * np.float32(2 / side)
    x = place - right
    y = -place[:, None] - up
    radians = np.radians(angles, dtype=np.float64)[:, None, None]
    cos = np.float32(np.cos(radians))
    sin = np.float32(np.sin(radians))
    return np.stack([cos * x + sin * y, cos * y - sin * x])


def _ellipse(along, across, length, height, pixel):
    """Returns the squared height of the ellipsoid, in [0, 1], and the share of each pixel that the ellipse covers."""
    level = (along / length) ** 2 + (across / height) ** 2 - 1
    slope = 2 * np.hypot(along / length**2, across / height**2)
    return (-level).clip(0, 1), _cover(level / (slope + np.float32(1e-3)), pixel)


def _polygon(along, across, corners, pixel):
    """Returns the share of each pixel that lies in a convex polygon."""
    outside = np.float32(-np.inf)
    for (x, y), (next_x, next_y) in zip(corners, corners[1:] + corners[:1], strict=True):
        step_x, step_y = np.float32(np.array([next_x - x, next_y - y]) / np.hypot(next_x - x, next_y - y))
        outside = np.maximum(outside, step_y * (along - np.float32(x)) - step_x * (across - np.float32(y)))
    return _cover(outside, pixel)


def _cover(distance, pixel):
    """Returns the share of a pixel inside an edge at this distance from its centre, positive where outside."""
    return (0.5 - distance / pixel).clip(0, 1)
