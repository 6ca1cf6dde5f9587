"""k-means: centres of a set of points, each of which belongs to the nearest centre."""

from collections import namedtuple
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from latent_al.kernels._random import draw_row
from latent_al.kernels._sharding import blockwise_sum, segment_sum, take_row
from latent_al.kernels.distances import FEW_DIMENSIONS, nearest_row

FEW_CLUSTERS = 16


class KMeans(namedtuple("KMeans", ["centres", "clusters", "inertia"])):
    """A set of points in clusters.

    Attributes:
        centres: float [k d].
        clusters: int32 [n], for each row of the points that of its nearest centre.
        inertia: the sum of the squared distances of the points to those, in [0, inf).
    """


def kmeans(key: PRNGKeyArray, points: Float[Array, "n d"], num_clusters: int, iterations: int = 100) -> KMeans:
    """`lloyd` from the centres of `kmeans_plus_plus`.

    Raises:
        ValueError: `num_clusters` is not in [1, n], or `iterations` is below 1.
    """
    return lloyd(points, kmeans_plus_plus(key, points, num_clusters), iterations)


def kmeans_plus_plus(key: PRNGKeyArray, points: Float[Array, "n d"], num: int) -> Float[Array, "num d"]:
    """Rows of `points` far apart: each is drawn in proportion to its squared distance to the nearest one before it.

    The first is drawn uniformly, and so is each that follows once every row equals one of those drawn. O(num n d) time,
    O(n d) memory. Source: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007.

    Raises:
        ValueError: `num` is not in [1, n].
    """
    _check(num, len(points))
    return _kmeans_plus_plus(key, points, num)


def lloyd(
    points: Float[Array, "n d"],
    centres: Float[Array, "k d"],
    iterations: int,
    valid: Bool[Array, " k"] | None = None,
) -> KMeans:
    """Moves each centre to the mean of its cluster, `iterations` times or until no row changes its cluster.

    A centre with no row moves instead to the row farthest from its own centre, of those that share theirs, and takes it
    over; several go one after the other. O(iterations n k d) time, O((n + k) d) memory; `nearest` says how exact the
    assignments are. Source: Lloyd, Least Squares Quantization in PCM, 1982.

    Args:
        valid: centres to use, one at least, by default all; the others have no rows, and what they end as means
            nothing.

    Raises:
        ValueError: k is not in [1, n], or `iterations` is below 1.
    """
    _check(len(centres), len(points))
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected 1 or more.")
    return _lloyd(points, centres, iterations, jnp.ones(len(centres), bool) if valid is None else valid)


@partial(jax.jit, static_argnums=2)
def _kmeans_plus_plus(key, points, num):
    uniforms = jax.random.uniform(key, (num, 2), points.dtype)

    def sq_distance_to(row):
        # Column by column: on a CPU a sum over a short last axis takes several times as long.
        def add(total, values):
            column, value = values
            return total + (column - value) ** 2, None

        return jax.lax.scan(add, jnp.zeros_like(points[:, 0]), (points.T, take_row(points, row)))[0]

    def draw(sq_distance, uniform):
        row = draw_row(jnp.where((sq_distance == 0).all(), 1, sq_distance), uniform)
        return jnp.minimum(sq_distance, sq_distance_to(row)), row

    first = draw_row(jnp.ones_like(points[:, 0]), uniforms[0])
    _, further = jax.lax.scan(draw, sq_distance_to(first), uniforms[1:])
    return points[jnp.concatenate([first[None], further])]


@jax.jit
def _lloyd(points, centres, iterations, valid):
    origin, nobody = points[:1], jnp.full(len(points), -1, jnp.int32)
    # Sums of what lies about an origin round less; those that the result shows are made of smaller parts still.
    near = points - origin
    rows = nearest_row(near)

    def step(carry):
        _, count, centres, members, before = carry
        clusters = rows(centres, valid)
        moves = (clusters != before).any() & (count < iterations)
        _, filled, sizes = _filled(near, centres, clusters, valid)
        means = _sums(near, filled, len(centres)) / jnp.maximum(sizes, 1)[:, None]
        return moves, count + 1, jnp.where(moves, means, centres), jnp.where(moves, filled, members), clusters

    start = True, 0, centres - origin, nobody, nobody
    _, _, centres, members, clusters = jax.lax.while_loop(lambda carry: carry[0], step, start)
    centres = _means(points, centres + origin, members)
    return KMeans(centres, clusters, _sq_distances(points, centres, clusters).sum())


def _sums(points, clusters, num):
    """Of the points of each cluster: by a product with their marks where that is faster, as it is for many seeds."""
    if num > FEW_CLUSTERS or points.shape[1] <= FEW_DIMENSIONS:
        return segment_sum(points, clusters, num)

    def sums(block):
        points, clusters = block
        marks = clusters[None, :] == jnp.arange(num)[:, None]
        return jnp.matmul(marks.astype(points.dtype), points, precision="highest")

    return blockwise_sum(partial(jax.lax.map, sums), (points, clusters))


def _filled(points, centres, clusters, valid):
    """Centres, clusters and sizes; n >= k: while one cluster is empty another has two rows."""

    def is_empty(sizes):
        return (sizes == 0) & valid

    def fill(carry):
        centres, clusters, sizes = carry
        shared = sizes[clusters] > 1
        row = jnp.where(shared, _sq_distances(points, centres, clusters), -1).argmax()
        empty = is_empty(sizes).argmax().astype(jnp.int32)
        sizes = sizes.at[take_row(clusters, row)].add(-1).at[empty].set(1)
        return centres.at[empty].set(take_row(points, row)), clusters.at[row].set(empty), sizes

    sizes = segment_sum(jnp.ones_like(clusters), clusters, len(centres))
    return jax.lax.while_loop(lambda carry: is_empty(carry[2]).any(), fill, (centres, clusters, sizes))


def _means(points, centres, clusters):
    """By way of the gaps to the centres so far: sums of these are small, and so is their rounding."""
    gaps = segment_sum(points - centres[clusters], clusters, len(centres))
    sizes = segment_sum(jnp.ones_like(clusters), clusters, len(centres))
    return centres + gaps / jnp.maximum(sizes, 1)[:, None]


def _sq_distances(points, centres, clusters):
    return ((points - centres[clusters]) ** 2).sum(axis=1)


def _check(num, size):
    if not 1 <= num <= size:
        raise ValueError(f"{num} clusters of {size} points asked for; expected at least 1 and at most one a point.")
