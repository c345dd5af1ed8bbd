"""A small data set for tests, drawn without any library."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

__all__ = ["draw_pictures"]

_COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 70, 200),
    "yellow": (230, 210, 50),
    "purple": (130, 50, 160),
    "orange": (240, 140, 30),
}


def draw_pictures(folder: Path, trigger: str = "elena", count: int = 4) -> Path:
    """Draw a small data set: `count` pictures (PNG) of 64 x 64 px with captions, each another one. Gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(_COLOURS)
    for i in range(count):
        colour = names[i % len(names)]
        (folder / f"{trigger}_{i:02d}.png").write_bytes(_ball(i, _COLOURS[colour]))
        (folder / f"{trigger}_{i:02d}.txt").write_text(f"{trigger}, a {colour} ball", encoding="utf-8")
    return folder


def _ball(i: int, colour: tuple[int, int, int]) -> bytes:
    wall = (235, 235, 230 - 10 * i % 200)
    left, radius = 25 + 2 * i % 14, 16 + i % 5
    rows = []
    for y in range(64):
        inside = [(x - left) ** 2 + (y - 31) ** 2 < radius**2 for x in range(64)]
        rows.append(b"\0" + b"".join(bytes(colour if is_in else wall) for is_in in inside))
    return _png(64, 64, b"".join(rows))


def _png(width: int, height: int, rows: bytes) -> bytes:
    """Rows of RGB, each behind a 0, as a PNG (RFC 2083)."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
