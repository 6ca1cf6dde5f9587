"""BADGE: rows that would change the last layer of a classifier much, and each in a way of its own."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._random import draw_row
from latent_al.kernels._sharding import take_row
from latent_al.kernels.selection import check_left


def badge(
    key: PRNGKeyArray,
    probs: Float[Array, "n c"],
    features: Float[Array, "n f"],
    taken: Bool[Array, " n"],
    num: int,
) -> Int[Array, " num"]:
    """k-means++ seeding on the gradients of the last layer's loss, each row labelled as the classifier predicts it.

    That of row i is (p_i - e_i) outer f_i, where e_i marks the likeliest class. The row of the longest comes first,
    ties to the lowest, as in the authors' code, which made the paper's results; in k-means++, which its Algorithm 1
    names, it would be drawn uniformly. Each that follows is drawn in proportion to its squared distance to the nearest
    one before it, and uniformly from the rows left where all of these equal one of those.

    No gradient [c f] is ever made: their products are those of p - e times those of f. A distance is a difference of
    such products: it rounds by some 1e-6 of the squared lengths, and where the classifier is sure by as much as p does.
    O(num n (c + f)) time, memory for another `probs`. Inside a caller's `jit` rows that are not finite come last.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal, Deep Batch Active Learning by Diverse, Uncertain Gradient
    Lower Bounds, 2020; github.com/JordanAsh/badge.

    Args:
        probs: of each class, in [0, 1].
        features: what the last layer reads.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, a gradient is NaN, infinite or too long to
            square.
    """
    if probs.ndim != 2 or features.ndim != 2 or not probs.shape[:1] == features.shape[:1] == taken.shape:
        raise ValueError(
            f"probs have shape {probs.shape}, features {features.shape} and taken {taken.shape}; expected [n c], [n f] "
            "and [n]."
        )
    check_left(taken, num)
    if not isinstance(probs, jax.core.Tracer) and not isinstance(features, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            bad = jax.device_get(~jnp.isfinite(4 * _sq_lengths(probs, features)))
        if bad.any():
            raise ValueError(
                f"{bad.sum()} of {len(bad)} gradients are NaN, infinite or too long to square, the first is row "
                f"{bad.argmax()}; look for that in probs and features."
            )
    return _badge(key, probs, features, taken, num)


@jax.jit
def _sq_lengths(probs, features):
    likeliest = probs.argmax(axis=1)[:, None] == jnp.arange(probs.shape[1])[None, :]
    # Not 1 - 2 p + sum of p^2, which cancels where the classifier is sure.
    return jnp.where(likeliest, (1 - probs) ** 2, probs**2).sum(axis=1) * (features**2).sum(axis=1)


@partial(jax.jit, static_argnums=4)
def _badge(key, probs, features, taken, num):
    sq_lengths, labels = _sq_lengths(probs, features), probs.argmax(axis=1)

    def sq_distance_to(row):
        own_probs, own_features, label, sq_length = (
            take_row(each, row) for each in (probs, features, labels, sq_lengths)
        )
        residual = own_probs.at[label].add(-1)
        products = (_matmul(probs, residual) - residual[labels]) * _matmul(features, own_features)
        return sq_lengths + sq_length - 2 * products

    def draw(carry, uniform):
        nearest, blocked, row = carry
        sq_distance, blocked = sq_distance_to(row), blocked.at[row].set(True)
        nearest = jnp.where(sq_distance < nearest, sq_distance, nearest)
        row = draw_row(_weights(nearest, blocked), uniform)
        return (nearest, blocked, row), row

    first = _weights(sq_lengths, taken).argmax().astype(jnp.int32)
    uniforms = jax.random.uniform(key, (num - 1, 2), sq_lengths.dtype)
    start = jnp.full_like(sq_lengths, jnp.inf), taken, first
    return jnp.concatenate([first[None], jax.lax.scan(draw, start, uniforms)[1]])


def _weights(values, blocked):
    """Those of the rows left that are finite, or 1 for each row left where none is above 0."""
    weights = jnp.where(~blocked & (values > 0) & jnp.isfinite(values), values, 0)
    return jnp.where((weights == 0).all(), (~blocked).astype(values.dtype), weights)


def _matmul(x, y):
    """Without the rounding to ten bits that is the default on some accelerators: what follows cancels."""
    return jnp.matmul(x, y, precision="highest")
