"""Reads one image file, in whatever format, depth or rotation, as eight-bit pixels."""

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from latent_al.data.metadata import without_metadata
from latent_al.types import BadInput

try:
    from pillow_heif import register_heif_opener
except ModuleNotFoundError:
    pass
else:
    register_heif_opener()

NOT_READ = {"BUFR", "GRIB", "HDF5", "MPEG"}
"""Formats that Pillow knows only by name."""
SUFFIXES = frozenset(
    suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in NOT_READ
)
"""The suffixes of image files, in lower case."""
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
"""Formats that a file without a suffix is recognised as: those whose first bytes occur in no text."""
MAX_PIXELS = 89_478_485
"""The limit on an image's pixels unless a config sets another: Pillow's own, a quarter of a GiB in colour."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> the operation that makes an image upright."""
SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""The byte order with which Pillow reads the upper byte of 16 bits -> the one with which it reads the lower byte."""
WHITE_OR_BLACK = 262
"""TIFF's tag that is 0 where the level 0 is white."""
CONTRAST = 16
"""The minimum number of levels that a picture on a transparent ground spans to be visible."""

Result = TypeVar("Result")


class UnusableImage(ValueError):
    """This file cannot be used; the message is a short reason for a person, without the file's name."""


class Content(NamedTuple):
    """A file's bytes, and when they were last changed in nanoseconds since 1970."""

    content: bytes
    modified_ns: int


class Depth(NamedTuple):
    """The bits that levels of more than eight bits are taken to have.

    is_set: whether a config sets it: higher levels are then white. Where the depth was found, they are refused.
    """

    bits: int
    is_set: bool


class Reading(NamedTuple):
    """The settings by which files become pixels.

    size: (height, width) to resize to, or None to leave it.
    channels: 1 for grey, 3 for colour.
    depth: of files of more than eight bits; None where each is taken to be as deep as its own levels go.
    max_pixels: the largest image that is decoded.
    """

    size: tuple[int, int] | None
    channels: int
    depth: Depth | None = None
    max_pixels: int = MAX_PIXELS


class Decoded(NamedTuple):
    """Pixels at the size that was asked for, and what their file holds.

    height, width: of the upright image.
    bits: that its levels were read with.
    """

    pixels: UInt8[np.ndarray, "h w c"]
    height: int
    width: int
    bits: int

    @property
    def is_one_colour(self) -> bool:
        """Returns whether all pixels are equal."""
        return bool((self.pixels == self.pixels[:1, :1]).all())


def check_shape(size: tuple[int, int] | None, channels: int) -> None:
    """Checks the size, (height, width) or None, and the channels, 1 for grey or 3 for colour, that images are to have.

    Raises:
        BadInput: another number of channels, a side below 1.
    """
    if channels not in (1, 3):
        raise BadInput(f"channels is {channels}; expected 1 for grey or 3 for colour.")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise BadInput(f"size is {size}; expected (height, width), both 1 or more.")


def pixel_limit(max_megapixels: float | None) -> int:
    """Returns the limit in pixels that a config sets in millions; `MAX_PIXELS` where it sets none.

    Raises:
        BadInput: it is not positive.
    """
    if max_megapixels is None:
        return MAX_PIXELS
    if not 0 < max_megapixels < 1e6:
        raise BadInput(f"max_megapixels is {max_megapixels}; expected millions of pixels, above 0 and below 1e6.")
    return int(max_megapixels * 1e6)


def bits_of(highest: int) -> int:
    """Returns the bits that levels up to `highest` take, 8 at least."""
    return max(8, int(highest).bit_length())


def read_image(path: Path, reading: Reading) -> Decoded:
    """Reads the image in a file, as `decode` returns it.

    Raises:
        UnusableImage: the file cannot be read or decoded.
    """
    return decode(read_content(path, reading.max_pixels).content, reading)


