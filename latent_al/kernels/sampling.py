"""Rows selected through a distribution over the latent space: a point is drawn, and a row near it is selected.

`clusters [n]` are cluster assignments, from 0; a pool without clusters is one cluster. Source: Killeen (2019),
Algorithm 1.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._checks import MAX_ROWS, Check
from latent_al.kernels._conditions import CLUSTERS, ROWS_LEFT, check_num, positive
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop, scan, while_loop
from latent_al.kernels._sharding import blockwise_sum, column_sums, nearest_of_shards, segment_sum, top_k
from latent_al.kernels.distances import clamped, nearest, root, squared_euclidean_to_point

DRAWS = 64
"""Points drawn at a time."""

DRAWS_A_ROW = 100
"""Draws for each row asked of a cluster, after which rows still missing are selected whatever the threshold."""


def _have_shares(sizes, beside):
    # A sum below 3e9 in floats, which round, does not wrap in uint32, which is exact.
    total = sizes.astype(jnp.uint32).sum(dtype=jnp.uint32)
    has_room = (sizes.astype(jnp.float32).sum() < 3e9) & (total <= MAX_ROWS)
    return (sizes.min() >= 0) & has_room & (beside["num"] >= 0) & (total >= beside["num"])


def _no_shares(name, sizes, beside):
    return (
        f"{name} run from {sizes.min()} to {sizes.max()} and sum to {sizes.sum(dtype=int)}, but num is "
        f"{beside['num']}; expected sizes of 0 or more, which sum to less than 2**31, and num in [0, sum]."
    )


SIZES = Check(_have_shares, _no_shares, ("num",))
"""Sizes that `num` can be shared among."""


class Distribution(NamedTuple):
    """For each of c clusters, `centre [d] + factor [d d] @ noise [d]`; zeros for an empty cluster.

    Attributes:
        centre: of each cluster.
        factor: of each cluster.
        is_normal: whether the noise is N(0, I), rather than uniform in [-1, 1] in each dimension.
    """

    centre: Float[Array, "c d"]
    factor: Float[Array, "c d d"]
    is_normal: Bool[Array, ""]


class Matches(NamedTuple):
    """Rows near points that were drawn.

    Attributes:
        rows: int32, cluster by cluster.
        is_within: whether the row lies within the threshold of a point.
    """

    rows: Int[Array, " num"]
    is_within: Bool[Array, " num"]


class _Quota(NamedTuple):
    share: Array
    remainder: Array


class _Pool(NamedTuple):
    points: Array
    taken: Array
    clusters: Array


class _Selected(NamedTuple):
    num_filled: Array
    rows: Array
    blocked: Array


class _Attempts(NamedTuple):
    tries: Array | int
    num_draws: Array
    selected: _Selected


class _Candidates(NamedTuple):
    rows: Array
    keep: Array


@kernel(clusters=CLUSTERS)
def uniform(points: Float[Array, "n d"], *, clusters: Int[Array, " n"], num_clusters: int) -> Distribution:
    """Fits to each cluster a uniform distribution from the smallest to the largest value of each dimension.

    Args:
        clusters: cluster assignments, in [0, num_clusters).
        num_clusters: number of clusters, including empty ones.

    Raises:
        ValueError: the shapes differ, a cluster is outside the range, or a coordinate is NaN, infinite or too large to
            square.
    """

    def fit(inside):
        low = jnp.where(inside[:, None], points, jnp.inf).min(axis=0)
        high = jnp.where(inside[:, None], points, -jnp.inf).max(axis=0)
        return (low + high) / 2, jnp.diag((high - low) / 2)

    return _by_cluster(fit, clusters, num_clusters, is_normal=False)


@kernel(clusters=CLUSTERS)
def normal(points: Float[Array, "n d"], *, clusters: Int[Array, " n"], num_clusters: int) -> Distribution:
    """Fits to each cluster a normal distribution with one mean and one standard deviation for all dimensions.

    Args:
        clusters: cluster assignments, in [0, num_clusters).
        num_clusters: number of clusters, including empty ones.

    Raises:
        ValueError: the shapes differ, a cluster is outside the range, or a coordinate is NaN, infinite or too large to
            square.
    """

    def fit(inside):
        size = _size(inside) * points.shape[1]
        mean = column_sums(jnp.where(inside[:, None], points, 0)).sum() / size
        variance = column_sums(jnp.where(inside[:, None], (points - mean) ** 2, 0)).sum() / size
        return jnp.full(points.shape[1], mean), root(variance) * jnp.eye(points.shape[1], dtype=points.dtype)

    return _by_cluster(fit, clusters, num_clusters, is_normal=True)


@kernel(clusters=CLUSTERS)
def multi_normal(points: Float[Array, "n d"], *, clusters: Int[Array, " n"], num_clusters: int) -> Distribution:
    """Fits to each cluster a normal distribution with a mean vector and a covariance matrix, which may be singular.

    The factor has no gradient where that matrix has equal eigenvalues, as for a single row.

    Args:
        clusters: cluster assignments, in [0, num_clusters).
        num_clusters: number of clusters, including empty ones.

    Raises:
        ValueError: the shapes differ, a cluster is outside the range, or a coordinate is NaN, infinite or too large to
            square.
    """

    def fit(inside):
        mean = column_sums(jnp.where(inside[:, None], points, 0)) / _size(inside)
        gaps = jnp.where(inside[:, None], points - mean[None, :], 0)
        values, vectors = jnp.linalg.eigh(blockwise_sum(partial(jax.lax.map, _gram), gaps) / _size(inside))
        return mean, vectors * jnp.sqrt(clamped(values))[None, :]

    return _by_cluster(fit, clusters, num_clusters, is_normal=True)


@kernel(sizes=SIZES)
def largest_remainder(sizes: Int[Array, " c"], num: int) -> Int[Array, " c"]:
    """Returns shares of `num` proportional to `sizes`, which sum to it exactly; no share is above its size.

    Each share is the quota rounded down, and what is left goes to the largest remainders; ties go to the lowest index.
    Quotas are computed in integers, without rounding. Inside a caller's `jit` the shares are `sizes` where those sum to
    less than `num`.

    Args:
        sizes: to which the shares are proportional, 0 or more.

    Raises:
        ValueError: a size is negative, or `num` is not in [0, sum of sizes], or the sum is 2**31 or more.
    """
    if num < 0:
        raise ValueError(f"num is {num}; expected 0 or more.")
    sizes = jnp.maximum(sizes, 0).astype(jnp.uint32)
    asked = jnp.minimum(num, sizes.sum(dtype=sizes.dtype))
    total = jnp.maximum(sizes.sum(dtype=sizes.dtype), 1)

    def add_bit(index, quota):
        """Returns the quotas and remainders after one more bit of `num`, from the highest down."""
        bit = (asked >> (30 - index).astype(jnp.uint32)) & 1
        doubled = 2 * quota.remainder
        carried = (doubled >= total).astype(jnp.uint32)
        remainder = doubled - carried * total + bit * sizes
        is_full = (remainder >= total).astype(jnp.uint32)
        return _Quota(2 * quota.share + carried + is_full, remainder - is_full * total)

    none = jnp.zeros_like(sizes)
    quota = fori_loop(0, 31, add_bit, _Quota(none, none))
    order = jnp.argsort(-quota.remainder.astype(jnp.int32))
    rank = none.at[order].set(jnp.arange(len(sizes), dtype=none.dtype))
    return (quota.share + (rank < asked - quota.share.sum(dtype=asked.dtype))).astype(jnp.int32)


@kernel(taken=ROWS_LEFT, clusters=CLUSTERS, threshold=positive("a distance above 0."))
def draw_and_match(
    key: PRNGKeyArray,
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    clusters: Int[Array, " n"],
    distribution: Distribution,
    threshold: Float[Array, ""] | float,
    all_within: bool,
) -> Matches:
    """Selects `num` rows, each near a point drawn from the distribution of its cluster.

    Each cluster gets a share of `num` in proportion to the rows that it has left, by largest remainder. A point is
    matched to the rows of its own cluster. As many points are drawn as rows are missing, repeatedly, until none is
    missing or the cluster has had a hundred draws for each row of its share; with `all_within`, a hundred in all plus
    one for each row. For rows still missing then, the nearest ones left to further draws are selected, however far.

    Inside a caller's `jit` rows of clusters without a distribution are not selected, and n stands for each missing row.
    O(draws n d) time and O(n d) memory.

    Args:
        taken: rows that may not be selected.
        num: rows to select.
        clusters: cluster assignments, below the number of clusters that the distribution has.
        distribution: of each cluster: `uniform`, `normal` or `multi_normal` fitted to it.
        threshold: Euclidean distance below which a row matches, above 0; may be traced.
        all_within: a draw selects all rows left within the threshold, the nearest first, as Algorithm 1 is printed;
            otherwise only the nearest row left, as in its experiments.

    Raises:
        ValueError: `num` is not in [1, rows left], the threshold is not above 0, the shapes differ, a cluster has no
            distribution, or a number is NaN or infinite.
    """
    check_num(num, len(taken))
    taken = taken | (clusters < 0) | (clusters >= len(distribution.centre))
    return _draw_and_match(key, _Pool(points, taken, clusters), distribution, threshold, num, all_within)


def _draw_and_match(key, pool, distribution, threshold, num, all_within):
    num_clusters = distribution.centre.shape[0]
    sizes = segment_sum((~pool.taken).astype(jnp.int32), pool.clusters, num_clusters)
    end = jnp.cumsum(largest_remainder(sizes, num))
    match = _all_within if all_within else _nearest_of_each
    num_points = 1 if all_within else DRAWS

    def fill(selected, cluster):
        key_match, key_give = jax.random.split(jax.random.fold_in(key, cluster))
        quota = end[cluster] - selected.num_filled
        most = DRAWS_A_ROW + quota if all_within else DRAWS_A_ROW * quota

        def is_missing(state):
            return (state.selected.num_filled < end[cluster]) & (state.num_draws < most)

        def attempt(state):
            missing = end[cluster] - state.selected.num_filled
            draws = _draw(jax.random.fold_in(key_match, state.tries), distribution, cluster, num_points)
            left = (pool.clusters == cluster) & ~state.selected.blocked
            candidates = match(draws, pool.points, left, threshold, missing, num)
            selected = _append(state.selected, candidates)
            return _Attempts(state.tries + 1, state.num_draws + jnp.minimum(missing, num_points), selected)

        def give(tries, selected):
            draws = _draw(jax.random.fold_in(key_give, tries), distribution, cluster, 1)
            rows = _nearest(draws, pool.points, (pool.clusters == cluster) & ~selected.blocked)[1]
            return _append(selected, _Candidates(rows, jnp.ones(1, bool)))

        selected = while_loop(is_missing, attempt, _Attempts(0, jnp.int32(0), selected)).selected
        return fori_loop(0, end[cluster] - selected.num_filled, give, selected), selected.num_filled

    start = _Selected(jnp.int32(0), jnp.full(num, len(pool.taken), jnp.int32), pool.taken)
    selected, matched = scan(fill, start, jnp.arange(num_clusters))
    place = jnp.arange(num)
    return Matches(selected.rows, place < matched[jnp.searchsorted(end, place, side="right")])


def _nearest(draws, points, included):
    """Returns the squared distance of each draw to the nearest included row, and that row."""

    def search(rows, draws):
        points, included = rows
        return nearest(draws, points, included)

    return nearest_of_shards(search, (points, included), draws)


def _nearest_of_each(draws, points, included, threshold, missing, num):
    """Returns the nearest row to each of the first `missing` draws, to be kept if near and no earlier draw has it."""
    del num
    sq_distances, rows = _nearest(draws, points, included)
    order = jnp.arange(len(draws))
    near = (sq_distances < threshold**2) & (order < missing)
    is_earlier = (order[None, :] < order[:, None]) & near[None, :]
    return _Candidates(rows, near & ~((rows[:, None] == rows[None, :]) & is_earlier).any(axis=1))


def _all_within(draws, points, included, threshold, missing, num):
    """Returns the rows near the one draw, nearest first, to be kept up to as many as are missing."""
    sq_distances = jnp.where(included, squared_euclidean_to_point(points, draws[0]), jnp.inf)
    closeness, rows = top_k(-sq_distances, num)
    return _Candidates(rows, (-closeness < threshold**2) & (jnp.arange(num) < missing))


def _append(selected, candidates):
    """Returns the selected rows with those candidates that are to be kept."""
    keep = candidates.keep
    place = jnp.where(keep, selected.num_filled + jnp.cumsum(keep) - 1, len(selected.rows))
    blocked_rows = jnp.where(keep, candidates.rows, len(selected.blocked))
    return _Selected(
        selected.num_filled + keep.sum(dtype=selected.num_filled.dtype),
        selected.rows.at[place].set(candidates.rows.astype(selected.rows.dtype), mode="drop"),
        selected.blocked.at[blocked_rows].set(True, mode="drop"),
    )


def _draw(key, distribution, cluster, count):
    key_normal, key_uniform = jax.random.split(key)
    shape = (count, distribution.centre.shape[1])
    noise = jnp.where(
        distribution.is_normal,
        jax.random.normal(key_normal, shape),
        jax.random.uniform(key_uniform, shape, minval=-1, maxval=1),
    )
    return distribution.centre[cluster][None, :] + jnp.matmul(
        noise, distribution.factor[cluster].T, precision="highest"
    )


def _by_cluster(fit, clusters, num_clusters, is_normal):
    def fit_or_zero(cluster):
        inside = clusters == cluster
        return jax.tree.map(lambda leaf: jnp.where(inside.any(), leaf, 0), fit(inside))

    centre, factor = jax.lax.map(fit_or_zero, jnp.arange(num_clusters))
    return Distribution(centre, factor, jnp.array(is_normal))


def _gram(block):
    """Returns the products of the columns of a block [d d]."""
    return jnp.matmul(block.T, block, precision="highest")


def _size(inside):
    return jnp.maximum(inside.sum(), 1)
