"""The scanned images on disk, in shards that are only ever added: row r is the r-th image ever scanned, for good."""

import functools
import math
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from latent_al.runtime.files import read_csv, replacing, write_csv
from latent_al.types import BadInput

COLUMNS = ["id", "file_name", "height", "width", "bytes", "modified_ns", "bits", "one_colour"]
"""The columns of a shard's table, which describes its images as they were when scanned."""
LATER = ["bits", "one_colour"]
"""Columns that shards of earlier versions lack; they read as zeros."""
SHARD, SHARD_BYTES = 1024, 2**26
"""The maximum number of images in a shard, and of its bytes: as much again is read ahead."""
OPEN_MAPS = 256
"""Shards that are mapped at once; each map holds a file descriptor, of which a process often has only 1,024."""


def shard_rows(image_shape: tuple[int, int, int]) -> int:
    """Returns how many images make a shard."""
    return max(1, min(SHARD, SHARD_BYTES // math.prod(image_shape)))


class Store:
    """A `Stream` of images [n h w c], uint8; a source for `grain.MapDataset.source` as well.

    Shard 12 is `00012.npy`, the pixels, and `00012.csv`, which is written last: without it the shard does not count.

    Attributes:
        folder: where the shards are; made with the first of them.
        image_shape: (height, width, channels).
        shards: (start, stop) of each shard, in rows.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, image_shape: tuple[int, int, int]):
        """Opens what is there.

        Raises:
            BadInput: a shard is missing or damaged, or holds images of another shape.
        """
        self.folder, self.image_shape = folder, image_shape
        names = sorted(path.stem for path in folder.glob("[0-9]*.csv"))
        for number, name in enumerate(names):
            if name != self._name(number):
                raise self._damaged(f"{self._name(number)}.csv", "is missing, though later shards are there")
        self.shards = []
        self._tables = [_typed(pd.DataFrame(columns=COLUMNS, dtype=str))]
        self._map = functools.lru_cache(OPEN_MAPS)(self._load)
        for number, name in enumerate(names):
            table = self._read_table(name)
            self._check(number, len(table))
            self._add(table)

    @property
    def rows(self) -> pd.DataFrame:
        """Table of all images, in order, with `COLUMNS`; numbers are ints."""
        if len(self._tables) > 1:
            self._tables = [pd.concat(self._tables, ignore_index=True)]
        return self._tables[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.image_shape)

    def __len__(self) -> int:
        return self.shards[-1][1] if self.shards else 0

    def __getitem__(self, index: int | slice) -> UInt8[np.ndarray, "..."]:
        """Reads one image [h w c], or the images [b h w c] of a slice without a step."""
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return self._read(start, stop)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)} images")
        number = bisect_right(self.shards, index, key=lambda shard: shard[0]) - 1
        return np.array(self._map(number)[index - self.shards[number][0]])

    def append(self, table: pd.DataFrame, pixels: UInt8[np.ndarray, "b h w c"]) -> None:
        """Adds a shard, whole or not at all.

        Args:
            table: `COLUMNS` of each image, those of `LATER` where there are some.
            pixels: the images, in the order of the table.

        Raises:
            ValueError: table and pixels differ in length, or the pixels in shape from the store.
            OSError: it cannot be written.
        """
        if pixels.shape != (len(table), *self.image_shape):
            raise ValueError(f"pixels are {pixels.shape}; expected {(len(table), *self.image_shape)}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        table = _typed(table)
        path = self._path(len(self.shards))
        with replacing(path) as file:
            np.save(file, pixels)
        write_csv(path.with_suffix(".csv"), table)
        self._add(table)

    def _read(self, start, stop):
        parts = [np.empty((0, *self.image_shape), np.uint8)]
        for number, (first, last) in enumerate(self.shards):
            if first < stop and start < last:
                parts.append(self._map(number)[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def _add(self, table):
        self.shards.append((len(self), len(self) + len(table)))
        self._tables.append(table)

    def _name(self, number):
        return f"{number:05}"

    def _path(self, number):
        return self.folder / f"{self._name(number)}.npy"

    def _load(self, number):
        return np.load(self._path(number), mmap_mode="r")

    def _read_table(self, name):
        try:
            return _typed(read_csv(self.folder / f"{name}.csv"))
        except (KeyError, ValueError) as error:
            raise self._damaged(f"{name}.csv", f"is damaged ({error})") from error

    def _check(self, number, num):
        path = self._path(number)
        try:
            shape = self._load(number).shape
        except FileNotFoundError as error:
            raise self._damaged(path.name, f"is missing, though {path.stem}.csv is there") from error
        except (ValueError, EOFError) as error:
            raise self._damaged(path.name, f"is damaged ({error})") from error
        if shape[1:] != self.image_shape:
            raise BadInput(
                f"{path} holds images of (height, width, channels) {shape[1:]}; expected {self.image_shape}. "
                "config.data.size or config.data.channels was changed: set it back, or choose another --workdir."
            )
        if shape[0] != num:
            raise self._damaged(path.name, f"holds {shape[0]} images, {path.stem}.csv {num}")

    def _damaged(self, name, what):
        return BadInput(f"{self.folder / name} {what}; restore {self.folder} from a copy, or choose another --workdir.")


def _typed(table):
    table = table.assign(**{name: "0" for name in LATER if name not in table.columns})
    return table[COLUMNS].astype(dict.fromkeys(COLUMNS[2:], np.int64))
