"""Rows that bring as much of the pool as possible near to a labelled row, in latent space.

Demonstrated on features of self-supervised or foundation models, at unit length; on raw pixels coverage is worth
little.
"""

import logging

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from latent_al import kernels
from latent_al.kernels import clustering
from latent_al.kernels._loops import fori_loop
from latent_al.kernels._sharding import marked_rows
from latent_al.kernels.representativeness import unit_rows
from latent_al.strategies.once import until_logged
from latent_al.strategies.temperature import held_out_temperature
from latent_al.types import UNLABELLED, BadInput, Scalar, Strategy, is_traced

BLOCK = 64
"""The number of labelled rows whose distances to as many others are measured at a time."""

LOGGER = logging.getLogger(__name__)


def max_herding(*, sigma: Scalar, normalize: bool) -> Strategy:
    """Selects, row by row, for the largest gain in Gaussian coverage: `kernels.max_herding`.

    Source: Bae, Noh and Sutherland (2024). Takes one pass over all pairs of rows, and up to two more per row where
    sigma is beyond the spread of the latents; O(n d) memory.

    Args:
        sigma: length scale of the Gaussian, 1 in the source.
        normalize: whether latents are scaled to unit length, as in the source.

    Raises:
        BadInput: sigma is not above 0.
    """
    _check_sigma(sigma)

    def query(key, pool, num):
        del key
        points = _points(pool.latents, normalize)
        return kernels.max_herding(points, pool.taken, num, sigma=sigma, labelled=_labelled(pool)).rows

    return Strategy(query, needs=_needs("max_herding", normalize))


def prob_cover(*, num_clusters: int, share: float, iterations: int, seed: int, normalize: bool) -> Strategy:
    """Selects, row by row, the ball that holds the most rows outside all others, of a radius that keeps balls pure.

    The radius is the largest at which a share of the balls lies within one k-means cluster: `kernels.purity_radius`.
    If the balls cover the whole pool before the batch is full, the log says so once, and the rest of the batch is the
    lowest rows left.

    Source: Yehuda, Dekel, Hacohen and Weinshall (2022). Takes two passes over all pairs of rows; O(n d) memory.

    Args:
        num_clusters: number of k-means clusters; the number of classes in the source.
        share: share of the balls that are pure, in (0, 1], 0.95 in the source.
        iterations: maximum number of k-means iterations.
        seed: random seed of the start of k-means.
        normalize: whether latents are scaled to unit length, as in the source.

    Raises:
        BadInput: a setting outside its range.
    """
    if num_clusters < 2 or iterations < 1:
        raise BadInput(f"num_clusters is {num_clusters} and iterations {iterations}; expected 2 and 1, or more.")
    if not 0 < share <= 1:
        raise BadInput(f"share is {share}; expected a share of the balls in (0, 1], such as 0.95.")

    def prepare(encoded):
        points = _points(encoded.latents, normalize)
        clusters = clustering.kmeans(jax.random.key(seed), points, num_clusters, iterations=iterations).clusters
        radius = kernels.purity_radius(points, clusters=clusters, share=share)
        return jnp.where((radius > 0) & (radius < jnp.inf), radius, jnp.nan)

    warn = until_logged(_warn_of_full_coverage)

    def query(key, pool, num):
        del key
        points = _points(pool.latents, normalize)
        covered = kernels.prob_cover(points, pool.taken, num, radius=pool.prepared, labelled=_labelled(pool))
        jax.debug.callback(warn, (covered.gains == 0).sum(), pool.prepared, num)
        return covered.rows

    return Strategy(query, prepare, needs=_needs("prob_cover", normalize))


def facility_location(*, epsilon: float | None = None) -> Strategy:
    """Selects, row by row, for the largest gain in cosine similarity to the nearest row: `kernels.facility_location`.

    Time and memory are those of `max_herding`; with epsilon, O(n^2 d log(1 / epsilon)) time.

    Source: Nemhauser, Wolsey and Fisher (1978), with cosine similarity. Random samples: Mirzasoleiman et al. (2015).

    Args:
        epsilon: share of the best coverage, in (0, 1), that random samples may cost on average, as in
            `kernels.stochastic_facility_location`; None to compare all rows.

    Raises:
        BadInput: epsilon is not in (0, 1).
    """
    if epsilon is not None and not 0 < epsilon < 1:
        raise BadInput(f"epsilon is {epsilon}; expected a share of the best coverage in (0, 1), such as 0.1, or None.")

    def query(key, pool, num):
        labelled = _labelled(pool)
        if epsilon is None:
            return kernels.facility_location(pool.latents, pool.taken, num, labelled=labelled).rows
        settings = dict(epsilon=epsilon, labelled=labelled)
        return kernels.stochastic_facility_location(key, pool.latents, pool.taken, num, **settings).rows

    return Strategy(query, needs=_needs("facility_location", True))


