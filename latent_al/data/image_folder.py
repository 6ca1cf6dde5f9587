"""A folder of image files: one folder per class, or a flat one without labels."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from latent_al.data.arrays import assemble, check_num_test, take, to_split
from latent_al.data.depth import check_depth, describe, survey
from latent_al.data.image_files import Decoded, Reading, UnusableImage, check_shape, pixel_limit, read_image
from latent_al.data.listing import ImageFile, counted, first_of, list_images, not_read, read_in_threads
from latent_al.data.originals import Originals
from latent_al.runtime.files import expand
from latent_al.runtime.processes import is_first
from latent_al.types import BadInput, Data, Split

AHEAD = 256
"""Images that are read ahead of their turn."""
SPLITS = dict(train="train", training="train", test="test", testing="test")
SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev"), "validation")
"""Name of a folder, in lower case -> the split that it holds."""
COUNTED = 100
"""Classes whose counts are printed."""


def image_folder(
    *,
    root: str | None,
    size: tuple[int, int] | None,
    channels: int,
    num_validation: int,
    num_test: int,
    skip_broken: bool,
    depth: int | None = None,
    max_megapixels: float | None = None,
) -> Data:
    """Reads `root/CLASS/*`, or `root/*` without labels, or splits that are such folders, as in `root/train/CLASS/*`.

    Splits are folders in the root: `train`, and next to it `test`, and `val`, `valid`, `validation` or `dev`, in upper
    or lower case. The training rows come in a fixed random order, since a folder goes class by class, and so do those
    held out from them; splits with a folder are in the order of names. Ids are paths below the folder, or below that of
    the split. Hidden files and folders are passed over.

    Args:
        root: the folder; None, where a config leaves it open, is refused.
        size: (height, width) to resize to, or None where all images have one size.
        channels: 1 for grey, 3 for colour.
        num_validation: rows held out for validation; 0 where the folder has its own validation split.
        num_test: rows held out for test; 0 where the folder has its own test split.
        skip_broken: whether to leave out unreadable images and links with a warning instead of refusing them.
        depth: bits of levels in files that have more than eight; by default as many as the highest of all files takes.
        max_megapixels: the largest image that is read, in millions of pixels; by default 89.

    Raises:
        BadInput: no folder, no images, an unreadable image or a link, images of several sizes, folders of splits next
            to other folders or within those of classes, a class that no training image has.
    """
    check_shape(size, channels)
    reading = Reading(size, channels, check_depth(depth), pixel_limit(max_megapixels))
    listing = list_images(root)
    folder = expand(root, "config.data.root")
    splits = _by_split(folder, listing.files)
    if "test" in splits and num_test:
        raise BadInput(f"num_test is {num_test} but {folder} has its own test folder; set it to 0.")
    check_num_test(num_test, len(splits["train"]))
    classes = _classes([file for files in splits.values() for file in files])
    _say(*_counts(splits, classes), *not_read(listing))
    reader = _Reader(_with_depth(reading, folder, listing.files), skip_broken, [], [])
    for name, reason in listing.rejected:
        reader.leave_out(folder / name, reason)
    rows, ids = reader.read(splits["train"], classes)
    order = np.random.default_rng(0).permutation(len(ids))
    rows, ids = take(rows, order), ids[order]
    # Some may have been left out.
    check_num_test(num_test, len(ids))
    held_out = {name: reader.read(splits[name], classes)[0] for name in ("validation", "test") if name in splits}
    _say(*reader.remarks())
    data = assemble(
        take(rows, slice(num_test, None)),
        held_out.get("test", take(rows, slice(num_test))),
        validation=held_out.get("validation"),
        num_validation=num_validation,
        ids=ids[num_test:],
        num_classes=len(classes) or None,
    )
    _check_present(folder, data.train.labels, classes)
    return data


class _File(NamedTuple):
    """An image file; `name` is its path below the folder of its split, `label` the name of its class, or None."""

    path: Path
    name: str
    label: str | None


class _Reader(NamedTuple):
    """Reads files by the settings of `image_folder`, and keeps what is to be said about them.

    left_out: (path, reason) of files that are left out.
    plain: paths of images of one colour.
    """

    reading: Reading
    skip_broken: bool
    left_out: list[tuple[str, str]]
    plain: list[str]

    def read(self, files: list[_File], classes: list[str]) -> tuple[Split, np.ndarray]:
        """Returns the images with their labels, where there are classes, and their names."""
        images, labels, kept = [], [], []
        for file, decoded in self._read_usable(files):
            image = decoded.pixels
            if images and image.shape != images[0].shape:
                raise BadInput(
                    f"{file.path} is {image.shape[:2]} pixels but {kept[0].path} is {images[0].shape[:2]}; "
                    "set config.data.size=(height,width) to resize."
                )
            if decoded.is_one_colour:
                self.plain.append(str(file.path))
            images.append(image)
            labels.append(classes.index(file.label) if classes else 0)
            kept.append(file)
        if not images:
            raise BadInput(f"none of the {len(files)} image files can be read, the first is {files[0].path}.")
        split = to_split(np.stack(images), np.array(labels) if classes else None)
        originals = Originals([file.path for file in kept], self.reading)
        return split._replace(originals=originals), np.array([file.name for file in kept])

    def leave_out(self, path: Path, reason: str | UnusableImage) -> None:
        """Notes that a file is left out, or refuses to do without it."""
        if not self.skip_broken:
            raise BadInput(f"{path} cannot be read ({reason}); fix or remove it, or set config.data.skip_broken=True.")
        logging.warning("%s left out: %s", path, reason)
        self.left_out.append((str(path), str(reason)))

    def remarks(self) -> list[str]:
        """Returns a line on what was left out, and one on images of one colour."""
        lines = []
        if self.left_out:
            lines.append(f"left out: {counted(len(self.left_out), 'file')}{first_of(self.left_out)}")
        if self.plain:
            lines.append(f"of one colour: {counted(len(self.plain), 'image')}, the first is {self.plain[0]}")
        return lines

    def _read_usable(self, files) -> Iterator[tuple[_File, Decoded]]:
        images = read_in_threads(self._try, [str(file.path) for file in files], ahead=AHEAD)
        for file, image in zip(files, images, strict=True):
            if isinstance(image, UnusableImage):
                self.leave_out(file.path, image)
            else:
                yield file, image

    def _try(self, path):
        try:
            return read_image(Path(path), self.reading)
        except UnusableImage as error:
            return error


def _say(*lines):
    for line in lines if is_first() else ():
        print(line, flush=True)


def _with_depth(reading, folder, files):
    surveyed = survey(folder, [file.name for file in files], reading.max_pixels)
    if surveyed is None:
        return reading
    depth = reading.depth or surveyed.depth
    _say(describe(surveyed, depth))
    return reading._replace(depth=depth)


def _by_split(folder: Path, files: list[ImageFile]) -> dict[str, list[_File]]:
    """Returns split -> its files, sorted folder by folder; `train` has them all where the folder has no splits."""
    parts = sorted(file.name.split("/") for file in files)
    tops = {path[0]: SPLITS.get(path[0].lower()) for path in parts if len(path) > 1}
    named = [split for split in tops.values() if split]
    if not named:
        _check_nested(folder, parts)
        return dict(train=[_file(folder, (), path) for path in parts])
    stray = next(("/".join(path) for path in parts if len(path) == 1 or not tops[path[0]]), None)
    if stray or len(set(named)) < len(named) or "train" not in named:
        raise BadInput(
            f"{folder} holds images in {', '.join(f'{top}/' for top in sorted(tops))}"
            f"{f' and {stray}' if stray else ''}; expected folders of classes, or train/ with at most one of test/ and "
            "one of val/, valid/, validation/ or dev/, and nothing else: move or rename what does not belong."
        )
    splits = {split: [path for path in parts if tops[path[0]] == split] for split in named}
    return {split: [_file(folder, path[:1], path[1:]) for path in paths] for split, paths in splits.items()}


def _check_nested(folder, parts):
    nested = next((path for path in parts if len(path) > 2 and path[1].lower() in SPLITS), None)
    if nested:
        raise BadInput(
            f"{folder / nested[0] / nested[1]} is the folder of a split within that of a class; put splits first, as "
            f"in {folder / nested[1] / nested[0]}, or rename it."
        )


def _file(folder, above, path):
    return _File(Path(folder, *above, *path), "/".join(path), path[0] if len(path) > 1 else None)


def _classes(files):
    names = {file.label for file in files}
    if names == {None}:
        return []
    if None in names:
        stray = next(file.path for file in files if file.label is None)
        raise BadInput(
            f"{stray} lies next to class folders, or in a split without them; put each image in a class folder, or all "
            "in one folder, or move those without a class away."
        )
    return sorted(names)


def _check_present(folder, labels, classes):
    """Raises BadInput where a class has no training image left; here classes have names."""
    missing = [repr(name) for label, name in enumerate(classes) if not (labels == label).any()]
    if missing:
        raise BadInput(
            f"none of the {len(labels)} training images of {folder} is of class {', '.join(missing[:10])}: no "
            "query could find one. Give images of each class, hold fewer out, or move the folders of that class away."
        )


def _counts(splits, classes):
    """Returns a line per split with its number of images, and that of each class by name."""
    for split, files in splits.items():
        if not classes:
            yield f"{split}: {len(files):,} images without classes"
            continue
        counts = Counter(file.label for file in files)
        words = [f"{name} {counts[name]:,}" for name in classes[:COUNTED]]
        rest = [f"{len(classes) - COUNTED} more"] if len(classes) > COUNTED else []
        yield f"{split}: {len(files):,} images in {len(classes)} classes: {', '.join(words + rest)}"
