"""Presets as TOML files, in the user's and in the project's folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from cinderlora.errors import ConfigError
from cinderlora.types import Preset

__all__ = ["preset_folders", "read_presets"]


def preset_folders(project: str | os.PathLike[str] | None = None) -> tuple[Path, Path]:
    """Where people keep preset files: `cinderlora/presets` in the project's folder (the working folder unless given),
    then `presets` in the user's configuration folder for cinderlora. Neither need exist.

    A name that both have is the project's.
    """
    from cinderlora.folders import config_folder

    return Path(project or ".").absolute() / "cinderlora" / "presets", config_folder() / "presets"


def read_presets(folders: Iterable[Path]) -> Iterator[tuple[Path, Preset | ConfigError]]:
    """Each preset file of the folders, by name, with what it says or what is wrong with it. Hidden files are left out,
    and so are folders that are not there."""
    for folder in folders:
        try:
            files = sorted(
                path for path in folder.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")
            )
        except OSError:
            continue
        for path in files:
            if path.is_file():  # opening a pipe would wait for ever
                stat = path.stat()
                yield path, _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _read(path: Path, mtime_ns: int, size: int) -> Preset | ConfigError:
    """A file's preset, read once for as long as the file stays as it is: every look at the presets asks for it."""
    from cinderlora.serial import load_preset

    try:
        preset = load_preset(path)
        if preset.model_type is None:
            return ConfigError("config_key_missing", path=str(path), where="model_type")
    except ConfigError as error:
        return error
    return preset
