"""Elena herself: red hair, green eyes, freckles and a teal bow, whatever she wears and does.

The unit is half the width of her face; the origin is between her eyes.
"""

from __future__ import annotations

from typing import Literal

from cinderlora.demo.brush import Brush, Colour, star

__all__ = ["Face", "Pose", "draw_elena"]

Face = Literal["smiling", "laughing", "winking", "surprised"]
Pose = Literal["standing", "waving", "hands on hips", "arms raised", "holding a mug", "holding a balloon"]

INK = "#4a2a2a"
SKIN, SHADE = "#ffd9bd", "#f2b995"
HAIR, HAIR_DARK = "#d9481f", "#a8300f"
BOW, BOW_DARK = "#17a398", "#0c7a72"

# Elbow and hand of each arm, the left one of the picture first; the shoulders are at (-1.0, 1.95) and (1.0, 1.95).
_ARMS = {
    "standing": (((-1.42, 3.0), (-1.3, 4.0)), ((1.42, 3.0), (1.3, 4.0))),
    "waving": (((-1.42, 3.0), (-1.3, 4.0)), ((1.95, 2.55), (2.15, 1.1))),
    "hands on hips": (((-1.9, 2.95), (-1.0, 3.6)), ((1.9, 2.95), (1.0, 3.6))),
    "arms raised": (((-1.95, 2.3), (-2.0, 0.7)), ((1.95, 2.3), (2.0, 0.7))),
    "holding a mug": (((-1.5, 2.9), (-0.38, 2.5)), ((1.5, 2.9), (0.38, 2.5))),
    "holding a balloon": (((-1.42, 3.0), (-1.3, 4.0)), ((1.9, 2.7), (1.9, 1.7))),
}


def draw_elena(brush: Brush, pose: Pose, face: Face, clothes: str, colour: Colour) -> None:
    """Draw her from her feet up to the bow in her hair; what lies outside of the picture is cut off."""
    _hair_behind(brush)
    _body(brush, clothes, colour)
    if pose == "holding a mug":
        brush.shape([(-0.4, 1.95), (0.4, 1.95), (0.34, 2.75), (-0.34, 2.75)], "#ffffff", INK)
        brush.shape(star((0, 2.33), 0.2), "#e0525f")
    if pose == "holding a balloon":
        brush.stroke([(1.9, 1.7), (2.0, -0.4)], INK, 0.04)
        brush.oval((2.0, -1.1), (0.62, 0.78), "#ffcf33", INK)
    for shoulder, (elbow, hand) in zip(((-1.0, 1.95), (1.0, 1.95)), _ARMS[pose], strict=True):
        brush.limb([shoulder, elbow, hand], colour, 0.5, INK)
        brush.oval(hand, (0.27, 0.27), SKIN, INK)
    _head(brush, face)


def _hair_behind(brush: Brush) -> None:
    for x in (-1, 1):
        brush.limb([(0.75 * x, -0.3), (1.0 * x, 0.9), (1.05 * x, 2.0), (1.25 * x, 2.35)], HAIR_DARK, 0.75, INK)
    brush.oval((0, 0), (1.32, 1.42), HAIR_DARK, INK)