def uncertainty_herding(*, sigma: Scalar, normalize: bool) -> Strategy:
    """Selects as `max_herding` does, with rows weighted by how unsure the classifier is of them.

    The weight is the `margin` of temperature-scaled probabilities, and 1 before the first fit. The length scale is the
    smallest distance above 0 between two labelled rows, so that it shrinks as labels are added: coverage first,
    uncertainty later. In the source the temperature is that of a classifier retrained without a held-out part of the
    labelled rows; here it is that of `held_out_temperature`, which fits a softmax regression on the classifier's
    features.

    Source: Bae, Oliveira and Sutherland (2025). Time and memory are those of `max_herding`; O(m^2 d) time for m labels.

    Args:
        sigma: the length scale where fewer than two different rows are labelled, 1 in the source.
        normalize: whether latents are scaled to unit length, as in the source.

    Raises:
        BadInput: sigma is not above 0.
    """
    _check_sigma(sigma)

    def query(key, pool, num):
        del key
        points, labelled = _points(pool.latents, normalize), _labelled(pool)
        scale = smallest_distance(points, labelled)
        scale = jnp.where(scale < jnp.inf, scale, sigma)
        weights = _weights(pool, labelled)
        return kernels.max_herding(points, pool.taken, num, sigma=scale, labelled=labelled, weights=weights).rows

    return Strategy(query, needs=_needs("uncertainty_herding", normalize))


@jax.jit
def smallest_distance(points: Float[Array, "n d"], included: Bool[Array, " n"]) -> Float[Array, ""]:
    """Returns the smallest distance above 0 between two included rows, inf where there is none."""
    marked = marked_rows(included)
    num_blocks = -(-marked.num_marked // BLOCK)

    def block(index):
        places = index * BLOCK + jnp.arange(BLOCK)
        is_there = places < marked.num_marked
        return points[marked.at(jnp.where(is_there, places, 0))], is_there

    def compare(index, smallest):
        left, is_left = block(index // num_blocks)
        right, is_right = block(index % num_blocks)
        sq_distances = ((left[:, None] - right[None]) ** 2).sum(axis=2)
        is_pair = is_left[:, None] & is_right[None, :] & (sq_distances > 0)
        return jnp.minimum(smallest, jnp.where(is_pair, sq_distances, jnp.inf).min())

    return jnp.sqrt(fori_loop(0, num_blocks**2, compare, jnp.full((), jnp.inf, points.dtype)))


def _weights(pool, labelled):
    """Returns the uncertainty of each row, or None where there are no predictions."""
    if pool.probs is None:
        return None
    features = pool.latents if pool.features is None else pool.features
    # As in a kernel: the caller's setting is for the caller's code.
    with jax.numpy_dtype_promotion("standard"):
        temperature = held_out_temperature(features, pool.labels, labelled, pool.probs.shape[1])
    logits = jnp.log(jnp.maximum(pool.probs, jnp.finfo(pool.probs.dtype).tiny))
    weights = kernels.margin(jax.nn.softmax(logits / temperature, axis=1))
    # A classifier that is sure of all rows distinguishes none of them.
    return jnp.where(weights.max() > 0, weights, 1)


def _points(latents, normalize):
    return unit_rows(latents) if normalize else latents


def _labelled(pool):
    return pool.labels != UNLABELLED


def _needs(name, normalize):
    return {"distinct": name} | ({"nonzero": name} if normalize else {})


def _check_sigma(sigma):
    if not is_traced(sigma) and not 0 < sigma < float("inf"):
        raise BadInput(f"sigma is {sigma}; expected a length scale above 0, such as 1 for latents of unit length.")


def _warn_of_full_coverage(num_idle, radius, num):
    if num_idle:
        LOGGER.warning(
            "prob_cover: %d of %d rows cover nothing new: balls of radius %.3g about the labelled rows and the batch "
            "cover the pool. A larger num_clusters makes the radius smaller; uncertainty or badge suit many labels "
            "better. Later batches, other seeds and arms with the same strategy are not logged.",
            *(num_idle, num, radius),
        )
    return num_idle > 0
