"""Images in a file of plain pixels, which are read as they are needed."""

from typing import Any

import numpy as np

from latent_al.data.arrays import scaled
from latent_al.runtime.processes import digest_by_share


class Stored:
    """Images [n h w c] on disk, like a NumPy array of float32 in [0, 1].

    A slice is still on disk; rows by number, and `np.asarray` of all, are read and scaled as `arrays.scaled` has it.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, on_disk: np.ndarray):
        self.on_disk = on_disk

    @property
    def shape(self) -> tuple[int, ...]:
        return self.on_disk.shape

    def __len__(self):
        return len(self.on_disk)

    def __getitem__(self, index: Any):
        found = self.on_disk[index]
        indices = index if isinstance(index, tuple) else (index,)
        return Stored(found) if all(isinstance(each, slice) for each in indices) else scaled(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None):
        return np.array(scaled(self.on_disk), dtype, copy=copy)

    def reshape(self, *shape: int) -> "Stored":
        return Stored(self.on_disk.reshape(shape))


def digest_arrays(arrays: list[np.ndarray | Stored]) -> str:
    """A hash of arrays in memory or on disk, in all processes at once, of which each reads its part."""
    return " ".join(digest_by_share(each.on_disk if isinstance(each, Stored) else each) for each in arrays)