def _body(brush: Brush, clothes: str, colour: Colour) -> None:
    brush.shape([(-0.3, 0.9), (0.3, 0.9), (0.34, 1.75), (-0.34, 1.75)], SHADE, INK)
    hem = 1.9 if clothes in {"dress", "coat", "raincoat"} else 1.05
    for x in (-0.45, 0.45):
        brush.limb([(x, 4.6), (x, 7.0)], "#3d5a80" if hem < 1.5 else SKIN, 0.55, INK)
        brush.oval((x * 1.2, 7.2), (0.45, 0.25), "#5b3a29", INK)
    waist = [(0.95, 3.4), (hem, 5.3), (-hem, 5.3), (-0.95, 3.4)]
    brush.shape([(-0.45, 1.5), (0.45, 1.5), (1.1, 1.8), (1.15, 2.1), *waist, (-1.15, 2.1), (-1.1, 1.8)], colour, INK)
    brush.cap((0, 1.5), (0.42, 0.42), (0, 180), SHADE)
    brush.arc((0, 1.5), (0.45, 0.45), (5, 175), INK)
    if clothes == "striped shirt":
        for y in (2.3, 2.8, 3.3, 3.8, 4.3, 4.8):
            brush.stroke([(-0.85, y), (0.85, y)], "#ffffff", 0.2)
    if clothes == "dungarees":
        brush.shape([(-0.65, 2.6), (0.65, 2.6), (1.0, 5.3), (-1.0, 5.3)], "#3d5a80", INK)
        for x in (-0.55, 0.55):
            brush.stroke([(x, 1.7), (x, 2.7)], "#3d5a80", 0.22)
    if clothes == "star jumper":
        brush.shape(star((0, 2.9), 0.62), "#ffd23f", INK)
    if clothes in {"coat", "raincoat"}:
        brush.stroke([(0, 1.95), (0, 5.2)], INK, 0.05)
        for y in (2.4, 3.1, 3.8):
            brush.oval((0.22, y), (0.1, 0.1), "#ffe8a3", INK, 0.03)
    if clothes == "hoodie":
        brush.arc((0, 1.5), (0.75, 0.75), (10, 170), INK, 0.07)
        brush.shape([(-0.6, 3.5), (0.6, 3.5), (0.8, 4.3), (-0.8, 4.3)], colour, INK)
    if clothes == "coat":
        brush.limb([(-0.6, 1.6), (0, 1.85), (0.6, 1.6)], "#ffd23f", 0.42, INK)
        brush.limb([(0.45, 1.8), (0.55, 2.9)], "#ffd23f", 0.36, INK)


def _head(brush: Brush, face: Face) -> None:
    for x in (-0.97, 0.97):
        brush.oval((x, 0.25), (0.16, 0.22), SHADE, INK)
    brush.oval((0, 0.15), (1.0, 1.07), SKIN, INK)
    for x in (-0.6, 0.6):
        brush.oval((x, 0.6), (0.24, 0.14), "#ffb3a0")
    for x, y in ((-0.62, 0.42), (-0.48, 0.5), (-0.36, 0.42), (0.62, 0.42), (0.48, 0.5), (0.36, 0.42)):
        brush.oval((x, y), (0.035, 0.035), "#c97b4f")
    _eye(brush, -0.4, shut=face == "laughing")
    _eye(brush, 0.4, shut=face in {"laughing", "winking"})
    for x in (-0.4, 0.4):
        brush.arc((x, -0.12 - 0.1 * (face == "surprised")), (0.24, 0.16), (205, 335), HAIR_DARK, 0.08)
    brush.arc((0, 0.42), (0.09, 0.07), (20, 160), SHADE, 0.06)
    if face == "laughing":
        brush.cap((0, 0.68), (0.36, 0.34), (0, 180), "#8c2f39", INK)
        brush.cap((0, 0.9), (0.2, 0.1), (180, 360), "#ff8fa3")
    elif face == "surprised":
        brush.oval((0, 0.82), (0.14, 0.18), "#8c2f39", INK)
    else:
        brush.arc((0, 0.62), (0.34, 0.26), (20, 160), INK, 0.07)
    _fringe(brush)


def _eye(brush: Brush, x: float, *, shut: bool) -> None:
    if shut:
        brush.arc((x, 0.25), (0.22, 0.2), (190, 350), INK, 0.08)
        return
    brush.oval((x, 0.16), (0.23, 0.28), "#ffffff", INK)
    brush.oval((x, 0.19), (0.16, 0.21), "#2e9e4f")
    brush.oval((x, 0.21), (0.08, 0.12), "#1b1b1b")
    brush.oval((x + 0.06, 0.1), (0.05, 0.06), "#ffffff")


def _fringe(brush: Brush) -> None:
    brush.cap((0, -0.05), (1.2, 1.28), (188, 352), HAIR, INK)
    for x in (-0.78, -0.28, 0.28, 0.78):
        brush.oval((x, -0.36), (0.34, 0.22), HAIR)
    for x in (-1, 1):
        brush.stroke([(1.02 * x, -0.35), (1.12 * x, 0.5), (1.0 * x, 1.25)], HAIR, 0.34)
    brush.arc((-0.1, -0.35), (0.75, 0.75), (205, 290), "#f4703f", 0.09)
    for x in (-1, 1):
        brush.shape(
            [(0.72, -1.02), (0.72 + 0.62 * x, -1.42), (0.78 + 0.62 * x, -0.98), (0.72 + 0.55 * x, -0.62)], BOW, BOW_DARK
        )
    brush.oval((0.73, -1.02), (0.19, 0.19), BOW_DARK)
