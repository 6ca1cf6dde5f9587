"""How unsure a classifier is of each row: in [0, 1], 1 = most uncertain.

Source: Settles, Active Learning Literature Survey (2009), section 3.1, scaled to [0, 1].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def least_confident(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """One minus the largest class probability, in [0, 1 - 1/c].

    Args:
        probs: class probabilities; each row sums to 1.
    """
    return 1 - probs.max(axis=1)


def margin(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """One minus the gap between the two largest class probabilities, in [0, 1].

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: fewer than two classes.
    """
    _check_classes(probs)
    none = jnp.array(-jnp.inf, probs.dtype)
    # In one pass, without a copy of `probs` from which the largest are taken out.
    first, second = jax.lax.reduce((probs, jnp.full_like(probs, none)), (none, none), _two_largest, (1,))
    return 1 - (first - second)


def entropy(probs: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Predictive entropy over log(c), in [0, 1].

    Args:
        probs: class probabilities; each row sums to 1.

    Raises:
        ValueError: fewer than two classes.
    """
    _check_classes(probs)
    nats = jax.scipy.special.entr(probs).sum(axis=1)
    return jnp.minimum(nats / jnp.log(probs.shape[1]), 1)


def mutual_information(
    key: PRNGKeyArray, draw: Callable[[PRNGKeyArray], Float[Array, "n c"]], num_draws: int
) -> Float[Array, " n"]:
    """How much a row's class tells of the model, over log(c), in [0, 1]: entropy of the mean less mean entropy.

    O(n c) memory: one draw is made after the other. Source: Houlsby et al., Bayesian Active Learning for Classification
    and Preference Learning (2011).

    Args:
        draw: the class probabilities under a model drawn with this key; each row sums to 1.
        num_draws: models to draw.

    Raises:
        ValueError: fewer than two draws, or fewer than two classes.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws is {num_draws}; expected 2 or more: one model agrees with itself.")
    keys = jax.random.split(key, num_draws)
    shape = jax.eval_shape(draw, keys[0])
    _check_classes(shape)

    def add(carry, key):
        probs = draw(key)
        return (carry[0] + probs, carry[1] + entropy(probs)), None

    start = jnp.zeros(shape.shape, shape.dtype), jnp.zeros(shape.shape[:1], shape.dtype)
    (probs, entropies), _ = jax.lax.scan(add, start, keys)
    return jnp.clip(entropy(probs / num_draws) - entropies / num_draws, 0, 1)


def _two_largest(one, other):
    (first, second), (third, fourth) = one, other
    return jnp.maximum(first, third), jnp.maximum(jnp.minimum(first, third), jnp.maximum(second, fourth))


def _check_classes(probs):
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise ValueError(f"probs has shape {probs.shape}; expected [rows, classes] with 2 classes or more.")
