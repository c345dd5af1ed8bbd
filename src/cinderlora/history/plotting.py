"""Loss curves as a picture: PNG, JPEG or WebP with Pillow, SVG without. One layout, two pens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol
from xml.sax.saxutils import escape

from attrs import frozen

from cinderlora.errors import ConfigError
from cinderlora.history.losses import LossCurve

__all__ = ["Curve", "draw_curves", "kept_points", "ticks"]

_WIDTH, _HEIGHT = 1200, 640  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 96, 36, 76, 76
_ROW = 30  # pixels for each line of the legend
_PAPER, _INK, _FAINT, _GRID = "#fafaf7", "#1c1c1a", "#6b6b64", "#e3e2db"
_COLOURS = ("#1d6fa5", "#c2571a", "#1d7a46", "#8a3ea8", "#a8851d", "#7a7a78")
_POINTS = 1100  # points of a curve, about one for each pixel; of more, each is the mean of its share

Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]


@frozen
class Curve:
    """A run's losses, and what they are called."""

    label: str
    losses: LossCurve


class Pen(Protocol):
    """What draws."""

    def line(self, points: Sequence[Point], colour: str, width: float, opacity: float = 1.0) -> None:
        """A line through the points."""

    def text(self, at: Point, text: str, size: int, colour: str, anchor: Anchor = "start") -> None:
        """A text whose baseline is at the point."""

    def save(self, path: Path) -> None:
        """Write the picture."""


def draw_curves(curves: Sequence[Curve], path: Path, *, title: str = "", note: str = "") -> Path:
    """Draw the losses of runs over their steps, and give the path. Of one run whose tracker wrote the loss of each
    step, that lies faintly behind the average. The ending of the path says which kind of picture.

    Raises `ConfigError`: `extra_missing` without Pillow, `plot_empty` where no run has a loss, `file_not_written`.
    """
    drawn = [(curve, _finite(curve.losses.steps, curve.losses.average or curve.losses.loss)) for curve in curves]
    drawn = [(curve, points) for curve, points in drawn if points]
    if not drawn:
        raise ConfigError("plot_empty")
    height = _HEIGHT + _ROW * (len(drawn) - 1)
    pen: Pen = _Svg(_WIDTH, height) if path.suffix.lower() == ".svg" else _pillow(_WIDTH, height)
    top = _TOP + _ROW * (len(drawn) - 1)
    box = _Box(drawn, top, height - _BOTTOM)
    pen.text((_LEFT, 38), title, 22, _INK)
    if note:
        pen.text((_WIDTH - _RIGHT, 38), note, 15, _FAINT, "end")
    _axes(pen, box)
    for number, (curve, points) in enumerate(drawn):
        colour = _COLOURS[number % len(_COLOURS)]
        pen.line([box.place(point) for point in kept_points(box.single, _POINTS)], colour, 1.2, 0.3)
        pen.line([box.place(point) for point in kept_points(points, _POINTS)], colour, 2.6)
        if len(drawn) > 1:
            baseline = 38 + _ROW * (number + 1)
            pen.line([(_LEFT, baseline - 5), (_LEFT + 30, baseline - 5)], colour, 4)
            pen.text((_LEFT + 40, baseline), f"{curve.label}   {points[-1][1]:.3g}", 16, _INK)
    try:
        pen.save(path)
    except (OSError, ValueError) as error:  # ValueError: no kind of picture ends like this
        raise ConfigError("file_not_written", path=str(path), why=str(error)) from error
    return path


def _finite(steps: Sequence[int], values: Sequence[float | None]) -> list[Point]:
    pairs = zip(steps, values, strict=False)  # a column that is not known is empty
    return [(step, value) for step, value in pairs if value is not None and math.isfinite(value)]


