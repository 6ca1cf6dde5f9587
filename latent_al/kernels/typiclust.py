"""Typical rows of clusters: those in whose neighbourhood other rows lie densely.

Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets, 2022.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latent_al.kernels._checks import check_rows_left
from latent_al.kernels._sharding import segment_sum
from latent_al.kernels.distances import squared_distances

TILE = 256
"""Rows that are compared with as many other rows at a time."""

FEW_ROWS = 5
"""Clusters of fewer rows are those that the paper drops."""


class _Neighbours(NamedTuple):
    sq_distances: Array
    rows: Array


class _Counts(NamedTuple):
    covered: Array
    left: Array


def typicality(
    points: Float[Array, "n d"], *, clusters: Int[Array, " n"], included: Bool[Array, " n"], num_neighbours: int
) -> Float[Array, " n"]:
    """Returns 1 / mean Euclidean distance of each row to its nearest neighbours in its cluster, in [0, inf].

    These are the min(`num_neighbours`, rows of the cluster - 1) nearest of the other rows. Rows without neighbours have
    typicality 0, and those that equal all of theirs inf. Products choose the neighbours, to some 1e-6 of the largest
    squared distance among those compared; differences measure these. O(d s) time, where s is the sum of the clusters'
    squared sizes, and O(n) memory.

    Args:
        clusters: cluster assignments.
        included: rows that are, and have, neighbours.
        num_neighbours: at most.

    Raises:
        ValueError: `num_neighbours` is below 1, or the shapes differ.
    """
    _check(points, clusters, included, num_neighbours)
    return _typicality(points, clusters, included, num_neighbours)


def most_typical(
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    clusters: Int[Array, " n"],
    included: Bool[Array, " n"],
    num_clusters: int,
    num_neighbours: int,
) -> Int[Array, " num"]:
    """Selects row by row the most typical one left of the cluster with the fewest rows taken or selected.

    Among such clusters the largest comes first, then the lowest; ties of `typicality` go to the lowest row. Clusters of
    fewer than `FEW_ROWS` come last of all, as they are outliers. O(num (n + k log k)) time besides `typicality` of the
    clusters selected from, O(n) memory.

    Args:
        taken: rows that may not be selected.
        num: rows to select.
        clusters: cluster assignments, in [0, num_clusters).
        included: rows that count in sizes and as neighbours, among them all that may be selected.
        num_clusters: number of clusters, empty ones among them.
        num_neighbours: as in `typicality`.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, `num_neighbours` is below 1.
    """
    check_rows_left(taken, num)
    _check(points, clusters, included, num_neighbours)
    return _most_typical(points, clusters, taken, included, num, num_clusters, num_neighbours)


@partial(jax.jit, static_argnums=3)
def _typicality(points, clusters, included, num_neighbours):
    size = len(points)
    tile = min(TILE, size)
    # Cluster by cluster: a tile is compared with the clusters of its own rows, which lie about it.
    order = jnp.lexsort((clusters, ~included)).astype(jnp.int32)
    num_included = included.sum(dtype=jnp.int32)
    clusters = jnp.where(jnp.arange(size) < num_included, clusters[order], jnp.iinfo(clusters.dtype).max)
    offsets = jnp.arange(tile, dtype=jnp.int32)

    def of_tile(index, values):
        places = jnp.minimum(index * tile, size - tile) + offsets
        rows = order[places]
        tile_clusters = clusters[places]
        low = jnp.searchsorted(clusters, tile_clusters[0]).astype(jnp.int32)
        high = jnp.searchsorted(clusters, tile_clusters[-1], side="right").astype(jnp.int32)
        high = jnp.minimum(high, num_included)

        def compare(step, nearest):
            candidates = jnp.minimum(low + step * tile + offsets, size - 1)
            comparable = (low + step * tile + offsets < high)[None, :]
            comparable &= tile_clusters[:, None] == clusters[candidates][None, :]
            comparable &= places[:, None] != candidates[None, :]
            sq_distances = squared_distances(points[rows], points[order[candidates]])
            sq_distances = jnp.where(comparable, sq_distances, jnp.inf)
            sq_distances = jnp.concatenate([nearest.sq_distances, sq_distances], axis=1)
            candidates = jnp.broadcast_to(order[candidates][None, :], (tile, tile))
            candidates = jnp.concatenate([nearest.rows, candidates], axis=1)
            lowest, at = jax.lax.top_k(-sq_distances, nearest.rows.shape[1])
            return _Neighbours(-lowest, jnp.take_along_axis(candidates, at, axis=1))

        shape = (tile, min(num_neighbours, size))
        start = _Neighbours(jnp.full(shape, jnp.inf, points.dtype), jnp.zeros(shape, jnp.int32))
        nearest = jax.lax.fori_loop(0, -(-(high - low) // tile), compare, start)
        distances = jnp.sqrt(((points[nearest.rows] - points[rows][:, None]) ** 2).sum(axis=2))
        is_neighbour = nearest.sq_distances < jnp.inf
        count = is_neighbour.sum(axis=1)
        total = jnp.where(is_neighbour, distances, 0).sum(axis=1)
        return values.at[rows].set(jnp.where(count > 0, count / total, 0))

    return jax.lax.fori_loop(0, -(-num_included // tile), of_tile, jnp.zeros(size, points.dtype))


@partial(jax.jit, static_argnums=(4, 5, 6))
def _most_typical(points, clusters, taken, included, num, num_clusters, num_neighbours):
    def count(rows):
        return segment_sum(rows.astype(jnp.int32), clusters, num_clusters)

    sizes = count(included)

    def choose(counts, _):
        cluster = jnp.lexsort((-sizes, counts.covered, sizes < FEW_ROWS, counts.left == 0))[0]
        return _Counts(counts.covered.at[cluster].add(1), counts.left.at[cluster].add(-1)), cluster

    chosen = jax.lax.scan(choose, _Counts(count(included & taken), count(~taken)), length=num)[1]
    is_chosen = jnp.zeros(num_clusters, bool).at[chosen].set(True)
    values = _typicality(points, clusters, included & is_chosen[clusters], num_neighbours)

    def select(blocked, cluster):
        row = jnp.where(blocked | (clusters != cluster), -1, values).argmax().astype(jnp.int32)
        return blocked.at[row].set(True), row

    return jax.lax.scan(select, taken, chosen)[1]


def _check(points, clusters, included, num_neighbours):
    if points.ndim != 2 or not points.shape[:1] == clusters.shape == included.shape:
        raise ValueError(
            f"points have shape {points.shape}, clusters {clusters.shape} and included {included.shape}; expected "
            "[n d], [n] and [n]."
        )
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours is {num_neighbours}; expected 1 or more.")
