"""Turns images into the pixels that a pretrained network wants, as its `preprocessor_config.json` describes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from latent_al.types import BadInput, check_name

FILE = "preprocessor_config.json"
"""The file next to a model in which hubs keep its preprocessing."""
RESAMPLINGS = {kind.name.lower(): int(kind) for kind in Image.Resampling}
"""Name of a resampling -> Pillow's number for it, which the file has."""
USUAL = "size=224, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resample='bicubic'"
"""The settings of most networks that were trained on ImageNet."""
UNDERSTOOD = {
    "crop_pct",
    "crop_size",
    "default_to_square",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "rescale_factor",
    "resample",
    "size",
}
"""The fields that are followed."""
IDLE = {
    "_valid_processor_keys",
    "auto_map",
    "data_format",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "image_seq_length",
    "input_data_format",
    "processor_class",
    "return_tensors",
}
"""The fields that change no pixel here: every image is made RGB, and the model itself gives its layout."""
SQUARE = ("DeiT", "ViT")
"""Processors that take a size of one number for both sides although they crop."""
UNCROPPED = 384
"""The size from which on ConvNeXt's processors do not crop."""


class Preprocessing(NamedTuple):
    """The steps from an image to pixels; `None` leaves one out.

    size: (height, width) to resize to, or the length of the shorter side, which keeps the aspect.
    resample: Pillow's number of the resampling.
    crop: (height, width) of the central part that is kept; black is added where an image is smaller.
    scale: by which levels are multiplied.
    mean, std: of the channels, subtracted and then divided by.
    """

    size: tuple[int, int] | int | None
    resample: int | None
    crop: tuple[int, int] | None
    scale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Returns the (height, width) that every image has in the end."""
        return self.crop or self.size

    @property
    def keeps_levels(self) -> bool:
        """Returns whether levels stay as they are, bytes from 0 to 255."""
        return self.scale is None and self.mean is None


def read_preprocessing(folders: Sequence[Path], settings: Mapping[str, Any], *, takes_bytes: bool) -> Preprocessing:
    """Reads the file in the first of the folders that has one; a setting that is not None overrides its field.

    Args:
        folders: that may have the file.
        settings: size, crop, mean, std and resample, as those of the encoder `onnx`.
        takes_bytes: whether levels stay as they are unless the file says otherwise.

    Raises:
        BadInput: there is no such file, and settings are missing; it cannot be read, or wants what is unknown here.
    """
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    fields = dict(do_rescale=not takes_bytes, do_normalize=not takes_bytes) if path is None else _read(path)
    fields |= _as_fields(settings)
    where = f"{path or f'{folders[0]} has no {FILE}'}"
    missing = [name for name in ("size", "resample", "image_mean", "image_std") if _is_missing(fields, name)]
    if missing:
        names = ", ".join(name.removeprefix("image_") for name in missing)
        raise BadInput(
            f"{where}, so {names} of the images are not known; set them in config.encoder as the network was "
            f"trained, or put the file there. For most ImageNet networks they are {USUAL}."
            if path is None
            else f"{where} does not say {names}; set them in config.encoder as the network was trained."
        )
    try:
        preprocessing = _parse(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where} cannot be understood ({error!r}); correct it, or set config.encoder.size.") from error
    _check(preprocessing, where)
    return preprocessing


def preprocess(image: UInt8[np.ndarray, "h w 3"], steps: Preprocessing) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the image resized and cropped; `normalized` does the rest.

    Source: the image processors of Hugging Face's transformers, which resize bytes with Pillow.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    if steps.size is not None:
        height, width = _resized(picture, steps.size)
        picture = picture.resize((width, height), steps.resample)
    if steps.crop is not None:
        height, width = steps.crop
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    return np.asarray(picture)


def normalized(pixels: UInt8[np.ndarray, "*any 3"], steps: Preprocessing) -> Float[np.ndarray, "*any 3"]:
    """Returns levels times the scale, minus the mean, over the standard deviation, each where there is one."""
    levels = np.arange(256.0)[:, None] * (1 if steps.scale is None else steps.scale)
    if steps.mean is not None:
        levels = (levels - steps.mean) / steps.std
    # There are only as many values as levels: looked up, they cost no float arithmetic.
    table = np.broadcast_to(levels, (256, 3)).astype(np.float32)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=-1)


def _read(path):
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it is not a dict")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); fetch it again.") from error
    unknown = {name: fields[name] for name in sorted(fields.keys() - UNDERSTOOD - IDLE) if fields[name]}
    if unknown:
        words = ", ".join(f"{name}={value!r}" for name, value in unknown.items())
        raise BadInput(
            f"{path} has {words}, which is not supported and may change the pixels; remove it if it does not, or "
            "embed the images yourself and give them to the encoder precomputed."
        )
    return fields


def _as_fields(settings):
    """Returns the fields that stand for the settings."""
    size, crop, mean, std, resample = (settings[name] for name in ("size", "crop", "mean", "std", "resample"))
    fields = {}
    if size is not None:
        square = isinstance(size, Sequence)
        fields |= dict(do_resize=True, crop_pct=None)
        fields["size"] = dict(height=size[0], width=size[1]) if square else dict(shortest_edge=size)
    if crop is not None:
        fields |= dict(do_center_crop=True, crop_size=crop, crop_pct=None)
    if resample is not None:
        check_name(resample, RESAMPLINGS, "resampling")
        fields["resample"] = RESAMPLINGS[resample]
    if mean is not None or std is not None:
        fields["do_normalize"] = True
    return fields | {f"image_{name}": value for name, value in (("mean", mean), ("std", std)) if value is not None}


def _is_missing(fields, name):
    step = "do_resize" if name in ("size", "resample") else "do_normalize"
    return fields.get(step) is not False and fields.get(name) is None


def _parse(fields):
    size, resample, crop = None, None, None
    if fields.get("do_resize") is not False:
        size, resample = _size(fields), int(Image.Resampling(fields["resample"]))
    if fields.get("do_center_crop", fields.get("crop_size") is not None):
        crop = _both_sides(fields["crop_size"])
    if fields.get("crop_pct") and size is not None:
        size, crop = _of_convnext(size, fields["crop_pct"])
    scale = fields.get("rescale_factor") or 1 / 255
    mean, std = None, None
    if fields.get("do_normalize") is not False:
        mean, std = (tuple(float(value) for value in fields[f"image_{name}"]) for name in ("mean", "std"))
    return Preprocessing(size, resample, crop, None if fields.get("do_rescale") is False else float(scale), mean, std)


def _size(fields):
    size = fields["size"]
    if isinstance(size, Mapping):
        size = {name: length for name, length in size.items() if length is not None}
        if set(size) == {"shortest_edge"}:
            return int(size["shortest_edge"])
        return _both_sides(size)
    processor = fields.get("image_processor_type") or fields.get("feature_extractor_type") or ""
    crops = bool(fields.get("do_center_crop") or fields.get("crop_pct"))
    is_square = processor.startswith(SQUARE) or not crops
    return _both_sides(size) if fields.get("default_to_square", is_square) else int(size)


def _both_sides(size):
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise ValueError(f"a size of {', '.join(sorted(size))}")
        return int(size["height"]), int(size["width"])
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _of_convnext(size, share):
    """Returns the size and the crop where the crop is a share of the resized image."""
    side = size if isinstance(size, int) else size[0]
    return (int(side / share), (side, side)) if side < UNCROPPED else ((side, side), None)


def _check(steps, where):
    lengths = [steps.size] if isinstance(steps.size, int) else [*(steps.size or ())]
    if not isinstance(steps.crop or steps.size, tuple):
        raise BadInput(
            f"{where}: images of several shapes would come out, since nothing crops them; set config.encoder.crop, or "
            "config.encoder.size to (height, width)."
        )
    if min([*lengths, *steps.shape]) < 1:
        raise BadInput(f"{where}: size is {steps.size} and crop {steps.crop}; expected sides of 1 or more.")
    if steps.mean is not None and not (len(steps.mean) == len(steps.std) == 3 and min(steps.std) > 0):
        raise BadInput(
            f"{where}: mean is {steps.mean} and std {steps.std}; expected three numbers each, for red, green and blue, "
            "and positive ones as std."
        )


def _resized(picture, size):
    """Returns the (height, width) that a picture gets."""
    if isinstance(size, tuple):
        return size
    short, long = sorted(picture.size)
    lengths = (size, int(size * long / short))
    return lengths if picture.height <= picture.width else lengths[::-1]
