"""Farthest-first traversal of latents that are read block by block, in few passes."""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from latent_al.kernels.distances import finite_rows, squared_euclidean_to_point
from latent_al.streaming.stream import Source, blocks, check_open, rows_at
from latent_al.types import BadInput

CANDIDATES = 2**16
"""Rows, kept in memory, among which rows are selected between two passes."""

CENTRES = 128
"""The largest number of rows to which one program measures distances, and that one program selects."""

TILE = 512
"""Rows that stay in cache while they are compared with one centre after the other."""


class _Rows(NamedTuple):
    rows: np.ndarray
    sq_distances: np.ndarray
    latents: np.ndarray

    def at(self, places):
        return _Rows(self.rows[places], self.sq_distances[places], self.latents[places])


class _Centres(NamedTuple):
    points: jax.Array
    num: int


class _Ahead(NamedTuple):
    nearest: jax.Array
    places: jax.Array
    num: jax.Array
    place: jax.Array
    best: jax.Array


class _Bound(NamedTuple):
    sq_distance: np.ndarray | float
    before: np.ndarray | int


def farthest_first(
    source: Source, taken: Bool[np.ndarray, " n"], num: int, *, first: int = 0, block_bytes: int | None = None
) -> Int[np.ndarray, " num"]:
    """Selects row by row the one farthest, by Euclidean distance, from all rows taken or selected: greedy k-center.

    The rows are those of `kernels.farthest_first`, except for ties within rounding; ties go to the lowest row.
    Distances are computed from differences, which do not cancel. Each pass over the latents updates the distances of
    all rows, and keeps the farthest rows as candidates. Rows are selected from these for as long as the best of them is
    above all other rows, since distances only shrink. The latents of the rows taken are read before the first pass.

    Besides blocks it needs O(n) memory, for one distance per row, and the latents of the candidates and of the rows
    taken.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance (1985).

    Args:
        first: the row to begin with where nothing is taken.
        block_bytes: bytes in a block of latents; by default, `stream.blocks` chooses.

    Raises:
        BadInput: `num` is not in [1, rows left], `first` is no row, a coordinate is NaN, infinite or too large to
            square, or `stream.blocks` raises it.
    """
    taken = check_open(source, taken, num)
    if not 0 <= first < source.num_rows:
        raise BadInput(f"first is {first}; expected a row of the pool, 0 to {source.num_rows - 1}.")
    start = np.flatnonzero(taken) if taken.any() else np.array([operator.index(first)], np.int64)
    selected = [start[:0] if taken.any() else start]
    sq_distances = np.full(source.num_rows, np.inf, np.float32)
    sq_distances[start] = -np.inf
    centres = rows_at(source, start)
    while (left := num - sum(map(len, selected))) > 0:
        candidates = _pass(source, sq_distances, centres, block_bytes)
        further = _selected(candidates, left)
        sq_distances[further.rows] = -np.inf
        selected.append(further.rows)
        centres = further.latents
    return np.concatenate(selected)


class _Farthest:
    """The farthest rows of the blocks seen so far, which come in ascending order of rows."""

    def __init__(self):
        self.parts = []
        self.least = -np.inf

    def see(self, sq_distances, block):
        places = np.flatnonzero(sq_distances > self.least)
        self.parts.append(_Rows(block.start + places, sq_distances[places], np.asarray(block.latents[0])[places]))
        if sum(len(part.rows) for part in self.parts) > 2 * CANDIDATES:
            self.parts = [self.sorted()]
            self.least = self.parts[0].sq_distances[-1]

    def sorted(self):
        """Returns the candidates and one row more, farthest first; ties go to the lowest row."""
        all_rows = jax.tree.map(lambda *arrays: np.concatenate(arrays), *self.parts)
        order = np.argsort(-all_rows.sq_distances, kind="stable")[: CANDIDATES + 1]
        return all_rows.at(order)


