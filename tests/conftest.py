"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code; fewer of them in every run, other ones each time.
settings.register_profile("cinderlora", deadline=None, max_examples=50)
settings.load_profile("cinderlora")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both."""
    return str(request.param)


@pytest.fixture
def data() -> Path:
    """The recordings and other files that tests read."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def draw() -> Callable[..., Path]:
    """Draw a picture that is like no other: draw(path, size=(640, 640), caption="elena, smiling")."""
    import io
    import random

    from PIL import Image

    @cache
    def encoded(name: str, kind: str, size: tuple[int, int]) -> bytes:
        dots, out = random.Random(name).randbytes(192), io.BytesIO()
        Image.frombytes("RGB", (8, 8), dots).resize(size, Image.Resampling.NEAREST).save(out, kind)
        return out.getvalue()

    def drawn(path: Path, size: tuple[int, int] = (640, 640), caption: str | bytes | None = "elena, smiling") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = Image.registered_extensions()[path.suffix.lower()]
        path.write_bytes(encoded(f"{path.parent.name}/{path.name}", kind, size))
        if caption is not None:
            path.with_suffix(".txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())
        return path

    return drawn


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six small pictures of "elena" with captions, the first one without, in a folder with a difficult name."""
    from PIL import Image, ImageDraw

    folder = tmp_path / "data sets" / "elena ü's"
    folder.mkdir(parents=True)
    for i, colour in enumerate(["red", "green", "blue", "yellow", "purple", "orange"]):
        picture = Image.new("RGB", (128, 128), (240 - 10 * i, 235, 230))
        ImageDraw.Draw(picture).ellipse([20 + 4 * i, 20, 80 + 4 * i, 80], fill=colour)
        picture.save(folder / f"elena_{i:02d}.png")
        if i:
            (folder / f"elena_{i:02d}.txt").write_text(f"elena, a {colour} ball", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests read of checkouts is not kept in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