def read_content(path: Path, max_pixels: int = MAX_PIXELS) -> Content:
    """Reads a file once, so that the same bytes are hashed and decoded.

    Raises:
        UnusableImage: there is no such file any more, it cannot be read, or it is too large for any image.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > 8 * max_pixels:
                raise UnusableImage(
                    f"its {status.st_size:,} bytes are more than an image of {max_pixels:,} pixels takes; "
                    "make it smaller, or raise config.data.max_megapixels"
                )
            return Content(file.read(), status.st_mtime_ns)
    except FileNotFoundError as error:
        raise UnusableImage("it has vanished since the folder was listed") from error
    except OSError as error:
        raise UnusableImage(f"it cannot be read ({error.strerror})") from error


def decode(content: bytes, reading: Reading) -> Decoded:
    """Decodes an image file: upright, over white where it is transparent, with eight bits per channel.

    Of several frames or pages, the first is decoded. A picture that could not be seen over white is laid over black.
    Metadata that are broken or too large are left out.

    Raises:
        UnusableImage: damaged, not an image, more pixels than the limit (before anything is decoded), levels that are
            floats, negative, or above the depth that was found.
    """
    return _attempt(content, reading.max_pixels, lambda image, content: _decode(image, content, reading))


def highest_level(path: Path, max_pixels: int) -> int | None:
    """Returns the highest level in a file of more than eight bits; None for any other, and where none can be read."""
    try:
        with Image.open(path) as image:
            if not _is_deep(image):
                return None
    except Exception:  # Broken metadata fail here, and are left out below.
        pass
    try:
        content = read_content(path, max_pixels).content
        return _attempt(content, max_pixels, _highest)
    except UnusableImage:
        return None


def is_image(path: str) -> bool:
    """Returns whether the first bytes of a file are those of an image, whatever its name."""
    try:
        with Image.open(path, formats=[kind for kind in FORMATS if kind in Image.OPEN]):
            return True
    except Exception:  # There are as many kinds as kinds of files.
        return False


def _attempt(content: bytes, max_pixels: int, function: Callable[[Image.Image, bytes], Result]) -> Result:
    """Returns `function(image, content)`; where that fails, once more without the metadata."""
    try:
        return _open(content, max_pixels, function)
    except UnusableImage as error:
        bare = without_metadata(content)
        if bare == content:
            raise
        try:
            return _open(bare, max_pixels, function)
        except UnusableImage:
            raise error from None


def _open(content, max_pixels, function):
    # Pillow's own limit applies to the whole process, and threads may read with several.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(f"its {image.width * image.height:,} pixels", max_pixels)
            return function(image, content)
    except UnusableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnusableImage("it is not an image that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("its pixels", max_pixels) from error
    except Exception as error:  # A damaged file makes Pillow's parsers fail in every way there is.
        raise UnusableImage(f"it cannot be decoded ({type(error).__name__}: {error})") from error


def _too_large(what, max_pixels):
    return UnusableImage(
        f"{what} are more than the limit of {max_pixels:,}; make it smaller, or raise config.data.max_megapixels"
    )


def _decode(image, content, reading):
    full, size = image.size, reading.size
    mode = "L" if reading.channels == 1 else "RGB"
    if size is not None:
        # A JPEG can be decoded at a half, a quarter or an eighth; three times the size leaves the resampling its part.
        image.draft(None, (3 * max(size), 3 * max(size)))
    levels, bits = _deep_levels(image, content), 8
    image.load()
    orientation = _orientation(image)
    if levels is not None:
        bits = reading.depth.bits if reading.depth is not None else bits_of(_highest_colour(levels))
        image = _shallow(levels, Depth(bits, reading.depth is not None and reading.depth.is_set), image)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    image = _over_ground(image).convert(mode)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    height, width = full if orientation in (5, 6, 7, 8) else full[::-1]
    return Decoded(pixels[..., None] if mode == "L" else pixels, height, width, bits)


def _highest(image, content):
    levels = _deep_levels(image, content)
    return None if levels is None else _highest_colour(levels)


def _highest_colour(levels):
    return int(levels[..., : _num_colours(levels)].max())


def _orientation(image):
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Broken metadata do not cost an image.
        return None


def _is_deep(image):
    return image.mode.startswith("I") or ";16" in _rawmode(image)


def _rawmode(image):
    args = image.tile[0].args if image.tile else ()
    first = args[:1] if isinstance(args, tuple) else (args,)
    return next((rawmode for rawmode in first if isinstance(rawmode, str)), "")


def _deep_levels(image, content) -> Integer[np.ndarray, "h w c"] | None:
    """Returns levels of more than eight bits, of which the last of 2 or 4 channels is alpha; None for other images."""
    if image.mode == "F":
        raise UnusableImage("its pixels are floats, whose range is unknown; save it with 8 or 16 bits")
    rawmode = _rawmode(image)
    if image.mode.startswith("I"):
        levels = np.asarray(image)[..., None]
        if levels.min() < 0:
            raise UnusableImage(
                f"its pixels run from {levels.min()} to {levels.max()}; expected levels of 0 or more; save it with 8 "
                "or 16 bits"
            )
        return levels.astype(np.uint16 if levels.dtype.itemsize == 2 else np.uint32)
    # Pillow keeps the upper eight of 16 bits, and reads the lower eight when told the other byte order.
    if rawmode == "LA;16B":
        parts = _load_as(content, "RGBA")
        return _visible(parts[..., ::2] * 256 + parts[..., 1::2])
    if not re.fullmatch("(RGB|RGBA|RGBa|RGBX);16[BLN]", rawmode):
        return None
    upper = rawmode.replace("a", "A")
    levels = _load_as(content, upper) * 256 + _load_as(content, upper[:-1] + SWAPPED[upper[-1]])
    return _visible(levels if upper == rawmode else _divided_by_alpha(levels))


def _visible(levels):
    """Returns the levels with zeros where they are transparent: whatever lies there does not make a pool deep."""
    return levels if levels.shape[-1] == 3 else np.where(levels[..., -1:] == 0, 0, levels)


def _divided_by_alpha(levels):
    alpha = levels[..., 3:].astype(np.uint64)
    colours = np.minimum(levels[..., :3] * np.uint64(65535) // np.maximum(alpha, 1), 65535)
    return np.concatenate([colours, alpha], axis=-1).astype(np.uint16)


def _load_as(content, rawmode):
    with Image.open(io.BytesIO(content)) as image:
        image.tile = [
            tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
            for tile in image.tile
        ]
        return np.asarray(image).astype(np.uint16)


def _num_colours(levels):
    return 3 if levels.shape[-1] >= 3 else 1


def _shallow(levels, depth, image):
    """Returns the levels as a picture of eight bits per channel, transparent where the image is."""
    colours, alpha = np.split(levels, [_num_colours(levels)], axis=-1)
    if image.info.get("transparency") is not None and not alpha.size:
        alpha = np.where((colours == image.info["transparency"]).all(axis=-1, keepdims=True), 0, 65535)
    pixels = _eight_bits(colours, depth)
    if image.format == "TIFF" and image.tag_v2.get(WHITE_OR_BLACK) == 0:
        # Pillow inverts such levels only where they have eight bits.
        pixels = 255 - pixels
    if not alpha.size:
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    # An alpha channel often has all 16 bits alongside colours of eight.
    alpha = _eight_bits(alpha, depth if alpha.max() < 2**depth.bits else Depth(16, True))
    return Image.fromarray(np.concatenate([np.broadcast_to(pixels, (*pixels.shape[:2], 3)), alpha], axis=-1))


def _eight_bits(levels, depth):
    highest, top = int(levels.max()), 2**depth.bits - 1
    if highest > top and not depth.is_set:
        raise UnusableImage(
            f"its levels go up to {highest}, but the images before it were read with {depth.bits} bits, up to {top}; "
            f"leave it out, or set config.data.depth={bits_of(highest)} in another --workdir"
        )
    return (np.minimum(levels, min(top, np.iinfo(levels.dtype).max)) >> (depth.bits - 8)).astype(np.uint8)


def _over_ground(image):
    """Lays a transparent picture over white, or over black where it could be seen only there."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    over_white, over_black = (
        Image.alpha_composite(Image.new("RGBA", image.size, ground), image) for ground in ("white", "black")
    )
    return over_black if _contrast(over_white) < min(CONTRAST, _contrast(over_black)) else over_white


def _contrast(image):
    return max(high - low for low, high in image.convert("RGB").getextrema())