def _pass(source, sq_distances, centres, block_bytes):
    """Updates all distances with new centres, in place, and returns the candidates."""
    farthest = _Farthest()
    batches = [centres[start : start + CENTRES] for start in range(0, len(centres), CENTRES)]
    batches = [_Centres(jnp.asarray(_padded(batch, CENTRES, 0)), len(batch)) for batch in batches]
    for block in blocks(source, block_bytes=block_bytes):
        latents = block.latents[0]
        _check_finite(np.asarray(finite_rows(latents)), block)
        nearest = block.filled(sq_distances, -np.inf)
        for batch in batches:
            nearest = _nearest(latents, nearest, batch)
        nearest = np.asarray(nearest)
        sq_distances[block.start : block.stop] = nearest[: block.stop - block.start]
        farthest.see(nearest, block)
    return farthest.sorted()


def _selected(candidates, left):
    """Returns the candidates to select before a row that is not a candidate may be the farthest."""
    ordered = candidates.at(np.argsort(candidates.rows[:CANDIDATES]))
    bound = _Bound(-np.inf, 0)
    if len(candidates.rows) > CANDIDATES:
        bound = _Bound(candidates.sq_distances[-1], np.searchsorted(ordered.rows, candidates.rows[-1]))
    points = jnp.asarray(_padded(ordered.latents, CANDIDATES, 0))
    nearest = _padded(ordered.sq_distances, CANDIDATES, -np.inf)
    selected = []
    count = CENTRES
    while count == CENTRES and left:
        ahead = _ahead(points, nearest, bound, min(left, CENTRES))
        nearest = ahead.nearest
        count = ahead.num
        selected.append(np.asarray(ahead.places)[:count])
        left -= int(count)
    return ordered.at(np.concatenate(selected))


@jax.jit
def _nearest(points, sq_distances, centres):
    """Returns squared distances updated with further centres, tile by tile."""
    size = len(points)
    missing = -size % TILE

    def tile(args):
        points, nearest = args

        def closer(index, nearest):
            return jnp.minimum(nearest, squared_euclidean_to_point(points, centres.points[index]))

        return jax.lax.fori_loop(0, centres.num, closer, nearest)

    tiles = jnp.pad(points, ((0, missing), (0, 0))).reshape(-1, TILE, points.shape[1])
    return jax.lax.map(tile, (tiles, jnp.pad(sq_distances, (0, missing)).reshape(-1, TILE))).reshape(-1)[:size]


@jax.jit
def _ahead(points, sq_distances, bound, most):
    """Selects up to `most` candidates for as long as the best of them is ahead of all other rows.

    Args:
        points: the candidates, by ascending row.
        sq_distances: of the candidates.
        bound: the largest squared distance of any other row, and the number of candidates with a lower row than that.
        most: largest number of candidates to select.
    """

    def is_best(ahead):
        is_lower = (ahead.best == bound.sq_distance) & (ahead.place < bound.before)
        return ((ahead.best > bound.sq_distance) | is_lower) & (ahead.num < most)

    def select(ahead):
        nearest = jnp.minimum(ahead.nearest, squared_euclidean_to_point(points, points[ahead.place]))
        nearest = nearest.at[ahead.place].set(-jnp.inf)
        following = nearest.argmax()
        places = ahead.places.at[ahead.num].set(ahead.place)
        return _Ahead(nearest, places, ahead.num + 1, following, nearest[following])

    place = sq_distances.argmax()
    places = jnp.zeros(CENTRES, place.dtype)
    return jax.lax.while_loop(is_best, select, _Ahead(sq_distances, places, jnp.int32(0), place, sq_distances[place]))


def _padded(values, size, rest):
    return np.pad(values, ((0, size - len(values)), *[(0, 0)] * (values.ndim - 1)), constant_values=rest)


def _check_finite(is_finite, block):
    if not is_finite.all():
        raise BadInput(
            f"{(~is_finite).sum()} of rows {block.start} to {block.stop - 1} are NaN, infinite or too large to square, "
            f"the first is row {block.start + is_finite.argmin()}; check what they were computed from."
        )
