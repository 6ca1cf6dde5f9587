"""Image files in every format, depth and rotation against their pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from latent_al.data.image_files import (
    SUFFIXES,
    Depth,
    Reading,
    UnusableImage,
    decode,
    highest_level,
    is_image,
    pixel_limit,
    read_content,
)
from latent_al.types import BadInput

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
    height, width = shape or levels.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    chunks += [] if transparent is None else [(b"tRNS", np.array(transparent, ">u2").tobytes())]
    chunks += [] if shape else [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in levels)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def encode_tiff(levels, order, compression=1, extra=None):
    """A TIFF of 16 bits a channel in colour, which Pillow cannot write; `extra` says what the fourth channel is."""
    height, width, channels = levels.shape
    content = levels.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if compression == 8 else content
    content += bytes(len(content) % 2)
    tags = {256: width, 257: height, 259: compression, 262: 2, 273: 8, 277: channels, 278: height, 279: len(content)}
    tags |= {} if extra is None else {338: extra}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries.insert(2, struct.pack(f"{order}HHII", 258, 3, channels, 8 + len(content)))
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(content) + len(bits))
    return head + content + bits + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


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

    @pytest.mark.parametrize("levels", [DEEP, GREY])
    def test_tiff_whose_level_0_is_white(self, levels):
        is_deep = levels.dtype.itemsize > 1
        # As it writes eight bits, Pillow turns them round itself.
        check(encode(levels, "TIFF", tiffinfo={262: 0}), 255 - (levels >> 8) if is_deep else levels)

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


SHALLOW = RNG.integers(0, 256, (5, 6, 3)).astype(np.uint16)
SHALLOW[0, 0], SHALLOW[0, 1] = 255, 0
OPAQUE = np.full((5, 6), 65535, np.uint16)
PLAIN = Reading(None, 3)


class TestDepth:
    """Levels of few bits in files of many."""

    @pytest.mark.parametrize("bits", [8, 10, 12, 16])
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_grey(self, bits, kind):
        levels = (SHALLOW[..., 0] << (bits - 8)).astype(np.uint16)
        check(encode(levels, kind), SHALLOW[..., 0])
        assert decode(encode(levels, kind), PLAIN).bits == bits

    def test_32_bits(self):
        levels = np.linspace(0, 300, 30).astype(np.int32).reshape(5, 6)
        check(encode(levels, "TIFF"), levels >> 1)
        check(encode(SHALLOW[..., 0].astype(np.int32) << 12, "TIFF"), SHALLOW[..., 0])

    @pytest.mark.parametrize("bits", [8, 12])
    def test_colour(self, bits):
        levels = SHALLOW << (bits - 8)
        files = [encode_png(levels.astype(">u2"), 16, 2)]
        files += [encode_tiff(levels, order, compression) for order in "<>" for compression in (1, 8)]
        for content in files:
            check(content, SHALLOW)
            assert decode(content, PLAIN).bits == bits

    @pytest.mark.parametrize("opaque", [OPAQUE, OPAQUE >> 4])
    def test_alpha_may_be_deeper(self, opaque):
        alpha = opaque.copy()
        alpha[2, 3] = 0
        levels = np.dstack([SHALLOW << 4, alpha])
        # No level of a pixel that cannot be seen makes the others dark.
        levels[2, 3, :3] = 65535
        hidden = (alpha == 0)[..., None]
        expected = np.where(hidden, 255, SHALLOW)
        check(encode_png(levels.astype(">u2"), 16, 6), expected)
        check(encode_tiff(levels, "<", extra=2), expected)
        check(encode_png(levels[..., 2:].astype(">u2"), 16, 4), expected[..., 2])

    def test_premultiplied_alpha(self):
        levels = np.dstack([SHALLOW * 8, OPAQUE // 2])
        check(encode_tiff(levels, "<", extra=1), over_white(SHALLOW, np.full((5, 6), 127)), tolerance=2)

    def test_the_depth_of_a_pool(self):
        content = encode((SHALLOW[..., 0] << 2).astype(np.uint16), "PNG")
        for depth in (Depth(12, False), Depth(12, True)):
            found = decode(content, PLAIN._replace(depth=depth))
            assert found.bits == 12
            np.testing.assert_array_equal(found.pixels[..., 0], SHALLOW[..., 0] >> 2)
        assert decode(encode(GREY, "PNG"), PLAIN._replace(depth=Depth(12, False))).bits == 8

    def test_above_the_depth(self):
        content = encode((SHALLOW[..., 0] << 8).astype(np.uint16), "PNG")
        found = decode(content, PLAIN._replace(depth=Depth(12, True)))
        np.testing.assert_array_equal(found.pixels[..., 0], np.minimum(SHALLOW[..., 0].astype(int) << 4, 255))
        with pytest.raises(UnusableImage, match="up to 65280, but the images before it were read with 12 bits, up to"):
            decode(content, PLAIN._replace(depth=Depth(12, False)))

    def test_the_highest_level(self, tmp_path):
        for name, content, highest in [
            ("a.png", encode((SHALLOW[..., 0] << 2).astype(np.uint16), "PNG"), 1020),
            ("b.tif", encode_tiff(SHALLOW, ">"), 255),
            ("c.png", encode_png(np.dstack([SHALLOW, OPAQUE]).astype(">u2"), 16, 6), 255),
            ("d.png", encode(RGB, "PNG"), None),
            ("e.png", b"torn", None),
        ]:
            (tmp_path / name).write_bytes(content)
            assert highest_level(tmp_path / name, 100) == highest


class TestGround:
    def test_white_on_transparent_is_over_black(self):
        white = np.full((5, 6, 3), 255, np.uint8)
        check(encode(np.dstack([white, ALPHA]), "PNG"), np.dstack([ALPHA] * 3))
        check(encode(np.dstack([white - 5, ALPHA]), "PNG"), np.dstack([ALPHA / 255 * 250] * 3), tolerance=1)
        check(encode_png(np.dstack([OPAQUE, np.uint16(ALPHA) * 257]).astype(">u2"), 16, 4), ALPHA)

    def test_any_other_is_over_white(self):
        nothing, black = np.zeros((5, 6), np.uint8), np.zeros((5, 6, 3), np.uint8)
        check(encode(np.dstack([RGB, nothing]), "PNG"), np.full((5, 6), 255))
        check(encode(np.dstack([black, ALPHA]), "PNG"), np.dstack([255 - ALPHA] * 3))
        check(encode(np.dstack([black + 255, nothing + 255]), "PNG"), np.full((5, 6), 255))

    def test_one_colour(self):
        assert decode(encode(np.full((5, 6, 3), [9, 8, 7], np.uint8), "PNG"), PLAIN).is_one_colour
        assert not decode(encode(RGB, "PNG"), PLAIN).is_one_colour


PNG, JPEG, WEBP = encode(GREY, "PNG"), encode(np.full((8, 8), 77, np.uint8), "JPEG"), encode(RGB, "WEBP", lossless=True)


def with_chunk(kind, body, crc=None):
    whole = chunk(kind, body)
    return PNG[:33] + (whole if crc is None else whole[:-4] + crc) + PNG[33:]


def with_segment(marker, body):
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + JPEG[2:]


class TestMetadata:
    """Whatever lies beside the pixels costs none of them."""

    @pytest.mark.parametrize(
        "content",
        [
            encode(GREY, "PNG", exif=b"Exif\0\0garbage!!"),
            encode(GREY, "PNG", icc_profile=bytes(2**21)),
            with_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**21))),
            with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**21))),
            with_chunk(b"tEXt", b"a\0b", crc=b"0000"),
            with_chunk(b"zTXt", b"key\0\5garbage"),
            with_chunk(b"iCCP", b"n\0"),
            with_chunk(b"eXIf", b"\xff\xff"),
            *[with_chunk(kind, b"\0") for kind in (b"gAMA", b"cHRM", b"pHYs", b"acTL")],
        ],
        ids=range(12),
    )
    def test_png(self, content):
        check(content, GREY)

    @pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO", "ignore:Corrupt EXIF", "ignore:Truncated")
    @pytest.mark.parametrize(
        "marker, body",
        [
            (0xE0, b"JFIF\0"),
            (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\5"),
            (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x"),
            (0xE2, b"ICC_PROFILE\0"),
            (0xE2, b"MPF\0garbage"),
            (0xED, b"Photoshop 3.0\x008BIM"),
            (0xEE, b"Adobe"),
        ],
    )
    def test_jpeg(self, marker, body):
        check(with_segment(marker, body), np.full((8, 8), 77))

    def test_webp(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encode(RGB, "WEBP", lossless=True, exif=exif, icc_profile=b"icc", xmp=b"<x")
        check(content, np.rot90(RGB, -1))
        # The length of the profile reaches beyond the file.
        at = content.index(b"XMP ")
        check(content[: at + 4] + b"\xff\xff\xff\x7f" + content[at + 8 :], RGB)

    def test_what_is_upright_outlives_broken_metadata(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encode(GREY, "PNG", exif=exif)
        broken = chunk(b"gAMA", b"\0")
        check(content[:33] + broken + content[33:], np.rot90(GREY, -1))

    def test_torn_pixels_are_still_refused(self):
        with pytest.raises(UnusableImage, match="cannot be decoded"):
            decode(with_chunk(b"gAMA", b"\0")[:-30], PLAIN)


class TestLimit:
    def test_a_setting(self):
        assert pixel_limit(None) == 89_478_485
        assert pixel_limit(2.5) == 2_500_000
        with pytest.raises(BadInput, match="max_megapixels is 0.0; expected millions of pixels"):
            pixel_limit(0.0)
        with pytest.raises(UnusableImage, match="its 30 pixels are more than the limit of 29"):
            decode(encode(RGB, "PNG"), PLAIN._replace(max_pixels=29))

    def test_it_may_be_above_that_of_pillow(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        check(encode(RGB, "PNG"), RGB)


class TestFormats:
    def test_suffixes_that_pillow_opens_alone(self):
        assert {".jpg", ".png", ".avif", ".jp2"} <= SUFFIXES
        assert not {".pdf", ".h5", ".mpg"} & SUFFIXES

    def test_avif(self):
        check(encode(np.full((64, 48, 3), [200, 100, 50], np.uint8), "AVIF"), np.full((64, 48, 3), [200, 100, 50]), 3)

    def test_heic(self):
        pytest.importorskip("pillow_heif")
        assert ".heic" in SUFFIXES
        check(encode(np.full((64, 48, 3), [200, 100, 50], np.uint8), "HEIF"), np.full((64, 48, 3), [200, 100, 50]), 3)

    @pytest.mark.parametrize(
        "content, expected", [(PNG, True), (JPEG, True), (WEBP, True), (b"", False), (b"# Read me\n" * 9, False)]
    )
    def test_first_bytes(self, tmp_path, content, expected):
        (tmp_path / "IMG_0001").write_bytes(content)
        assert is_image(str(tmp_path / "IMG_0001")) is expected
