"""The functions of `kernels.selection` for latents that are read block by block: they select the same rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from latent_al import kernels
from latent_al.streaming.stream import Source, blocks, check_open
from latent_al.types import BadInput, Key

Score = Callable[[Float[Array, "b d"]], Float[Array, " b"]]
"""From the latents of a block to the score of each row by itself; jitted."""


def top_k(
    score: Score, source: Source, taken: Bool[np.ndarray, " n"], num: int, *, block_bytes: int | None = None
) -> Int[np.ndarray, " num"]:
    """Selects the `num` rows of the highest score, best first; ties go to the lowest row. One pass; O(num) memory.

    Args:
        score: of a block; the last one ends in rows of zeros, whose scores are not used.
        block_bytes: of a block of latents; by default as `stream.blocks` chooses.

    Raises:
        BadInput: `num` is not in [1, rows left], a score is NaN or not one of each row, or what `stream.blocks`
            refuses.
    """
    check_open(source, taken, num)
    best = jnp.full(num, -jnp.inf, jnp.float32)
    rows = np.zeros(num, np.int64)
    for block in blocks(source, block_bytes=block_bytes):
        best, places = _best(best, _scores(score, block), block.filled(taken, True))
        places = np.asarray(places)
        rows = np.where(places < num, rows[np.minimum(places, num - 1)], block.start + places - num)
    return rows


def random_partitions(
    key: Key,
    score: Score,
    source: Source,
    taken: Bool[np.ndarray, " n"],
    num: int,
    *,
    block_bytes: int | None = None,
) -> Int[np.ndarray, " num"]:
    """Selects the best row of each of `num` random partitions: `kernels.random_partitions` of the scores.

    One pass over the latents; besides, O(n) memory: each row's score and its place in the partitions.

    Args:
        score: of a block; the last one ends in rows of zeros, whose scores are not used.
        block_bytes: of a block of latents; by default as `stream.blocks` chooses.

    Raises:
        BadInput: as `top_k`.
    """
    check_open(source, taken, num)
    scores = np.zeros(source.num_rows, np.float32)
    for block in blocks(source, block_bytes=block_bytes):
        scores[block.start : block.stop] = _scores(score, block)[: block.stop - block.start]
    return np.asarray(kernels.random_partitions(key, jnp.asarray(scores), jnp.asarray(taken), num))


def _scores(score, block):
    (latents,) = block.latents
    scores = score(latents)
    if scores.shape != latents.shape[:1]:
        raise BadInput(f"the score of a block {latents.shape} has shape {scores.shape}; expected one of each row.")
    is_nan = np.isnan(np.asarray(scores)[: block.stop - block.start])
    if is_nan.any():
        raise BadInput(
            f"{is_nan.sum()} scores of rows {block.start} to {block.stop - 1} are NaN, the first of row "
            f"{block.start + is_nan.argmax()}; look for NaN in what they were made from."
        )
    return scores


@jax.jit
def _best(best, scores, taken):
    """Returns the best scores so far and of the block, at minus infinity where there are too few, and their places."""
    # As in the kernel, the lowest score is above what is taken.
    scores = jnp.concatenate([best, jnp.maximum(scores, jnp.finfo(scores.dtype).min)])
    taken = jnp.concatenate([best == -jnp.inf, taken])
    places = kernels.top_k(scores, taken, len(best))
    return jnp.where(taken[places], -jnp.inf, scores[places]), places
