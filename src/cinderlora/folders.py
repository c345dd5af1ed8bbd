"""Where cinderlora keeps things of its own, by each system's custom.

The same folders as platformdirs gives, which the base install does without; the suite compares the two.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """The user's data folder for cinderlora: runs lie in its `runs`, sd-scripts may lie in its `sd-scripts`."""
    if sys.platform == "win32":
        return _from_env("LOCALAPPDATA", Path.home() / "AppData/Local") / "cinderlora"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/cinderlora"
    return _from_env("XDG_DATA_HOME", Path.home() / ".local/share") / "cinderlora"


def config_folder() -> Path:
    """The user's configuration folder for cinderlora; `config.toml` lies in it."""
    if sys.platform in {"win32", "darwin"}:
        return data_folder()
    return _from_env("XDG_CONFIG_HOME", Path.home() / ".config") / "cinderlora"


def cache_folder() -> Path:
    """The user's folder for what cinderlora can make again at any time."""
    if sys.platform == "win32":
        return data_folder() / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/cinderlora"
    return _from_env("XDG_CACHE_HOME", Path.home() / ".cache") / "cinderlora"


def _from_env(variable: str, otherwise: Path) -> Path:
    value = Path(os.environ.get(variable, ""))
    return value if value.is_absolute() else otherwise  # the XDG specification has relative ones ignored
