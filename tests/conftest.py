"""Fixtures for all tests."""

from __future__ import annotations

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
