"""Membership query synthesis: Tonnaer (2017), section 7.1, after Angluin, Queries and Concept Learning (1988).

Points of the latent space, not rows of the pool, are made as uncertain as possible. Either a person labels the image
that the decoder makes of a point, or the nearest row left is queried in its place.

Points, steps and distances are in units of the latent space: distances are Euclidean, in [0, inf).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels import selection
from latent_al.kernels._loops import fori_loop
from latent_al.kernels.distances import nearest
from latent_al.strategies.uncertainty import MEASURES, probs_of
from latent_al.types import (
    BadInput,
    Encoded,
    Key,
    Pool,
    Scalar,
    Strategy,
    Synthesised,
    check_name,
    is_traced,
)

SHARE = 0.95
"""Share of the training latents that have another one within a radius of 1."""
SAMPLE = 1000
"""The minimum number of training latents whose nearest neighbours give that radius, where there are twice as many."""


def query_synthesis(*, radius: float, **settings: Any) -> Strategy:
    """Asks about latents that gradient ascent has made uncertain; the oracle is the nearest training image.

    The classifier is fitted to the points themselves. If no training image is within the radius, the decoded image
    counts as one without a label: the query is spent for nothing. The encoder needs a decoder, since people label
    images.

    Args:
        radius: distance within which the nearest training image answers, above 0; at 1 it is the distance within which
            95 % of training images have another one.

    Raises:
        BadInput: a radius that is not above 0.
    """
    if not 0 < radius < float("inf"):
        raise BadInput(
            f"radius is {radius}; expected a number above 0, where 1 is the distance within which 95 % of training "
            "images have another one: give 1, or more for an oracle that answers more often."
        )
    find = synthesiser(**settings)

    def synthesise(key, pool, num):
        points = find(key, pool, num)
        return Synthesised(points, answers(points, pool, radius=radius * pool.prepared))

    return nearest_to_synthesised(**settings)._replace(prepare=usual_distance, synthesise=synthesise)


def nearest_to_synthesised(**settings: Any) -> Strategy:
    """Selects the row left that is nearest to each point that gradient ascent has made uncertain, one after the other.

    Takes the settings of `synthesiser`. A batch of b takes O(b n d) time on top of the synthesis.
    """
    find = synthesiser(**settings)

    def query(key, pool, num):
        return selection.nearest_to(pool.latents, pool.taken, targets=find(key, pool, num))

    return Strategy(query, needs={"distinct": "synthesis"})


def synthesiser(
    *, measure: str, prior_weight: Scalar, num_restarts: int, num_steps: int, step_size: float
) -> Callable[[Key, Pool, int], Float[Array, "num d"]]:
    """Returns (key, pool, num) -> points of large uncertainty, each the best of a few ascents from random rows left.

    They climb `measure` + prior_weight * log density of N(0, I). A batch takes num_restarts * num_steps predictions
    with their gradients.

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        prior_weight: weight of the prior's log density, against an uncertainty in [0, 1]; 0 or more.
        num_restarts: ascents for each query.
        num_steps: steps of each ascent.
        step_size: length of the first step, in latent space; steps shrink linearly to nothing.

    Raises:
        BadInput: a setting outside its range; from the returned function, a pool without a classifier of latents.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    if min(num_restarts, num_steps) < 1 or not 0 < step_size < float("inf"):
        raise BadInput(
            f"synthesis has num_restarts {num_restarts}, num_steps {num_steps} and step_size {step_size}; expected "
            "1 or more of each, and a length above 0, such as 0.5."
        )
    if not is_traced(prior_weight) and not 0 <= prior_weight < float("inf"):
        raise BadInput(f"prior_weight is {prior_weight}; expected 0 or more, and finite: 0 leaves the prior out.")

    def synthesise(key, pool, num):
        probs_of("synthesis", pool)
        if pool.predict is None:
            raise BadInput(
                "synthesis climbs in latent space, but the classifier reads images; choose mlp, for example."
            )

        def score(points):
            return MEASURES[measure](pool.predict(points)) - prior_weight * (points**2).sum(axis=1) / 2

        draws = [jax.random.uniform(key, pool.taken.shape) for key in jax.random.split(key, num_restarts)]
        rows = jnp.stack([selection.top_k(draw, pool.taken, num) for draw in draws])
        starts = pool.latents.at[rows].get(mode="clip")
        return best_of_restarts(score, starts, num_steps=num_steps, step_size=step_size)

    return synthesise


