"""t-SNE: the probability that two rows are neighbours, and how far latents are from having the same probabilities.

P and Q are [n n], symmetric, with a diagonal of zero and a sum of 1. Distances are sums of squared differences: those
from a matrix product have an error of a rounding of the rows' squares, which the calibration magnifies where a row has
more near copies than its perplexity. With images 0.001 apart at each pixel, two thirds of its probability went astray.

Source: van der Maaten and Hinton, Visualizing Data using t-SNE (2008), sections 2 and 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_al.kernels._checks import FINITE
from latent_al.kernels._conditions import OFF_DIAGONAL, PERPLEXITY
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop
from latent_al.kernels.distances import squared_euclidean_to_point

NUM_STEPS = 10
"""Steps of the search for a precision: as many as any set tried has needed to be within 1e-3 of its perplexity."""
TOLERANCE = 1e-5
"""Nats from the target at which a row's search stops, as in scikit-learn."""


class _Entropy(NamedTuple):
    nats: Array
    slope: Array


class _Search(NamedTuple):
    at: Array
    low: Array
    high: Array
    last: Array


@kernel(perplexity=PERPLEXITY)
def joint_probabilities(points: Float[Array, "n d"], *, perplexity: Float[Array, ""] | float) -> Float[Array, "n n"]:
    """Returns P: the mean of the conditional probabilities of a pair, either row given the other, over n; in [0, 1].

    O(n^2 d) time, O(n^2) memory.

    Args:
        perplexity: as for `conditional_probabilities`.

    Raises:
        ValueError: `perplexity` is not in [1, n), or a coordinate is NaN, infinite or too large to square.
    """
    conditional = _conditional_probabilities(_squared_distances(points), perplexity)
    return (conditional + conditional.T) / (2 * points.shape[0])


@kernel(sq_distances=OFF_DIAGONAL, perplexity=PERPLEXITY)
def conditional_probabilities(
    sq_distances: Float[Array, "n n"], *, perplexity: Float[Array, ""] | float
) -> Float[Array, "n n"]:
    """Returns for each row a Gaussian over the other rows, with the width that gives it `perplexity`.

    Rows sum to 1, and the diagonal is zero.

    Where more nearest neighbours of a row tie than `perplexity`, they share its probability evenly; where there are
    fewer other rows than `perplexity`, all of them do. A search finds the width, and its last steps carry the
    derivatives, up to the third.

    Args:
        sq_distances: squared Euclidean distances; the diagonal is not read.
        perplexity: exp(entropy in nats), the effective number of neighbours; may be traced.

    Raises:
        ValueError: `perplexity` is not in [1, n), or a distance is NaN or infinite.
    """
    return _conditional_probabilities(sq_distances, perplexity)


