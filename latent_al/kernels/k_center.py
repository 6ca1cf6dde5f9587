"""Farthest-first traversal, the greedy k-center: selects row by row the one farthest from those taken or selected."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latent_al.kernels._conditions import ROW, ROWS_LEFT, check_num
from latent_al.kernels._kernel import kernel, without_gradient
from latent_al.kernels._loops import fori_loop, while_loop
from latent_al.kernels._sharding import MarkedRows, gather, map_shards, marked_rows, take_row, top_k
from latent_al.kernels.distances import finite_rows, midst, nearest, squared_euclidean_to_point

CANDIDATES = 1024
"""Rows among which rows are selected between two passes over the pool."""

CENTRES = 128
"""Rows selected between two passes, at most, and centres with which the candidates are compared at a time."""

TILE = 4096
"""Rows of the pool in one matrix product of a pass."""

BLOCK = 32
"""Centres in one matrix product of a pass."""

SMALL = 2 * TILE
"""Pools of up to this size are scanned for each row selected: passes would not pay off."""

PATIENCE = 3
"""Passes without a selection after which distances are too small for matrix products to tell them apart."""


class Cover(NamedTuple):
    """Rows that cover a pool.

    Attributes:
        rows: int32, in the order of selection.
        distances: from each of these rows to the nearest row taken or selected before it, the radius within which the
            earlier rows covered the pool, in [0, inf]; inf where there were none.
        nearest: int32, for each row of the pool the place in `rows` of the nearest one, which represents it.
    """

    rows: Int[Array, " num"]
    distances: Float[Array, " num"]
    nearest: Int[Array, " n"]


class _Pool(NamedTuple):
    points: Array
    finite: Array
    origin: Array
    margin: Array
    taken: MarkedRows


class _State(NamedTuple):
    upper: Array
    rows: Array
    sq_distances: Array
    num_centres: Array
    synced: Array
    stuck: Array


class _Candidates(NamedTuple):
    distances: Array
    rows: Array
    sq_distances: Array
    num_selected: Array
    place: Array
    best: Array


class _Measured(NamedTuple):
    lower: Array
    nearest: Array


class _Scan(NamedTuple):
    distances: Array
    rows: Array
    sq_distances: Array


@kernel(taken=ROWS_LEFT, first=ROW)
def farthest_first(
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    first: Int[Array, ""] | int = 0,
    included: Bool[Array, " n"] | None = None,
) -> Int[Array, " num"]:
    """Selects row by row the one farthest, by Euclidean distance, from all rows taken or selected: greedy k-center.

    The selection is exact: distances are computed from differences, which do not cancel. Ties go to the lowest row.
    O(n) memory besides the points. Inside a caller's `jit` rows that are not finite come last, n stands for each
    missing row, and `first` is clipped to the pool.

    Nearest distances only shrink as rows are selected, so a pass of matrix products over the pool gives an upper bound
    for each row. Rows are selected from those with the largest bounds for as long as the best of them, measured
    exactly, is above the bounds of all other rows. Where distances are too small for that, as among near-duplicates,
    the pool is scanned for each row selected.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance (1985).

    Args:
        taken: rows that may not be selected, and from which the selected ones are to lie far.
        num: rows to select.
        first: the row to begin with where nothing is taken.
        included: rows that may be selected, by default all; the caller makes sure that `first` is one.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, `first` is no row, there are no dimensions, a
            coordinate is NaN, infinite or too large to square.
    """
    return _farthest_first(points, taken, num, first, included).rows


@kernel(taken=ROWS_LEFT, first=ROW)
def cover(points: Float[Array, "n d"], taken: Bool[Array, " n"], num: int, *, first: Int[Array, ""] | int = 0) -> Cover:
    """Selects the rows of `farthest_first`, with the distance of each when selected, and assigns all rows to them.

    `distances.nearest` documents how exact `nearest` is. There is no gradient. A missing row has the distance -inf.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance (1985).

    Args:
        first: the row to begin with where nothing is taken.

    Raises:
        ValueError: as `farthest_first`.
    """
    still = jax.lax.stop_gradient(points)
    traversed = _farthest_first(still, taken, num, first, None)
    is_there = traversed.rows < len(points)
    centres = still[jnp.where(is_there, traversed.rows, 0)]
    distances = jnp.where(is_there, jnp.sqrt(traversed.sq_distances), -jnp.inf)
    return Cover(
        traversed.rows,
        without_gradient(distances, points, "cover"),
        nearest(still, centres, is_there).rows,
    )


def _farthest_first(points, taken, num, first, included):
    check_num(num, len(points))
    included = jnp.ones_like(taken) if included is None else included
    first = jnp.clip(first, 0, len(points) - 1)
    pool = _pool(points, taken)
    count = jnp.maximum(pool.taken.num_marked, 1)
    is_first = (jnp.arange(len(points)) == first) & ~taken.any()
    upper = jnp.where(taken | ~included, -jnp.inf, jnp.where(pool.finite, jnp.inf, -1)).astype(points.dtype)
    state = _State(
        jnp.where(is_first, -jnp.inf, upper),
        jnp.full(num, len(points), jnp.int32).at[0].set(jnp.where(taken.any(), len(points), first)),
        jnp.full(num, jnp.inf, points.dtype),
        count,
        jnp.zeros_like(count),
        jnp.zeros_like(count),
    )
    num_left = (~taken & included).sum()
    last = pool.taken.num_marked + jnp.minimum(num, num_left)
    if len(points) > SMALL:
        state = while_loop(
            lambda state: (state.num_centres < last) & (state.stuck < PATIENCE), partial(_pass, pool, last), state
        )
    return _scan(pool, last, state)


def _pool(points, taken):
    """Returns the constants of all passes."""
    finite = finite_rows(points)
    origin = midst(points, finite)
    # The error of a squared distance from a product: of its terms, about (d + 3) / 2, and of the move to the origin.
    margin = (points.shape[1] + 8) * jnp.finfo(points.dtype).eps / 2
    return _Pool(points, finite, origin, margin, marked_rows(taken))


def _centres(pool, selected, places):
    """Returns the rows at these places of all centres: first those taken, then those selected."""
    taken = pool.taken.at(places)
    return jnp.where(places < pool.taken.num_marked, taken, selected[places - pool.taken.num_marked])


def _pass(pool, last, state):
    """Returns the state with bounds for all rows, and rows selected among the candidates."""
    upper = _bounded(pool, state.upper, state.rows, state.synced, state.num_centres)
    largest, candidates = top_k(upper, CANDIDATES + 1)
    bound = largest[-1]
    bound_row = candidates[-1]
    rows = jnp.sort(candidates[:-1])
    columns = _at(pool, rows).T
    distances = _measured(pool, columns, upper[rows], state.rows, state.num_centres)
    distances = jnp.where(upper[rows] >= 0, distances, upper[rows])

    def is_best(carry):
        ahead = (carry.best > bound) | ((carry.best == bound) & (rows[carry.place] < bound_row))
        return ahead & (carry.num_selected < CENTRES) & (state.num_centres + carry.num_selected < last)

    def select(carry):
        index = state.num_centres + carry.num_selected - pool.taken.num_marked
        nearer = ((columns - columns[:, carry.place][:, None]) ** 2).sum(axis=0)
        distances = jnp.minimum(carry.distances, nearer).at[carry.place].set(-jnp.inf)
        place = distances.argmax()
        return _Candidates(
            distances,
            carry.rows.at[index].set(rows[carry.place]),
            carry.sq_distances.at[index].set(carry.best),
            carry.num_selected + 1,
            place,
            distances[place],
        )

    place = distances.argmax()
    none = jnp.zeros_like(state.num_centres)
    start = _Candidates(distances, state.rows, state.sq_distances, none, place, distances[place])
    end = while_loop(is_best, select, start)
    stuck = jnp.where(end.num_selected, 0, state.stuck + 1)
    upper = upper.at[rows].set(end.distances)
    return _State(upper, end.rows, end.sq_distances, state.num_centres + end.num_selected, state.num_centres, stuck)


def _bounded(pool, upper, selected, low, high):
    """Returns upper bounds of all rows after the centres from `low` to `high`: a pass for `CENTRES` of them."""
    places = jnp.arange(CENTRES)

    def some(index, upper):
        start = low + index * CENTRES
        place = start + places
        y = _at(pool, _centres(pool, selected, jnp.where(place < high, place, low))) - pool.origin[None]
        num_blocks = -(-jnp.minimum(high - start, CENTRES) // BLOCK)
        blocks = y.reshape(-1, BLOCK, y.shape[1])
        rows = (pool.points, pool.finite, upper)
        bounds = map_shards(partial(_bounds_of_rows, margin=pool.margin), rows, pool.origin, blocks, num_blocks)
        return gather(bounds, len(upper))

    return fori_loop(0, -(-(high - low) // CENTRES), some, upper)


def _bounds_of_rows(rows, origin, blocks, num_blocks, *, margin):
    all_points, all_finite, all_upper = rows
    size = min(TILE, len(all_points))

    def tile(index, upper):
        start = jnp.minimum(index * size, len(upper) - size)
        points = jax.lax.dynamic_slice_in_dim(all_points, start, size)
        finite = jax.lax.dynamic_slice_in_dim(all_finite, start, size)
        x = jnp.where(finite[:, None], points - origin[None], 0)
        squares = (x**2).sum(axis=1)

        def block(index, bound):
            y = blocks[index]
            y_squares = (y**2).sum(axis=1)
            products = jnp.matmul(x, -2 * y.T, precision="highest") + y_squares[None, :]
            error = margin * (jnp.sqrt(squares) + jnp.sqrt(y_squares.max())) ** 2
            return jnp.minimum(bound, jnp.maximum(products.min(axis=1) + squares, 0) + error)

        bound = jax.lax.dynamic_slice_in_dim(upper, start, size)
        bound = fori_loop(0, num_blocks, block, bound)
        return jax.lax.dynamic_update_slice_in_dim(upper, bound, start, 0)

    return fori_loop(0, -(-len(all_points) // size), tile, all_upper)


def _measured(pool, columns, upper, selected, count):
    """Returns squared distances of the candidates, `columns` [d m], to the nearest of `count` centres.

    They are computed from differences. Products narrow down which centres may be the nearest, within the `upper`
    bounds: one for most candidates.
    """
    x = columns - pool.origin[:, None]
    squares = (x**2).sum(axis=0)
    places = jnp.arange(CENTRES)

    def block(index, nearest):
        place = index * CENTRES + places
        centres = _at(pool, _centres(pool, selected, jnp.where(place < count, place, 0)))
        y = centres - pool.origin[None]
        y_squares = (y**2).sum(axis=1)
        products = jnp.matmul(-2 * y, x, precision="highest") + y_squares[:, None] + squares[None, :]
        lower = products - pool.margin * (jnp.sqrt(squares)[None, :] + jnp.sqrt(y_squares)[:, None]) ** 2
        lower = jnp.where((place < count)[:, None], lower, jnp.inf)

        def may_be_nearer(carry):
            return (carry.lower.min(axis=0) <= jnp.minimum(upper, carry.nearest)).any()

        def measure(carry):
            place = carry.lower.argmin(axis=0)
            sq_distance = ((columns - centres.T[:, place]) ** 2).sum(axis=0)
            is_centre = carry.lower.min(axis=0) < jnp.inf
            nearest = jnp.where(is_centre, jnp.minimum(carry.nearest, sq_distance), carry.nearest)
            return _Measured(jnp.where(places[:, None] == place[None, :], jnp.inf, carry.lower), nearest)

        return while_loop(may_be_nearer, measure, _Measured(lower, nearest)).nearest

    return fori_loop(0, -(-count // CENTRES), block, jnp.full_like(upper, jnp.inf))


def _scan(pool, last, state):
    """Returns the final selection, where each further row takes a scan of the pool."""

    def towards(row, distances):
        sq_distances = squared_euclidean_to_point(pool.points, _at(pool, row[None])[0])
        return jnp.where(pool.finite, jnp.minimum(distances, sq_distances), distances)

    def select(count, carry):
        row = carry.distances.argmax().astype(jnp.int32)
        index = count - pool.taken.num_marked
        return _Scan(
            towards(row, carry.distances).at[row].set(-jnp.inf),
            carry.rows.at[index].set(row),
            carry.sq_distances.at[index].set(take_row(carry.distances, row)),
        )

    def again(place, distances):
        return towards(_centres(pool, state.rows, place[None])[0], distances)

    open_rows = jnp.where(state.upper < 0, state.upper, jnp.inf)
    distances = fori_loop(0, jnp.where(state.num_centres < last, state.num_centres, 0), again, open_rows)
    return fori_loop(state.num_centres, last, select, _Scan(distances, state.rows, state.sq_distances))


def _at(pool, rows):
    return jnp.where(pool.finite[rows][:, None], pool.points[rows], 0)
