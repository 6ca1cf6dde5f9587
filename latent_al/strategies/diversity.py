"""Batches whose members lie apart: the thesis on active learning in VAE latent space, section 3.4.3."""

import jax
import jax.numpy as jnp

from latent_al import kernels
from latent_al.kernels import distances
from latent_al.strategies.representativeness import REPRESENTATIVENESS, check_within
from latent_al.strategies.uncertainty import MEASURES, measured
from latent_al.types import BadInput, Spec, Strategy, build, check_name

DISTANCES = {
    "euclidean": distances.euclidean_to,
    "squared_euclidean": distances.squared_to,
    "half_cosine": distances.half_cosine_to,
    "jeffreys": distances.jeffreys_to,
}


def greedy_diverse(
    *, measure: str, representativeness: Spec | None, alpha: float, beta: float, distance: str
) -> Strategy:
    """Row by row the largest sum of uncertainty, representativeness and distance to the batch so far, weighted.

    The weights are alpha, beta and 1 - alpha - beta; the first row has no batch to be distant from.

    Distances are divided by twice the largest one from the origin in the whole training set, the half cosine distance
    excepted, which lies in [0, 1] as it is.

    Args:
        measure: of uncertainty: `least_confident`, `margin` or `entropy`.
        representativeness: a spec from the table, or None where beta is 0.
        alpha: weight of uncertainty.
        beta: weight of representativeness; alpha + beta is at most 1.
        distance: `euclidean`, `squared_euclidean`, `half_cosine` or `jeffreys`.

    Raises:
        BadInput: an unknown name, weights outside their range, a Jeffreys divergence over an encoder without spread,
            zero vectors under cosine, latents that are all equal or too far out, a pool without predictions.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(distance, DISTANCES, "distance")
    if not (alpha >= 0 and beta >= 0 and alpha + beta <= 1):
        raise BadInput(f"alpha is {alpha} and beta {beta}; expected weights of 0 or more that sum to at most 1.")
    if (representativeness is None) != (beta == 0):
        raise BadInput(f"beta is {beta} and representativeness {representativeness}; give both, or 0 and None.")
    represent = build(REPRESENTATIVENESS, representativeness, "representativeness measure") if beta else None
    to = DISTANCES[distance]

    def prepare(train):
        return represent and represent(train), max(0.0, 1 - alpha - beta) / _scale(
            distance, _points(distance, train.latents, train.log_sigma)
        )

    def select(key, pool, num):
        del key
        represented, weight = pool.prepared
        score = alpha * measured(measure, pool)
        if beta:
            score = score + beta * pool.of_pool(represented)
        points = _points(distance, pool.latents, pool.log_sigma)
        return kernels.greedy_diverse(score, points, pool.taken, num, to=to, weight=weight)

    def check(train):
        if beta:
            check_within(representativeness, train)
        # The smallest coordinates of all may be zero where no latent is.
        spanned = "euclidean" if distance == "half_cosine" else distance
        _scale(spanned, _points(spanned, train.latents, train.log_sigma))

    return Strategy(select, prepare, check=check)


def _points(distance, latents, log_sigma):
    if distance != "jeffreys":
        return latents
    if log_sigma is None:
        raise BadInput(
            "jeffreys needs the spread of each latent, which this encoder does not give; "
            "choose a variational auto-encoder, or a distance of points such as euclidean."
        )
    return latents, log_sigma


def _scale(distance, points):
    """What a distance is divided by."""
    leaves = jax.tree.leaves(points)
    if not isinstance(leaves[0], jax.core.Tracer) and all((each == each[:1]).all() for each in leaves):
        raise ValueError(f"all {len(leaves[0])} latents are equal, and none lies apart; choose another encoder.")
    if distance == "half_cosine":
        zero = ~points.any(axis=1)
        if not isinstance(zero, jax.core.Tracer) and zero.any():
            raise ValueError(
                f"{zero.sum()} of {zero.size} latents are zero, without direction; choose another distance."
            )
        # Where rows are not known yet, what is prepared says it.
        return jnp.where(zero.any(), jnp.nan, jnp.float32(1))
    scale = distances.diameter(DISTANCES[distance], points)
    if not isinstance(scale, jax.core.Tracer) and not jnp.isfinite(scale):
        raise ValueError(f"the largest {distance} distance from the origin is {scale}; choose another distance.")
    return scale
