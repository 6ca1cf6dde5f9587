"""The one protocol of image sources: arrays, and streams that read images from disk when sliced."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from latent_al.data.arrays import scaled
from latent_al.runtime.processes import digest_by_share


@runtime_checkable
class Images(Protocol):
    """Images [n h w c] that are read when sliced: a NumPy array is one, and so is a `Stream`.

    shape: (n, h, w, c).
    dtype: float32, in [0, 1]; or uint8, whose 255 stands for 1.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Any:
        """Returns a block of rows, which `np.asarray` reads as an array of `dtype`; for a number, that one image."""
        ...


@runtime_checkable
class Stream(Images, Protocol):
    """Images that may be more than memory holds, and to which more may be added: row r remains the same image.

    shards: (start, stop) of each block of rows that is stored on disk as one; new rows make new shards.
    """

    shards: list[tuple[int, int]]


class Mapped:
    """Images [n h w c] in a file of plain pixels, like a NumPy array of float32 in [0, 1].

    A slice is still on disk; rows by number, and `np.asarray` of all, are read and scaled as by `arrays.scaled`, with
    `bits`.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, on_disk: np.ndarray, bits: int | None = None):
        self.on_disk, self.bits = on_disk, bits

    @property
    def shape(self) -> tuple[int, ...]:
        return self.on_disk.shape

    def __len__(self):
        return len(self.on_disk)

    def __getitem__(self, index: Any):
        pixels = self.on_disk[index]
        indices = index if isinstance(index, tuple) else (index,)
        if all(isinstance(index, slice) for index in indices):
            return Mapped(pixels, self.bits)
        return scaled(pixels, self.bits)

    def __array__(self, dtype: Any = None, copy: bool | None = None):
        return np.array(scaled(self.on_disk, self.bits), dtype, copy=copy)

    def reshape(self, *shape: int) -> "Mapped":
        return Mapped(self.on_disk.reshape(shape), self.bits)


def digest_arrays(arrays: list[np.ndarray | Mapped]) -> str:
    """Returns a hash of arrays in memory or on disk; several processes read a part each, all at once."""
    return " ".join(digest_by_share(array.on_disk if isinstance(array, Mapped) else array) for array in arrays)
