"""A folder of image files: a folder a class, or a flat one without labels."""

import os
from pathlib import Path

import numpy as np
from absl import logging

from latent_al.data.arrays import assemble, take, to_split
from latent_al.data.image_files import SUFFIXES, UnusableImage, check_shape, read_image
from latent_al.types import BadInput, Data, Split


def image_folder(
    *,
    root: str | None,
    size: tuple[int, int] | None,
    channels: int,
    num_validation: int,
    num_test: int,
    skip_broken: bool,
) -> Data:
    """`root/train/CLASS/*` with `root/test/CLASS/*`, or `root/CLASS/*`, or `root/*` without labels.

    Held-out rows are a fixed random choice, since a folder runs class by class. Ids are paths below the folder.

    Args:
        root: the folder; None, where a config leaves it open, is refused.
        size: (height, width) to resize to, or None where all images have one size.
        channels: 1 for grey, 3 for colour.
        num_validation: rows held out for validation.
        num_test: rows held out for test; 0 where the folder has its own test split.
        skip_broken: leave unreadable images out with a warning instead of refusing.

    Raises:
        BadInput: no folder, no images, an unreadable image, images of several sizes.
    """
    check_shape(size, channels)
    if root is None:
        raise BadInput("no folder of images is named; set config.data.root to it.")
    folder = Path(root)
    has_splits = (folder / "train").is_dir() and (folder / "test").is_dir()
    train_folder = folder / "train" if has_splits else folder
    files = _list(train_folder)
    test_files = _list(folder / "test") if has_splits else []
    classes = _classes(files + test_files)

    def read(files):
        return _read(files, classes, size, channels, skip_broken)

    rows, ids = read(files)
    order = np.random.default_rng(0).permutation(len(ids))
    rows, ids = take(rows, order), ids[order]
    if has_splits and num_test:
        raise BadInput(f"num_test is {num_test} but {folder} has its own test folder; set it to 0.")
    if not 0 <= num_test < len(ids):
        raise BadInput(f"num_test is {num_test} of {len(ids)} images; expected 0 to {len(ids) - 1}.")
    return assemble(
        take(rows, slice(num_test, None)),
        read(test_files)[0] if has_splits else take(rows, slice(num_test)),
        num_validation=num_validation,
        ids=ids[num_test:],
        num_classes=len(classes) or None,
    )


def _list(folder):
    """(path, path below the folder, class name or None), sorted."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; set config.data.root to the folder of the images.")
    found = sorted(
        Path(where, name).relative_to(folder)
        for where, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )
    if not found:
        raise BadInput(f"no image files in {folder}; set config.data.root to a folder of images that Pillow reads.")
    return [(folder / path, path.as_posix(), path.parts[0] if len(path.parts) > 1 else None) for path in found]


def _classes(files):
    names = {name for _, _, name in files}
    if names == {None}:
        return []
    if None in names:
        stray = next(path for path, _, name in files if name is None)
        raise BadInput(f"{stray} lies beside class folders; put each image in a class folder, or all in one folder.")
    return sorted(names)


def _read(files, classes, size, channels, skip_broken):
    images, labels, ids = [], [], []
    for path, name, label in files:
        try:
            image = read_image(path, size, channels)
        except UnusableImage as error:
            if not skip_broken:
                raise BadInput(
                    f"{path} cannot be read ({error}); mend or remove it, or set config.data.skip_broken=True."
                ) from error
            logging.warning("%s left out: %s", path, error)
            continue
        if images and image.shape != images[0].shape:
            raise BadInput(
                f"{path} is {image.shape[:2]} pixels but {files[0][0]} {images[0].shape[:2]}; "
                "set config.data.size=(height,width) to resize."
            )
        images.append(image)
        labels.append(classes.index(label) if classes else 0)
        ids.append(name)
    if not images:
        raise BadInput(f"none of the {len(files)} image files can be read, the first is {files[0][0]}.")
    split = to_split(np.stack(images), np.array(labels))
    return (split if classes else Split(split.images, None)), np.array(ids)