def kept_points(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points: each the mean of its share."""
    if len(points) <= most:
        return list(points)
    shares = [points[n * len(points) // most : (n + 1) * len(points) // most] for n in range(most)]
    return [(sum(x for x, _ in share) / len(share), sum(y for _, y in share) / len(share)) for share in shares]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two, at most so many, evenly spaced."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(1, most)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


class _Box:
    """Where the curves are on the picture."""

    def __init__(self, drawn: Sequence[tuple[Curve, list[Point]]], top: float, bottom: float) -> None:
        self.top, self.bottom, self.left, self.right = top, bottom, _LEFT, _WIDTH - _RIGHT
        steps = [x for _, points in drawn for x, _ in points]
        self.first, self.last = min(steps), max(steps)
        # The scale is that of what is drawn: the first steps' averages leap, and are drawn as one of many.
        every = [point for _, points in drawn for point in kept_points(points, _POINTS)]
        # Single steps leap: the highest and lowest hundredth of them may go over the edge, the averages may not.
        losses = drawn[0][0].losses
        self.single = _finite(losses.steps, losses.loss) if len(drawn) == 1 and losses.average else []
        leaps = sorted(y for _, y in self.single)
        cut = len(leaps) // 100
        values = [y for _, y in every] + leaps[cut : len(leaps) - cut]
        low, high = min(values), max(values)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        self.low = 0.0 if 0 <= low < 0.4 * high else low - room
        self.high = high + room

    def place(self, point: Point) -> Point:
        """Where a step and its loss are, in pixels."""
        across = (point[0] - self.first) / ((self.last - self.first) or 1.0)
        up = (min(max(point[1], self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def _axes(pen: Pen, box: _Box) -> None:
    for value in ticks(box.low, box.high, 6):
        _, y = box.place((box.first, value))
        pen.line([(box.left, y), (box.right, y)], _GRID, 1)
        pen.text((box.left - 12, y + 5), f"{value:.4g}", 15, _FAINT, "end")
    for value in ticks(box.first, box.last, 8):
        if value != round(value):
            continue
        x, _ = box.place((value, box.low))
        pen.line([(x, box.bottom), (x, box.bottom + 6)], _FAINT, 1)
        pen.text((x, box.bottom + 26), f"{value:.0f}", 15, _FAINT, "middle")
    pen.line([(box.left, box.bottom), (box.right, box.bottom)], _FAINT, 1.2)
    pen.text(((box.left + box.right) / 2, box.bottom + 56), "step", 16, _FAINT, "middle")
    pen.text((box.left - 12, box.top - 16), "loss", 16, _FAINT, "end")


# ---- the pens --------------------------------------------------------------------------------------------------------


class _Svg:
    def __init__(self, width: int, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="sans-serif">',
            f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
        ]

    def line(self, points: Sequence[Point], colour: str, width: float, opacity: float = 1.0) -> None:
        if points:
            through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            self._parts.append(
                f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="{width}" '
                f'stroke-opacity="{opacity}" stroke-linejoin="round" stroke-linecap="round"/>'
            )

    def text(self, at: Point, text: str, size: int, colour: str, anchor: Anchor = "start") -> None:
        kept = "".join(c if c.isprintable() else "?" for c in text)
        self._parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">'
            f"{escape(kept)}</text>"
        )

    def save(self, path: Path) -> None:
        text = "\n".join([*self._parts, "</svg>", ""])
        path.write_text(text, encoding="utf-8", errors="replace")


_FINE = 2  # Pillow draws lines without smoothing: larger, and then smaller


class _Picture:
    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self._size = (width, height)
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], colour: str, width: float, opacity: float = 1.0) -> None:
        from PIL import ImageColor

        ink, paper = ImageColor.getrgb(colour), ImageColor.getrgb(_PAPER)
        mixed = tuple(round(opacity * a + (1 - opacity) * b) for a, b in zip(ink, paper, strict=True))
        scaled = [(x * _FINE, y * _FINE) for x, y in points]
        if len(scaled) == 1:
            (x, y) = scaled[0]
            self._pen.ellipse((x - width * _FINE, y - width * _FINE, x + width * _FINE, y + width * _FINE), fill=mixed)
        elif scaled:
            self._pen.line(scaled, fill=mixed, width=round(width * _FINE), joint="curve")

    def text(self, at: Point, text: str, size: int, colour: str, anchor: Anchor = "start") -> None:
        where = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        place = (at[0] * _FINE, at[1] * _FINE)
        self._pen.text(place, text, font=_font(size * _FINE), fill=colour, anchor=where)

    def save(self, path: Path) -> None:
        from PIL.Image import Resampling

        self._image.resize(self._size, Resampling.LANCZOS).save(path)


def _pillow(width: int, height: int) -> Pen:
    try:
        return _Picture(width, height)
    except ImportError as error:
        raise ConfigError("extra_missing", what="a plot", packages=["pillow"], extra="pictures") from error


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
