"""Latents on disk, written and read by TensorStore as zarr 3: chunks of whole rows, each with a checksum.

Unless told otherwise, TensorStore reads a missing chunk as zeros, and does not write a chunk of zeros. Here every chunk
is written, and a chunk that is missing, cut off or altered is refused.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorstore as ts
from jaxtyping import Float

from latent_al.streaming.stream import Reading
from latent_al.types import BadInput

CHUNK_BYTES = 2**24
"""Bytes in a chunk as it is written: large enough to be read at the disk's speed, with several chunks to a block."""

UNCOMPRESSED = {"bytes": 0, "crc32c": 4}
"""Bytes that each codec adds to a chunk, for codecs that leave its size predictable."""


class Latents:
    """Latents on disk; a `Source`.

    Attributes:
        path: the folder.
        num_rows: n.
        width: d.
        chunk_rows: rows of a chunk.
    """

    def __init__(self, path: Path, store: ts.TensorStore):
        self.path = path
        self._store = store
        self.num_rows = store.shape[0]
        self.width = store.shape[1]
        self.chunk_rows = store.chunk_layout.read_chunk.shape[0]

    def read(self, start: int, stop: int) -> Reading:
        """Starts reading the rows [stop-start d], float32; `result()` waits for them.

        Raises:
            BadInput: from `result()`: a chunk is missing, cut off or altered.
        """
        return _Reading(self.path, self._store[start:stop].read())


class _Reading:
    def __init__(self, path, future):
        self.path = path
        self.future = future

    def result(self):
        try:
            return self.future.result()
        except ValueError as error:
            raise BadInput(f"{self.path} cannot be read: {error}; write it again.") from error


def write_latents(
    path: str | Path,
    parts: Iterable[Float[np.ndarray, "_ d"]],
    num_rows: int,
    width: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Latents:
    """Writes latents [n d] as they come, in parts of any number of rows; a chunk is written while the next one comes.

    Until all is written, and where that fails, `open_latents` refuses what is at `path`.

    Args:
        path: a folder that does not exist.
        parts: float32, `num_rows` rows in all; a part may be overwritten when the next is asked for.
        num_rows: n.
        width: d.
        chunk_bytes: bytes in a chunk; a chunk has at least one row.

    Raises:
        BadInput: there is something at `path`, a part has another rank, type or width, there are more or fewer rows
            than `num_rows`, or no rows or no dimensions.
    """
    path = Path(path)
    if num_rows < 1 or width < 1:
        raise BadInput(f"latents of {num_rows} rows and {width} dimensions; expected one or more of each.")
    if path.exists():
        raise BadInput(f"{path} exists already; remove it, or write elsewhere.")
    chunk_rows = min(max(1, chunk_bytes // (4 * width)), num_rows)
    store = ts.open(
        _spec(path) | {"metadata": {"codecs": [{"name": "bytes"}, {"name": "crc32c"}]}},
        create=True,
        dtype=ts.float32,
        shape=[num_rows, width],
        chunk_layout=ts.ChunkLayout(chunk_shape=[chunk_rows, width]),
    ).result()
    start = 0
    writing = None
    for chunk in _chunks(parts, path, chunk_rows, width):
        if start + len(chunk) > num_rows:
            # The chunks may all be there by now, and would pass for the whole.
            (path / "zarr.json").unlink()
            raise BadInput(
                f"more rows came than the {num_rows} that were to be written to {path}; remove it, and raise num_rows."
            )
        if writing:
            writing.result()
        writing = store[start : start + len(chunk)].write(chunk)
        start += len(chunk)
    if start < num_rows:
        # The last chunk may be there by now, with zeros for the rows that did not come.
        (path / "zarr.json").unlink()
        raise BadInput(
            f"only {start} of the {num_rows} rows of {path} came; remove it, and write all, or lower num_rows."
        )
    writing.result()
    return open_latents(path)


def open_latents(path: str | Path, num_rows: int | None = None, width: int | None = None) -> Latents:
    """Opens the latents at `path`: zarr 3, float32 [n d], in chunks of rows, as `write_latents` or others write them.

    It checks at once that all chunks are there and, where they are not compressed, their size; content that has a
    checksum is checked as it is read.

    Args:
        path: the folder of the array.
        num_rows: the expected n; None accepts any.
        width: the expected d; None accepts any.

    Raises:
        BadInput: there is no zarr 3 array at `path`, it has another rank, type or shape than expected or no rows, or a
            chunk is missing or cut off.
    """
    path = Path(path)
    try:
        store = ts.open(_spec(path), open=True, read=True).result()
    except ValueError as error:
        reason = str(error).split(" [tensorstore_spec")[0]
        raise BadInput(
            f"{path} is not a zarr 3 array: {reason}; write the latents with streaming.write_latents."
        ) from error
    expected = [wanted or size for wanted, size in zip((num_rows, width), store.shape, strict=False)]
    if store.rank != 2 or store.dtype != ts.float32 or list(store.shape) != expected or 0 in store.shape:
        raise BadInput(
            f"{path} is {store.dtype.name} {list(store.shape)}; expected float32 [{num_rows or 'n'}, {width or 'd'}], "
            "and not empty; write the latents with streaming.write_latents."
        )
    _check_chunks(path, store)
    return Latents(path, store)


def _spec(path):
    driver = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path.absolute())}}
    return driver | {"store_data_equal_to_fill_value": True, "fill_missing_data_reads": False}


def _chunks(parts, path, chunk_rows, width):
    """Yields the rows of `parts` again, in chunks."""
    waiting = []
    count = 0
    for part in parts:
        if part.ndim != 2 or part.shape[1] != width or part.dtype != np.float32:
            raise BadInput(
                f"a part for {path} is {part.dtype} {list(part.shape)}; expected float32 [rows, {width}]; convert it."
            )
        for start in range(0, len(part), chunk_rows):
            waiting.append(part[start : start + chunk_rows].copy())
            count += len(waiting[-1])
            if count >= chunk_rows:
                rows = np.concatenate(waiting)
                yield rows[:chunk_rows]
                waiting = [rows[chunk_rows:]]
                count -= chunk_rows
    if count:
        yield np.concatenate(waiting)


def _check_chunks(path, store):
    """Raises BadInput where a chunk is missing, or one that is not compressed is cut off."""
    size = store.chunk_layout.read_chunk.shape[0]
    stored = {
        start: store[start : start + size].storage_statistics(query_fully_stored=True)
        for start in range(0, store.shape[0], size)
    }
    for start, statistics in stored.items():
        if not statistics.result().fully_stored:
            last = min(start + size, store.shape[0]) - 1
            raise BadInput(
                f"{path} lacks the chunk of rows {start} to {last}; it was not written completely; write it again."
            )
    codecs = [codec["name"] for codec in store.codec.to_json()["codecs"]]
    if set(codecs) <= UNCOMPRESSED.keys():
        whole = 4 * np.prod(store.chunk_layout.read_chunk.shape) + sum(map(UNCOMPRESSED.get, codecs))
        for file in sorted((path / "c").rglob("*")):
            if file.is_file() and file.stat().st_size != whole:
                raise BadInput(
                    f"chunk {file.relative_to(path)} of {path} has {file.stat().st_size} bytes; expected {whole}: "
                    "it was cut off; write it again."
                )
