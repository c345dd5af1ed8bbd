"""The size of a picture from the first bytes of its file, without decoding it and without Pillow."""

from __future__ import annotations

import struct
from typing import BinaryIO

from attrs import frozen

__all__ = ["Header", "read_header"]


@frozen
class Header:
    """What a picture file says of itself. Sizes are in pixels, as stored: EXIF rotation is not applied."""

    format: str
    """ "PNG", "JPEG", "WEBP", "BMP" or "GIF", by the content and not by the file's name."""
    width: int
    height: int
    seen: tuple[int, int]
    """The size sd-scripts sorts the picture into a bucket by: imagesize 1.4.1, which it pins, reads WebP files of the
    extended form (those with transparency, a colour profile or EXIF) one pixel too small in both directions."""
    rotated: bool = False
    """Viewers turn or mirror it by its EXIF orientation (JPEG only); sd-scripts trains on it as it is stored."""


def read_header(file: BinaryIO) -> Header | None:
    """The header of a PNG, JPEG, WebP, BMP or GIF file, read from a file object at its start.

    None for anything else, and for a header that is damaged or gives no area. Raises nothing but the file object's own
    `OSError`. Sources: PNG 3rd edition 11.2.1; ITU-T T.81 B.2.2; WebP container specification and RFC 6386 9.1;
    BITMAPCOREHEADER and BITMAPINFOHEADER; GIF89a 18.
    """
    head = file.read(32)
    rotated = False
    kind, size = "", None
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            kind, size = "PNG", struct.unpack(">II", head[16:24])
        elif head.startswith(b"\xff\xd8"):
            kind, (size, rotated) = "JPEG", _jpeg(file)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            kind, size = "WEBP", _webp(head)
        elif head.startswith(b"BM"):
            kind, size = "BMP", _bmp(head)
        elif head.startswith((b"GIF87a", b"GIF89a")):
            kind, size = "GIF", struct.unpack("<HH", head[6:10])
    except struct.error:  # the file ends within its header
        return None
    if size is None or min(size) <= 0:
        return None
    width, height = size
    one_less = kind == "WEBP" and head[12:16] == b"VP8X"
    return Header(kind, width, height, (width - 1, height - 1) if one_less else (width, height), rotated)


def _jpeg(file: BinaryIO) -> tuple[tuple[int, int] | None, bool]:
    """The size in the frame header, and whether an EXIF block before it asks for a rotation."""
    file.seek(2)
    rotated = False
    for _ in range(4096):  # segments before the frame header; a real file has a few dozen
        marker = file.read(2)
        while marker == b"\xff\xff":  # fill bytes
            marker = b"\xff" + file.read(1)
        if len(marker) < 2 or marker[0] != 0xFF:
            break
        (length,) = struct.unpack(">H", file.read(2))
        if length < 2:
            break
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in {0xC4, 0xC8, 0xCC}:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return (width, height), rotated
        if marker[1] == 0xE1:
            rotated = rotated or _turned(file.read(length - 2))
        else:
            file.seek(length - 2, 1)
    return None, False


def _turned(app1: bytes) -> bool:
    """Whether the EXIF block has an orientation (tag 0x0112 of its first directory) other than upright."""
    if not app1.startswith((b"Exif\0\0II*\0", b"Exif\0\0MM\0*")):
        return False
    tiff = app1[6:]
    order = "<" if tiff.startswith(b"I") else ">"
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112 and kind == 3:
                return bool(2 <= value <= 8)
    except struct.error:  # a damaged block: viewers ignore it as well
        pass
    return False


def _webp(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF  # the upper two bits are a scale
    if head[12:16] == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _bmp(head: bytes) -> tuple[int, int] | None:
    (length,) = struct.unpack("<I", head[14:18])
    if length == 12:
        width, height = struct.unpack("<HH", head[18:22])
    elif length in {40, 52, 56, 64, 108, 124}:
        width, height = struct.unpack("<ii", head[18:26])
        height = abs(height)  # negative: stored from the top
    else:
        return None
    return width, height
