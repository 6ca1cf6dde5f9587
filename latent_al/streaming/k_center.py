"""Farthest-first traversal of latents that are read block by block, in few passes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from latent_al.kernels.distances import squared_euclidean_to_point
from latent_al.streaming.stream import Source, blocks, check_open, rows_at
from latent_al.types import BadInput

CANDIDATES = 2**16
"""Rows, kept in memory, among which picks are made between two passes."""

CENTRES = 128
"""Rows to which the distances are measured in one program, and picks that one makes, at most."""

TILE = 512
"""Rows that stay in cache while they are compared with one centre after the other."""


class _Rows(NamedTuple):
    rows: np.ndarray
    sq_distances: np.ndarray
    latents: np.ndarray


def farthest_first(
    source: Source, taken: Bool[np.ndarray, " n"], num: int, *, first: int = 0, block_bytes: int | None = None
) -> Int[np.ndarray, " num"]:
    """Row by row the one farthest, by Euclidean distance, from all that are taken or picked: greedy k-center.

    The rows of `kernels.farthest_first`, but for ties within rounding; ties go to the lowest row. Distances are those
    of differences, which do not cancel. Each pass over the latents brings the distances of all rows up to date, and
    keeps the farthest rows as candidates; picks are made among these for as long as the best of them is above all other
    rows, since distances only shrink. Before the first pass the latents of the rows taken are read.

    Besides blocks it needs O(n) memory, one distance of each row, and the latents of the candidates and of the rows
    taken.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance (1985).

    Args:
        first: the row to begin with where nothing is taken.
        block_bytes: of a block of latents; by default as `stream.blocks` chooses.

    Raises:
        BadInput: `num` is not in [1, rows left], `first` is no row, a coordinate is NaN, infinite or too large to
            square, or what `stream.blocks` refuses.
    """
    check_open(source, taken, num)
    if not 0 <= first < source.num_rows:
        raise BadInput(f"first is {first}; expected a row of the pool, 0 to {source.num_rows - 1}.")
    known = np.flatnonzero(taken) if taken.any() else np.array([first])
    picked = [known[:0] if taken.any() else known]
    sq_distances = np.full(source.num_rows, np.inf, np.float32)
    sq_distances[known] = -np.inf
    centres = rows_at(source, known)
    while (left := num - sum(map(len, picked))) > 0:
        candidates = _pass(source, sq_distances, centres, block_bytes)
        rows, centres = _picked(candidates, left)
        sq_distances[rows] = -np.inf
        picked.append(rows)
    return np.concatenate(picked)


class _Farthest:
    """The farthest rows of the blocks seen so far, which come by ascending rows."""

    def __init__(self):
        self.parts, self.least = [], -np.inf

    def see(self, sq_distances, block):
        places = np.flatnonzero(sq_distances > self.least)
        self.parts.append(_Rows(block.start + places, sq_distances[places], np.asarray(block.latents[0])[places]))
        if sum(len(part.rows) for part in self.parts) > 2 * CANDIDATES:
            self.parts = [self.sorted()]
            self.least = self.parts[0].sq_distances[-1]

    def sorted(self):
        """The candidates and one row more, farthest first; ties go to the lowest row."""
        all_rows = _Rows(*map(np.concatenate, zip(*self.parts, strict=True)))
        order = np.argsort(-all_rows.sq_distances, kind="stable")[: CANDIDATES + 1]
        return _Rows(*[each[order] for each in all_rows])


def _pass(source, sq_distances, centres, block_bytes):
    """Brings all distances up to date with new centres, in place, and finds the candidates."""
    farthest = _Farthest()
    batches = [centres[start : start + CENTRES] for start in range(0, len(centres), CENTRES)]
    batches = [(jnp.asarray(_padded(batch, CENTRES, 0)), len(batch)) for batch in batches]
    for block in blocks(source, block_bytes=block_bytes):
        (latents,) = block.latents
        _check_finite(np.asarray(_is_finite(latents)), block)
        nearest = block.filled(sq_distances, -np.inf)
        for batch, count in batches:
            nearest = _nearest(latents, nearest, batch, count)
        nearest = np.asarray(nearest)
        sq_distances[block.start : block.stop] = nearest[: block.stop - block.start]
        farthest.see(nearest, block)
    return farthest.sorted()


def _picked(candidates, left):
    """The rows, and their latents, that are picked before a row that is no candidate may be the farthest."""
    others = len(candidates.rows) > CANDIDATES
    bound, bound_row = (candidates.sq_distances[-1], candidates.rows[-1]) if others else (-np.inf, 0)
    order = np.argsort(candidates.rows[:CANDIDATES])
    rows, sq_distances, latents = (each[order] for each in candidates)
    points, nearest = jnp.asarray(_padded(latents, CANDIDATES, 0)), _padded(sq_distances, CANDIDATES, -np.inf)
    before = np.searchsorted(rows, bound_row)
    picked, count = [], CENTRES
    while count == CENTRES and left:
        places, count, nearest = _ahead(points, nearest, bound, before, min(left, CENTRES))
        picked.append(np.asarray(places)[:count])
        left -= int(count)
    picked = np.concatenate(picked)
    return rows[picked], latents[picked]


@jax.jit
def _is_finite(points):
    """Rows without NaN whose squared distances to each other cannot overflow."""
    return jnp.isfinite(4 * (points**2).sum(axis=1))


@jax.jit
def _nearest(points, sq_distances, centres, count):
    """The squared distances to what they were measured to before, or to the nearest of `count` centres, by tiles."""
    size, width = points.shape
    missing = -size % TILE

    def tile(args):
        points, nearest = args

        def closer(index, nearest):
            return jnp.minimum(nearest, squared_euclidean_to_point(points, centres[index]))

        return jax.lax.fori_loop(0, count, closer, nearest)

    tiles = jnp.pad(points, ((0, missing), (0, 0))).reshape(-1, TILE, width)
    return jax.lax.map(tile, (tiles, jnp.pad(sq_distances, (0, missing)).reshape(-1, TILE))).reshape(-1)[:size]


@jax.jit
def _ahead(points, sq_distances, bound, before, most):
    """Up to `most` picks for as long as the best candidate is ahead of all other rows.

    Args:
        points: the candidates, by ascending row.
        bound: the largest squared distance of any other row.
        before: how many candidates are of a lower row than that one.

    Returns:
        The candidates picked, how many they are, and the squared distances after them.
    """

    def is_best(carry):
        _, _, picked, place, best = carry
        return ((best > bound) | ((best == bound) & (place < before))) & (picked < most)

    def pick(carry):
        nearest, places, picked, place, _ = carry
        nearest = jnp.minimum(nearest, squared_euclidean_to_point(points, points[place])).at[place].set(-jnp.inf)
        following = nearest.argmax()
        return nearest, places.at[picked].set(place), picked + 1, following, nearest[following]

    place = sq_distances.argmax()
    start = sq_distances, jnp.zeros(CENTRES, place.dtype), jnp.int32(0), place, sq_distances[place]
    nearest, places, picked, _, _ = jax.lax.while_loop(is_best, pick, start)
    return places, picked, nearest


def _padded(values, size, rest):
    return np.pad(values, ((0, size - len(values)), *[(0, 0)] * (values.ndim - 1)), constant_values=rest)


def _check_finite(finite, block):
    if not finite.all():
        raise BadInput(
            f"{(~finite).sum()} of rows {block.start} to {block.stop - 1} are NaN, infinite or too large to square, "
            f"the first is row {block.start + finite.argmin()}; look for that in what they were made from."
        )
