"""Lists the image files of a folder, with those that cannot be used and why, and reads them in threads."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from latent_al.data.image_files import SUFFIXES, is_image
from latent_al.runtime.files import expand
from latent_al.types import BadInput

THREADS = 4
GROUP = 16
"""Files that a thread reads at a time: handing over small images one by one would halve the speed."""

MENTIONED = 8
"""Suffixes and folders that a line names."""

Item = TypeVar("Item")


PASSED_OVER = {
    "$recycle.bin",
    "#recycle",
    "@eadir",
    "__macosx",
    "__pycache__",
    "lost+found",
    "system volume information",
}
"""Folders that systems and programs add to what people put there, in lower case; hidden ones are passed over too."""
WORKDIR = {"audit.json", "config.json", "manifest.csv"}
"""Files that mark the workdir of a labelling job, whose figures are not images of a pool."""
PNG_INSTEAD = "save them as PNG"
FRAMES = "extract frames from them"
DEVELOP = "develop them as JPEG or TIFF"
UNPACK = "unpack them"
CURES = {
    ".heic": "pip install pillow-heif",
    ".heif": "pip install pillow-heif",
    ".hif": "pip install pillow-heif",
    ".avif": "pip install 'pillow>=11.3'",
    ".svg": PNG_INSTEAD,
    ".svgz": PNG_INSTEAD,
    ".pdf": PNG_INSTEAD,
    ".exr": f"{PNG_INSTEAD}, of 8 or 16 bits",
    ".hdr": f"{PNG_INSTEAD}, of 8 or 16 bits",
    ".dcm": f"{PNG_INSTEAD}, of 16 bits, as pydicom reads them",
    ".dicom": f"{PNG_INSTEAD}, of 16 bits, as pydicom reads them",
    ".nii": f"{PNG_INSTEAD}, one per slice",
    ".npy": f"{PNG_INSTEAD}, or read them with the source npz",
    ".npz": f"{PNG_INSTEAD}, or read them with the source npz",
    ".jxl": PNG_INSTEAD,
    ".xcf": PNG_INSTEAD,
} | dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), DEVELOP)
CURES |= dict.fromkeys((".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm"), FRAMES)
CURES |= dict.fromkeys((".7z", ".gz", ".rar", ".tar", ".tgz", ".zip"), UNPACK)
"""Suffix of files that may hold images, but are not read -> what makes them readable."""


class ImageFile(NamedTuple):
    """An image file, recognised by its suffix or else by its first bytes, before it is read.

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
    other_files: suffix -> how many files with it are not images; the empty suffix where a name has none.
    passed_over: folders that are hidden, or that no person has made, sorted.
    """

    files: list[ImageFile]
    rejected: list[tuple[str, str]]
    other_files: dict[str, int]
    passed_over: list[str]


def list_images(root: str | Path | None, *, without: Path | None = None) -> Listing:
    """Lists the image files of a folder and of its sub-folders; reads first bytes only of those without a suffix.

    Hidden files are passed over, and so are folders that are hidden, in `PASSED_OVER`, or workdirs of labelling jobs.
    Links are not followed, but listed as rejected.

    Args:
        root: the folder; None, where a config leaves it open, is refused.
        without: a folder within it that is passed over.

    Raises:
        BadInput: no folder, no image files in it.
    """
    if root is None:
        raise BadInput("no folder of images is named; set config.data.root to it.")
    folder = expand(root, "config.data.root")
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; set config.data.root to the folder of the images.")
    listing = _list(folder.resolve(), None if without is None else without.resolve())
    if not listing.files:
        unread = "; ".join([f"{sum(listing.other_files.values())} others", *not_read(listing)])
        raise BadInput(
            f"no image files in {folder} ({unread}; {len(listing.rejected)} that cannot be used"
            f"{first_of(listing.rejected)}); set config.data.root to a folder of images that Pillow reads."
        )
    return listing


def not_read(listing: Listing) -> list[str]:
    """Returns a line with the files that are not images, by suffix, and one with the folders that were passed over."""
    lines = []
    if listing.other_files:
        counts = sorted(listing.other_files.items(), key=lambda item: (item[0] not in CURES, -item[1], item[0]))
        words = [
            f"{num:,} {suffix or 'without a suffix'}" + (f" ({CURES[suffix]})" if suffix in CURES else "")
            for suffix, num in counts
        ]
        rest = [f"{len(words) - MENTIONED} more kinds"] if len(words) > MENTIONED else []
        lines.append("not read: " + ", ".join(words[:MENTIONED] + rest))
    if listing.passed_over:
        rest = f" and {len(listing.passed_over) - MENTIONED} more" if len(listing.passed_over) > MENTIONED else ""
        lines.append(f"passed over: {', '.join(listing.passed_over[:MENTIONED])}{rest}")
    return lines


def counted(num: int, noun: str) -> str:
    """Returns a number of things in words, such as `1 image` and `2,000 images`."""
    return f"{num:,} {noun}{'s' * (num != 1)}"


def first_of(rejected: list[tuple[str, str]]) -> str:
    """Returns the first (name, reason) as the end of a sentence, which is empty where there is none."""
    return f"; the first is {rejected[0][0]!r}: {rejected[0][1]}" if rejected else ""


def read_in_threads(read: Callable[[Any], Item], names: Sequence[Any], *, ahead: int) -> Iterator[Item]:
    """Yields `read(name)` for each name, in order.

    Args:
        read: is called in four threads.
        names: of files, or rows.
        ahead: about how many files are read ahead of their turn.
    """
    # An experiment on arrays loads no Grain.
    import grain

    groups = [names[start : start + GROUP] for start in range(0, len(names), GROUP)]
    num_groups = -(-ahead // GROUP)
    options = grain.ReadOptions(num_threads=min(THREADS, num_groups), prefetch_buffer_size=num_groups)
    read_groups = grain.MapDataset.source(groups).map(lambda group: [read(name) for name in group])
    return itertools.chain.from_iterable(read_groups.to_iter_dataset(options))


def _list(folder, without):
    files, rejected, other_files, passed_over = [], [], Counter(), []
    pending = [(folder, "")]
    while pending:
        where, above = pending.pop()
        entries = _entries(where, above, rejected)
        if above and WORKDIR.issubset(entry.name for entry in entries):
            passed_over.append(above)
            continue
        for entry in entries:
            name = _text(above + entry.name)
            reason = _why_not(entry)
            if reason is not None:
                rejected.append((name, reason))
            elif entry.is_dir(follow_symlinks=False):
                if _is_passed_over(entry):
                    passed_over.append(f"{name}/")
                elif entry.path != str(without):
                    pending.append((entry.path, f"{name}/"))
            elif entry.name.startswith("."):
                continue
            elif _may_be_image(entry):
                _add_file(entry, name, files, rejected)
            else:
                other_files[_suffix(entry)] += 1
    return Listing(sorted(files), sorted(rejected), dict(other_files), sorted(passed_over))


def _add_file(entry, name, files, rejected):
    try:
        status = entry.stat(follow_symlinks=False)
        files.append(ImageFile(name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        rejected.append((name, f"it cannot be read ({error.strerror})"))


def _entries(where, above, rejected):
    try:
        with os.scandir(where) as entries:
            return list(entries)
    except OSError as error:
        rejected.append((above.rstrip("/") or ".", f"the folder cannot be read ({error.strerror})"))
        return []


def _text(name):
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _suffix(entry):
    return os.path.splitext(entry.name)[1].lower()


def _has_suffix(entry):
    return _suffix(entry) in SUFFIXES


def _may_be_image(entry):
    return _has_suffix(entry) or (not _suffix(entry) and entry.is_file(follow_symlinks=False) and is_image(entry.path))


def _is_passed_over(entry):
    return entry.name.startswith(".") or entry.name.lower() in PASSED_OVER


def _why_not(entry):
    if _is_passed_over(entry):
        return None
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
