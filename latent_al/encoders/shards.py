"""Latents on disk, in shards of rows: the latents of a shard are computed once, and kept."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from latent_al.runtime.files import write_atomically
from latent_al.types import BadInput, Encoded

Shards = list[tuple[int, int]]
"""(start, stop) of each shard, in rows, one after the other; `Stream.shards` of a stream."""


def missing_shards(shards: Shards, folder: Path) -> Shards:
    """Returns the shards whose latents `folder` does not have yet."""
    return [(start, stop) for start, stop in shards if not _file(folder, start).exists()]


def num_rows(shards: Shards) -> int:
    """Returns how many rows the shards have together."""
    return sum(stop - start for start, stop in shards)


def encode_shards(
    shards: Shards,
    folder: Path,
    encode_rows: Callable[[int, int], Iterable[Encoded]],
    terminal: TextIO | None = None,
) -> Encoded:
    """Encodes the shards that `folder` does not have yet, one after the other, and reads the latents of all rows.

    Args:
        shards: of the rows.
        folder: gets a file for each shard.
        encode_rows: (start, stop) -> the latents of these rows, as NumPy arrays, part by part.
        terminal: where progress is shown; None for the standard error stream.

    Raises:
        BadInput: a file in `folder` that cannot be read, or has the wrong number of rows.
    """
    missing = missing_shards(shards, folder)
    total, left = num_rows(shards), num_rows(missing)
    disable = None if missing else True
    bar = tqdm(None, "encoding", total, initial=total - left, unit=" images", disable=disable, file=terminal)
    with bar:
        for start, stop in missing:
            parts = []
            for part in encode_rows(start, stop):
                parts.append(part)
                bar.update(len(part.latents))
            _save(_file(folder, start), join(parts))
    return join([_load(_file(folder, start), stop - start) for start, stop in shards])


def first_rows(encoded: Encoded, num: int) -> Encoded:
    """Returns the first `num` rows."""
    return Encoded(*(None if column is None else column[:num] for column in encoded))


def join(parts: list[Encoded]) -> Encoded:
    """Returns the rows of all parts, one part after the other."""
    columns = [None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True)]
    return Encoded(*columns)


def _file(folder, start):
    return folder / "latents" / f"{start:09d}.npz"


def _save(path, part):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in part._asdict().items() if array is not None})
    write_atomically(path, buffer.getvalue())


def _load(path, size):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            part = Encoded(**{name: arrays.get(name) for name in Encoded._fields})
        if len(part.latents) != size:
            raise ValueError(f"{len(part.latents)} rows where {size} were scanned")
    except Exception as error:  # zipfile, zlib and NumPy each raise their own.
        raise BadInput(f"{path} cannot be read ({error}); delete it and run again: it is encoded again.") from error
    return part
