"""Rows that lie far apart: Philipsen and Moeslund, Distance in Latent Space as Novelty Measure (2020)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.kernels.shards import is_highest
from latent_al.strategies.uncertainty import MEASURES, measured
from latent_al.types import BadInput, Encoded, Strategy, check_name

SPACES = ("features", "latents")


def farthest_first() -> Strategy:
    """Row by row the one farthest, in latent space, from all that is labelled or picked; the first of all at random.

    Raises:
        ValueError: latents that are all equal or not finite.
    """

    def select(key, pool, num):
        first = jax.random.categorical(key, jnp.where(pool.taken, -jnp.inf, 0))
        return kernels.farthest_first(pool.latents, pool.taken, num, first=first)

    return Strategy(select, check_apart, check=check_apart)


def coreset() -> Strategy:
    """`farthest_first` in the features that the classifier, or regressor, has learned.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach (2018), greedy.

    Raises:
        BadInput: a pool without features.
    """

    def select(key, pool, num):
        del key
        return kernels.farthest_first(_points("features", pool), pool.taken, num)

    return Strategy(select)


def uncertain_farthest_first(*, measure: str, share: float, space: str) -> Strategy:
    """Of the rows left, the share that the classifier is least sure of; among these farthest first.

    Args:
        measure: of uncertainty: `least_confident`, `margin` or `entropy`.
        share: of the pool, in (0, 1]; as many rows as the batch at least.
        space: `latents`, or `features` of the classifier.

    Raises:
        BadInput: an unknown name, a share outside its range, a pool without predictions.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(space, SPACES, "space")
    if not 0 < share <= 1:
        raise BadInput(f"share is {share}; expected a share of the pool in (0, 1].")

    def select(key, pool, num):
        del key
        uncertainty = jnp.where(pool.taken, -1, measured(measure, pool))
        eligible = is_highest(uncertainty, max(num, round(share * len(pool.taken))))
        return kernels.farthest_first(_points(space, pool), pool.taken, num, eligible=eligible)

    return Strategy(select)


def check_apart(train: Encoded) -> None:
    """`check_latents`, as `Strategy.prepare` or `Strategy.check`."""
    check_latents(train.latents)


def check_latents(latents: Float[Array, "n d"]) -> None:
    """Raises ValueError where no known latent lies apart from the others."""
    if isinstance(latents, jax.core.Tracer):
        return
    known = np.asarray(latents)
    if not np.isfinite(known).all():
        raise ValueError("some latents are NaN or infinite; train the encoder with a lower learning_rate.")
    if (known == known[:1]).all():
        raise ValueError("all latents are equal, and none lies apart; choose another encoder.")


def _points(space, pool):
    if space == "features" and pool.features is None:
        raise BadInput(
            "features are the classifier's, and a first batch has none; set config.initial to a strategy that reads "
            "latents only, such as farthest_first."
        )
    return getattr(pool, space)
