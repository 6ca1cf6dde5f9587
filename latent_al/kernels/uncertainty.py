"""Uncertainty of a classifier about each row: in [0, 1], 1 = most uncertain.

Source: Settles, Active Learning Literature Survey (2009), section 3.1, scaled to [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_al.kernels._checks import check_classes


class _TopTwo(NamedTuple):
    first: Array
    second: Array


class _Totals(NamedTuple):
    probs: Array
    entropies: Array


def least_confident(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Returns one minus the largest class probability, in [0, 1 - 1/c].

    Args:
        probs: class probabilities; each row sums to 1.
    """
    return 1 - probs.max(axis=1)


def margin(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Returns one minus the gap between the two largest class probabilities, in [0, 1].

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: fewer than two classes.
    """
    check_classes(probs)
    none = jnp.array(-jnp.inf, probs.dtype)
    # In one pass, without a copy of `probs` from which the largest are taken out.
    operands = _TopTwo(probs, jnp.full_like(probs, none))
    largest = jax.lax.reduce(operands, _TopTwo(none, none), _two_largest, (1,))
    return 1 - (largest.first - largest.second)


def entropy(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Returns the predictive entropy over log(c), in [0, 1].

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: fewer than two classes.
    """
    check_classes(probs)
    nats = jax.scipy.special.entr(probs).sum(axis=1)
    return jnp.minimum(nats / jnp.log(probs.shape[1]), 1)


def mutual_information(
    key: PRNGKeyArray, predict: Callable[[PRNGKeyArray], Float[Array, "n c"]], *, num_draws: int
) -> Float[Array, " n"]:
    """Returns the mutual information of a row's class and the model over log(c), in [0, 1].

    It is the entropy of the mean prediction less the mean entropy. O(n c) memory: one model predicts after the other.
    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning (2011).

    Args:
        predict: from a key to the class probabilities under a model drawn with it; each row sums to 1.
        num_draws: models to draw.

    Raises:
        ValueError: fewer than two draws, or fewer than two classes.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws is {num_draws}; expected 2 or more: one model agrees with itself.")
    keys = jax.random.split(key, num_draws)
    shape = jax.eval_shape(predict, keys[0])
    check_classes(shape)

    def add(totals, key):
        probs = predict(key)
        return _Totals(totals.probs + probs, totals.entropies + entropy(probs)), None

    start = _Totals(jnp.zeros(shape.shape, shape.dtype), jnp.zeros(shape.shape[:1], shape.dtype))
    totals = jax.lax.scan(add, start, keys)[0]
    return jnp.clip(entropy(totals.probs / num_draws) - totals.entropies / num_draws, 0, 1)


def _two_largest(x, y):
    lower = jnp.minimum(x.first, y.first)
    return _TopTwo(jnp.maximum(x.first, y.first), jnp.maximum(lower, jnp.maximum(x.second, y.second)))
