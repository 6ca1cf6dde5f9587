"""Farthest-first traversal, the greedy k-center: row by row the one farthest from all that is taken or picked."""

from collections import namedtuple
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

from latent_al.kernels._sharding import gather, map_shards, marked_rows, take_row, top_k
from latent_al.kernels.distances import nearest, squared_euclidean_to_point

CANDIDATES = 1024
"""Rows among which picks are made between two passes over the pool."""

CENTRES = 128
"""Picks between two passes, at most, and centres with which the candidates are compared at a time."""

TILE, BLOCK = 4096, 32
"""Rows of the pool, and centres, of one matrix product of a pass."""

SMALL = 2 * TILE
"""Pools up to here are scanned for each pick: passes would not pay."""

PATIENCE = 3
"""Passes without a pick after which distances are too small for matrix products to tell them apart."""


class Cover(namedtuple("Cover", ["rows", "distances", "nearest"])):
    """Picks that cover a pool.

    Attributes:
        rows: int32 [num], in the order of picking.
        distances: float [num], of each pick to the nearest of all before it, at the time: the radius within which those
            covered the pool, in [0, inf]; inf where nothing was before.
        nearest: int32 [n], for each row of the pool the place in `rows` of the pick that stands for it, its nearest.
    """


_Pool = namedtuple("_Pool", ["points", "finite", "origin", "margin", "taken"])
_State = namedtuple("_State", ["upper", "rows", "sq_distances", "count", "synced", "stuck"])


