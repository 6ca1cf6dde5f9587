"""Reads one image file, in whatever format, depth or rotation, as eight-bit pixels."""

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from latent_al.types import BadInput

SUFFIXES = frozenset(Image.registered_extensions())
"""The suffixes of image files, in lower case."""


class UnusableImage(ValueError):
    """This file cannot be used; the message is a short reason for a person, without the file's name."""


class Content(NamedTuple):
    """A file's bytes, and when they were last changed in nanoseconds since 1970."""

    content: bytes
    modified_ns: int


class Decoded(NamedTuple):
    """Pixels at the size that was asked for, and the height and width of the upright image in its file."""

    pixels: UInt8[np.ndarray, "h w c"]
    height: int
    width: int


def check_shape(size: tuple[int, int] | None, channels: int) -> None:
    """Checks the size, (height, width) or None, and the channels, 1 for grey or 3 for colour, that images are to have.

    Raises:
        BadInput: another number of channels, a side below 1.
    """
    if channels not in (1, 3):
        raise BadInput(f"channels is {channels}; expected 1 for grey or 3 for colour.")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise BadInput(f"size is {size}; expected (height, width), both 1 or more.")


def read_image(path: Path, size: tuple[int, int] | None, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Reads the image in a file, as `decode` returns it.

    Raises:
        UnusableImage: the file cannot be read or decoded.
    """
    return decode(read_content(path).content, size, channels).pixels


def read_content(path: Path) -> Content:
    """Reads a file once, so that the same bytes are hashed and decoded.

    Raises:
        UnusableImage: there is no such file any more, it cannot be read, or it is too large for any image.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > 8 * _max_pixels():
                raise UnusableImage(
                    f"its {status.st_size:,} bytes are more than an image of {_max_pixels():,} pixels takes; "
                    "make it smaller"
                )
            return Content(file.read(), status.st_mtime_ns)
    except FileNotFoundError as error:
        raise UnusableImage("it has vanished since the folder was listed") from error
    except OSError as error:
        raise UnusableImage(f"it cannot be read ({error.strerror})") from error


def decode(content: bytes, size: tuple[int, int] | None, channels: int) -> Decoded:
    """Decodes an image file: upright, over white where it is transparent, the upper eight bits of sixteen.

    Of several frames or pages it is the first. Integers of 32 bits are taken for eight bits where none is above 255,
    and for sixteen where none is above 65,535.

    Args:
        content: the bytes of the file.
        size: (height, width) to resize to, or None to leave it.
        channels: 1 for grey, 3 for colour.

    Raises:
        UnusableImage: damaged, no image, more than Pillow's MAX_IMAGE_PIXELS (before anything is decoded), or pixels of
            unknown range.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _decode(image, size, "L" if channels == 1 else "RGB")
    except UnusableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnusableImage("it is not an image that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage(f"{str(error).split(',')[0]}; make it smaller") from error
    except Exception as error:  # A damaged file makes Pillow's parsers stumble in every way there is.
        raise UnusableImage(f"it cannot be decoded ({type(error).__name__}: {error})") from error


def _max_pixels():
    return Image.MAX_IMAGE_PIXELS or float("inf")


def _decode(image, size, mode):
    full = image.size
    if full[0] * full[1] > _max_pixels():
        raise UnusableImage(
            f"Image size ({full[0] * full[1]} pixels) exceeds limit of {_max_pixels()} pixels; make it smaller"
        )
    if size is not None:
        # A JPEG can be decoded at a half, a quarter or an eighth; three times the size leaves the resampling its say.
        image.draft(None, (3 * max(size), 3 * max(size)))
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    ImageOps.exif_transpose(image, in_place=True)
    image = _over_white(image).convert(mode)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return Decoded(pixels[..., None] if mode == "L" else pixels, *(full if turned else full[::-1]))


def _over_white(image):
    if image.mode == "F":
        raise UnusableImage("its pixels are floats, whose range is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image))
    if not image.has_transparency_data:
        return image
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 255:
        # Pillow cuts the pixels of a 16-bit PNG to eight bits, but not the colour that stands for transparency.
        image.info["transparency"] = tuple(level >> 8 for level in colour)
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _eight_bits(image):
    levels = np.asarray(image)
    low, high = levels.min(), levels.max()
    if low < 0 or high > 65535:
        raise UnusableImage(f"its pixels run from {low} to {high}; expected 0 to 65535, save it with 8 or 16 bits")
    pixels = (levels if image.mode == "I" and high <= 255 else levels >> 8).astype(np.uint8)
    if "transparency" in image.info:
        pixels[levels == image.info["transparency"]] = 255
    return pixels
