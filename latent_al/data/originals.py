"""Images as stored in their files, at their own size, read on demand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from latent_al.data.image_files import Reading, UnusableImage, read_image


class Original(NamedTuple):
    """An image; `reason` says why it is the scanned one in place of its file's, and is None where it is not."""

    image: UInt8[np.ndarray, "h w 3"]
    reason: str | None


# To JAX a split is a tree of arrays, and these are not arrays.
@jax.tree_util.register_static
class Originals(Sequence):
    """A sequence of images [h w 3], each of its own size, in colour, whose levels have eight bits.

    Args:
        paths: of the files; None where there is none any more.
        reading: the settings by which files become pixels, of which the size and the channels are not used.
        scanned: images [h w c], uint8, in place of files that cannot be read; None to refuse these.
    """

    def __init__(self, paths: Sequence[Path | None], reading: Reading, scanned: Any = None):
        self._paths, self._scanned = np.array(paths, object), scanned
        self._reading = reading._replace(size=None, channels=3)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.read(row).image

    def name(self, row: int) -> str:
        """Returns the path of a file; an empty text where there is none any more."""
        return str(self._paths[row] or "")

    def read(self, row: int) -> Original:
        """Reads an image, or else takes the scanned one.

        Raises:
            UnusableImage: its file cannot be read, and there are no scanned images.
        """
        path = self._paths[row]
        try:
            if path is None:
                raise UnusableImage("its file now has other content")
            return Original(read_image(path, self._reading).pixels, None)
        except UnusableImage as error:
            if self._scanned is None:
                raise
            pixels = self._scanned[row]
            return Original(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), str(error))

    def take(self, rows: Any) -> "Originals":
        """Returns some rows (indices or a slice) of images without scanned ones."""
        return Originals(self._paths[rows].tolist(), self._reading)
