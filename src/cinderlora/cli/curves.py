"""Curves in a terminal: a line of bars, or a picture of a few lines. Pure text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["means", "plot", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-~=+*#"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bits of a braille character's dots: left and right column, from the top."""

Point = tuple[float, float]


def sparkline(
    points: Sequence[float],
    width: int,
    *,
    low: float | None = None,
    high: float | None = None,
    plain: bool = False,
) -> str:
    """The points as a row of at most `width` bars, each the mean of its share, between the least and the greatest
    unless a common scale is given. `plain`: in ASCII."""
    bars = _ASCII_BARS if plain else _BARS
    drawn = means(points, width)
    low = min(drawn, default=0.0) if low is None else low
    high = max(drawn, default=0.0) if high is None else high
    reach = (high - low) or 1.0
    return "".join(bars[min(len(bars) - 1, max(0, int((mean - low) / reach * len(bars))))] for mean in drawn)


def means(points: Sequence[float], width: int) -> list[float]:
    """What a `sparkline` draws: the points in at most `width` shares, each as its mean."""
    return [y for _, y in _columns([(float(n), y) for n, y in enumerate(points)], width)]


def plot(points: Sequence[Point], width: int, height: int, *, plain: bool = False) -> list[str]:
    """A curve of so many columns and lines, its scales included; no lines where there are no points. In braille, or
    with `plain` in ASCII."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return []
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    points = _columns(points, width if plain else 2 * width)  # the scale is that of what is drawn
    low, high = min(y for _, y in points), max(y for _, y in points)
    labels = [f"{high:.3g}" if high > low else "", f"{low:.3g}"]
    room = max(map(len, labels))
    columns, rows = max(4, width - room - 2), max(2, height)
    across, down = (columns, rows) if plain else (2 * columns, 4 * rows)
    cells = [[0] * columns for _ in range(rows)]
    for x, top, bottom in _strokes(points, across, down, (first, last), (low, high)):
        for y in range(top, bottom + 1):
            cells[y if plain else y // 4][x if plain else x // 2] |= 1 if plain else _DOTS[x % 2][y % 4]
    lines = []
    for number, row in enumerate(cells):
        label = labels[0] if number == 0 else labels[1] if number == rows - 1 else ""
        drawn = "".join(("*" if cell else " ") if plain else chr(0x2800 + cell) if cell else " " for cell in row)
        lines.append(f"{label:>{room}} {'|' if plain else '┤'}{drawn}".rstrip())
    start, end = f"{first:.0f}", f"{last:.0f}"
    under = f"{start}{end:>{max(1, columns - len(start))}}" if first != last else start
    return [*lines, f"{' ' * (room + 2)}{under}"]


def _strokes(
    points: Sequence[Point], across: int, down: int, xs: tuple[float, float], ys: tuple[float, float]
) -> list[tuple[int, int, int]]:
    """The curve as upright strokes: column, highest and lowest dot, counted from the top left; each begins where the
    one before it ended."""
    (first, last), (low, high) = xs, ys
    placed = []
    for x, y in _columns(points, across):
        column = round((x - first) / ((last - first) or 1.0) * (across - 1))
        line = round((high - y) / ((high - low) or 1.0) * (down - 1)) if high > low else down - 1
        placed.append((column, line))
    strokes = [(placed[0][0], placed[0][1], placed[0][1])]
    for (x0, y0), (x1, y1) in pairwise(placed):
        for x in range(x0 + 1, x1 + 1):
            here = [y0 + (y1 - y0) * (at - x0) / (x1 - x0) for at in (x - 1, x)]
            ends = sorted(round(y) for y in here)
            # A stroke leaves out the dot that the one before it ended with.
            strokes.append((x, min(ends[0] + (here[1] > here[0] and ends[0] < ends[1]), ends[1]), ends[1]))
    return strokes


def _columns(points: Sequence[Point], count: int) -> list[Point]:
    """The points in at most so many shares, each as its mean."""
    count = min(count, len(points))
    shares = [points[n * len(points) // count : (n + 1) * len(points) // count] for n in range(count)]
    return [(sum(x for x, _ in share) / len(share), sum(y for _, y in share) / len(share)) for share in shares]
