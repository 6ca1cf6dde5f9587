"""The radius of balls that hold rows of one cluster only, for `prob_cover`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import Check
from latent_al.kernels._kernel import kernel, without_gradient
from latent_al.kernels._loops import fori_loop
from latent_al.kernels._sharding import nearest_of_shards
from latent_al.kernels.distances import finite_rows, midst

TILE = 512
"""Rows that are compared with as many other rows at a time."""


class _Best(NamedTuple):
    score: Array
    row: Array


class _Rivals(NamedTuple):
    points: Array
    squares: Array
    clusters: Array


def _is_radius(value, beside):
    del beside
    return (value > 0) & (value < jnp.inf)


def _no_radius(name, value, beside):
    del name, beside
    cause = "rows of different clusters coincide" if value == 0 else "there is one cluster"
    return (
        f"the radius is {value:g}, since {cause}; choose another number of clusters, or max_herding, which needs no "
        "radius."
    )


RADIUS = Check(_is_radius, _no_radius)
"""A radius in (0, inf)."""


@kernel(result=RADIUS)
def purity_radius(points: Float[Array, "n d"], *, clusters: Int[Array, " n"], share: float = 0.95) -> Float[Array, ""]:
    """Returns the largest radius at which the balls around a share of all rows hold only rows of their own cluster.

    The ball around a row is pure up to the nearest row of another cluster; a row at the radius lies outside. Distances
    are chosen by products, to within some 1e-6 of the largest squared one, and measured by differences. O(n^2 d) time,
    O(n d) memory. Inside a caller's `jit` the radius is 0 or inf where there is none.

    Source: Yehuda, Dekel, Hacohen and Weinshall, Active Learning Through a Covering Lens (2022), section 3.3.

    Args:
        clusters: cluster assignments, any integers: pseudo-labels, from as many k-means clusters as there are classes.
        share: of the rows, in (0, 1].

    Raises:
        ValueError: the share is outside (0, 1], there is one cluster, or so many rows coincide with one of another
            cluster that the radius would be 0; the shapes differ, a coordinate is NaN, infinite or too large to square.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a share of the rows in (0, 1], such as 0.95.")
    still = jax.lax.stop_gradient(points)
    centred = still - midst(still, finite_rows(still))[None]
    _, rows = nearest_of_shards(_nearest_of_other_cluster, (centred, clusters), centred, clusters)
    sq_distances = jnp.where(clusters[rows] == clusters, jnp.inf, ((still - still[rows]) ** 2).sum(axis=1))
    num_impure = int(round((1 - share) * len(points), 6))
    # Reduced by a rounding, by which a row at the radius might come to lie inside.
    radius = (1 - 8 * float(jnp.finfo(points.dtype).eps)) * jnp.sqrt(jnp.sort(sq_distances)[num_impure])
    return without_gradient(radius, points, "purity_radius, which is chosen among the distances")


def _nearest_of_other_cluster(rows, points, clusters):
    """Returns, for each of the points, the smallest score of the rows of other clusters, and the row."""
    rivals = _Rivals(rows[0], jnp.where(finite_rows(rows[0]), (rows[0] ** 2).sum(axis=1), jnp.inf), rows[1])
    num_rows = len(rivals.squares)
    num_tiles = -(-len(points) // TILE)
    missing = num_tiles * TILE - len(points)
    tiles = jnp.pad(points, ((0, missing), (0, 0))).reshape(num_tiles, TILE, -1)
    tile_clusters = jnp.pad(clusters, (0, missing)).reshape(num_tiles, TILE)
    size = min(TILE, num_rows)
    places = jnp.arange(size, dtype=jnp.int32)[:, None]

    def of_tile(tile):
        points, clusters = tile

        def compare(index, best):
            start = jnp.minimum(index * size, num_rows - size)
            part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), rivals)
            scores = part.squares[:, None] - 2 * jnp.matmul(part.points, points.T, precision="highest")
            is_comparable = (part.clusters[:, None] != clusters[None, :]) & (part.squares < jnp.inf)[:, None]
            scores = jnp.where(is_comparable, scores, jnp.inf)
            score = scores.min(axis=0)
            # Two minima take a third of the time of one argmin on a CPU.
            place = jnp.where(scores == score[None, :], places, size).min(axis=0)
            closer = score < best.score
            return _Best(jnp.where(closer, score, best.score), jnp.where(closer, start + place, best.row))

        start = _Best(jnp.full(TILE, jnp.inf, points.dtype), jnp.zeros(TILE, jnp.int32))
        return fori_loop(0, -(-num_rows // size), compare, start)

    best = jax.lax.map(of_tile, (tiles, tile_clusters))
    return best.score.reshape(-1)[: len(points)], best.row.reshape(-1)[: len(points)]
