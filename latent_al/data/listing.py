"""Lists the image files of a folder, with those that cannot be used and why, and reads them in threads."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from latent_al.data.image_files import SUFFIXES
from latent_al.types import BadInput

THREADS = 4
GROUP = 16
"""Files that a thread reads at a time: to hand over each small image by itself would halve the speed."""

Item = TypeVar("Item")


class ImageFile(NamedTuple):
    """A file with an image's suffix, before it is read.

    name: the path below the folder, with slashes.
    num_bytes: its length.
    modified_ns: when it was last changed, in nanoseconds since 1970.
    """

    name: str
    num_bytes: int
    modified_ns: int


class Listing(NamedTuple):
    """The image files of a folder and of its sub-folders.

    files: the image files, sorted by name.
    rejected: (name, reason) of files and folders that cannot be used, sorted.
    num_other: how many files have no image's suffix.
    """

    files: list[ImageFile]
    rejected: list[tuple[str, str]]
    num_other: int


def list_images(root: str | Path | None, *, without: Path | None = None) -> Listing:
    """Lists the image files of a folder and of its sub-folders; reads none.

    Hidden files are passed over. Links are not followed, but listed as rejected.

    Args:
        root: the folder; None, where a config leaves it open, is refused.
        without: a folder within it that is passed over.

    Raises:
        BadInput: no folder, no image files in it.
    """
    if root is None:
        raise BadInput("no folder of images is named; set config.data.root to it.")
    folder = Path(root)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; set config.data.root to the folder of the images.")
    listing = _list(folder.resolve(), None if without is None else without.resolve())
    if not listing.files:
        raise BadInput(
            f"no image files in {folder} ({listing.num_other} others, {len(listing.rejected)} that cannot be used"
            f"{first_of(listing.rejected)}); set config.data.root to a folder of images that Pillow reads."
        )
    return listing


def first_of(rejected: list[tuple[str, str]]) -> str:
    """Returns the first (name, reason) as the end of a sentence, which is empty where there is none."""
    return f"; the first is {rejected[0][0]!r}: {rejected[0][1]}" if rejected else ""


def read_in_threads(read: Callable[[str], Item], names: Sequence[str], *, ahead: int) -> Iterator[Item]:
    """Yields `read(name)` of each name, in order.

    Args:
        read: is called in four threads.
        names: of files.
        ahead: about how many files are read before their turn.
    """
    # An experiment on arrays loads no Grain.
    import grain

    groups = [names[start : start + GROUP] for start in range(0, len(names), GROUP)]
    num_groups = -(-ahead // GROUP)
    options = grain.ReadOptions(num_threads=min(THREADS, num_groups), prefetch_buffer_size=num_groups)
    read_groups = grain.MapDataset.source(groups).map(lambda group: [read(name) for name in group])
    return itertools.chain.from_iterable(read_groups.to_iter_dataset(options))


def _list(folder, without):
    files, rejected, num_other = [], [], 0
    pending = [(folder, "")]
    while pending:
        where, above = pending.pop()
        for entry in _entries(where, above, rejected):
            name = _text(above + entry.name)
            reason = _why_not(entry)
            if reason is not None:
                rejected.append((name, reason))
            elif entry.is_dir(follow_symlinks=False):
                if entry.path != str(without):
                    pending.append((entry.path, f"{name}/"))
            elif not _has_suffix(entry):
                num_other += 1
            else:
                _add_file(entry, name, files, rejected)
    return Listing(sorted(files), sorted(rejected), num_other)


def _add_file(entry, name, files, rejected):
    try:
        status = entry.stat(follow_symlinks=False)
        files.append(ImageFile(name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        rejected.append((name, f"it cannot be read ({error.strerror})"))


def _entries(where, above, rejected):
    try:
        with os.scandir(where) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        rejected.append((above.rstrip("/") or ".", f"the folder cannot be read ({error.strerror})"))
        return []


def _text(name):
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _has_suffix(entry):
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES


def _why_not(entry):
    if entry.is_symlink():
        return "it is a symbolic link, which is not followed; put what it leads to in its place"
    is_dir = entry.is_dir(follow_symlinks=False)
    if not is_dir and not _has_suffix(entry):
        return None
    if _text(entry.name) != entry.name:
        return "its name is not UTF-8; rename it"
    if not is_dir and not entry.is_file(follow_symlinks=False):
        return "it is neither a file nor a folder"
    return None
