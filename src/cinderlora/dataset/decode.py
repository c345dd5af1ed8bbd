"""Decode pictures with Pillow, as the trainer will: what breaks it half way through, and what a picture looks like."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from cinderlora.dataset.alike import Look, look_of
from cinderlora.errors import CinderloraError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BOMB", "Decoded", "can_decode", "decode", "in_pool"]

Result = TypeVar("Result")

MEMORY = 1 << 30
"""Bytes that the pictures in work may take together: where they are huge, fewer are decoded at a time."""
BOMB = 2 * (1024**3 // 12)
"""Pixels: Pillow refuses to open a larger picture (twice its `MAX_IMAGE_PIXELS`), and so does the trainer."""


@frozen
class Decoded:
    """What decoding told of one picture."""

    whole: bool
    """It is a picture to its end."""
    animated: bool = False
    transparent: bool = False
    """At least one pixel can be seen through."""
    look: Look | None = None


def can_decode() -> bool:
    """Whether Pillow is installed."""
    from importlib.util import find_spec

    try:
        return find_spec("PIL") is not None
    except ValueError:  # a module of that name without a description
        return False


def decode(
    pictures: Sequence[tuple[Path, int]], progress: Callable[[int, int], object] | None = None
) -> list[Decoded | None]:
    """What is in these files, each given with its number of pixels; on all cores, in the order given. None where a
    warning of Pillow's ended it, in a program that makes errors of warnings.

    `progress` is called in this thread with how many are done, and of how many; what it raises ends the work. Raises
    `CinderloraError` (`extra_missing`) where Pillow is not installed.
    """
    return in_pool(_decoded, pictures, "inspect_dataset(decode=True)", progress)


def in_pool(
    work: Callable[[tuple[Path, int]], Result],
    pictures: Sequence[tuple[Path, int]],
    what: str,
    progress: Callable[[int, int], object] | None = None,
) -> list[Result]:
    """Work that decodes pictures, as in `decode`; `what` needs Pillow."""
    if not can_decode():
        raise CinderloraError("extra_missing", what=what, packages="Pillow", extra="pictures")
    from concurrent.futures import ThreadPoolExecutor

    largest = max((pixels for _, pixels in pictures if pixels <= BOMB), default=0)
    workers = max(1, min(_cores(), MEMORY // (8 * largest + 1)))  # as decoded, and once more where it is converted
    done: list[Result] = []
    pool = ThreadPoolExecutor(workers)  # threads are enough: the decoders release the interpreter's lock
    try:
        for result in pool.map(work, pictures):
            done.append(result)
            if progress:
                progress(len(done), len(pictures))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return done


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _decoded(picture: tuple[Path, int]) -> Decoded | None:
    from PIL import Image

    path, pixels = picture
    if pixels > BOMB:
        return Decoded(whole=False)
    try:
        with Image.open(path) as image:
            image.load()
            # A camera's JPEG with a preview is of several pictures, and moves none the more for it.
            animated = image.format != "MPO" and getattr(image, "is_animated", False)
            return Decoded(True, animated, _transparent(image), look_of(image))
    except Warning:
        return None
    except Exception:  # damaged files make Pillow's decoders raise nearly anything
        return Decoded(whole=False)


def _transparent(image: Image) -> bool:
    if image.mode in {"RGBA", "LA", "PA"}:
        return _least(image) < 255
    # A colour that stands for nothing, or a palette with some.
    return "transparency" in image.info and _least(image.convert("RGBA")) < 255


def _least(image: Image) -> int:
    """The smallest alpha, 0 to 255."""
    return next(value for value, count in enumerate(image.getchannel("A").histogram()) if count)
