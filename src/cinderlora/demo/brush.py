"""Shapes in coordinates of one's own, on a Pillow picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Point = tuple[float, float]
Colour = str


class Brush:
    """Draws in units of `unit` pixels around an origin (in pixels), y downwards."""

    def __init__(self, picture: Image.Image, unit: float, origin: Point = (0.0, 0.0)) -> None:
        from PIL import ImageDraw

        self._draw = ImageDraw.Draw(picture)
        self._unit = unit
        self._origin = origin

    def _at(self, point: Point) -> Point:
        return self._origin[0] + point[0] * self._unit, self._origin[1] + point[1] * self._unit

    def _box(self, centre: Point, radii: Point) -> tuple[Point, Point]:
        (x, y), (rx, ry) = centre, radii
        return self._at((x - rx, y - ry)), self._at((x + rx, y + ry))

    def _pixels(self, length: float) -> int:
        return max(1, round(length * self._unit))

    def oval(self, centre: Point, radii: Point, fill: Colour, edge: Colour | None = None, width: float = 0.05) -> None:
        """An ellipse with half axes `radii`."""
        line = {"outline": edge, "width": self._pixels(width)} if edge else {}
        self._draw.ellipse(self._box(centre, radii), fill=fill, **line)  # type: ignore[arg-type]

    def shape(self, points: Sequence[Point], fill: Colour, edge: Colour | None = None, width: float = 0.05) -> None:
        """A polygon, its outline with round corners."""
        corners = [self._at(point) for point in points]
        self._draw.polygon(corners, fill=fill)
        if edge:
            self._draw.line([*corners, *corners[:2]], fill=edge, width=self._pixels(width), joint="curve")

    def stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line through the points with round ends and corners."""
        self._draw.line([self._at(point) for point in points], fill=colour, width=self._pixels(width), joint="curve")
        for point in (points[0], points[-1]):
            self._draw.ellipse(self._box(point, (width / 2, width / 2)), fill=colour)

    def limb(self, points: Sequence[Point], colour: Colour, width: float, edge: Colour) -> None:
        """A stroke with an outline."""
        self.stroke(points, edge, width + 0.1)
        self.stroke(points, colour, width)

    def arc(self, centre: Point, radii: Point, degrees: Point, colour: Colour, width: float = 0.05) -> None:
        """A part of an ellipse's outline; 0 degrees is to the right, 90 below."""
        self._draw.arc(self._box(centre, radii), *degrees, fill=colour, width=self._pixels(width))

    def cap(self, centre: Point, radii: Point, degrees: Point, fill: Colour, edge: Colour | None = None) -> None:
        """A part of an ellipse cut off by a straight line."""
        line = {"outline": edge, "width": self._pixels(0.05)} if edge else {}
        self._draw.chord(self._box(centre, radii), *degrees, fill=fill, **line)  # type: ignore[arg-type]


def star(centre: Point, radius: float, spikes: int = 5) -> list[Point]:
    """The corners of a star that stands on two of its spikes."""
    corners = []
    for i in range(2 * spikes):
        angle = math.pi * (i / spikes - 0.5)
        reach = radius if i % 2 == 0 else radius * 0.45
        corners.append((centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)))
    return corners
