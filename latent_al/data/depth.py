"""Finds how many bits a pool's levels really have: otherwise 12-bit images in 16-bit files would be nearly black."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latent_al.data.image_files import Depth, bits_of, highest_level
from latent_al.data.listing import read_in_threads
from latent_al.runtime.processes import highest_of_all, is_first, share
from latent_al.types import BadInput

BLOCK = 2**24
"""Levels of an array that are examined together."""
DARK = 4
"""Bits below the pool's that make an image look black."""


class Survey(NamedTuple):
    """The levels of the files of a pool that have more than eight bits.

    num: how many files.
    highest: their highest level.
    file_name: a file that has it.
    num_dark: files whose own levels stay far below.
    """

    num: int
    highest: int
    file_name: str
    num_dark: int

    @property
    def depth(self) -> Depth:
        """Returns the bits that the levels take."""
        return Depth(bits_of(self.highest), is_set=False)


def check_depth(bits: int | None) -> Depth | None:
    """Returns the depth that a config sets; None where it sets none.

    Raises:
        BadInput: it is not from 8 to 32.
    """
    if bits is None:
        return None
    if not 8 <= bits <= 32:
        raise BadInput(f"depth is {bits}; expected bits from 8 to 32, or None to find them.")
    return Depth(bits, is_set=True)


def survey(
    root: Path, names: Sequence[str], max_pixels: int, progress: Callable = lambda levels: levels
) -> Survey | None:
    """Looks at the headers of image files, and at the levels of those with more than eight bits.

    Args:
        root: the folder.
        names: of the files, below it.
        max_pixels: files of more are passed over.
        progress: wraps the iterator of levels, one per file.

    Returns:
        What was found; None where no file has more than eight bits.
    """
    read = partial(_highest, root, max_pixels)
    levels = dict(zip(names, progress(read_in_threads(read, names, ahead=64)), strict=True))
    deep = {name: level for name, level in levels.items() if level is not None}
    if not deep:
        return None
    file_name = max(deep, key=deep.__getitem__)
    bits = bits_of(deep[file_name])
    num_dark = sum(bits_of(level) <= bits - DARK for level in deep.values())
    return Survey(len(deep), deep[file_name], file_name, num_dark)


def describe(surveyed: Survey, depth: Depth) -> str:
    """Describes the depth with which files of more than eight bits are read, and why."""
    line = f"Depth: {surveyed.num:,} files hold more than 8 bits a level, up to {surveyed.highest:,} "
    line += f"({surveyed.file_name}): read as {depth.bits} bits"
    if depth.is_set:
        return f"{line}, as config.data.depth says."
    if surveyed.num_dark:
        line += f"; {surveyed.num_dark:,} of them use {depth.bits - DARK} bits at most, and come out dark"
    return f"{line}; config.data.depth overrides it."


def find_bits(arrays: Sequence[np.ndarray], depth: int | None) -> int | None:
    """Returns the bits that the levels of arrays of unsigned integers really have, over all of them, and prints them.

    Each of several processes looks at its part.

    Args:
        arrays: images, in memory or on disk.
        depth: the bits that a config sets; None to find them.

    Returns:
        Bits, at least 8; None where no array has more than eight.

    Raises:
        BadInput: `depth` is not from 8 to 32.
    """
    deep = [array for array in arrays if array.dtype.kind == "u" and array.dtype.itemsize > 1]
    set_by_config = check_depth(depth)
    if not deep:
        return None
    if set_by_config is not None:
        bits, source = set_by_config.bits, "as config.data.depth says"
    else:
        bits = bits_of(highest_of_all(max(_highest_level(array) for array in deep)))
        source = "which config.data.depth overrides"
    if is_first():
        print(f"Depth: levels are read as {bits} bits, {source}.", flush=True)
    return bits


def _highest(root, max_pixels, name):
    return highest_level(root / name, max_pixels)


def _highest_level(array):
    first, end = share(len(array))
    rows = max(1, BLOCK // max(1, array[:1].size))
    return max((int(array[start : min(start + rows, end)].max()) for start in range(first, end, rows)), default=0)