def farthest_first(
    points: Num[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    first: Int[Array, ""] | int = 0,
    eligible: Bool[Array, " n"] | None = None,
) -> Int[Array, " num"]:
    """Row by row the one farthest, by Euclidean distance, from all that are taken or picked: greedy k-center.

    Exact: distances are those of differences, which do not cancel. Ties go to the lowest row. O(n) memory besides the
    points. Integers and floats of less than 32 bits are computed in float32. Inside a caller's `jit` rows that are not
    finite come last.

    Nearest distances only shrink as picks are added. So a pass over the pool, of matrix products, gives each row an
    upper bound of its own; picks are made among the rows of the largest ones for as long as the best of them, exactly
    measured, is above the bounds of all others. Where distances are too small for that, as among near-duplicates, each
    pick scans the pool.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance (1985).

    Args:
        first: the row to begin with where nothing is taken.
        eligible: rows that may be picked, by default all; it is for the caller to see that `first` is one.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, `first` is no row, there are no dimensions, a
            coordinate is NaN, infinite or too large to square.
    """
    return _checked(points, taken, num, first, eligible)[0]


def cover(points: Num[Array, "n d"], taken: Bool[Array, " n"], num: int, *, first: Int[Array, ""] | int = 0) -> Cover:
    """The rows of `farthest_first`, how far each was when it was picked, and which of them stands for each row.

    `distances.nearest` says how exact `nearest` is.

    Raises:
        ValueError: as `farthest_first`.
    """
    rows, sq_distances = _checked(points, taken, num, first, None)
    points = _as_float(points)
    return Cover(rows, jnp.sqrt(sq_distances), nearest(points, points[rows], jnp.ones(num, bool))[1])


def _checked(points, taken, num, first, eligible):
    if eligible is None:
        # Known arrays stay known inside a caller's `jit`.
        with jax.ensure_compile_time_eval():
            eligible = jnp.ones(taken.shape, bool)
    if points.ndim != 2 or not taken.shape == eligible.shape == points.shape[:1]:
        raise ValueError(
            f"points have shape {points.shape}, taken {taken.shape} and eligible {eligible.shape}; expected [n d], "
            "[n] and [n]."
        )
    if not points.shape[1]:
        raise ValueError("points have no dimensions, and none lies apart; expected one or more.")
    if not 1 <= num <= len(points):
        raise ValueError(f"num is {num}; expected at least 1 and at most the {len(points)} rows of the pool.")
    if not isinstance(taken, jax.core.Tracer) and not isinstance(eligible, jax.core.Tracer):
        left = (~jax.device_get(taken) & jax.device_get(eligible)).sum()
        if num > left:
            raise ValueError(f"{num} rows asked for but only {left} of {len(points)} are left; ask for fewer.")
    if not isinstance(first, jax.core.Tracer) and not 0 <= int(first) < len(points):
        raise ValueError(f"first is {first}; expected a row of the pool, 0 to {len(points) - 1}.")
    if not isinstance(points, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            bad = jax.device_get(~_finite(_as_float(points)))
        if bad.any():
            raise ValueError(
                f"{bad.sum()} of {len(points)} points are NaN, infinite or too large to square, the first is row "
                f"{bad.argmax()}; look for that in what they were made from."
            )
    return _farthest_first(_as_float(points), taken, num, first, eligible)


def _as_float(points):
    return points.astype(jnp.promote_types(points.dtype, jnp.float32))


@jax.jit
def _finite(points):
    """Rows whose squared distances to each other cannot overflow."""
    return jnp.isfinite(4 * (points**2).sum(axis=1))


@partial(jax.jit, static_argnums=2)
def _farthest_first(points, taken, num, first, eligible):
    pool = _pool(points, taken)
    count = jnp.maximum(pool.taken.count, 1)
    upper = jnp.where(taken | ~eligible, -jnp.inf, jnp.where(pool.finite, jnp.inf, -1)).astype(points.dtype)
    state = _State(
        upper.at[jnp.where(taken.any(), len(points), first)].set(-jnp.inf, mode="drop"),
        jnp.full(num, first, jnp.int32),
        jnp.full(num, jnp.inf, points.dtype),
        count,
        jnp.zeros_like(count),
        jnp.zeros_like(count),
    )
    last = pool.taken.count + num
    if len(points) > SMALL:
        state = jax.lax.while_loop(
            lambda state: (state.count < last) & (state.stuck < PATIENCE), partial(_pass, pool, last), state
        )
    return _scan(pool, last, state)


def _pool(points, taken):
    """Returns what stays as it is in all passes."""
    finite = _finite(points)
    # Of some rows: the mean of all would take a copy of them, and bounds only need an origin in their midst.
    num = min(len(points), CANDIDATES)
    some = jnp.arange(num) * (len(points) // num)
    origin = jnp.where(finite[some][:, None], points[some], 0).mean(axis=0)
    # Of a squared distance from a product: the rounding of its terms, about (d + 3) / 2, and of the move to the origin.
    margin = (points.shape[1] + 8) * jnp.finfo(points.dtype).eps / 2
    return _Pool(points, finite, origin, margin, marked_rows(taken))


def _centres(pool, picked, places):
    """The rows at these places of all centres: first those taken, then those picked."""
    return jnp.where(places < pool.taken.count, pool.taken.at(places), picked[places - pool.taken.count])


def _pass(pool, last, state):
    """Bounds for all rows, then picks among the candidates."""
    upper = _bounded(pool, state.upper, state.rows, state.synced, state.count)
    found, rows = top_k(upper, CANDIDATES + 1)
    bound, bound_row, rows = found[-1], rows[-1], jnp.sort(rows[:-1])
    columns, open_rows = _at(pool, rows).T, upper[rows] >= 0
    distances = jnp.where(open_rows, _measured(pool, columns, upper[rows], state.rows, state.count), upper[rows])

    def is_best(carry):
        _, _, _, picked, place, best = carry
        ahead = (best > bound) | ((best == bound) & (rows[place] < bound_row))
        return ahead & (picked < CENTRES) & (state.count + picked < last)

    def pick(carry):
        distances, picks, sq_distances, picked, place, best = carry
        index = state.count + picked - pool.taken.count
        picks, sq_distances = picks.at[index].set(rows[place]), sq_distances.at[index].set(best)
        nearer = ((columns - columns[:, place][:, None]) ** 2).sum(axis=0)
        distances = jnp.minimum(distances, nearer).at[place].set(-jnp.inf)
        place = distances.argmax()
        return distances, picks, sq_distances, picked + 1, place, distances[place]

    place = distances.argmax()
    start = distances, state.rows, state.sq_distances, jnp.zeros_like(state.count), place, distances[place]
    distances, picks, sq_distances, picked, _, _ = jax.lax.while_loop(is_best, pick, start)
    stuck = jnp.where(picked, 0, state.stuck + 1)
    return _State(upper.at[rows].set(distances), picks, sq_distances, state.count + picked, state.count, stuck)


def _bounded(pool, upper, picked, low, high):
    """Upper bounds of all rows after the centres from `low` to `high`: one pass over the pool for `CENTRES` of them."""
    places = jnp.arange(CENTRES)

    def some(index, upper):
        start = low + index * CENTRES
        place = start + places
        y = _at(pool, _centres(pool, picked, jnp.where(place < high, place, low))) - pool.origin[None]
        num_blocks = -(-jnp.minimum(high - start, CENTRES) // BLOCK)
        known = pool.origin, y.reshape(-1, BLOCK, y.shape[1]), num_blocks
        bounds = partial(_bounds_of_shard, margin=pool.margin)
        return gather(map_shards(bounds, (pool.points, pool.finite, upper), *known), len(upper))

    return jax.lax.fori_loop(0, -(-(high - low) // CENTRES), some, upper)


def _bounds_of_shard(rows, origin, blocks, num_blocks, *, margin):
    size = min(TILE, len(rows[0]))

    def tile(index, upper):
        start = jnp.minimum(index * size, len(upper) - size)
        points, finite, bound = (jax.lax.dynamic_slice_in_dim(each, start, size) for each in (*rows[:2], upper))
        x = jnp.where(finite[:, None], points - origin[None], 0)
        squares = (x**2).sum(axis=1)

        def block(index, bound):
            y = blocks[index]
            y_squares = (y**2).sum(axis=1)
            products = jnp.matmul(x, -2 * y.T, precision="highest") + y_squares[None, :]
            error = margin * (jnp.sqrt(squares) + jnp.sqrt(y_squares.max())) ** 2
            return jnp.minimum(bound, jnp.maximum(products.min(axis=1) + squares, 0) + error)

        bound = jax.lax.fori_loop(0, num_blocks, block, bound)
        return jax.lax.dynamic_update_slice_in_dim(upper, bound, start, 0)

    return jax.lax.fori_loop(0, -(-len(rows[0]) // size), tile, rows[2])


def _measured(pool, columns, upper, picked, count):
    """Squared distances of the candidates, `columns` [d m], to the nearest of `count` centres, from differences.

    Products tell which centres may be the nearest, given the `upper` bounds: one for most candidates.
    """
    x = columns - pool.origin[:, None]
    squares = (x**2).sum(axis=0)
    places = jnp.arange(CENTRES)

    def block(index, nearest):
        place = index * CENTRES + places
        given = _at(pool, _centres(pool, picked, jnp.where(place < count, place, 0)))
        y = given - pool.origin[None]
        y_squares = (y**2).sum(axis=1)
        products = jnp.matmul(-2 * y, x, precision="highest") + y_squares[:, None] + squares[None, :]
        lower = products - pool.margin * (jnp.sqrt(squares)[None, :] + jnp.sqrt(y_squares)[:, None]) ** 2
        lower = jnp.where((place < count)[:, None], lower, jnp.inf)

        def may_be_nearer(carry):
            lower, nearest = carry
            return (lower.min(axis=0) <= jnp.minimum(upper, nearest)).any()

        def measure(carry):
            lower, nearest = carry
            place = lower.argmin(axis=0)
            sq_distance = ((columns - given.T[:, place]) ** 2).sum(axis=0)
            is_centre = lower.min(axis=0) < jnp.inf
            nearest = jnp.where(is_centre, jnp.minimum(nearest, sq_distance), nearest)
            return jnp.where(places[:, None] == place[None, :], jnp.inf, lower), nearest

        return jax.lax.while_loop(may_be_nearer, measure, (lower, nearest))[1]

    return jax.lax.fori_loop(0, -(-count // CENTRES), block, jnp.full_like(upper, jnp.inf))


def _scan(pool, last, state):
    """The rest of the picks, each of which scans the pool."""

    def towards(row, distances):
        sq_distances = squared_euclidean_to_point(pool.points, _at(pool, row[None])[0])
        return jnp.where(pool.finite, jnp.minimum(distances, sq_distances), distances)

    def pick(count, carry):
        distances, rows, sq_distances = carry
        row, index = distances.argmax().astype(jnp.int32), count - pool.taken.count
        rows, sq_distances = rows.at[index].set(row), sq_distances.at[index].set(take_row(distances, row))
        return towards(row, distances).at[row].set(-jnp.inf), rows, sq_distances

    def again(place, distances):
        return towards(_centres(pool, state.rows, place[None])[0], distances)

    open_rows = jnp.where(state.upper < 0, state.upper, jnp.inf)
    distances = jax.lax.fori_loop(0, jnp.where(state.count < last, state.count, 0), again, open_rows)
    return jax.lax.fori_loop(state.count, last, pick, (distances, state.rows, state.sq_distances))[1:]


def _at(pool, rows):
    return jnp.where(pool.finite[rows][:, None], pool.points[rows], 0)
