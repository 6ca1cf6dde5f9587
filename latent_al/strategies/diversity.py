"""Batches whose members lie apart: Tonnaer (2017), section 3.4.3."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from latent_al import kernels
from latent_al.kernels import distances
from latent_al.strategies.representativeness import REPRESENTATIVENESS
from latent_al.strategies.uncertainty import MEASURES, measured
from latent_al.types import BadInput, Scalar, Spec, Strategy, build, check_name, is_traced

DISTANCES: dict[str, Callable[..., Array]] = {
    "euclidean": distances.euclidean_to_point,
    "squared_euclidean": distances.squared_euclidean_to_point,
    "half_cosine": distances.half_cosine_to_point,
    "jeffreys": distances.jeffreys_to_point,
}


def greedy_diverse(
    *, measure: str, representativeness: Spec | None, alpha: Scalar, beta: float, distance: str
) -> Strategy:
    """Selects, row by row, for the largest weighted sum of uncertainty, representativeness and distance to the batch.

    The weights are alpha, beta and 1 - alpha - beta; the first row has no batch to be distant from. Distances are
    divided by twice the largest one from the origin in the whole training set, except for the half cosine distance,
    which already lies in [0, 1]. A round takes O(n c + b n d) time for a batch of b, and O(n) memory.

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        representativeness: a spec from the table, or None where beta is 0.
        alpha: weight of uncertainty.
        beta: weight of representativeness; alpha + beta is at most 1.
        distance: `euclidean`, `squared_euclidean`, `half_cosine` or `jeffreys`.

    Raises:
        BadInput: an unknown name, weights outside their range, a pool without predictions.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(distance, DISTANCES, "distance")
    if not is_traced(alpha) and not (alpha >= 0 and beta >= 0 and alpha + beta <= 1):
        raise BadInput(f"alpha is {alpha} and beta {beta}; expected weights of 0 or more that sum to at most 1.")
    if (representativeness is None) != (beta == 0):
        raise BadInput(f"beta is {beta} and representativeness {representativeness}; give both, or 0 and None.")
    represent: Any = None
    if representativeness is not None:
        represent = build(REPRESENTATIVENESS, representativeness, "representativeness measure")
    is_jeffreys, is_cosine = distance == "jeffreys", distance == "half_cosine"

    def points_of(latents, log_sigma):
        return (latents, log_sigma) if is_jeffreys else latents

    def prepare(encoded):
        """Returns the representativeness of each row and the divisor of distances, NaN where there is none."""
        represented = represent.measure(encoded) if beta else None
        if is_cosine:
            return represented, jnp.float32(1)
        # Nothing is refused inside `jit`: a missing distance is NaN, and is refused with all that is prepared.
        diameter = jax.jit(partial(distances.diameter, distance=DISTANCES[distance]))
        scale = diameter(points_of(encoded.latents, encoded.log_sigma))
        return represented, jnp.where(jnp.isfinite(scale), scale, jnp.nan)

    def query(key, pool, num):
        del key
        represented, scale = pool.prepared
        score = alpha * measured(measure, pool)
        if beta:
            score = score + beta * pool.gather(represented)
        weight = jnp.maximum(0.0, 1 - alpha - beta) / scale
        points = points_of(pool.latents, pool.log_sigma)
        return kernels.greedy_diverse(score, points, pool.taken, num, distance=DISTANCES[distance], weight=weight)

    needs = {"distinct": distance} | (dict(represent.needs) if beta else {})
    needs |= {"log_sigma": "jeffreys"} if is_jeffreys else {}
    needs |= {"nonzero": "half_cosine"} if is_cosine else {}
    return Strategy(query, prepare, needs=needs)
