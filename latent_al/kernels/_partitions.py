"""The best row of each random part of the rows, which may be spread over several devices."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._loops import bisect
from latent_al.kernels._sharding import global_rows, map_shards


def best_of_parts(
    scores: Float[Array, " n"], draws: Float[Array, " n"], starts: Int[Array, " num"]
) -> Int[Array, " num"]:
    """Returns the row of the best score in each part of the rows; ties go to the highest draw.

    The rows are sorted by their draws, the highest first and equal ones by row, and cut into parts. Each shard sorts
    its rows and cuts them where the parts start: a few numbers per part move.

    Args:
        scores: where several rows of a part are equal, the first of them in the sorted order is returned.
        draws: 0 or below.
        starts: ascending places in the sorted order.
    """
    ordered, rows = map_shards(_sorted, draws, fill=-jnp.inf)
    splits = _splits(ordered, starts)
    scores = map_shards(lambda part: part, scores, fill=-jnp.inf)
    parts = map_shards(_best_of_shard, _Cut(scores, ordered, rows, splits))
    shard = jnp.where(parts.score == parts.score.max(axis=0)[None, :], parts.draw, jnp.inf).argmin(axis=0)
    return jnp.take_along_axis(global_rows(parts.row, rows.shape[1]), shard[None, :], axis=0)[0]


class _Cut(NamedTuple):
    scores: Array
    ordered: Array
    rows: Array
    splits: Array


class _Best(NamedTuple):
    score: Array
    draw: Array
    row: Array


def _sorted(draws):
    rows = jnp.argsort(-draws).astype(jnp.int32)
    return -draws[rows], rows


def _splits(ordered, starts):
    """Returns the place in each shard's ordered draws [s w] where each part starts; `starts` are ranks among all."""
    values = _at_ranks(ordered, starts)
    low = map_shards(partial(_places, side="left"), ordered, values)
    # Of equal draws those of the first shards come first.
    tied = map_shards(partial(_places, side="right"), ordered, values) - low
    skipped = (starts - low.sum(axis=0))[None, :] - (tied.cumsum(axis=0) - tied)
    return low + jnp.clip(skipped, 0, tied)


def _places(ordered, values, *, side):
    return jnp.searchsorted(ordered[0], values, side=side)


def _at_ranks(ordered, ranks):
    """Returns the values of these ranks among the ordered values of all shards, which are 0 or above."""
    if len(ordered) == 1:
        return ordered[0, ranks]
    kind = jnp.dtype(f"int{8 * ordered.dtype.itemsize}")

    def is_reached(middle):
        # Floats that are not below 0 keep their order when read as integers.
        values = jax.lax.bitcast_convert_type(middle, ordered.dtype)
        return map_shards(partial(_places, side="right"), ordered, values).sum(axis=0) > ranks

    high = jnp.full(len(ranks), jnp.inf, ordered.dtype).view(kind)
    return jax.lax.bitcast_convert_type(bisect(is_reached, jnp.zeros(len(ranks), kind), high), ordered.dtype)


def _best_of_shard(cut):
    cut = _Cut(cut.scores[0], cut.ordered[0], cut.rows[0], cut.splits[0])
    scores, size, num = cut.scores[cut.rows], len(cut.rows), len(cut.splits)
    part = jnp.zeros(size + 1, jnp.int32).at[cut.splits].add(1).cumsum()[:size] - 1
    best = jax.ops.segment_max(scores, part, num, indices_are_sorted=True)
    place = jnp.where(scores == best[part], jnp.arange(size), size)
    place = jax.ops.segment_min(place, part, num, indices_are_sorted=True)
    return _Best(best, cut.ordered.at[place].get(mode="clip"), cut.rows.at[place].get(mode="clip"))
