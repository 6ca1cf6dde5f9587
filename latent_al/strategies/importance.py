"""Importance-based active learning (IBAL), with the distance to what is labelled.

Importance is divided by its largest absolute value over the rows left, and the distance of each row to the nearest
labelled one, in latent space, by its largest: only so does a weight between them mean anything. The weight l2 of the
last layer and the number of labels, factors of importance alone, fall out of it.

Source: Pezeshkpour, Zhao and Singh, Data Importance-Based Active Learning for Limited Labels (2020).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.kernels.distances import squared_to
from latent_al.kernels.shards import added, at_row
from latent_al.strategies.farthest import check_apart
from latent_al.strategies.uncertainty import measured
from latent_al.types import UNLABELLED, BadInput, Pool, Strategy


def ibal() -> Strategy:
    """Rows of the smallest importance: their labels would disagree most with what is labelled.

    Meant for a classifier whose last layer is `refitted`.

    Raises:
        BadInput: a pool without predictions.
    """

    def select(key, pool, num):
        del key
        return kernels.top_k(-normalised_importance(pool), pool.taken, num)

    return Strategy(select, measures=MEASURES)


def ibal_d(*, gamma: float | Sequence[float]) -> Strategy:
    """Rows of the smallest importance - gamma * distance.

    Args:
        gamma: weight of the distance, 0 or more; of several, validation data choose.

    Raises:
        BadInput: no gamma or a negative one, a pool without predictions, latents that are all equal or not finite.
    """
    strategy = _with_distance("ibal_d", gamma, lambda pool: -normalised_importance(pool))
    return strategy._replace(measures=MEASURES)


def entropy_d(*, gamma: float | Sequence[float]) -> Strategy:
    """Rows of the largest entropy + gamma * distance.

    Args:
        gamma: weight of the distance, 0 or more; of several, validation data choose.

    Raises:
        BadInput: as for `ibal_d`.
    """
    return _with_distance("entropy_d", gamma, lambda pool: measured("entropy", pool))


def distance() -> Strategy:
    """Rows farthest, in latent space, from all that is labelled; of one batch they may lie together.

    Raises:
        BadInput: a first batch, which has nothing to be distant from; latents that are all equal or not finite.
    """

    def select(key, pool, num):
        del key
        return kernels.top_k(_normalised_distance(pool), pool.taken, num)

    return Strategy(select, _far, _follow, check=check_apart)


def normalised_importance(pool: Pool) -> Float[Array, " n"]:
    """Importance over its largest absolute value among the rows left, there in [-1, 1].

    Raises:
        BadInput: a pool without predictions.
    """
    if pool.probs is None or pool.features is None:
        raise BadInput(
            "importance needs a classifier's predictions, and a first batch has none, nor a regressor; set "
            "config.initial, or the arm's strategy, to one that reads latents only, such as random."
        )
    marks = (pool.labels != UNLABELLED).astype(pool.features.dtype)
    labelled = added(lambda own: jnp.einsum("lb,lbf->lf", *own), (marks, pool.features))
    return _over_largest(kernels.importance(pool.probs, pool.features, labelled, 1, 0.5), pool)


MEASURES = {
    "importance": normalised_importance,
    "entropy": lambda pool: measured("entropy", pool),
    "confidence": lambda pool: pool.probs.max(axis=1),
}
"""What the paper's Figure 4 sets side by side."""


def _with_distance(name, gamma, score):
    gammas = (gamma,) if isinstance(gamma, (int, float)) else tuple(gamma)
    if not gammas or not all(0 <= each < math.inf for each in gammas):
        raise BadInput(f"{name} has gamma {gamma}; expected one weight of 0 or more, or several to choose from.")

    def select(key, pool, num):
        del key
        return kernels.top_k(score(pool) + pool.gamma * _normalised_distance(pool), pool.taken, num)

    return Strategy(select, _far, _follow, gammas, check=check_apart)


def _far(train):
    """Squared distances to what is labelled while nothing is."""
    check_apart(train)
    return jnp.full_like(train.latents[:, 0], jnp.inf)


def _follow(sq_distances, train, queried, low, high):
    def nearer(place, sq_distances):
        return jnp.minimum(sq_distances, squared_to(train.latents, at_row(train.latents, queried[place])))

    return jax.lax.fori_loop(low, high, nearer, sq_distances)


def _normalised_distance(pool):
    if pool.features is None:
        raise BadInput(
            "a first batch has nothing labelled to be distant from; set config.initial to another strategy, such as "
            "farthest_first."
        )
    sq_distances = pool.of_pool(pool.prepared)
    return _over_largest(jnp.sqrt(jnp.where(jnp.isinf(sq_distances), 0, sq_distances)), pool)


def _over_largest(values, pool):
    largest = jnp.where(pool.taken, 0, jnp.abs(values)).max()
    return values / jnp.where(largest > 0, largest, 1)
