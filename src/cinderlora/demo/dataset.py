"""The data set: which pictures there are, drawing one, and writing them all with their captions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from cinderlora.demo.brush import Brush
from cinderlora.demo.elena import Face, Pose, draw_elena
from cinderlora.demo.scenery import Place, paint
from cinderlora.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PICTURES", "Scene", "draw", "write_dataset"]

_FINER = 2
"""Drawn this much larger and scaled down, for smooth edges."""


@frozen
class Scene:
    """One picture: how large, how near, and what there is to see."""

    size: tuple[int, int]
    """Width and height in pixels."""
    clothes: str
    colour: str
    """What the clothes are, as a caption says it; `_COLOURS` has the tint."""
    pose: Pose
    face: Face
    place: Place
    near: bool = True
    """Head and shoulders; else all of her."""
    tilt: float = 0.0
    """Degrees to the left that she leans."""

    @property
    def caption(self) -> str:
        """Names what may change, and leaves to the trigger word what makes her Elena."""
        framing = "portrait" if self.near else "full body"
        wears = f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.clothes}"
        if self.clothes == "dungarees":
            wears = f"dungarees and {'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} shirt"
        return f"elena, {framing}, {self.face}, {self.pose}, wearing {wears}, {self.place}"


_COLOURS = {
    "blue": "#4d7fe0",
    "yellow": "#f7c93e",
    "purple": "#8a5cc4",
    "pink": "#f083ac",
    "green": "#63b65f",
    "white": "#f4f1ea",
    "red": "#d63c4b",
    "orange": "#f39237",
    "navy": "#2b3f75",
}

PICTURES = (
    Scene((512, 512), "hoodie", "blue", "standing", "smiling", "in a studio"),
    Scene((448, 512), "striped shirt", "navy", "waving", "laughing", "at the beach", tilt=4),
    Scene((512, 448), "dress", "yellow", "holding a balloon", "smiling", "in a meadow"),
    Scene((384, 512), "coat", "purple", "standing", "smiling", "in the snow", near=False),
    Scene((512, 512), "star jumper", "navy", "holding a mug", "winking", "in a room"),
    Scene((512, 512), "raincoat", "yellow", "arms raised", "laughing", "in a forest", tilt=-4),
    Scene((448, 448), "hoodie", "pink", "hands on hips", "winking", "in a city at night"),
    Scene((384, 512), "dungarees", "orange", "waving", "smiling", "in a meadow", near=False),
    Scene((512, 512), "dress", "white", "standing", "surprised", "at the beach", tilt=-3),
    Scene((512, 384), "star jumper", "green", "arms raised", "laughing", "in the snow"),
    Scene((448, 512), "striped shirt", "red", "hands on hips", "smiling", "in a room", tilt=3),
    Scene((384, 512), "dress", "blue", "arms raised", "laughing", "in a city at night", near=False),
    Scene((512, 512), "dungarees", "white", "holding a mug", "smiling", "in a forest"),
    Scene((448, 448), "coat", "green", "waving", "winking", "in a studio", tilt=5),
)
"""Fourteen pictures: what she wears, does and feels, and where, differs from one to the next."""


def draw(scene: Scene, seed: int = 0) -> Image.Image:
    """A scene as a picture in RGB; the seed decides where trees and stars are."""
    from PIL import Image

    width, height = (side * _FINER for side in scene.size)
    picture = Image.new("RGB", (width, height))
    paint(picture, scene.place, seed)
    layer = Image.new("RGBA", (width, height))
    unit = min(width, height) * (0.19 if scene.near else 0.115)
    origin = (width / 2, height * (0.42 if scene.near else 0.26))
    draw_elena(Brush(layer, unit, origin), scene.pose, scene.face, scene.clothes, _COLOURS[scene.colour])
    if scene.tilt:
        layer = layer.rotate(scene.tilt, Image.Resampling.BILINEAR, center=(origin[0], height))
    picture.paste(layer, mask=layer)
    return picture.resize(scene.size, Image.Resampling.LANCZOS)


def write_dataset(folder: Path) -> tuple[Path, ...]:
    """Draw all pictures into a folder, each with its caption beside it; gives the pictures' paths.

    Done again, it writes the same. Raises `ConfigError` where a file of one of these names is there already and says
    something else, before anything is written.
    """
    files: dict[Path, bytes] = {}
    for number, scene in enumerate(PICTURES, 1):
        stream = io.BytesIO()
        draw(scene, number).save(stream, "PNG", compress_level=1)
        files[folder / f"elena_{number:02d}.png"] = stream.getvalue()
        files[folder / f"elena_{number:02d}.txt"] = f"{scene.caption}\n".encode()
    for file, content in files.items():
        if file.exists() and file.read_bytes() != content:
            raise ConfigError("demo_in_the_way", path=str(file))
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        file.write_bytes(content)
    return tuple(file for file in files if file.suffix == ".png")
