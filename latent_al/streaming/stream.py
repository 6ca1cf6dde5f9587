"""Blocks of rows, one after the other: the next one is read while the current one is processed."""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from latent_al.runtime.mesh import available_memory
from latent_al.types import BadInput

BLOCK_BYTES = 2**26
"""Bytes in a block of one source, where memory allows: larger blocks are not read faster."""

SHARE = 16
"""Blocks of each source that available memory must hold: two are there at a time, the rest is for work on one."""


@runtime_checkable
class Reading(Protocol):
    """Rows that are being read, such as a `concurrent.futures.Future`."""

    def result(self) -> Float[np.ndarray, "b d"]: ...


@runtime_checkable
class Source(Protocol):
    """Latents [n d], float32, that need not exist as a whole: on disk, or generated.

    Attributes:
        num_rows: n.
        width: d.
        chunk_rows: number of rows in one chunk. Reads begin at multiples of it; 1 where there are no chunks.
    """

    num_rows: int
    width: int
    chunk_rows: int

    def read(self, start: int, stop: int) -> Reading:
        """Starts reading the rows from `start` to `stop`, without waiting for them."""
        ...


class Block(NamedTuple):
    """Rows `start` to `stop` of each source.

    Attributes:
        start: the first row.
        stop: the row after the last.
        latents: of each source [b d], zero beyond `stop`: b is the same for all blocks, so one program serves them all.
    """

    start: int
    stop: int
    latents: tuple[Float[Array, "b _"], ...]

    def filled(self, values: np.ndarray, rest) -> np.ndarray:
        """Returns these rows of `values` [n] as an array [b], with `rest` beyond `stop`."""
        values = values[self.start : self.stop]
        return np.pad(values, (0, len(self.latents[0]) - len(values)), constant_values=rest)


def blocks(*sources: Source, block_bytes: int | None = None) -> Iterator[Block]:
    """Yields all rows of sources of equal length, in order: one pass.

    Args:
        sources: of equal length.
        block_bytes: bytes in a block of one source; by default 64 MiB, or less where little memory is available, and at
            least a chunk.

    Raises:
        BadInput: the sources differ in length, or one is empty; a chunk, or the rows from one place where chunks of all
            sources begin to the next, take more than `block_bytes`; a source reads something other than it declares.
    """
    num_rows = sources[0].num_rows
    if any(source.num_rows != num_rows for source in sources):
        raise BadInput(f"the sources have {[source.num_rows for source in sources]} rows; expected the same number.")
    for source in sources:
        _check_not_empty(source)
    chosen = _block_bytes(sources) if block_bytes is None else block_bytes
    size = min(_block_rows(sources, chosen), num_rows)
    ranges = [(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
    following = _read(sources, ranges[0])
    for index, (start, stop) in enumerate(ranges):
        readings = following
        if index + 1 < len(ranges):
            following = _read(sources, ranges[index + 1])
        results = [_result(source, reading, start, stop) for source, reading in zip(sources, readings, strict=True)]
        yield Block(start, stop, tuple(jnp.asarray(_padded(rows, size)) for rows in results))


def rows_at(source: Source, rows: np.ndarray) -> Float[np.ndarray, "k d"]:
    """Returns the latents of ascending `rows`; only the chunks that hold them are read."""
    _check_not_empty(source)
    by_chunk = np.split(rows, np.flatnonzero(np.diff(rows // source.chunk_rows)) + 1)
    latents = []
    for chunk_rows in by_chunk:
        start = chunk_rows[0] // source.chunk_rows * source.chunk_rows
        stop = min(start + source.chunk_rows, source.num_rows)
        latents.append(_result(source, source.read(int(start), int(stop)), start, stop)[chunk_rows - start])
    return np.concatenate(latents)


def check_open(source: Source, taken: Bool[np.ndarray, " n"], num: int) -> Bool[np.ndarray, " n"]:
    """Returns the mask as an array of bool.

    Raises:
        BadInput: `num` is not in [1, rows left], or `taken` is not a mask with one value for each row.
    """
    taken = np.asarray(taken)
    if taken.shape != (source.num_rows,):
        raise BadInput(f"taken has shape {taken.shape}; expected ({source.num_rows},), one value per row.")
    if taken.dtype != bool and not np.isin(taken, (0, 1)).all():
        raise BadInput(
            f"taken has dtype {taken.dtype} and values from {taken.min()} to {taken.max()}; expected a mask, of True "
            "and False."
        )
    taken = taken.astype(bool, copy=False)
    left = source.num_rows - np.count_nonzero(taken)
    if not 1 <= num <= left:
        raise BadInput(f"num is {num}; expected at least 1 and at most the {left} rows left of {source.num_rows}.")
    return taken


def _check_not_empty(source):
    if min(source.num_rows, source.width) < 1:
        raise BadInput(
            f"a source has {source.num_rows} rows and {source.width} dimensions; expected one or more of each."
        )


def _block_bytes(sources):
    # By powers of two, so that slightly less memory does not change how sums are rounded.
    size = BLOCK_BYTES
    available = available_memory(jax.devices()[0])
    while SHARE * len(sources) * size > available:
        size //= 2
    return max(size, *map(_chunk_bytes, sources))


def _chunk_bytes(source):
    return 4 * source.width * source.chunk_rows


def _block_rows(sources, block_bytes):
    size = 1
    for source in sources:
        chunk = _chunk_bytes(source)
        if chunk > block_bytes:
            raise BadInput(
                f"a chunk takes {chunk} bytes but a block has only {block_bytes}; raise block_bytes, or write "
                "smaller chunks."
            )
        size = math.lcm(size, source.chunk_rows)
    widest = max(source.width for source in sources)
    needed = 4 * widest * min(size, sources[0].num_rows)
    if needed > block_bytes:
        raise BadInput(
            f"chunks of {[source.chunk_rows for source in sources]} rows begin together every {size} rows, which take "
            f"{needed} bytes but a block has only {block_bytes}; raise block_bytes, or write all sources with the same "
            "number of rows per chunk."
        )
    return max(1, block_bytes // (4 * widest * size)) * size


def _read(sources, start_and_stop):
    start, stop = start_and_stop
    return [source.read(start, stop) for source in sources]


def _result(source, reading, start, stop):
    rows = reading.result()
    if rows.shape != (stop - start, source.width) or rows.dtype != np.float32:
        raise BadInput(
            f"rows {start} to {stop - 1} came as {rows.dtype} {list(rows.shape)}; expected float32 "
            f"{[stop - start, source.width]}: convert them in `read`."
        )
    return rows


def _padded(rows, size):
    return rows if len(rows) == size else np.pad(rows, ((0, size - len(rows)), (0, 0)))
