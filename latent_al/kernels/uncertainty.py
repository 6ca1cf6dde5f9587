"""Uncertainty of a classifier about each row: in [0, 1], 1 = most uncertain.

Outside `jit`, values that are not probabilities, such as logits, are refused. Results are clamped, since the
probabilities of a row sum to 1 only up to rounding.

Source: Settles, Active Learning Literature Survey (2009), section 3.1, scaled to [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_al.kernels._checks import is_concrete
from latent_al.kernels._conditions import PROBABILITIES, check_classes
from latent_al.kernels._kernel import compiled, kernel
from latent_al.kernels._loops import scan
from latent_al.kernels.distances import clamped


class _TopTwo(NamedTuple):
    first: Array
    second: Array


class _Totals(NamedTuple):
    probs: Float[Array, "n c"]
    entropies: Float[Array, " n"]


@kernel(probs=PROBABILITIES)
def least_confident(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Returns one minus the largest class probability, in [0, 1 - 1/c].

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: there are fewer than two classes, or a row does not hold probabilities.
    """
    check_classes(probs)
    return clamped(1 - probs.max(axis=1))


@kernel(probs=PROBABILITIES)
def margin(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Returns one minus the gap between the two largest class probabilities, in [0, 1].

    Its gradient is that of the two largest; among equal ones, that of the first.

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: there are fewer than two classes, or a row does not hold probabilities.
    """
    check_classes(probs)
    largest = _top_two(probs)
    return clamped(1 - (largest.first - largest.second))


@kernel(probs=PROBABILITIES)
def entropy(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Returns the predictive entropy over log(c), in [0, 1].

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: there are fewer than two classes, or a row does not hold probabilities.
    """
    return _entropy(probs)


@kernel(is_compiled=False)
def mutual_information(
    key: PRNGKeyArray, predict: Callable[[PRNGKeyArray], Float[Array, "n c"]], *, num_draws: int
) -> Float[Array, " n"]:
    """Returns the mutual information between a row's class and the model over log(c), in [0, 1].

    It is the entropy of the mean prediction minus the mean entropy. O(n c) memory: the models predict one after the
    other. Outside `jit` nothing is compiled except what `predict` compiles.
    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning (2011).

    Args:
        predict: maps a key to the class probabilities under a model drawn with it; each row sums to 1.
        num_draws: number of models to draw.

    Raises:
        ValueError: there are fewer than two draws or fewer than two classes, or a row does not hold probabilities.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws is {num_draws}; expected 2 or more: one model agrees with itself.")
    keys = jax.random.split(key, num_draws)
    probs = predict(keys[0])
    entropies = entropy(probs)
    totals = _Totals(jnp.asarray(probs, entropies.dtype), entropies)
    if is_concrete(totals):
        for index in range(1, num_draws):
            probs = predict(keys[index])
            totals = _added(totals, probs, entropy(probs))
    else:

        def add(totals, key):
            probs = predict(key)
            return _added(totals, probs, entropy(probs)), None

        totals = scan(add, totals, keys[1:])[0]
    return _information(totals, num_draws)


def entropy_terms(probs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns -p log(p), with a finite gradient at 0, where a saturated softmax has a gradient of zero."""
    return -probs * jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))


@compiled
def _added(totals: _Totals, probs: Float[Array, "n c"], entropies: Float[Array, " n"]) -> _Totals:
    return _Totals(totals.probs + probs, totals.entropies + entropies)


@compiled
def _information(totals: _Totals, num_draws: int) -> Float[Array, " n"]:
    return jnp.clip(_entropy(totals.probs / num_draws) - totals.entropies / num_draws, 0, 1)


def _entropy(probs):
    check_classes(probs)
    return clamped(jnp.minimum(entropy_terms(probs).sum(axis=1) / jnp.log(probs.shape[1]), 1))


@jax.custom_jvp
def _top_two(probs):
    """Returns the two largest values of each row in one pass, without a copy of the array less its largest values."""
    none = jnp.array(-jnp.inf, probs.dtype)
    return jax.lax.reduce(_TopTwo(probs, jnp.full_like(probs, none)), _TopTwo(none, none), _two_largest, (1,))


@_top_two.defjvp
def _change_of_top_two(primals, tangents):
    (probs,) = primals
    (changes,) = tangents
    is_first = jnp.arange(probs.shape[1])[None, :] == probs.argmax(axis=1)[:, None]
    without_first = jnp.where(is_first, -jnp.inf, probs)
    is_second = jnp.arange(probs.shape[1])[None, :] == without_first.argmax(axis=1)[:, None]
    changes = _TopTwo(jnp.where(is_first, changes, 0).sum(axis=1), jnp.where(is_second, changes, 0).sum(axis=1))
    return _top_two(probs), changes


def _two_largest(x, y):
    lower = jnp.minimum(x.first, y.first)
    return _TopTwo(jnp.maximum(x.first, y.first), jnp.maximum(lower, jnp.maximum(x.second, y.second)))
