"""Initial labelled sets from the latent space alone: Killeen (2019)."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from latent_al.kernels import clustering, sampling, selection
from latent_al.strategies.clusterings import CLUSTERINGS
from latent_al.strategies.once import until_logged
from latent_al.types import BadInput, Spec, Strategy, build, check_name

MATCHES = ("nearest", "all_within")
LOGGER = logging.getLogger(__name__)


class Clustered(NamedTuple):
    """Cluster assignments of the training set, and the distribution fitted to each cluster."""

    clusters: Int[Array, " n"]
    distribution: sampling.Distribution


def ae_error() -> Strategy:
    """Selects the images with the largest mean absolute error of their reconstruction, in O(n) time and memory."""

    def query(key, pool, num):
        del key
        return selection.top_k(pool.gather(pool.prepared), pool.taken, num)

    return Strategy(query, lambda encoded: encoded.errors, needs={"errors": "ae_error"})


def sampler(fit: Callable, *, clustering: Spec | None, threshold: float, match: str) -> Strategy:
    """Selects rows near points drawn from a distribution fitted to the latents, or to each cluster of them.

    The log reports once if draws ran out, and each time the program is traced for fewer rows than clusters. A batch
    takes O(n d) time for each point drawn, at least one per row, and O(n d) memory.

    Args:
        fit: `sampling.uniform`, `sampling.normal` or `sampling.multi_normal`.
        clustering: a spec from the table, or None.
        threshold: Euclidean distance from a point within which a row matches, 0.25 in Killeen (2019).
        match: `nearest`, one row per point, as in the source's experiments, or `all_within`, as its Algorithm 1 says.

    Raises:
        BadInput: an unknown name, a threshold that is not above 0.
    """
    check_name(match, MATCHES, "match")
    if not threshold > 0:
        raise BadInput(f"threshold is {threshold}; expected a distance above 0.")
    to_clusters = _one_cluster if clustering is None else build(CLUSTERINGS, clustering, "clustering")
    num_clusters = 1 if clustering is None else clustering["num_clusters"]
    name = fit.__name__ if clustering is None else f"{fit.__name__} over {clustering['name']}"

    def prepare(encoded):
        clusters = to_clusters(encoded.latents)
        return Clustered(clusters, fit(encoded.latents, clusters=clusters, num_clusters=num_clusters))

    warn = until_logged(partial(_warn_of_far_rows, name, threshold))

    def query(key, pool, num):
        if num < num_clusters:
            LOGGER.warning(
                "%s: %d rows for %d clusters, the smallest of which get none; lower num_clusters or ask for more rows.",
                *(name, num, num_clusters),
            )
        matches = sampling.draw_and_match(
            key,
            pool.latents,
            pool.taken,
            num,
            clusters=pool.gather(pool.prepared.clusters),
            distribution=pool.prepared.distribution,
            threshold=threshold,
            all_within=match == "all_within",
        )
        jax.debug.callback(warn, (~matches.is_within).sum(), num)
        return matches.rows

    return Strategy(query, prepare, needs={"distinct": fit.__name__})


def typical(*, iterations: int) -> Strategy:
    """Selects the row nearest to each of the batch's k-means centres, one centre per row; the key only starts k-means.

    It is meant for an initial labelled set: rows that are taken are not selected, but are clustered like all others. A
    batch of b takes O(iterations b n d) time and O(n d) memory.

    Args:
        iterations: maximum number of k-means iterations.

    Raises:
        BadInput: iterations below 1.
    """
    if iterations < 1:
        raise BadInput(f"iterations is {iterations}; expected 1 or more.")

    def query(key, pool, num):
        settings = dict(iterations=iterations, clustered=pool.holds_row)
        centres = clustering.kmeans(key, pool.latents, num, **settings).centres
        return selection.nearest_to(pool.latents, pool.taken, targets=centres)

    return Strategy(query, needs={"distinct": "typical"})


uniform = partial(sampler, sampling.uniform)
"""`sampler` with `kernels.sampling.uniform`."""
normal = partial(sampler, sampling.normal)
"""`sampler` with `kernels.sampling.normal`."""
multi_normal = partial(sampler, sampling.multi_normal)
"""`sampler` with `kernels.sampling.multi_normal`."""


def _one_cluster(points):
    return jnp.zeros(points.shape[0], jnp.int32)


def _warn_of_far_rows(name, threshold, num_far, num):
    if num_far:
        LOGGER.warning(
            "%s: %d of %d rows lie farther than %g from any point drawn: the draws ran out, and the nearest rows left "
            "were taken. A larger threshold, or a distribution that covers less empty space, leaves fewer "
            "of them. Other seeds, and arms with the same strategy, are not logged.",
            *(name, num_far, num, threshold),
        )
    return num_far > 0
