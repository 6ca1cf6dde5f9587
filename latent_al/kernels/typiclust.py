"""Typical rows of clusters: those in a dense neighbourhood of other rows.

Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets, 2022.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latent_al.kernels._conditions import CLUSTERS, ROWS_LEFT, check_num
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop, scan
from latent_al.kernels._sharding import segment_sum
from latent_al.kernels.distances import root, squared_distances

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


@kernel()
def typicality(
    points: Float[Array, "n d"], *, clusters: Int[Array, " n"], included: Bool[Array, " n"], num_neighbours: int
) -> Float[Array, " n"]:
    """Returns 1 / mean Euclidean distance of each row to its nearest neighbours in its cluster, in [0, inf].

    These are the min(`num_neighbours`, rows of the cluster - 1) nearest of the other rows. Rows without neighbours have
    typicality 0, and rows that equal all of their neighbours inf. Neighbours are chosen by products, to within some
    1e-6 of the largest squared distance among those compared, and measured by differences. O(d s) time, where s is the
    sum of the clusters' squared sizes, and O(n) memory.

    Args:
        clusters: cluster assignments, any integers.
        included: rows that are, and have, neighbours.
        num_neighbours: largest number of neighbours.

    Raises:
        ValueError: `num_neighbours` is below 1, the shapes differ, or a coordinate is NaN, infinite or too large to
            square.
    """
    _check_num_neighbours(num_neighbours)
    return _typicality(points, clusters, included, num_neighbours, -(-len(points) // min(TILE, len(points))))


@kernel(taken=ROWS_LEFT, clusters=CLUSTERS)
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
    fewer than `FEW_ROWS` come last of all, as they are outliers. Inside a caller's `jit` rows of clusters outside the
    range come after all others, by row, and n stands for each missing row. O(num (n + k log k)) time, besides that of
    `typicality` for the clusters selected from, and O(n) memory.

    Args:
        taken: rows that may not be selected.
        num: rows to select.
        clusters: cluster assignments, in [0, num_clusters).
        included: rows that count in sizes and as neighbours, including all that may be selected.
        num_clusters: number of clusters, including empty ones.
        num_neighbours: as in `typicality`.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, `num_neighbours` is below 1, a cluster is outside
            the range, or a coordinate is NaN, infinite or too large to square.
    """
    check_num(num, len(taken))
    _check_num_neighbours(num_neighbours)
    is_in_range = (clusters >= 0) & (clusters < num_clusters)
    clusters = jnp.where(is_in_range, clusters, num_clusters)

    def count(rows):
        return segment_sum(rows.astype(jnp.int32), clusters, num_clusters)

    sizes = count(included)

    def choose(counts, _):
        cluster = jnp.lexsort((-sizes, counts.covered, sizes < FEW_ROWS, counts.left == 0))[0].astype(jnp.int32)
        is_left = counts.left[cluster] > 0
        counts = _Counts(counts.covered.at[cluster].add(1), counts.left.at[cluster].add(-1))
        return counts, jnp.where(is_left, cluster, num_clusters)

    chosen = scan(choose, _Counts(count(included & taken), count(~taken)), length=num)[1]
    is_chosen = jnp.zeros(num_clusters + 1, bool).at[chosen].set(True).at[num_clusters].set(False)
    included = included & is_chosen[clusters]
    num_tiles = -(-included.sum(dtype=jnp.int32) // min(TILE, len(points)))
    values = _typicality(points, clusters, included, num_neighbours, num_tiles)

    def select(blocked, cluster):
        is_open = ~blocked & (clusters == cluster)
        row = jnp.where(is_open.any(), jnp.where(is_open, values, -1).argmax(), len(taken)).astype(jnp.int32)
        return blocked.at[row].set(True), row

    return scan(select, taken, chosen)[1]


def _typicality(points, clusters, included, num_neighbours, num_tiles):
    size = len(points)
    tile = min(TILE, size)
    still = jax.lax.stop_gradient(points)
    # Sorted by cluster: a tile is compared with the clusters of its own rows, which lie around it.
    order = jnp.lexsort((clusters, ~included)).astype(jnp.int32)
    num_included = included.sum(dtype=jnp.int32)
    clusters = jnp.where(jnp.arange(size) < num_included, clusters[order], jnp.iinfo(clusters.dtype).max)
    offsets = jnp.arange(tile, dtype=jnp.int32)

    @jax.checkpoint
    def mean_closeness(points, rows, nearest):
        distances = root(((points[nearest.rows] - points[rows][:, None]) ** 2).sum(axis=2))
        is_neighbour = nearest.sq_distances < jnp.inf
        count = is_neighbour.sum(axis=1)
        total = jnp.where(is_neighbour, distances, 0).sum(axis=1)
        closeness = jnp.where(total > 0, count / jnp.where(total > 0, total, 1), jnp.inf)
        return jnp.where(count > 0, closeness, 0)

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
            sq_distances = squared_distances(still[rows], still[order[candidates]])
            sq_distances = jnp.where(comparable, sq_distances, jnp.inf)
            sq_distances = jnp.concatenate([nearest.sq_distances, sq_distances], axis=1)
            candidates = jnp.broadcast_to(order[candidates][None, :], (tile, tile))
            candidates = jnp.concatenate([nearest.rows, candidates], axis=1)
            lowest, at = jax.lax.top_k(-sq_distances, nearest.rows.shape[1])
            return _Neighbours(-lowest, jnp.take_along_axis(candidates, at, axis=1))

        shape = (tile, min(num_neighbours, size))
        start = _Neighbours(jnp.full(shape, jnp.inf, points.dtype), jnp.zeros(shape, jnp.int32))
        nearest = fori_loop(0, -(-(high - low) // tile), compare, start)
        return values.at[rows].set(mean_closeness(points, rows, nearest))

    return fori_loop(0, num_tiles, of_tile, jnp.zeros(size, points.dtype))


def _check_num_neighbours(num_neighbours):
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours is {num_neighbours}; expected 1 or more.")
