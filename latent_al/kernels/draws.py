"""A row at random, in proportion to its weight."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def draw_row(weights: Float[Array, " n"], uniform: Float[Array, "2"]) -> Int[Array, ""]:
    """First a column of the weights laid out as a square, then a row of it; never a row of weight 0.

    Args:
        weights: in [0, inf], one of them above 0.
        uniform: in [0, 1), each.
    """
    side = 1 + int(len(weights) ** 0.5)
    square = jnp.pad(weights, (0, side**2 - len(weights))).reshape(side, side)
    column = _first_beyond(square.sum(axis=0), uniform[0])
    return side * _first_beyond(square[:, column], uniform[1]) + column


def _first_beyond(weights, uniform):
    total = weights.cumsum()
    # Partial sums are rounded apart from each other: they may grow where a weight is 0, and none may be beyond.
    beyond = (total > uniform * total[-1]) & (weights > 0)
    first = beyond.argmax()
    return jnp.where(beyond[first], first, weights.argmax()).astype(jnp.int32)
