"""Rows of a pool drawn by a distribution over its latent space: a point is drawn, and a row near it is picked.

Source: Killeen, Query Selection based on Latent Space Sampling, Algorithm 1. `clusters [n]` number the cluster of each
row, from 0; a pool without clusters is one cluster.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._sharding import blockwise_sum, column_sums, nearest_of_shards, segment_sum, top_k
from latent_al.kernels.distances import nearest, squared_euclidean_to_point

DRAWS = 64
"""Points drawn at a time."""

DRAWS_A_ROW = 100
"""Draws for each row asked of a cluster, after which those still missing are picked whatever the threshold."""


class Distribution(NamedTuple):
    """For each of c clusters, `centre [d] + factor [d d] @ noise [d]`.

    The noise is N(0, I) where `is_normal`, otherwise uniform in [-1, 1] a dimension. What belongs to an empty cluster
    means nothing.
    """

    centre: Float[Array, "c d"]
    factor: Float[Array, "c d d"]
    is_normal: Bool[Array, ""]


def uniform(points: Float[Array, "n d"], clusters: Int[Array, " n"], num_clusters: int) -> Distribution:
    """Uniform from the smallest to the largest value of each dimension, cluster by cluster."""

    def fit(inside):
        low = jnp.where(inside[:, None], points, jnp.inf).min(axis=0)
        high = jnp.where(inside[:, None], points, -jnp.inf).max(axis=0)
        return (low + high) / 2, jnp.diag((high - low) / 2)

    return _by_cluster(fit, clusters, num_clusters, is_normal=False)


def normal(points: Float[Array, "n d"], clusters: Int[Array, " n"], num_clusters: int) -> Distribution:
    """Normal with one mean and one standard deviation for all dimensions, cluster by cluster."""

    def fit(inside):
        size = _size(inside) * points.shape[1]
        mean = column_sums(jnp.where(inside[:, None], points, 0)).sum() / size
        variance = column_sums(jnp.where(inside[:, None], (points - mean) ** 2, 0)).sum() / size
        return jnp.full(points.shape[1], mean), jnp.sqrt(variance) * jnp.eye(points.shape[1])

    return _by_cluster(fit, clusters, num_clusters, is_normal=True)


def multi_normal(points: Float[Array, "n d"], clusters: Int[Array, " n"], num_clusters: int) -> Distribution:
    """Normal with a mean vector and a covariance matrix, which may be singular, cluster by cluster."""

    def fit(inside):
        mean = column_sums(jnp.where(inside[:, None], points, 0)) / _size(inside)
        gaps = jnp.where(inside[:, None], points - mean[None, :], 0)
        products = blockwise_sum(
            partial(jax.lax.map, lambda block: jnp.matmul(block.T, block, precision="highest")), gaps
        )
        values, vectors = jnp.linalg.eigh(products / _size(inside))
        return mean, vectors * jnp.sqrt(jnp.where(values < 0, 0, values))[None, :]

    return _by_cluster(fit, clusters, num_clusters, is_normal=True)


def largest_remainder(num: int, sizes: Int[Array, " c"]) -> Int[Array, " c"]:
    """`num` in shares proportional to `sizes`, which sum to it exactly; no share is above its size.

    Each gets its quota rounded down, and what is left goes to the largest remainders, as float32 has them.
    """
    quota = num * sizes.astype(jnp.float32) / sizes.sum()
    share = jnp.minimum(jnp.floor(quota).astype(jnp.int32), sizes)
    remainder = jnp.where(share < sizes, quota - share, -1)
    rank = jnp.zeros_like(share).at[jnp.argsort(-remainder)].set(jnp.arange(share.size, dtype=share.dtype))
    return share + (rank < num - share.sum())


def draw_and_match(
    key: PRNGKeyArray,
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    clusters: Int[Array, " n"],
    distribution: Distribution,
    threshold: float,
    all_within: bool,
) -> tuple[Int[Array, " num"], Bool[Array, " num"]]:
    """`num` distinct rows, none taken, each near a point drawn from the distribution of its cluster.

    A cluster gives rows in proportion to those that it has left, by largest remainder. A point is matched to the rows
    of its own cluster; as many are drawn as rows are missing, again and again. Where a cluster's draws have run out, a
    hundred for each row asked of it, its missing rows are the nearest ones left to further draws, however far. Where a
    draw picks all rows within the threshold, they run out after a hundred and one for each row.

    O(draws n d) time and O(n d) memory.

    Args:
        clusters: of each row, below the number of clusters that the distribution has.
        distribution: of each cluster: `uniform`, `normal` or `multi_normal` fitted to it.
        threshold: Euclidean distance below which a row matches, above 0.
        all_within: a draw picks all rows left within the threshold, the nearest first, as Algorithm 1 is printed;
            otherwise only the nearest row left, as its experiments had it.

    Returns:
        The rows, cluster by cluster, and whether each was matched within the threshold.

    Raises:
        ValueError: `num` is not in [1, rows left], the threshold is not above 0, the shapes differ, a cluster has no
            distribution.
    """
    if not len(points) == len(taken) == len(clusters):
        raise ValueError(f"points, taken and clusters have {len(points)}, {len(taken)} and {len(clusters)} rows.")
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; expected a distance above 0.")
    if not 1 <= num <= len(taken):
        raise ValueError(f"num is {num}; expected at least 1 and at most the {len(taken)} rows of the pool.")
    if not isinstance(taken, jax.core.Tracer) and num > (left := (~jax.device_get(taken)).sum()):
        raise ValueError(f"{num} rows asked for but only {left} of {len(taken)} are left; ask for fewer.")
    if not isinstance(clusters, jax.core.Tracer):
        known, num_clusters = jax.device_get(clusters), len(distribution.centre)
        if known.min() < 0 or known.max() >= num_clusters:
            raise ValueError(
                f"clusters run from {known.min()} to {known.max()} but the distribution has {num_clusters}, from 0; "
                "fit it to as many."
            )
    return _draw_and_match(key, points, taken, clusters, distribution, threshold, num, all_within)


@partial(jax.jit, static_argnums=(6, 7))
def _draw_and_match(key, points, taken, clusters, distribution, threshold, num, all_within):
    num_clusters = distribution.centre.shape[0]
    sizes = segment_sum((~taken).astype(jnp.int32), clusters, num_clusters)
    end = jnp.cumsum(largest_remainder(num, sizes))
    match, count = (_all_within, 1) if all_within else (_nearest_of_each, DRAWS)

    def fill(carry, cluster):
        key_match, key_give = jax.random.split(jax.random.fold_in(key, cluster))
        quota = end[cluster] - carry[0]
        most = DRAWS_A_ROW + quota if all_within else DRAWS_A_ROW * quota

        def is_missing(state):
            _, used, (filled, *_) = state
            return (filled < end[cluster]) & (used < most)

        def attempt(state):
            tries, used, (filled, rows, blocked) = state
            missing = end[cluster] - filled
            draws = _draw(jax.random.fold_in(key_match, tries), distribution, cluster, count)
            left = (clusters == cluster) & ~blocked
            near = match(draws, points, left, threshold, missing, num)
            return tries + 1, used + jnp.minimum(missing, count), _append(filled, rows, blocked, *near)

        def give(tries, carry):
            filled, rows, blocked = carry
            draws = _draw(jax.random.fold_in(key_give, tries), distribution, cluster, 1)
            _, row = _nearest(draws, points, (clusters == cluster) & ~blocked)
            return _append(filled, rows, blocked, row, jnp.ones(1, bool))

        *_, carry = jax.lax.while_loop(is_missing, attempt, (0, jnp.int32(0), carry))
        return jax.lax.fori_loop(0, end[cluster] - carry[0], give, carry), carry[0]

    begin = (jnp.int32(0), jnp.zeros(num, jnp.int32), taken)
    (_, rows, _), matched = jax.lax.scan(fill, begin, jnp.arange(num_clusters))
    place = jnp.arange(num)
    return rows, place < matched[jnp.searchsorted(end, place, side="right")]


def _nearest(draws, points, valid):
    """Returns the squared distance of each draw to the nearest valid row, and that row."""
    return nearest_of_shards(lambda rows, draws: nearest(draws, rows[0], rows[1]), (points, valid), draws)


def _nearest_of_each(draws, points, valid, threshold, missing, num):
    """The nearest row to each of the first `missing` draws, less those too far and those that an earlier one has."""
    del num
    sq_distance, rows = _nearest(draws, points, valid)
    order = jnp.arange(len(draws))
    near = (sq_distance < threshold**2) & (order < missing)
    is_earlier = (order[None, :] < order[:, None]) & near[None, :]
    return rows, near & ~((rows[:, None] == rows[None, :]) & is_earlier).any(axis=1)


def _all_within(draws, points, valid, threshold, missing, num):
    """The rows near the one draw, nearest first, at most as many as are missing."""
    sq_distance = jnp.where(valid, squared_euclidean_to_point(points, draws[0]), jnp.inf)
    closeness, rows = top_k(-sq_distance, num)
    return rows, (-closeness < threshold**2) & (jnp.arange(num) < missing)


def _append(filled, rows, blocked, new, keep):
    """Adds those of the `new` rows that are kept."""
    place = jnp.where(keep, filled + jnp.cumsum(keep) - 1, len(rows))
    rows = rows.at[place].set(new.astype(rows.dtype), mode="drop")
    blocked = blocked.at[jnp.where(keep, new, len(blocked))].set(True, mode="drop")
    return filled + keep.sum(dtype=filled.dtype), rows, blocked


def _draw(key, distribution, cluster, count):
    key_normal, key_uniform = jax.random.split(key)
    shape = (count, distribution.centre.shape[1])
    noise = jnp.where(
        distribution.is_normal,
        jax.random.normal(key_normal, shape),
        jax.random.uniform(key_uniform, shape, minval=-1, maxval=1),
    )
    return distribution.centre[cluster][None, :] + noise @ distribution.factor[cluster].T


def _by_cluster(fit, clusters, num_clusters, is_normal):
    centre, factor = jax.lax.map(lambda cluster: fit(clusters == cluster), jnp.arange(num_clusters))
    return Distribution(centre, factor, jnp.array(is_normal))


def _size(inside):
    return jnp.maximum(inside.sum(), 1)
