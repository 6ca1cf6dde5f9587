"""The selection behind the kernels of coverage: greedy and lazy, by bounds from matrix products."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from latent_al.kernels._conditions import check_num
from latent_al.kernels._kernel import without_gradient
from latent_al.kernels._loops import fori_loop, one_by_one, while_loop
from latent_al.kernels._sharding import (
    blockwise_sum,
    map_shards,
    marked_rows,
    pairwise_row_sums,
    take_row,
    top_k,
    top_k_mask,
)
from latent_al.kernels.distances import finite_rows, midst

TILE = 1024
"""Rows that are compared with as many other rows at a time."""

ROWS = 8192
"""Rows that the candidates are compared with at a time."""

FIRST, NEXT = 64, 256
"""Rows whose gains are bounded again first in each selection, then at a time: a wide product is faster per row."""

MANY = 0.9
"""The share of rows with old bounds above the best new one beyond which a pass over all pairs bounds all rows again."""

NEAR = 32
"""One in as many rows has its bound lowered after each selection, by what these rows no longer gain from each other."""

MEASURED = 4
"""Rows whose gains are measured at a time."""

LABELLED = 32
"""Labelled rows that all rows are compared with at a time."""

SETTLED = jnp.iinfo(jnp.int32).max


class _Similarity(NamedTuple):
    """A similarity in [0, 1] that falls with the squared distance, in units of the length scale.

    Attributes:
        of: maps squared distances to similarities.
        gain: maps a squared distance and a smaller one to the difference of their similarities, without cancellation.
        is_whole: whether similarities are only 0 and 1.
    """

    of: Callable[[Array], Array]
    gain: Callable[[Array, Array], Array]
    is_whole: bool = False


GAUSSIAN = _Similarity(lambda far: jnp.exp(-far), lambda far, near: -jnp.exp(-near) * jnp.expm1(near - far))
TOP_HAT = _Similarity(
    lambda far: (far < 1).astype(far.dtype), lambda far, near: ((far >= 1) & (near < 1)).astype(far.dtype), True
)
LINEAR = _Similarity(lambda far: jnp.maximum(1 - far, 0), lambda far, near: jnp.minimum(far, 1) - jnp.minimum(near, 1))


class _Pool(NamedTuple):
    """The constants of a selection.

    Attributes:
        points: the points, with zeros for rows that are not finite.
        left, right: factors about an origin in the points' midst and in units of the length scale, whose products are
            lower bounds of squared distances.
        weights: 0 for rows that are not finite.
        scale: the length scale.
        margin: factor by which a sum of bounds is multiplied, so that it is a bound too.
    """

    points: Array
    finite: Array
    left: Array
    right: Array
    weights: Array
    scale: Array
    margin: float


class _State(NamedTuple):
    """The state of a selection.

    upper: bounds on the gains of all rows; -1 for rows that are not finite, -inf for those that may not be selected.
    stamp: 2 t for a row bounded, 2 t + 1 for one measured, when t rows were selected; `SETTLED` for one without a gain.
    sq_distances: from all rows to the nearest one labelled or selected, in units of the length scale.
    """

    upper: Array
    stamp: Array
    sq_distances: Array
    rows: Array
    gains: Array


class Sampling(NamedTuple):
    """The candidates of each selection: `size` newly drawn rows, or all that are left."""

    key: PRNGKeyArray
    size: int


class _Search(NamedTuple):
    upper: Array
    stamp: Array
    top: Array


class _Measured(NamedTuple):
    lower: Array
    nearest: Array


class _Covered(NamedTuple):
    """The rows to be covered, as candidates are compared with them.

    least: similarities below which a candidate adds nothing.
    most: similarities above which it adds no more; None without such.
    """

    left: Array
    weights: Array
    least: Array
    most: Array | None = None


def _pool(points, scale, weights, similarity):
    finite = finite_rows(points)
    eps = float(jnp.finfo(points.dtype).eps)
    # The rounding of a sum of terms of one sign grows as the root of their number; counts are not rounded.
    margin = 1.0 if similarity.is_whole and weights is None else 1 + eps * len(points) ** 0.5
    weights = jnp.ones_like(points[:, 0]) if weights is None else weights
    weights = jnp.where(finite & (weights > 0) & (weights < jnp.inf), weights, 0)
    points = jnp.where(finite[:, None], points, 0)
    scale = jnp.where(scale > 0, scale, jnp.inf).astype(points.dtype)
    scaled = (points - midst(points, finite)[None]) / scale
    # Squares are reduced by the error of a squared distance from a product, which is then a lower bound.
    squares = (1 - (points.shape[1] + 8) * eps) * (scaled**2).sum(axis=1, keepdims=True)
    one = jnp.ones_like(squares)
    left = jnp.concatenate([-2 * scaled, squares, one], axis=1)
    right = jnp.concatenate([scaled, one, squares], axis=1)
    return _Pool(points, finite, left, right, weights.astype(points.dtype), scale, margin)


def select(points, taken, num, labelled, scale, weights, similarity, sampling=None):
    """Returns the rows that raise coverage most, one after the other, and their gains.

    With `sampling` the candidates of each selection are a random sample.
    """
    check_num(num, len(points))
    labelled = taken if labelled is None else labelled
    greedy = one_by_one(partial(_select, num=num, similarity=similarity, num_sampled=sampling and sampling.size))
    arrays = jax.lax.stop_gradient((points, taken, labelled, scale, weights))
    rows, gains = greedy(*arrays, sampling and sampling.key)
    return rows, without_gradient(gains / len(points), (points, scale, weights), "the gains of coverage")


def _select(points, taken, labelled, scale, weights, key, *, num, similarity, num_sampled):
    size = len(points)
    sampling = None if key is None else Sampling(key, num_sampled)
    pool = _pool(points, scale, weights, similarity)
    sq_distances = _to_labelled(pool, labelled)
    # A sample compares few rows: there is no pass over all of them.
    bounds = jnp.full_like(pool.weights, jnp.inf) if sampling else _bounds_of_all(pool, sq_distances, similarity)
    upper = jnp.where(pool.finite, bounds, -1)
    stamp = jnp.where(taken | ~pool.finite, SETTLED, -1 if sampling else 0).astype(jnp.int32)
    rows = jnp.full(num, size, jnp.int32)
    start = _State(jnp.where(taken, -jnp.inf, upper), stamp, sq_distances, rows, jnp.zeros(num, points.dtype))
    pick = partial(_pick_of_sample, sampling) if sampling else _pick_of_all
    end = fori_loop(0, num, partial(pick, pool, similarity), start)
    return end.rows, end.gains


def _pick_of_all(pool, similarity, step, state):
    """Returns the state with the best of all rows selected, and with lower bounds for rows near it."""
    end = _pick(pool, similarity, step, state)
    return end._replace(upper=_lowered(pool, similarity, end.upper, state.sq_distances, end.sq_distances))


def _pick_of_sample(sampling, pool, similarity, step, state):
    """Returns the state with the best of a random sample selected; rows that are not finite are drawn last."""
    draws = jax.random.uniform(jax.random.fold_in(sampling.key, step), state.upper.shape)
    draws = jnp.where(state.upper > -jnp.inf, jnp.where(pool.finite, draws, -1), -2)
    is_drawn = top_k_mask(draws, sampling.size)
    end = _pick(pool, similarity, step, state._replace(upper=jnp.where(is_drawn, state.upper, -jnp.inf)))
    return end._replace(upper=jnp.where(is_drawn, end.upper, state.upper))


def _pick(pool, similarity, step, state):
    """Returns the state with one more row selected."""
    covered = _Covered(pool.left, pool.weights, _lower_similarity(similarity, state.sq_distances))
    near = partial(_upper_similarity, similarity)

    def bound(search, num):
        rows = search.top[:num]
        sums = map_shards(partial(_sums_of_shard, near=near), covered, pool.right[rows])
        return _updated(search, rows, pool.margin * sums.sum(axis=0), 2 * step)

    def bound_all(search):
        return _updated(search, slice(None), _bounds_of_all(pool, state.sq_distances, similarity), 2 * step)

    def measure(search):
        rows = search.top[:MEASURED]
        return _updated(search, rows, _gains(pool, similarity, state.sq_distances, rows), 2 * step + 1)

    def advance(search):
        search = while_loop(lambda search: _first_stamp(search) < 2 * step, partial(bound, num=NEXT), search)
        return while_loop(lambda search: _first_stamp(search) == 2 * step, measure, search)

    start = bound(_Search(state.upper, state.stamp, _largest(state.upper)), FIRST)
    best = jnp.where(start.stamp >= 2 * step, start.upper, -jnp.inf).max()
    are_many = (start.upper > best).sum() > MANY * len(start.upper)
    start = jax.lax.cond(are_many, bound_all, lambda search: search, start)
    end = while_loop(lambda search: _first_stamp(search) <= 2 * step, advance, start)
    row = end.top[0]
    gain = take_row(end.upper, row)
    nearer = jnp.minimum(state.sq_distances, _scaled_squares(pool, row[None])[:, 0])
    return _State(
        end.upper.at[row].set(-jnp.inf),
        end.stamp.at[row].set(SETTLED),
        jnp.where(take_row(pool.finite, row) & (gain >= 0), nearer, state.sq_distances),
        state.rows.at[step].set(jnp.where(gain > -jnp.inf, row, len(state.upper)).astype(jnp.int32)),
        state.gains.at[step].set(jnp.maximum(gain, 0)),
    )


def _first_stamp(search):
    return take_row(search.stamp, search.top[0])


def _largest(upper):
    return top_k(upper, min(NEXT, len(upper)))[1]


def _updated(search, rows, gains, stamp):
    """Returns the search with new gains of some rows, which are bounded or measured, as `stamp` says."""
    is_settled = search.stamp[rows] == SETTLED
    gains = jnp.where(is_settled, search.upper[rows], jnp.minimum(search.upper[rows], gains))
    upper = search.upper.at[rows].set(gains)
    stamps = search.stamp.at[rows].set(jnp.where(is_settled, SETTLED, stamp))
    return _Search(upper, stamps, _largest(upper))


def _bounds_of_all(pool, sq_distances, similarity):
    """Returns bounds on the gains of all rows, from a pass over all pairs."""
    beside = jnp.stack([_lower_similarity(similarity, sq_distances), pool.weights], axis=1)

    def sums(left, right):
        near = _upper_similarity(similarity, left[:, :-2], right[:, :-2])
        of_left = _weighted(near.T, right[:, -2], right[:, -1])
        return of_left, _weighted(near, left[:, -2], left[:, -1])

    left = jnp.concatenate([pool.left, beside], axis=1)
    right = jnp.concatenate([pool.right, beside], axis=1)
    return pool.margin * pairwise_row_sums(sums, left, right, TILE)[: len(left)]


def _lowered(pool, similarity, upper, before, after):
    """Returns bounds, lowered for the rows that a selection has brought nearest to the selected row.

    A gain falls by a sum over all rows of terms that are not negative. A bound stays one if only some are subtracted.

    Args:
        before: squared distances to the nearest row labelled or selected, before the selection.
        after: the same after it.
    """
    eps = float(jnp.finfo(upper.dtype).eps)
    old, new = similarity.of(before), _lower_similarity(similarity, after)
    if not similarity.is_whole:
        old = jnp.minimum(old * (1 + 2 * eps), 1)
    block = min(NEXT, len(upper))
    _, rows = top_k(pool.weights * (new - old), block * max(len(upper) // (NEAR * block), 1))
    covered = _Covered(pool.left[rows], pool.weights[rows], old[rows], new[rows])
    near = partial(_near_at_least, similarity)
    falls = jax.lax.map(lambda some: _sums_of_shard(covered, pool.right[some], near=near), rows.reshape(-1, block))
    # The fall is taken for less than its sum, and the difference for more, by what they may be rounded.
    rounding = 1.0 if pool.margin == 1 else 1 + eps
    lowered = jnp.maximum(upper[rows] - (2 - pool.margin) * falls.reshape(-1), 0) * rounding
    return upper.at[rows].min(jnp.where(upper[rows] > 0, lowered, upper[rows]))


def _sums_of_shard(covered, candidates, *, near):
    """Returns sums over the rows of one shard of what the candidates add to their similarities."""
    size = min(ROWS, len(covered.left))

    def tile(index, sums):
        start = jnp.minimum(index * size, len(covered.left) - size)
        part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), covered)
        # The last tile overlaps the one before.
        is_new = start + jnp.arange(size) >= index * size
        similarities = near(part.left, candidates)
        if part.most is not None:
            similarities = jnp.minimum(similarities, part.most[:, None])
        return sums + _weighted(similarities, part.least, jnp.where(is_new, part.weights, 0))

    return fori_loop(0, -(-len(covered.left) // size), tile, jnp.zeros(len(candidates), covered.left.dtype))


def _upper_similarity(similarity, left, right):
    products = jnp.matmul(left, right.T, precision="highest")
    # Products that are NaN have overflowed, and bound nothing.
    near = similarity.of(jnp.where(products > 0, products, 0))
    # Raised by the rounding of a similarity, which would show in the difference of two.
    return jnp.minimum(near * (1 + 4 * float(jnp.finfo(near.dtype).eps)), 1)


def _near_at_least(similarity, left, right):
    products = jnp.matmul(left, right.T, precision="highest")
    # The products are too low by at most twice what the squares were reduced by, and by their own rounding.
    reduced = (left.shape[1] + 6) * float(jnp.finfo(products.dtype).eps)
    far = products + 4 * reduced * (left[:, -2:-1] + right[None, :, -1])
    return _lower_similarity(similarity, jnp.where(jnp.isnan(far), jnp.inf, jnp.maximum(far, 0)))


def _lower_similarity(similarity, sq_distances):
    """Returns the similarity at measured distances, less its rounding; it is exact at 0, and where `is_whole`."""
    near = similarity.of(sq_distances)
    is_exact = similarity.is_whole | (sq_distances == 0)
    return jnp.where(is_exact, near, near * (1 - 2 * float(jnp.finfo(near.dtype).eps)))


def _weighted(near, similarity, weights):
    return jnp.matmul(weights, jnp.maximum(near - similarity[:, None], 0), precision="highest")


def _gains(pool, similarity, sq_distances, rows):
    """Returns the gains of some rows, from differences."""
    far = jnp.broadcast_to(sq_distances[:, None], (len(sq_distances), len(rows)))
    near = _scaled_squares(pool, rows)
    gains = pool.weights[:, None] * jnp.where(near < far, similarity.gain(far, jnp.minimum(near, far)), 0)
    return blockwise_sum(lambda blocks: blocks.sum(axis=1), gains)


def _scaled_squares(pool, rows):
    """Returns squared distances [n k] of all rows to some, in units of the length scale."""
    gaps = [(pool.points - centre[None]) / pool.scale for centre in pool.points[rows]]
    return jnp.stack([(gap**2).sum(axis=1) for gap in gaps], axis=1)


def _to_labelled(pool, labelled):
    """Returns the squared distance of each row to the nearest one labelled, inf where there is none.

    Products narrow down which rows may be the nearest, and differences measure these: one or two for most rows.
    """
    marked = marked_rows(labelled & pool.finite)

    def block(index, sq_distances):
        places = index * LABELLED + jnp.arange(LABELLED)
        included = places < marked.num_marked
        rows = marked.at(jnp.where(included, places, 0))
        centres = pool.points[rows]
        lower = jnp.matmul(pool.left, pool.right[rows].T, precision="highest")

        def measure(carry):
            place = carry.lower.argmin(axis=1)
            gaps = (pool.points - centres[place]) / pool.scale
            nearest = jnp.minimum(carry.nearest, (gaps**2).sum(axis=1))
            is_measured = jnp.arange(LABELLED)[None, :] == place[:, None]
            return _Measured(jnp.where(is_measured, jnp.inf, carry.lower), nearest)

        start = _Measured(jnp.where(included[None, :], lower, jnp.inf), sq_distances)
        return while_loop(lambda carry: (carry.lower.min(axis=1) < carry.nearest).any(), measure, start).nearest

    num_blocks = -(-marked.num_marked // LABELLED)
    return fori_loop(0, num_blocks, block, jnp.full_like(pool.weights, jnp.inf))
