"""Removes metadata from the bytes of an image file, for when a decoder stumbles over them."""

import struct
import zlib

PNG = b"\x89PNG\r\n\x1a\n"
SOS = 0xDA
"""The marker that a JPEG's pixels follow."""
APP0, APP15, ADOBE, COMMENT = 0xE0, 0xEF, 0xEE, 0xFE


def without_metadata(content: bytes) -> bytes:
    """Returns the bytes of a PNG, a JPEG or a WebP with only what makes its pixels, and those of others as they are."""
    if content.startswith(PNG):
        return _bare_png(content)
    if content.startswith(b"\xff\xd8"):
        return _bare_jpeg(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _bare_webp(content)
    return content


def _bare_png(content):
    parts, start = [PNG], len(PNG)
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if not _is_png_metadata(content[start + 4 : end - 4], content[end - 4 : end]):
            parts.append(content[start:end])
        start = end
    return b"".join(parts)


def _is_png_metadata(chunk, checksum):
    """Returns whether a chunk, its kind and its body, is metadata: kinds that no pixel needs begin in lower case."""
    kind, body = chunk[:4], chunk[4:]
    if kind == b"eXIf":
        # It says which way is up.
        return body[:4] not in (b"II*\0", b"MM\0*") or zlib.crc32(chunk) != int.from_bytes(checksum)
    return kind[:1].islower() and kind != b"tRNS"


def _bare_jpeg(content):
    parts, start = [content[:2]], 2
    while start + 4 <= len(content) and content[start] == 0xFF and content[start + 1] != SOS:
        marker = content[start + 1]
        if marker == 0xFF:
            start += 1
            continue
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
        if not _is_jpeg_metadata(marker, content[start + 4 : end]):
            parts.append(content[start:end])
        start = end
    return b"".join([*parts, content[start:]])


def _is_jpeg_metadata(marker, body):
    if marker == ADOBE and body.startswith(b"Adobe"):
        # It says whether colours are RGB, YCbCr or inks.
        return len(body) < 12
    is_orientation = body[:10] in (b"Exif\0\0II*\0", b"Exif\0\0MM\0*")
    return (APP0 <= marker <= APP15 and not is_orientation) or marker == COMMENT


def _bare_webp(content):
    parts, start = [], 12
    while start + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, start)
        end = start + 8 + size + size % 2
        if kind == b"VP8X" and len(content) > start + 8:
            # Flags of ICC profile, EXIF and XMP, whose chunks are removed.
            flags = content[start + 8] & ~0b00101100
            parts.append(content[start : start + 8] + bytes([flags]) + content[start + 9 : end])
        elif kind not in (b"ICCP", b"EXIF", b"XMP "):
            parts.append(content[start:end])
        start = end
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
