"""BADGE: rows that would change the last layer of a classifier much, and in different directions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._conditions import PROBABILITIES, ROWS_LEFT, check_num
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import scan
from latent_al.kernels._random import draw_row
from latent_al.kernels._sharding import take_row


class _Carry(NamedTuple):
    nearest: Array
    blocked: Array
    row: Array


@kernel(probs=PROBABILITIES, taken=ROWS_LEFT)
def badge(
    key: PRNGKeyArray,
    probs: Float[Array, "n c"],
    features: Float[Array, "n f"],
    taken: Bool[Array, " n"],
    num: int,
) -> Int[Array, " num"]:
    """Selects rows by k-means++ seeding on the gradients of the last layer's loss at the predicted labels.

    The gradient of row i is (p_i - e_i) outer f_i, where e_i is the unit vector of the most likely class. The row with
    the longest gradient comes first, ties to the lowest row, as in the authors' code, which produced the paper's
    results; in k-means++, which the paper's Algorithm 1 names, it would be drawn uniformly. Each row that follows is
    drawn in proportion to its squared distance to the nearest one before it, or uniformly from the rows left where each
    of them equals one selected.

    No gradient [c f] is ever formed: the product of two gradients is that of p - e times that of f. A distance is a
    difference of such products: its rounding error is some 1e-6 of the squared lengths, and where the classifier is
    sure, as large as that of p. O(num n (c + f)) time, and memory for another copy of `probs`. Inside a caller's `jit`
    rows that are not finite come last, and n stands for each missing row.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep Batch Active Learning by Diverse, Uncertain Gradient
    Lower Bounds, 2020; github.com/JordanAsh/badge.

    Args:
        probs: class probabilities, in [0, 1].
        features: what the last layer reads.
        taken: rows that may not be selected.
        num: rows to select.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, a row does not hold probabilities, or features
            are NaN, infinite or too large to square.
    """
    check_num(num, len(taken))
    sq_lengths = _sq_lengths(probs, features)
    labels = probs.argmax(axis=1)

    def sq_distances_to(row):
        residual = take_row(probs, row).at[take_row(labels, row)].add(-1)
        # Without the rounding to ten bits that is the default on some accelerators.
        of_probs = jnp.matmul(probs, residual, precision="highest") - residual[labels]
        products = of_probs * jnp.matmul(features, take_row(features, row), precision="highest")
        return sq_lengths + take_row(sq_lengths, row) - 2 * products

    def draw(carry, uniform):
        sq_distances = sq_distances_to(carry.row)
        blocked = carry.blocked.at[carry.row].set(True)
        nearest = jnp.where(sq_distances < carry.nearest, sq_distances, carry.nearest)
        row = draw_row(_weights(nearest, blocked), uniform)
        return _Carry(nearest, blocked, row), row

    first = _weights(sq_lengths, taken).argmax().astype(jnp.int32)
    uniforms = jax.random.uniform(key, (num - 1, 2), sq_lengths.dtype)
    start = _Carry(jnp.full_like(sq_lengths, jnp.inf), taken, first)
    rows = jnp.concatenate([first[None], scan(draw, start, uniforms)[1]])
    return jnp.where(jnp.arange(num) < (~taken).sum(), rows, len(taken))


def _sq_lengths(probs, features):
    is_likeliest = probs.argmax(axis=1)[:, None] == jnp.arange(probs.shape[1])[None, :]
    # Not 1 - 2 p + sum of p^2, which cancels where the classifier is sure.
    return jnp.where(is_likeliest, (1 - probs) ** 2, probs**2).sum(axis=1) * (features**2).sum(axis=1)


def _weights(values, blocked):
    """Returns the finite values of the rows left; where none is above 0, 1 for each finite row, or for all left."""
    is_finite = ~blocked & jnp.isfinite(values)
    weights = jnp.where(is_finite & (values > 0), values, 0)
    possible = jnp.where(is_finite.any(), is_finite, ~blocked)
    return jnp.where((weights == 0).all(), possible.astype(values.dtype), weights)
