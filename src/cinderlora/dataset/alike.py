"""Pictures that are the same, byte for byte, and pictures that look nearly the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from PIL.Image import Image

    from cinderlora.dataset.data import Picture

__all__ = ["Look", "duplicates", "look_of", "nearly_alike"]

Groups = tuple[tuple[Path, ...], ...]

SHAPE, COLOUR = 12, 20
"""Bits of `Look.shape` (of 144) and of `Look.colour` (of 720) that two pictures may differ by to be called nearly the
same. Among the demo's 14 pictures of one character no two differ by less than 22 and 40; copies of them at half the
size, or as JPEG of quality 30, differ by at most 4 and 6, and with a hundredth cut off on each side by 7 and 11."""


# ---- the same ----


def duplicates(pictures: Sequence[Picture]) -> Groups:
    """Groups of pictures with the same content, in the order given. Only files of one size are read, and those to
    their end only that have the same bytes at their end and in their middle."""
    groups: list[list[Picture]] = [list(pictures)]
    for key in (lambda p: p.file_size, _sample, _digest):
        groups = [part for group in groups for part in _parted(group, key)]
    return tuple(tuple(p.path for p in group) for group in groups)


def _parted(group: Iterable[Picture], key: Callable[[Picture], Hashable]) -> list[list[Picture]]:
    """The parts of a group that have a key in common; those of one picture, and without a key, are left out."""
    parts: dict[Hashable, list[Picture]] = {}
    for picture in group:
        value = key(picture)
        if value:
            parts.setdefault(value, []).append(picture)
    return [part for part in parts.values() if len(part) > 1]


def _sample(picture: Picture) -> bytes | None:
    try:
        with picture.path.open("rb", buffering=0) as file:
            file.seek(picture.file_size // 2)
            middle = file.read(512)
            file.seek(max(0, picture.file_size - 512))
            return middle + file.read(512)
    except OSError:
        return None


def _digest(picture: Picture) -> bytes | None:
    try:
        with picture.path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return None


# ---- nearly the same ----


@frozen
class Look:
    """What is left of a picture when it is made very small: two pictures differ by the bits in which these do."""

    shape: int
    """For each cell of a grid of 9 x 8 whether it is brighter than its neighbour to the right, and below."""
    colour: int
    """The mean of red, green and blue in 4 x 4 cells, as so many ones of 15."""

    def near(self, other: Look) -> bool:
        """Whether a person would say at a glance that these are the same picture."""
        return (self.colour ^ other.colour).bit_count() <= COLOUR and (self.shape ^ other.shape).bit_count() <= SHAPE


def look_of(image: Image) -> Look:
    """The look of a decoded picture. Transparency is left out, as the trainer does."""
    from PIL import Image

    few = image.resize((288, 288), Image.Resampling.NEAREST)  # enough pixels of it, in a tenth of the time
    # Pillow warns of a palette with transparency that becomes RGB at once.
    small = (few.convert("RGBA") if few.mode == "P" else few).convert("RGB").resize((36, 36), Image.Resampling.BOX)
    grey = small.convert("L").resize((9, 9), Image.Resampling.BOX).tobytes()
    pairs = [(i, i + 1) for i in range(81) if i % 9 < 8] + [(i, i + 9) for i in range(72)]
    cells = small.resize((4, 4), Image.Resampling.BOX).tobytes()
    return Look(
        # A step of brightness counts from 3 of 255 on: less is the noise of a plain background.
        shape=int("".join("1" if grey[a] > grey[b] + 2 else "0" for a, b in pairs), 2),
        colour=int("".join(("1" * (value // 17)).zfill(15) for value in cells), 2),
    )


def nearly_alike(looks: Sequence[tuple[Path, Look]], same: Groups = ()) -> Groups:
    """Groups of pictures that look nearly the same as the first of their group, in the order given. Of those that are
    the same byte for byte, only the first is compared."""
    copies = {path for group in same for path in group[1:]}
    left = [(path, look) for path, look in looks if path not in copies]
    groups = []
    while left:
        (first, look), *left = left
        group, others = [first], []
        for path, other in left:
            if look.near(other):
                group.append(path)
            else:
                others.append((path, other))
        left = others
        if len(group) > 1:
            groups.append(tuple(group))
    return tuple(groups)
