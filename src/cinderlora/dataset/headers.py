"""What a picture says of itself in the first bytes of its file, without decoding it and without Pillow."""

from __future__ import annotations

import struct
from typing import BinaryIO

from attrs import frozen

__all__ = ["Header", "foreign_format", "read_header"]

_PARTS = 4096
"""Chunks or segments that are looked at; a real file has a few dozen before its pixels."""
_EXIF = 1 << 16
"""Bytes of an EXIF block; a JPEG cannot hold more."""


@frozen(kw_only=True)
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
    """Viewers turn or mirror it by its EXIF orientation; sd-scripts trains on it as it is stored."""
    animated: bool = False
    """PNG and WebP with several frames. What a GIF has, only decoding tells."""
    alpha: bool = False
    """It may have transparent pixels."""
    grey16: bool = False
    """A PNG in greyscale with 16 bits: sd-scripts cuts all values off at 255 of 65,535, which leaves it white
    (`Image.convert("RGB")` of Pillow 13)."""


@frozen(kw_only=True)
class _Facts:
    """What a format's own reader finds."""

    size: tuple[int, int] | None
    rotated: bool = False
    animated: bool = False
    alpha: bool = False
    grey16: bool = False
    one_less: bool = False


def read_header(file: BinaryIO) -> Header | None:
    """The header of a PNG, JPEG, WebP, BMP or GIF file, read from a file object at its start.

    None for anything else, and for a header that is damaged or gives no area. Raises nothing but the file object's own
    `OSError`. Sources: PNG 3rd edition 11; ITU-T T.81 B.2.2; WebP container specification, RFC 6386 9.1 and RFC 9649;
    BITMAPCOREHEADER and BITMAPINFOHEADER; GIF89a 18; Exif 2.32 4.6.
    """
    head = file.read(33)
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            kind, facts = "PNG", _png(file, head)
        elif head.startswith(b"\xff\xd8"):
            kind, facts = "JPEG", _jpeg(file)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            kind, facts = "WEBP", _webp(file, head)
        elif head.startswith(b"BM"):
            kind, facts = "BMP", _Facts(size=_bmp(head))
        elif head.startswith((b"GIF87a", b"GIF89a")):
            kind, facts = "GIF", _Facts(size=struct.unpack("<HH", head[6:10]), alpha=True)
        else:
            return None
    except struct.error:  # the file ends within its header
        return None
    if facts.size is None or min(facts.size) <= 0:
        return None
    width, height = facts.size
    return Header(
        format=kind,
        width=width,
        height=height,
        seen=(width - 1, height - 1) if facts.one_less else (width, height),
        rotated=facts.rotated,
        animated=facts.animated,
        alpha=facts.alpha,
        grey16=facts.grey16,
    )


def foreign_format(head: bytes) -> str:
    """What a file is that pretends to be a picture, by its first 32 bytes: "AVIF", "HEIC", "JPEG XL", "TIFF", "PSD",
    or "HTML" (the error page of a failed download); "" where that is not known."""
    if head[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}.get(head[8:12], "")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "HTML"
    starts = {
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"8BPS": "PSD",
        b"\xff\x0a": "JPEG XL",
        b"\0\0\0\x0cJXL ": "JPEG XL",
    }
    return next((name for start, name in starts.items() if head.startswith(start)), "")


def _png(file: BinaryIO, head: bytes) -> _Facts:
    """The size in the first chunk, and what the chunks before the pixels tell."""
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    rotated = animated = see_through = False
    file.seek(33)
    for _ in range(_PARTS):
        part = file.read(8)
        if len(part) < 8 or part[4:] in {b"IDAT", b"IEND"}:
            break
        length = int.from_bytes(part[:4], "big")
        content = file.read(min(length, _EXIF)) if part[4:] in {b"acTL", b"eXIf"} else b""
        if part[4:] == b"acTL":
            animated = int.from_bytes(content[:4], "big") > 1
        elif part[4:] == b"eXIf":
            rotated = _turned(content)
        elif part[4:] == b"tRNS":
            see_through = True
        file.seek(length - len(content) + 4, 1)
    return _Facts(
        size=(width, height),
        rotated=rotated,
        animated=animated,
        alpha=see_through or colour in {4, 6},
        grey16=depth == 16 and colour == 0,
    )


def _jpeg(file: BinaryIO) -> _Facts:
    """The size in the frame header, and whether an EXIF block before it asks for a rotation."""
    file.seek(2)
    rotated = False
    for _ in range(_PARTS):
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
            return _Facts(size=(width, height), rotated=rotated)
        if marker[1] == 0xE1:
            block = file.read(length - 2)
            rotated = rotated or (block.startswith(b"Exif\0\0") and _turned(block[6:]))
        else:
            file.seek(length - 2, 1)
    return _Facts(size=None)


def _turned(tiff: bytes) -> bool:
    """Whether an EXIF block has an orientation (tag 0x0112 of its first directory) other than upright."""
    if not tiff.startswith((b"II*\0", b"MM\0*")):
        return False
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


def _webp(file: BinaryIO, head: bytes) -> _Facts:
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[26:30])
        return _Facts(size=(width & 0x3FFF, height & 0x3FFF))  # the upper two bits are a scale
    if head[12:16] == b"VP8L" and head[20:21] == b"\x2f":
        (bits,) = struct.unpack("<I", head[21:25])
        return _Facts(size=((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), alpha=bool(bits >> 28 & 1))
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return _Facts(
            size=(int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1),
            rotated=bool(head[20] & 0x08) and _webp_turned(file),
            animated=bool(head[20] & 0x02),
            alpha=bool(head[20] & 0x10),
            one_less=True,
        )
    return _Facts(size=None)


def _webp_turned(file: BinaryIO) -> bool:
    """Whether the EXIF chunk, which comes behind the pixels, asks for a rotation."""
    file.seek(30)
    for _ in range(_PARTS):
        part = file.read(8)
        if len(part) < 8:
            break
        length = int.from_bytes(part[4:], "little")
        if part[:4] == b"EXIF":
            return _turned(file.read(min(length, _EXIF)).removeprefix(b"Exif\0\0"))
        file.seek(length + length % 2, 1)
    return False


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
