"""Rows that lie far apart: Philipsen and Moeslund, Distance in Latent Space as Novelty Measure (2020)."""

import jax
import jax.numpy as jnp

from latent_al import kernels
from latent_al.kernels._sharding import top_k_mask
from latent_al.strategies.uncertainty import MEASURES, YOUR_LEARNER, measured
from latent_al.types import BadInput, Strategy, check_name

SPACES = ("features", "latents")


def farthest_first() -> Strategy:
    """Selects one by one the row farthest, in latent space, from all labelled and selected; the very first at random.

    A round takes at most O((m + b) n d) time for a batch of b and m labels, and O(n) memory.
    """

    def query(key, pool, num):
        first = jax.random.categorical(key, jnp.where(pool.taken, -jnp.inf, 0))
        return kernels.farthest_first(pool.latents, pool.taken, num, first=first)

    return Strategy(query, needs={"distinct": "farthest_first"})


def coreset() -> Strategy:
    """Selects as `farthest_first` does, but in the features that the classifier or regressor has learned.

    A round takes at most O((m + b) n f) time for a batch of b, m labels and f features, and O(n) memory.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach (2018), greedy.

    Raises:
        BadInput: a pool without features.
    """

    def query(key, pool, num):
        del key
        return kernels.farthest_first(_points("features", pool), pool.taken, num)

    return Strategy(query)


def uncertain_farthest_first(*, measure: str, share: float, space: str) -> Strategy:
    """Selects farthest first among the share of the pool that the classifier is least sure of.

    A round takes O(n c) and at most O((m + b) n d) time for a batch of b and m labels, and O(n) memory.

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        share: share of the pool, in (0, 1]; at least as many rows as the batch.
        space: `latents`, or `features` of the classifier.

    Raises:
        BadInput: an unknown name, a share outside its range, a pool without predictions.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(space, SPACES, "space")
    if not 0 < share <= 1:
        raise BadInput(f"share is {share}; expected a share of the pool in (0, 1].")

    def query(key, pool, num):
        del key
        uncertainty = jnp.where(pool.taken, -1, measured(measure, pool))
        num_included = jnp.maximum(num, jnp.round(share * pool.holds_row.sum(dtype=float)).astype(jnp.int32))
        included = top_k_mask(uncertainty, num_included)
        return kernels.farthest_first(_points(space, pool), pool.taken, num, included=included)

    return Strategy(query)


def _points(space, pool):
    if space == "features" and pool.features is None:
        raise BadInput(
            "features are the classifier's: there are none when the initial labelled set is queried; set "
            f"config.initial to a strategy that reads latents only, such as farthest_first.{YOUR_LEARNER}"
        )
    return getattr(pool, space)
