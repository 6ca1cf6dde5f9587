"""How unsure a classifier is of each row: in [0, 1], 1 = most uncertain.

Source: Settles, Active Learning Literature Survey (2009), section 3.1, scaled to [0, 1].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    is_best = jnp.arange(probs.shape[1])[None, :] == probs.argmax(axis=1, keepdims=True)
    second = jnp.where(is_best, -jnp.inf, probs).max(axis=1)
    return 1 - (probs.max(axis=1) - second)


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


def _check_classes(probs):
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise ValueError(f"probs has shape {probs.shape}; expected [rows, classes] with 2 classes or more.")
