"""The functions of `kernels.selection` for latents that are read block by block: they select the same rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from latent_al import kernels
from latent_al.kernels._checks import MAX_ROWS, NOT_NAN
from latent_al.kernels._kernel import kernel
from latent_al.streaming.stream import Source, blocks, check_open
from latent_al.types import BadInput, Key

Score = Callable[[Float[Array, "b d"]], Float[Array, " b"]]
"""A jitted function from the latents of a block to the score of each row by itself."""

MISSING = -1
"""A placeholder for a row until enough rows have been seen."""


def top_k(
    score: Score, source: Source, taken: Bool[np.ndarray, " n"], num: int, *, block_bytes: int | None = None
) -> Int[np.ndarray, " num"]:
    """Selects the `num` rows of the highest score, best first; ties go to the lowest row. One pass; O(num) memory.

    Args:
        score: of a block; the last one ends in rows of zeros, whose scores are not used.
        block_bytes: bytes in a block of latents; by default, `stream.blocks` chooses.

    Raises:
        BadInput: `num` is not in [1, rows left], a score is NaN, there is not one score for each row, or
            `stream.blocks` raises it.
    """
    taken = check_open(source, taken, num)
    best = jnp.zeros(num, jnp.float32)
    rows = np.full(num, MISSING, np.int64)
    for block in blocks(source, block_bytes=block_bytes):
        scores = _padded(_scores(score, block), len(block.latents[0]))
        best, places = _best(best, rows == MISSING, scores, block.filled(taken, True))
        places = np.asarray(places, np.int64)
        rows = np.where(places < num, rows[np.minimum(places, num - 1)], block.start + places - num)
        rows[places == num + len(scores)] = MISSING
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

    One pass over the latents, and O(n) memory for each row's score and its place in the partitions.

    Args:
        score: of a block; the last one ends in rows of zeros, whose scores are not used.
        block_bytes: bytes in a block of latents; by default, `stream.blocks` chooses.

    Raises:
        BadInput: there are more rows than a kernel takes, or as for `top_k`.
    """
    if source.num_rows > MAX_ROWS:
        raise BadInput(
            f"the source has {source.num_rows} rows; expected at most {MAX_ROWS} where partitions are drawn: use "
            "top_k, or select from parts of the rows."
        )
    taken = check_open(source, taken, num)
    scores: np.ndarray | None = None
    for block in blocks(source, block_bytes=block_bytes):
        values = _scores(score, block)
        scores = np.zeros(source.num_rows, values.dtype) if scores is None else scores
        scores[block.start : block.stop] = values
    return np.asarray(kernels.random_partitions(key, jnp.asarray(scores), jnp.asarray(taken), num), np.int64)


def _scores(score, block):
    """Returns the scores of the rows of a block in the type that a kernel computes in."""
    (latents,) = block.latents
    scores = np.asarray(score(latents))
    if scores.shape != latents.shape[:1]:
        raise BadInput(f"the score of a block {latents.shape} has shape {scores.shape}; expected one score per row.")
    scores = scores[: block.stop - block.start]
    is_nan = np.isnan(scores)
    if is_nan.any():
        raise BadInput(
            f"{is_nan.sum()} scores of rows {block.start} to {block.stop - 1} are NaN, the first of row "
            f"{block.start + is_nan.argmax()}; look for NaN in what they were computed from."
        )
    try:
        return np.asarray(_converted(scores))
    except ValueError as error:
        raise BadInput(f"rows {block.start} to {block.stop - 1}: {error}") from error


@kernel(scores=NOT_NAN)
def _converted(scores: Float[Array, " b"]) -> Float[Array, " b"]:
    return scores


def _padded(scores, size):
    return np.pad(scores, (0, size - len(scores)))


@jax.jit
def _best(best, is_missing, scores, taken):
    """Returns the best scores of those so far and the block's, and their places, beyond the last where none is left."""
    scores = jnp.concatenate([best.astype(scores.dtype), scores])
    places = kernels.top_k(scores, jnp.concatenate([is_missing, taken]), len(best))
    return scores.at[places].get(mode="clip"), places
