"""k-means: centres of a set of points, each of which is assigned to the nearest centre."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._conditions import MEMBERS
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import one_by_one, scan, while_loop
from latent_al.kernels._random import draw_row
from latent_al.kernels._sharding import blockwise_sum, segment_sum, take_row
from latent_al.kernels.distances import FEW_DIMENSIONS, nearest_row

FEW_CLUSTERS = 16
"""Clusters up to which sums over clusters are computed as a matrix product, which is faster for many seeds."""


class KMeans(NamedTuple):
    """A set of points in clusters.

    Attributes:
        centres: of the clusters.
        clusters: cluster assignments, int32: for each point the row of its nearest centre, or -1 where it has none.
        inertia: the sum of the squared distances from the points to these centres, in [0, inf).
    """

    centres: Float[Array, "k d"]
    clusters: Int[Array, " n"]
    inertia: Float[Array, ""]


class _State(NamedTuple):
    moves: Array
    num_steps: Array
    centres: Array
    members: Array
    clusters: Array


class _Clusters(NamedTuple):
    centres: Array
    clusters: Array
    sizes: Array


@kernel(clustered=MEMBERS)
def kmeans(
    key: PRNGKeyArray,
    points: Float[Array, "n d"],
    num_clusters: int,
    *,
    iterations: int = 100,
    included: Bool[Array, " k"] | None = None,
    clustered: Bool[Array, " n"] | None = None,
) -> KMeans:
    """Clusters the points: `lloyd` from the centres of `kmeans_plus_plus`.

    Source: Lloyd, Least Squares Quantization in PCM (1982); Arthur and Vassilvitskii, k-means++ (2007).

    Args:
        num_clusters: from 1 to the number of points to cluster.
        iterations: largest number of iterations.
        included: clusters to use, the first few or, by default, all, as in `lloyd`: their number may be traced.
        clustered: points to cluster, at least one for each cluster in use, by default all; the others are in cluster
            -1.

    Raises:
        ValueError: `num_clusters` is not in [1, n], more clusters are in use than there are points to cluster,
            `iterations` is below 1, the shapes differ, or a coordinate is NaN, infinite or too large to square.
    """
    _check_num_clusters(num_clusters, len(points))
    _check_iterations(iterations)
    if included is not None and len(included) != num_clusters:
        raise ValueError(f"included marks {len(included)} clusters; expected num_clusters, {num_clusters}.")
    centres = _kmeans_plus_plus(key, points, num_clusters, clustered)
    return _lloyd(points, centres, iterations, included, clustered)


@kernel()
def kmeans_plus_plus(key: PRNGKeyArray, points: Float[Array, "n d"], num: int) -> Float[Array, "num d"]:
    """Draws points that lie far apart: each in proportion to its squared distance to the nearest one before it.

    They are rows of `points`. The first is drawn uniformly, and so is each that follows once every point equals one
    already drawn. O(num n d) time, O(n d) memory. Source: Arthur and Vassilvitskii, k-means++: The Advantages of
    Careful Seeding, 2007.

    Raises:
        ValueError: `num` is not in [1, n], or a coordinate is NaN, infinite or too large to square.
    """
    _check_num_clusters(num, len(points))
    return _kmeans_plus_plus(key, points, num, None)


@kernel()
def lloyd(
    points: Float[Array, "n d"],
    centres: Float[Array, "k d"],
    *,
    iterations: int,
    included: Bool[Array, " k"] | None = None,
) -> KMeans:
    """Moves each centre to the mean of its cluster, `iterations` times or until no point changes its cluster.

    A centre without points instead takes over the point farthest from its own centre, among points that share theirs,
    and moves to it; several such centres do so one after the other. O(iterations n k d) time, O((n + k) d) memory;
    `nearest` documents how exact the assignments are. Gradients are those at the final assignments. Source: Lloyd,
    Least Squares Quantization in PCM, 1982.

    Args:
        centres: initial centres.
        iterations: largest number of iterations.
        included: centres to use, at least one, by default all; the others have no points, and their final values have
            no meaning.

    Raises:
        ValueError: k is not in [1, n], `iterations` is below 1, the shapes differ, or a coordinate is NaN, infinite or
            too large to square.
    """
    _check_num_clusters(len(centres), len(points))
    _check_iterations(iterations)
    return _lloyd(points, centres, iterations, included, None)


def _kmeans_plus_plus(key, points, num, clustered):
    possible = jnp.ones_like(points[:, 0]) if clustered is None else clustered.astype(points.dtype)
    uniforms = jax.random.uniform(key, (num, 2), points.dtype)
    # Transposed here, since each draw would copy them.
    columns = points.T

    def sq_distances_to(row):
        # Column by column: on a CPU a sum over a short last axis takes several times as long.
        def add(total, column):
            values, value = column
            return total + (values - value) ** 2, None

        return scan(add, jnp.zeros_like(points[:, 0]), (columns, take_row(points, row)))[0]

    def draw(sq_distances, uniform):
        weights = sq_distances if clustered is None else sq_distances * possible
        row = draw_row(jnp.where((weights == 0).all(), possible, weights), uniform)
        return jnp.minimum(sq_distances, sq_distances_to(row)), row

    first = draw_row(possible, uniforms[0])
    further = scan(draw, sq_distances_to(first), uniforms[1:])[1]
    return points[jnp.concatenate([first[None], further])]


def _lloyd(points, centres, iterations, included, clustered):
    included = jnp.ones(len(centres), bool) if included is None else included
    moved = one_by_one(partial(_moved, iterations=iterations))
    state = moved(*jax.lax.stop_gradient((points, centres)), included, clustered)
    centres = _means(points, state.centres, state.members)
    sq_distances = _sq_distances(points, centres, state.clusters)
    inertia = (sq_distances if clustered is None else jnp.where(clustered, sq_distances, 0)).sum()
    return KMeans(centres, state.clusters, inertia)


def _moved(points, centres, included, clustered, *, iterations):
    """Returns the last state of `lloyd`."""
    origin = points[:1]
    unassigned = jnp.full(len(points), -1, jnp.int32)
    # Sums of points about an origin round less; those in the result are of even smaller terms.
    near = points - origin
    nearest = nearest_row(near)

    def assign(centres):
        clusters = nearest(centres, included)
        return clusters if clustered is None else jnp.where(clustered, clusters, -1)

    def step(state):
        clusters = assign(state.centres)
        moves = (clusters != state.clusters).any() & (state.num_steps < iterations)
        filled = _filled(near, state.centres, clusters, included)
        means = _sums(near, filled.clusters, len(centres)) / jnp.maximum(filled.sizes, 1)[:, None]
        return _State(
            moves,
            state.num_steps + 1,
            jnp.where(moves, means, state.centres),
            jnp.where(moves, filled.clusters, state.members),
            clusters,
        )

    start = _State(jnp.array(True), jnp.int32(0), centres - origin, unassigned, unassigned)
    state = while_loop(lambda state: state.moves, step, start)
    return state._replace(centres=state.centres + origin)


def _sums(points, clusters, num):
    """Returns the sums of the points of each cluster, by a product with their marks where that is faster."""
    if num > FEW_CLUSTERS or points.shape[1] <= FEW_DIMENSIONS:
        return segment_sum(points, clusters, num)

    def sums(block):
        points, clusters = block
        marks = clusters[None, :] == jnp.arange(num)[:, None]
        return jnp.matmul(marks.astype(points.dtype), points, precision="highest")

    return blockwise_sum(partial(jax.lax.map, sums), (points, clusters))


def _filled(points, centres, clusters, included):
    """Returns the clusters with empty ones filled, as long as another has two points, as is always so for n >= k."""

    def is_empty(sizes):
        return (sizes == 0) & included

    def fill(state):
        is_shared = (state.sizes[state.clusters] > 1) & (state.clusters >= 0)
        sq_distances = _sq_distances(points, state.centres, state.clusters)
        row = jnp.where(is_shared, sq_distances, -1).argmax()
        empty = is_empty(state.sizes).argmax().astype(jnp.int32)
        return _Clusters(
            state.centres.at[empty].set(take_row(points, row)),
            state.clusters.at[row].set(empty),
            state.sizes.at[take_row(state.clusters, row)].add(-1).at[empty].set(1),
        )

    sizes = segment_sum(jnp.ones_like(clusters), clusters, len(centres))

    def is_to_fill(state):
        return is_empty(state.sizes).any() & (state.sizes > 1).any()

    return while_loop(is_to_fill, fill, _Clusters(centres, clusters, sizes))


def _means(points, centres, clusters):
    """Returns the means of the clusters, from gaps to the current centres: their sums are small, and so is rounding."""
    gaps = segment_sum(points - centres[clusters], clusters, len(centres))
    sizes = segment_sum(jnp.ones_like(clusters), clusters, len(centres))
    return centres + gaps / jnp.maximum(sizes, 1)[:, None]


def _sq_distances(points, centres, clusters):
    return ((points - centres[clusters]) ** 2).sum(axis=1)


def _check_iterations(iterations):
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected 1 or more.")


def _check_num_clusters(num, size):
    if not 1 <= num <= size:
        raise ValueError(f"{num} clusters of {size} points asked for; expected at least 1 and at most one per point.")