@kernel()
def student_t(latents: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """Returns Q: 1 / (1 + squared distance), Student's t with one degree of freedom, over its sum: in [0, 1].

    Args:
        latents: coordinates of two rows or more.

    Raises:
        ValueError: there are fewer than two rows, or a number is NaN, infinite or too large to square.
    """
    _check_pairs(latents)
    sq_distances = _squared_distances(latents)
    weights = jnp.where(_is_other(sq_distances), 1 / (1 + sq_distances), 0)
    return weights / weights.sum()


@kernel(p=FINITE)
def tsne_divergence(p: Float[Array, "n n"], latents: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns KL(P || Q) in nats, at least 0 up to rounding, where Q is `student_t(latents)`.

    Args:
        p: joint probabilities, with a diagonal of zero and a sum of 1.
        latents: coordinates of two rows or more.

    Raises:
        ValueError: there are fewer than two rows, or a number is NaN, infinite or too large to square.
    """
    _check_pairs(latents)
    sq_distances = _squared_distances(latents)
    log_p = jnp.log(jnp.where(p > 0, p, 1))
    log_weights = -jnp.log1p(sq_distances)
    # The gradient of a plain sum of weights would lose the squares of small ones.
    return (p * (log_p - log_weights)).sum() + jax.nn.logsumexp(log_weights, where=_is_other(sq_distances))


def _conditional_probabilities(sq_distances, perplexity):
    return jax.vmap(_calibrated, (0, 0, None))(sq_distances, _is_other(sq_distances), jnp.log(perplexity))


def _calibrated(sq_distances, is_other, log_perplexity):
    """Returns the conditional probabilities of one row."""
    nearest = jax.lax.stop_gradient(jnp.where(is_other, sq_distances, jnp.inf).min())
    gaps = jnp.where(is_other, sq_distances - nearest, 0)
    low, high = _bracket(jax.lax.stop_gradient(gaps), log_perplexity)
    # In units in which the bracket is symmetric about zero, and squares of gaps neither overflow nor vanish.
    gaps = gaps * jnp.exp((low + high) / 2)
    log_precision = _search(jax.lax.stop_gradient(gaps), is_other, log_perplexity, (high - low) / 2)
    weights = _gaussian(gaps, is_other, _polished(gaps, is_other, log_perplexity, log_precision))
    return weights / weights.sum()


def _bracket(gaps, log_perplexity):
    """Returns log precisions that give more and less than the perplexity, unless ties keep it out of reach.

    By Jensen's inequality the entropy is at least log(n - 1) - precision * mean gap. Where the smallest gap has
    exp(-17) / n of the weight of the nearest, a float32 sees nothing but the nearest and their ties.
    """
    log_num_others = jnp.log(gaps.shape[0] - 1)
    # Equal rows have no gaps; below this a precision overflows.
    least = 1e3 * jnp.finfo(gaps.dtype).tiny
    mean = jnp.maximum(gaps.sum() / (gaps.shape[0] - 1), least)
    smallest = jnp.maximum(jnp.where(gaps > 0, gaps, jnp.inf).min(), least)
    low = jnp.log(jnp.maximum(log_num_others - log_perplexity, 1e-6)) - jnp.log(mean)
    return low, jnp.maximum(low, jnp.log(log_num_others + 17) - jnp.log(smallest))


def _search(gaps, is_other, log_perplexity, reach):
    """Returns the log precision in [-reach, reach].

    Steps are Newton's, or halve the bracket where those leave it or stall.
    """

    def step(_, state):
        entropy = _entropy(gaps, is_other, state.at)
        excess = entropy.nats - log_perplexity
        low = jnp.where(excess > 0, state.at, state.low)
        high = jnp.where(excess > 0, state.high, state.at)
        newton = state.at - excess / entropy.slope
        is_better = (low < newton) & (newton < high) & (abs(excess) < state.last / 2)
        following = jnp.where(is_better, newton, (low + high) / 2)
        return _Search(jnp.where(abs(excess) < TOLERANCE, state.at, following), low, high, abs(excess))

    start = _Search(jnp.zeros_like(reach), -reach, reach, jnp.full_like(reach, jnp.inf))
    return fori_loop(0, NUM_STEPS, step, start).at


def _polished(gaps, is_other, log_perplexity, log_precision):
    """Returns the precision after two more steps, which carry the derivatives of the root; no steps without a root.

    A Newton step carries the first derivative, a second one the next two.
    """
    for _ in range(2):
        entropy = _entropy(gaps, is_other, log_precision)
        excess = entropy.nats - log_perplexity
        is_root = abs(excess) < -0.1 * entropy.slope
        log_precision -= jnp.where(is_root, excess, 0) / jnp.where(is_root, entropy.slope, 1)
    return log_precision


def _entropy(gaps, is_other, log_precision):
    """Returns the entropy, and its slope over the log precision, in (-inf, 0]."""
    weights = _gaussian(gaps, is_other, log_precision)
    precision = jnp.exp(log_precision)
    total = weights.sum()
    mean = precision * ((weights * gaps).sum() / total)
    square = precision**2 * ((weights * gaps * gaps).sum() / total)
    return _Entropy(jnp.log(total) + mean, mean**2 - square)


def _gaussian(gaps, is_other, log_precision):
    return jnp.where(is_other, jnp.exp(-jnp.exp(log_precision) * gaps), 0)


@jax.custom_jvp
def _squared_distances(rows):
    return jax.vmap(squared_euclidean_to_point, (None, 0))(rows, rows)


@_squared_distances.defjvp
def _change_of_squared_distances(primals, tangents):
    (rows,) = primals
    (changes,) = tangents
    # XLA would keep the [n n d] differences if it saw that the distances are made of the same ones.
    same_rows = jax.lax.optimization_barrier(rows)

    def half(row, change):
        # Not twice the sum, which jax 0.10.2 computes wrongly on CPUs for a batch of more than 2**15 pairs.
        return ((row[None, :] - same_rows) * (2 * change)[None, :]).sum(axis=1)

    halves = jax.vmap(half)(same_rows, changes)
    return _squared_distances(rows), halves + halves.T


def _is_other(square):
    return ~jnp.eye(square.shape[0], dtype=bool)


def _check_pairs(latents):
    if latents.shape[0] < 2:
        raise ValueError(f"{latents.shape[0]} rows have no pairs; expected 2 rows or more.")
