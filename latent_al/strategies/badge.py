"""Rows whose labels would change the classifier's last layer a lot."""

import jax.numpy as jnp

from latent_al import kernels
from latent_al.strategies.uncertainty import PICKS, features_of, probs_of
from latent_al.types import Strategy, check_name


def badge() -> Strategy:
    """Selects rows whose labels would move the classifier's last layer far, in different directions: `kernels.badge`.

    Source: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds (2020).

    A round takes O(b n (c + f)) time and O(n c) memory for a batch of b of n rows, c classes and f features.

    Raises:
        BadInput: a pool without predictions or features.
    """

    def query(key, pool, num):
        return kernels.badge(key, probs_of("badge", pool), features_of("badge", pool), pool.taken, num)

    return Strategy(query)


def expected_gradient_length(*, pick: str) -> Strategy:
    """Selects rows with the largest expected norm of the gradient of the loss with respect to the last layer's weights.

    The expectation is over the classes, under the classifier's probabilities; the bias is left out. A round takes
    O(n (c + f)) time and O(n c) memory for n rows, c classes and f features.

    Args:
        pick: `top_k`, or `random_partitions` for a batch with less redundancy.

    Raises:
        BadInput: an unknown pick, a pool without predictions or features.

    Source: Settles, Craven and Ray (2008).
    """
    check_name(pick, PICKS, "pick")

    def query(key, pool, num):
        name = "expected_gradient_length"
        probs, features = probs_of(name, pool), features_of(name, pool)
        return PICKS[pick](key, _expected_length(probs) * jnp.linalg.norm(features, axis=1), pool.taken, num)

    return Strategy(query)


def _expected_length(probs):
    """Returns the mean length of probs - e_c over the classes c; features times it are the gradient."""
    is_likeliest = probs.argmax(axis=1)[:, None] == jnp.arange(probs.shape[1])[None, :]
    squares = (probs**2).sum(axis=1, keepdims=True) - 2 * probs + 1
    # For the likeliest class these terms would cancel where the classifier is sure.
    of_likeliest = jnp.where(is_likeliest, (1 - probs) ** 2, probs**2).sum(axis=1, keepdims=True)
    return (probs * jnp.sqrt(jnp.where(is_likeliest, of_likeliest, squares))).sum(axis=1)
