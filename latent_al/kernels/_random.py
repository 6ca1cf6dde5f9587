"""A row at random, in proportion to its weight."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._sharding import blockwise_sum


def draw_row(weights: Float[Array, " n"], uniform: Float[Array, "2"]) -> Int[Array, ""]:
    """First a column of the weights laid out as a square, then a row of it; never a row of weight 0.

    Args:
        weights: in [0, inf], one of them above 0.
        uniform: in [0, 1), each.
    """
    side = 1 + int(len(weights) ** 0.5)
    column = _first_beyond(_column_sums(weights, side), uniform[0])
    # Not a slice of the square, for which all weights would move between devices.
    own = weights.at[side * jnp.arange(side) + column].get(mode="fill", fill_value=0)
    return side * _first_beyond(own, uniform[1]) + column


def _column_sums(weights, side):
    """Of the weights as rows of `side`: each block sums its own as if they began a row."""

    def sums(own):
        weights, rows = own
        found = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % side))).reshape(len(weights), -1, side).sum(axis=1)
        return jnp.take_along_axis(found, (jnp.arange(side)[None, :] - rows[:, :1]) % side, axis=1)

    return blockwise_sum(sums, (weights, jnp.arange(len(weights))))


def _first_beyond(weights, uniform):
    total = weights.cumsum()
    # Partial sums are rounded apart from each other: they may grow where a weight is 0, and none may be beyond.
    beyond = (total > uniform * total[-1]) & (weights > 0)
    first = beyond.argmax()
    return jnp.where(beyond[first], first, weights.argmax()).astype(jnp.int32)
