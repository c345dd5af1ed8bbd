"""What is behind Elena. The unit is the picture's shorter side; the origin is its upper left corner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cinderlora.demo.brush import Brush, star

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Place", "paint"]

Place = Literal[
    "in a studio", "in a meadow", "at the beach", "in a city at night", "in the snow", "in a forest", "in a room"
]

_SKY = {
    "in a studio": ("#fff3d6", "#f2c98a"),
    "in a meadow": ("#7cc7ff", "#e4f6ff"),
    "at the beach": ("#58b9f0", "#fdf1cf"),
    "in a city at night": ("#101a43", "#45357a"),
    "in the snow": ("#b7cbe2", "#eef5fb"),
    "in a forest": ("#9fd8a4", "#e8f7d5"),
    "in a room": ("#e8dcf5", "#d6c3ea"),
}


def paint(picture: Image.Image, place: Place, seed: int) -> None:
    """Fill the picture; the seed moves things about, so that no two look the same."""
    from random import Random

    width, height = picture.size
    unit = min(width, height)
    random = Random(seed)  # noqa: S311 - where trees stand is no secret
    _gradient(picture, *_SKY[place])
    brush = Brush(picture, unit)
    across, down = width / unit, height / unit
    ground = down * random.uniform(0.68, 0.76)

    def floor(colour: str) -> None:
        brush.shape([(-0.1, ground), (across + 0.1, ground), (across + 0.1, down + 0.1), (-0.1, down + 0.1)], colour)

    if place == "in a meadow":
        brush.oval((across * random.uniform(0.1, 0.25), 0.16), (0.09, 0.09), "#ffe066")
        brush.oval((across * 0.25, down), (0.7, down - ground + 0.12), "#6cbf5a")
        floor("#7fd069")
        for _ in range(26):
            at = (random.uniform(0, across), random.uniform(ground + 0.04, down))
            brush.oval(at, (0.016, 0.016), random.choice(["#ffffff", "#ffd23f", "#ff8fa3"]))
    elif place == "at the beach":
        brush.oval((across * 0.85, 0.15), (0.1, 0.1), "#fff3b0")
        brush.shape(
            [(-0.1, ground - 0.14), (across + 0.1, ground - 0.14), (across + 0.1, ground), (-0.1, ground)], "#1f86c9"
        )
        floor("#f4d99a")
        for _ in range(4):
            x, y = random.uniform(0, across), ground - random.uniform(0.02, 0.12)
            brush.stroke([(x, y), (x + 0.08, y)], "#d9f1ff", 0.012)
    elif place == "in a city at night":
        brush.oval((across * 0.15, 0.14), (0.08, 0.08), "#fdf6c9")
        for _ in range(20):
            brush.shape(star((random.uniform(0, across), random.uniform(0, 0.4)), 0.014), "#ffffff")
        x = -0.05
        while x < across:
            wide, top = random.uniform(0.14, 0.24), ground - random.uniform(0.05, 0.38)
            brush.shape([(x, top), (x + wide, top), (x + wide, down), (x, down)], random.choice(["#1d2452", "#272e63"]))
            for row in range(5):
                for column in (0.25, 0.65):
                    if random.random() < 0.6:
                        at = (x + wide * column, top + 0.05 + row * 0.08)
                        brush.oval(at, (0.016, 0.02), "#ffd97a")
            x += wide
        brush.shape(
            [(-0.1, ground + 0.1), (across + 0.1, ground + 0.1), (across + 0.1, down + 0.1), (-0.1, down + 0.1)],
            "#5a5672",
        )
    elif place == "in the snow":
        brush.oval((across * 0.75, down), (0.8, down - ground + 0.16), "#dbe8f4")
        floor("#ffffff")
        for _ in range(50):
            brush.oval((random.uniform(0, across), random.uniform(0, down)), (0.009, 0.009), "#ffffff")
    elif place == "in a forest":
        floor("#6f9e4c")
        for _ in range(7):
            x, size = random.uniform(0, across), random.uniform(0.75, 1.1)
            brush.stroke([(x, ground + 0.04), (x, ground - 0.3)], "#6b4a2f", 0.05 * size)
            for step in range(3):
                y, half = ground - (0.12 + 0.16 * step) * size, (0.2 - 0.045 * step) * size
                brush.shape([(x - half, y), (x, y - 0.26 * size), (x + half, y)], "#2f7d46" if step % 2 else "#37914f")
    elif place == "in a room":
        floor("#b98a5e")
        brush.shape([(0.08, 0.1), (0.4, 0.1), (0.4, 0.48), (0.08, 0.48)], "#bfe6ff", "#ffffff", 0.03)
        brush.stroke([(0.24, 0.1), (0.24, 0.48)], "#ffffff", 0.02)
        for shelf in range(2):
            y = 0.22 + 0.24 * shelf
            brush.stroke([(across - 0.36, y), (across - 0.04, y)], "#7a5230", 0.02)
            for book in range(6):
                x = across - 0.33 + book * 0.05
                brush.stroke(
                    [(x, y - 0.025), (x, y - random.uniform(0.08, 0.12))],
                    random.choice(["#d1495b", "#2a9d8f", "#edae49"]),
                    0.032,
                )


def _gradient(picture: Image.Image, above: str, below: str) -> None:
    from PIL import Image, ImageColor

    upper, lower = ImageColor.getrgb(above), ImageColor.getrgb(below)
    column = Image.new("RGB", (1, 64))
    for y in range(64):
        mixed = tuple(round(a + (b - a) * y / 63) for a, b in zip(upper, lower, strict=True))
        column.putpixel((0, y), mixed)
    picture.paste(column.resize(picture.size))
