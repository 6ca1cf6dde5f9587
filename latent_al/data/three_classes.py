"""Draws points of three classes in the plane, which are hard for random and for uncertainty sampling."""

from collections.abc import Sequence

import numpy as np

from latent_al.types import BadInput, Data, Split

MEANS = ((0.35, 0.35), (0.5, 0.45), (0.85, 0.85))
SPREADS = (0.08, 0.08, 0.03)


def three_classes(*, sizes: Sequence[int], seed: int) -> Data:
    """Draws a large class, one that overlaps with it, and a small one apart, all round Gaussians, as 1 x 2 x 1 images.

    Validation and test splits are as large as the training split, and drawn in the same way. The paper gives the sizes
    2,000, 500 and 50 and a scatter plot; the means and spreads are ours, chosen to look like it.

    Source: Pezeshkpour, Zhao and Singh (2020), Figure 1.

    Args:
        sizes: points of each class, three numbers of 1 or more.
        seed: random seed of the points.

    Raises:
        BadInput: other than three sizes, or one below 1.
    """
    if len(sizes) != 3 or min(sizes) < 1:
        raise BadInput(f"three_classes has sizes {tuple(sizes)}; expected three, each 1 or more.")
    rng = np.random.default_rng(seed)
    train, validation, test = [_draw(rng, sizes) for _ in range(3)]
    ids = np.array([f"point {row}" for row in range(len(train.images))])
    return Data(train, validation, test, ids, 3)


def _draw(rng, sizes):
    labels = rng.permutation(np.repeat(np.arange(3, dtype=np.int32), sizes))
    points = np.array(MEANS)[labels] + np.array(SPREADS)[labels, None] * rng.standard_normal((len(labels), 2))
    return Split(np.float32(points).clip(0, 1).reshape(-1, 1, 2, 1), labels)
