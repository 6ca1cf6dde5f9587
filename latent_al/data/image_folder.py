"""A folder of image files: a folder a class, or a flat one without labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from latent_al.data.arrays import assemble, take, to_split
from latent_al.data.image_files import UnusableImage, check_shape, read_image
from latent_al.data.listing import list_images, read_in_threads
from latent_al.types import BadInput, Data, Split

AHEAD = 256
"""Images that are read before their turn."""


def image_folder(
    *,
    root: str | None,
    size: tuple[int, int] | None,
    channels: int,
    num_validation: int,
    num_test: int,
    skip_broken: bool,
) -> Data:
    """Reads `root/train/CLASS/*` with `root/test/CLASS/*`, or `root/CLASS/*`, or `root/*` without labels.

    Held-out rows are a fixed random choice, since a folder runs class by class. Ids are paths below the folder. Hidden
    files are passed over.

    Args:
        root: the folder; None, where a config leaves it open, is refused.
        size: (height, width) to resize to, or None where all images have one size.
        channels: 1 for grey, 3 for colour.
        num_validation: rows held out for validation.
        num_test: rows held out for test; 0 where the folder has its own test split.
        skip_broken: leave unreadable images and links out with a warning instead of refusing.

    Raises:
        BadInput: no folder, no images, an unreadable image or a link, images of several sizes.
    """
    check_shape(size, channels)
    has_splits = root is not None and (Path(root) / "train").is_dir() and (Path(root) / "test").is_dir()
    reader = _Reader(size, channels, skip_broken)
    files = _list(Path(root, "train") if has_splits else root, skip_broken)
    test_files = _list(Path(root, "test"), skip_broken) if has_splits else []
    classes = _classes(files + test_files)
    rows, ids = reader.read(files, classes)
    order = np.random.default_rng(0).permutation(len(ids))
    rows, ids = take(rows, order), ids[order]
    if has_splits and num_test:
        raise BadInput(f"num_test is {num_test} but {root} has its own test folder; set it to 0.")
    if not 0 <= num_test < len(ids):
        raise BadInput(f"num_test is {num_test} of {len(ids)} images; expected 0 to {len(ids) - 1}.")
    return assemble(
        take(rows, slice(num_test, None)),
        reader.read(test_files, classes)[0] if has_splits else take(rows, slice(num_test)),
        num_validation=num_validation,
        ids=ids[num_test:],
        num_classes=len(classes) or None,
    )


class _File(NamedTuple):
    """An image file; `label` is the name of its class, or None."""

    path: Path
    name: str
    label: str | None


class _Reader(NamedTuple):
    """Reads files at one size: the settings of `image_folder`."""

    size: tuple[int, int] | None
    channels: int
    skip_broken: bool

    def read(self, files: list[_File], classes: list[str]) -> tuple[Split, np.ndarray]:
        """Returns the images with their labels, where there are classes, and their names."""
        images, labels, names = [], [], []
        for file, image in self._read_usable(files):
            if images and image.shape != images[0].shape:
                raise BadInput(
                    f"{file.path} is {image.shape[:2]} pixels but {files[0].path} {images[0].shape[:2]}; "
                    "set config.data.size=(height,width) to resize."
                )
            images.append(image)
            labels.append(classes.index(file.label) if classes else 0)
            names.append(file.name)
        if not images:
            raise BadInput(f"none of the {len(files)} image files can be read, the first is {files[0].path}.")
        split = to_split(np.stack(images), np.array(labels))
        return (split if classes else Split(split.images, None)), np.array(names)

    def _read_usable(self, files) -> Iterator[tuple[_File, np.ndarray]]:
        images = read_in_threads(self._try, [str(file.path) for file in files], ahead=AHEAD)
        for file, image in zip(files, images, strict=True):
            if isinstance(image, UnusableImage):
                _leave_out(file.path, image, self.skip_broken)
            else:
                yield file, image

    def _try(self, path):
        try:
            return read_image(Path(path), self.size, self.channels)
        except UnusableImage as error:
            return error


def _list(folder, skip_broken):
    """Returns the files below a folder, sorted folder by folder."""
    listing = list_images(folder)
    for name, reason in listing.rejected:
        _leave_out(Path(folder, name), reason, skip_broken)
    parts = sorted(file.name.split("/") for file in listing.files)
    return [_File(Path(folder, *path), "/".join(path), path[0] if len(path) > 1 else None) for path in parts]


def _leave_out(path, reason, skip_broken):
    if not skip_broken:
        raise BadInput(f"{path} cannot be read ({reason}); mend or remove it, or set config.data.skip_broken=True.")
    logging.warning("%s left out: %s", path, reason)


def _classes(files):
    names = {file.label for file in files}
    if names == {None}:
        return []
    if None in names:
        stray = next(file.name for file in files if file.label is None)
        raise BadInput(f"{stray} lies beside class folders; put each image in a class folder, or all in one folder.")
    return sorted(names)
