"""Fixtures for pytest, for those who embed cinderlora and for authors of plugins.

In your `conftest.py`: `pytest_plugins = ["cinderlora.testing.fixtures"]`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cinderlora.models.headers import Header
from cinderlora.registry import Registry
from cinderlora.sd_scripts import SdScripts
from cinderlora.testing import ScriptedTrainer, draw_pictures
from cinderlora.testing import sample_headers as headers_of_real_models

__all__ = [
    "character_pictures",
    "cinderlora_home",
    "rehearsal_trainer",
    "sample_headers",
    "scripted_trainer",
    "temporary_registry",
]

_FOLDERS = ("HOME", "LOCALAPPDATA", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


@pytest.fixture
def cinderlora_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folders that are nobody's: runs, configuration and caches lie there for the length of a test."""
    home = tmp_path_factory.mktemp("home")
    for variable in _FOLDERS:
        monkeypatch.setenv(variable, str(home if variable in {"HOME", "USERPROFILE"} else home / variable.lower()))
    return home


@pytest.fixture
def rehearsal_trainer() -> SdScripts:
    """The built-in miniature that trains for real, in seconds. Needs `cinderlora[rehearsal]`."""
    return SdScripts.rehearsal()


@pytest.fixture
def scripted_trainer() -> Callable[..., ScriptedTrainer]:
    """Makes trainers that play a recording: `scripted_trainer("out_of_memory", speed=60)`."""
    return ScriptedTrainer


@pytest.fixture
def sample_headers() -> dict[str, Header]:
    """The headers of published models, text encoders and autoencoders, by kind."""
    return headers_of_real_models()


@pytest.fixture
def temporary_registry(cinderlora_home: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of what is installed, whatever the environment disables; what is registered in it ends with the
    test."""
    monkeypatch.delenv("CINDERLORA_DISABLE", raising=False)
    return Registry.from_installed()


@pytest.fixture
def character_pictures(tmp_path: Path) -> Path:
    """A small data set: four pictures of "elena" with captions."""
    return draw_pictures(tmp_path / "elena")