def ascend(
    score: Callable[[Float[Array, "m d"]], Float[Array, " m"]],
    starts: Float[Array, "m d"],
    *,
    num_steps: int,
    step_size: float,
) -> Float[Array, "m d"]:
    """Returns where gradient ascent on the score ends from each start.

    Step t of T has the length step_size * (1 - t / T), regardless of the gradient's, which vanishes where a softmax
    saturates. A point whose gradient is zero or not finite stays. So a point moves at most step_size * (T + 1) / 2.

    Args:
        score: scores each point by itself, with a gradient.
        starts: points to begin at.
        num_steps: T, of each ascent.
        step_size: length of the first step.
    """
    gradient = jax.grad(lambda points: score(points).sum())

    def step(index, points):
        directions = gradient(points)
        largest = jnp.abs(directions).max(axis=1, keepdims=True)
        # Where a softmax saturates, a gradient may be too short to square.
        directions = jnp.where(largest < 2.0**-40, 2.0**80 * directions, directions)
        lengths = jnp.linalg.norm(directions, axis=1, keepdims=True)
        is_way = (lengths > 0) & (lengths < jnp.inf)
        units = jnp.where(is_way, directions / jnp.where(is_way, lengths, 1), 0)
        return points + step_size * (1 - index / num_steps) * units

    return fori_loop(0, num_steps, step, starts)


def best_of_restarts(
    score: Callable[[Float[Array, "m d"]], Float[Array, " m"]],
    starts: Float[Array, "restarts num d"],
    *,
    num_steps: int,
    step_size: float,
) -> Float[Array, "num d"]:
    """Returns for each query the best of the points where `ascend` ends; ties go to the first restart.

    Args:
        score: scores each point by itself, with a gradient.
        starts: the start of each restart and query.
        num_steps: steps of each ascent.
        step_size: length of the first step.
    """
    restarts, num, width = starts.shape
    points = ascend(score, starts.reshape(-1, width), num_steps=num_steps, step_size=step_size)
    best = score(points).reshape(restarts, num).argmax(axis=0)
    return points.reshape(restarts, num, width)[best, jnp.arange(num)]


def answers(points: Float[Array, "num d"], pool: Pool, *, radius: Float[Array, ""] | float) -> Int[Array, " num"]:
    """Returns the oracle's answers: the row of the nearest training latent, and n where it is beyond the radius.

    Args:
        points: the points that are asked about.
        pool: the whole training set.
        radius: Euclidean distance in latent space.
    """
    nearest_rows = nearest(points, pool.latents, pool.holds_row)
    return jnp.where(nearest_rows.sq_distances <= radius**2, nearest_rows.rows, pool.taken.shape[0]).astype(jnp.int32)


def usual_distance(encoded: Encoded) -> Float[Array, ""]:
    """Returns the distance within which `SHARE` of the training latents have another one.

    It is a quantile of the distances of evenly spaced rows to the nearest of the rows between them. These are every
    second row or, in a larger training set, at least `SAMPLE` rows.

    Args:
        encoded: the training set, latents [n d].
    """
    size = encoded.latents.shape[0]
    stride = max(2, size // SAMPLE)
    nearest_rows = nearest(encoded.latents[::stride], encoded.latents, jnp.arange(size) % stride != 0)
    return jnp.quantile(jnp.sqrt(nearest_rows.sq_distances), SHARE)
