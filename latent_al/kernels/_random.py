"""Rows drawn at random, in proportion to their weights."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._sharding import blockwise_sum


def draw_row(weights: Float[Array, " n"], uniform: Float[Array, "2"]) -> Int[Array, ""]:
    """Draws a row in proportion to its weight, and never a row of weight 0.

    The weights are laid out as a square: first a column is drawn, then a row within it.

    Args:
        weights: in [0, inf], one of them above 0.
        uniform: two numbers in [0, 1).
    """
    side = 1 + int(len(weights) ** 0.5)
    column = _first_beyond(_column_sums(weights, side), uniform[0])
    # Not a slice of the square, which would move all weights.
    column_weights = weights.at[side * jnp.arange(side) + column].get(mode="fill", fill_value=0)
    return side * _first_beyond(column_weights, uniform[1]) + column


def _column_sums(weights, side):
    """Returns the sums over the columns of the square of `side`."""

    def sums(blocks):
        weights, rows = blocks
        # A block sums its columns as if it began a row of the square, and rotates the sums afterwards.
        squares = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % side))).reshape(len(weights), -1, side)
        columns = (jnp.arange(side)[None, :] - rows[:, :1]) % side
        return jnp.take_along_axis(squares.sum(axis=1), columns, axis=1)

    return blockwise_sum(sums, (weights, jnp.arange(len(weights))))


def _first_beyond(weights, uniform):
    total = weights.cumsum()
    # Partial sums are rounded independently: they may grow where a weight is 0, and perhaps none is beyond.
    beyond = (total > uniform * total[-1]) & (weights > 0)
    first = beyond.argmax()
    return jnp.where(beyond[first], first, weights.argmax()).astype(jnp.int32)
