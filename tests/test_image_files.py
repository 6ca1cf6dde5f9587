"""Image files in every format, depth and rotation against their pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from latent_al.data.image_files import Reading, UnusableImage, decode, read_content

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = RNG.integers(0, 65536, (5, 6), dtype=np.uint16)
ALPHA = RNG.choice(np.array([0, 100, 255], np.uint8), (5, 6))
UPRIGHT = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: np.swapaxes(x, 0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.swapaxes(np.rot90(x, 2), 0, 1),
    8: np.rot90,
}


def encode(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def encode_png(levels, depth, colour, transparent=None, shape=None):
    """A PNG of big-endian samples, which Pillow cannot always write; without pixels where `shape` is told."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = shape or levels.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    chunks += [] if transparent is None else [(b"tRNS", np.array(transparent, ">u2").tobytes())]
    chunks += [] if shape else [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in levels)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


def over_white(colours, alpha):
    share = alpha[..., None] / 255
    return np.round(colours.reshape(*alpha.shape, -1) * share + 255 * (1 - share))


def check(content, expected, tolerance=0):
    """The pixels in the file's own depth of colour, in grey the weighted mean of the three."""
    expected = np.asarray(expected, float).reshape(*np.shape(expected)[:2], -1)
    found = decode(content, Reading(None, 3))
    assert (found.height, found.width) == expected.shape[:2]
    np.testing.assert_allclose(found.pixels, np.broadcast_to(expected, found.pixels.shape), atol=tolerance)
    grey = expected @ [0.299, 0.587, 0.114] if expected.shape[2] == 3 else expected[..., 0]
    np.testing.assert_allclose(decode(content, Reading(None, 1)).pixels[..., 0], grey, atol=tolerance + 1)


class TestDecode:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "JPEG"])
    @pytest.mark.parametrize("pixels", [RGB, GREY])
    def test_eight_bits(self, kind, pixels):
        if kind == "JPEG":
            pixels = np.full_like(pixels, 77)
        check(encode(pixels, kind, **dict(lossless=True) if kind == "WEBP" else {}), pixels)

    @pytest.mark.parametrize("kind, order", [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")])
    def test_sixteen_bits_keep_the_upper_eight(self, kind, order):
        check(encode(DEEP.astype(order), kind), DEEP >> 8)

    def test_integers_of_32_bits(self):
        check(encode(DEEP.astype(np.int32), "TIFF"), DEEP >> 8)
        check(encode(GREY.astype(np.int32), "TIFF"), GREY)

    def test_sixteen_bits_of_colour(self):
        levels = RNG.integers(0, 65536, (5, 6, 3)).astype(">u2")
        check(encode_png(levels, 16, 2), levels >> 8)

    def test_one_bit_and_palette(self):
        check(encode(Image.fromarray(GREY > 99), "PNG"), 255 * (GREY > 99))
        palette = Image.fromarray(RGB).quantize(7)
        check(encode(palette, "PNG"), np.asarray(palette.convert("RGB")))

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_alpha_is_over_white(self, kind):
        content = encode(np.dstack([RGB, ALPHA]), kind, **dict(lossless=True, exact=True) if kind == "WEBP" else {})
        check(content, over_white(RGB, ALPHA), tolerance=1)
        assert (decode(content, Reading(None, 3)).pixels[ALPHA == 0] == 255).all()

    def test_grey_with_alpha_is_over_white(self):
        check(encode(np.dstack([GREY, ALPHA]), "PNG"), over_white(GREY, ALPHA), tolerance=1)

    def test_a_transparent_colour_is_white(self):
        palette = Image.fromarray(RGB).quantize(7)
        hidden = (np.asarray(palette) == 3)[..., None]
        expected = np.where(hidden, 255, np.asarray(palette.convert("RGB")))
        check(encode(palette, "PNG", transparency=3), expected)
        check(encode(palette, "PNG", transparency=bytes([255] * 3 + [0])), expected)
        check(encode(GREY, "PNG", transparency=int(GREY[1, 2])), np.where(GREY[1, 2] == GREY, 255, GREY))
        hidden = (RGB[1, 2] == RGB).all(axis=2, keepdims=True)
        check(encode(RGB, "PNG", transparency=tuple(RGB[1, 2].tolist())), np.where(hidden, 255, RGB))

    def test_a_transparent_colour_of_sixteen_bits_is_white(self):
        check(encode_png(DEEP.astype(">u2"), 16, 0, DEEP[1, 2]), np.where(DEEP[1, 2] == DEEP, 255, DEEP >> 8))
        levels = np.dstack([DEEP] * 3).astype(">u2")
        check(encode_png(levels, 16, 2, levels[1, 2]), np.where(levels == levels[1, 2], 255, levels >> 8))

    @pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
    def test_cmyk(self, kind):
        ink = np.broadcast_to(np.array([10, 100, 200, 40], np.uint8), (8, 8, 4))
        check(encode(Image.fromarray(ink, "CMYK"), kind, quality=100), (255 - ink[..., :3]) * (1 - 40 / 255), 3)

    @pytest.mark.parametrize("orientation", UPRIGHT)
    def test_upright(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turn = UPRIGHT[orientation]
        for kind in ("PNG", "TIFF"):
            check(encode(RGB, kind, exif=exif), turn(RGB))
            check(encode(DEEP, kind, exif=exif), turn(DEEP >> 8))
        wide = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((80, 81), np.uint8))
        found = decode(encode(wide, "JPEG", exif=exif), Reading((2, 2), 1))
        assert (found.height, found.width) == turn(wide).shape
        whole = Image.fromarray(turn(wide)).resize((2, 2), Image.Resampling.LANCZOS)
        np.testing.assert_allclose(found.pixels[..., 0], np.asarray(whole), atol=2)

    def test_a_large_jpeg_is_resized_as_if_decoded_whole(self):
        fine = Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize((500, 400))
        content = encode(fine, "JPEG", quality=95)
        whole = Image.open(io.BytesIO(content)).resize((30, 20), Image.Resampling.LANCZOS)
        difference = np.abs(decode(content, Reading((20, 30), 3)).pixels - np.asarray(whole, float))
        assert difference.mean() < 1.5

    @pytest.mark.parametrize(
        "content, reason",
        [
            (b"", "not an image"),
            (b"<html>", "not an image"),
            (encode(RGB, "PNG")[:60], "cannot be decoded"),
            (encode(RGB, "JPEG")[:-40], "cannot be decoded.*truncated"),
            (encode(np.float32(GREY), "TIFF"), "floats, whose range is unknown"),
            (encode(-DEEP.astype(np.int32), "TIFF"), "pixels run from -"),
            (
                encode_png(None, 8, 2, shape=(20_000, 20_000)),
                "pixels are more than the limit of 89,478,485; .* raise config.data.max_megapixels",
            ),
        ],
    )
    def test_refused(self, content, reason):
        with pytest.raises(UnusableImage, match=reason):
            decode(content, Reading((4, 4), 3))

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_refused_where_pillow_only_warns(self):
        with pytest.raises(UnusableImage, match="100,000,000 pixels are more than the limit of 89,478,485"):
            decode(encode_png(None, 8, 2, shape=(10_000, 10_000)), Reading((4, 4), 3))

    def test_a_huge_file_is_refused_unread(self, tmp_path):
        with (tmp_path / "a.bmp").open("wb") as file:
            file.truncate(10**12)
        with pytest.raises(UnusableImage, match="1,000,000,000,000 bytes are more than an image"):
            read_content(tmp_path / "a.bmp")
