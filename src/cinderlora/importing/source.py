"""The file that is imported, and those it refers to: what is opened, and what is not."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from attrs import define, field

from cinderlora.errors import ConfigError

__all__ = ["LIMIT", "Source"]

LIMIT = 1 << 20
"""Bytes: what is longer is no configuration."""
_LONGEST = 255  # bytes in a file's name, on every system


@define
class Source:
    """A configuration's text and where it lies. Where only its text was handed in, no file is opened at all."""

    path: Path
    text: str
    on_disk: bool
    files: list[Path] = field(factory=list)
    """What was read."""

    @classmethod
    def of(cls, path: Path, text: str | None) -> Source:
        """Read the file, unless its text is there; raises `ConfigError`."""
        path = path.expanduser()
        if text is not None:
            if len(text) > LIMIT:
                raise ConfigError("import_too_large", path=str(path), limit=LIMIT)
            return cls(path, text.removeprefix("\ufeff"), on_disk=False)
        path = path.absolute()
        return cls(path, read_bounded(path), on_disk=True, files=[path])

    def toml(self, name: object) -> dict[str, Any] | None:
        """The content of a TOML file that the configuration refers to; None where it is not to be had. No other kind
        of file is opened, and none on somebody else's computer."""
        path = self.local(name)
        if not self.on_disk or path is None or path.suffix.lower() != ".toml" or not self.there(path):
            return None
        if not path.is_file():
            return None
        values = parse_toml(path, read_bounded(path))
        self.files.append(path)
        return values

    def lines(self, name: object) -> tuple[str, ...] | None:
        """The lines of a text file that the configuration refers to and that lies beside it; None for any other."""
        path = self.local(name)
        if not self.on_disk or path is None or path.suffix.lower() != ".txt":
            return None
        here = self.path.parent.resolve()
        if not self.there(path) or not path.resolve().is_relative_to(here) or not path.is_file():
            return None
        text = read_bounded(path)
        self.files.append(path)
        return tuple(text.splitlines())

    def local(self, name: object) -> Path | None:
        """The path that a name in the configuration stands for: a relative one begins in the configuration's folder.

        None for what is no path, for one of another system's, and for one that leads to another computer.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name or name.startswith(("\\\\", "//")):
            return None
        try:
            path = Path(name).expanduser()
            fits = all(len(os.fsencode(part)) <= _LONGEST for part in path.parts)
        except (RuntimeError, UnicodeEncodeError):  # somebody else's home folder; half a character
            return None
        if not fits or _is_foreign(name):
            return None
        return self.path.parent / path if self.on_disk else path

    def there(self, path: Path) -> bool:
        """Whether there is such a file or folder; of a text alone, it is not asked."""
        try:
            return self.on_disk and path.exists()
        except OSError:
            return False


def _is_foreign(name: str) -> bool:
    here: type[PurePath] = type(PurePath())
    if here is PurePosixPath:
        return bool(PureWindowsPath(name).drive)
    return name.startswith("/") and not PureWindowsPath(name).drive


def read_bounded(path: Path) -> str:
    """A text file's content; raises `ConfigError` for what is none, or too long."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError("file_unreadable", path=str(path), why="not a file")
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise ConfigError("import_too_large", path=str(path), limit=LIMIT)
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("file_not_found", path=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("file_unreadable", path=str(path), why=str(error)) from error


def parse_toml(path: Path, text: str) -> dict[str, Any]:
    """TOML's values; raises `ConfigError`."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError("file_unreadable", path=str(path), why=str(error)) from error
