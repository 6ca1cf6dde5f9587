"""Typical rows of clusters: those about which others lie densely.

Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets, 2022.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latent_al.kernels._sharding import segment_sum
from latent_al.kernels.distances import squared_distances
from latent_al.kernels.selection import check_left

TILE = 256
"""Rows that are compared with as many others at a time."""

FEW_ROWS = 5
"""Clusters of fewer are those that the paper drops."""


def typicality(
    points: Float[Array, "n d"], clusters: Int[Array, " n"], included: Bool[Array, " n"], num_neighbours: int
) -> Float[Array, " n"]:
    """1 / mean Euclidean distance of each row to its nearest neighbours in its cluster, in [0, inf].

    These are the min(`num_neighbours`, rows of the cluster - 1) nearest of the other rows; only rows `included` are, or
    have, neighbours. Rows without any have typicality 0, and those that equal all of theirs inf. Products choose the
    neighbours, to some 1e-6 of the largest squared distance among those compared; differences measure these. O(d s)
    time, where s is the sum of the clusters' squared sizes, and O(n) memory.

    Raises:
        ValueError: `num_neighbours` is below 1, or the shapes differ.
    """
    _check(points, clusters, included, num_neighbours)
    return _typicality(points, clusters, included, num_neighbours)


def most_typical(
    points: Float[Array, "n d"],
    clusters: Int[Array, " n"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    present: Bool[Array, " n"],
    num_clusters: int,
    num_neighbours: int,
) -> Int[Array, " num"]:
    """Row by row the most typical one left of the cluster that the fewest rows are taken or picked of.

    Among such clusters the largest comes first, then the lowest; ties of `typicality` go to the lowest row. Clusters of
    fewer than `FEW_ROWS` come last of all, as they are outliers. O(num (n + k log k)) time besides `typicality` of the
    clusters picked from, O(n) memory.

    Args:
        clusters: in [0, num_clusters).
        present: rows that count, in sizes and as neighbours; those that may be picked are.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, `num_neighbours` is below 1.
    """
    check_left(taken, num)
    _check(points, clusters, present, num_neighbours)
    return _most_typical(points, clusters, taken, present, num, num_clusters, num_neighbours)


@partial(jax.jit, static_argnums=3)
def _typicality(points, clusters, included, num_neighbours):
    size, tile = len(points), min(TILE, len(points))
    # Cluster by cluster: a tile is compared with the clusters of its own rows, which lie about it.
    order = jnp.lexsort((clusters, ~included)).astype(jnp.int32)
    num_included = included.sum(dtype=jnp.int32)
    clusters = jnp.where(jnp.arange(size) < num_included, clusters[order], jnp.iinfo(clusters.dtype).max)
    offsets = jnp.arange(tile, dtype=jnp.int32)

    def of_tile(index, values):
        places = jnp.minimum(index * tile, size - tile) + offsets
        rows, own = order[places], clusters[places]
        low = jnp.searchsorted(clusters, own[0]).astype(jnp.int32)
        high = jnp.minimum(jnp.searchsorted(clusters, own[-1], side="right").astype(jnp.int32), num_included)

        def compare(step, carry):
            others = jnp.minimum(low + step * tile + offsets, size - 1)
            comparable = (low + step * tile + offsets < high)[None, :] & (own[:, None] == clusters[others][None, :])
            comparable &= places[:, None] != others[None, :]
            sq_distances = squared_distances(points[rows], points[order[others]])
            found = jnp.where(comparable, sq_distances, jnp.inf), jnp.broadcast_to(order[others][None, :], (tile, tile))
            sq_distances, neighbours = (jnp.concatenate(pair, axis=1) for pair in zip(carry, found, strict=True))
            lowest, at = jax.lax.top_k(-sq_distances, carry[0].shape[1])
            return -lowest, jnp.take_along_axis(neighbours, at, axis=1)

        shape = tile, min(num_neighbours, size)
        start = jnp.full(shape, jnp.inf, points.dtype), jnp.zeros(shape, jnp.int32)
        nearest, neighbours = jax.lax.fori_loop(0, -(-(high - low) // tile), compare, start)
        distances = jnp.sqrt(((points[neighbours] - points[rows][:, None]) ** 2).sum(axis=2))
        found = nearest < jnp.inf
        count, total = found.sum(axis=1), jnp.where(found, distances, 0).sum(axis=1)
        return values.at[rows].set(jnp.where(count > 0, count / total, 0))

    return jax.lax.fori_loop(0, -(-num_included // tile), of_tile, jnp.zeros(size, points.dtype))


@partial(jax.jit, static_argnums=(4, 5, 6))
def _most_typical(points, clusters, taken, present, num, num_clusters, num_neighbours):
    def count(rows):
        return segment_sum(rows.astype(jnp.int32), clusters, num_clusters)

    sizes = count(present)

    def choose(carry, _):
        covered, left = carry
        cluster = jnp.lexsort((-sizes, covered, sizes < FEW_ROWS, left == 0))[0]
        return (covered.at[cluster].add(1), left.at[cluster].add(-1)), cluster

    _, chosen = jax.lax.scan(choose, (count(present & taken), count(~taken)), length=num)
    is_chosen = jnp.zeros(num_clusters, bool).at[chosen].set(True)
    values = _typicality(points, clusters, present & is_chosen[clusters], num_neighbours)

    def pick(blocked, cluster):
        row = jnp.where(blocked | (clusters != cluster), -1, values).argmax().astype(jnp.int32)
        return blocked.at[row].set(True), row

    return jax.lax.scan(pick, taken, chosen)[1]


def _check(points, clusters, included, num_neighbours):
    if points.ndim != 2 or not points.shape[:1] == clusters.shape == included.shape:
        raise ValueError(
            f"points have shape {points.shape}, clusters {clusters.shape} and the marks of rows {included.shape}; "
            "expected [n d], [n] and [n]."
        )
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours is {num_neighbours}; expected 1 or more.")
