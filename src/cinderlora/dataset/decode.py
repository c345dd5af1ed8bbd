"""Decode pictures with Pillow, as the trainer will, to find those that break it half way through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cinderlora.errors import CinderloraError

__all__ = ["decodable"]


def decodable(paths: Sequence[Path]) -> list[bool]:
    """Whether each of these files is a picture to its end; on all cores.

    Raises `CinderloraError` (`extra_missing`) where Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise CinderloraError(
            "extra_missing", what="inspect_dataset(decode=True)", packages="Pillow", extra="pictures"
        ) from None
    from concurrent.futures import ThreadPoolExecutor

    def decodes(path: Path) -> bool:
        try:
            with Image.open(path) as image:
                image.load()
        except Exception:  # damaged files make Pillow's decoders raise nearly anything
            return False
        return True

    with ThreadPoolExecutor() as pool:  # the decoders release the interpreter's lock
        return list(pool.map(decodes, paths))
