"""What was read of a checkout's scripts, kept in the user's cache folder.

A result is kept with the size and the time of change of every file that was read for it, and with the files that were
looked for in vain. It holds as long as all of these are the same: so a change of the commit makes it stale, and so does
an edit in a checkout that has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderlora.folders import cache_folder
from cinderlora.sd_scripts.arguments import Arguments

__all__ = ["checkout_arguments"]

# To be raised when the extraction comes to other results than before.
_VERSION = 1

Stamp = list[int] | None
"""Size in bytes and time of change in nanoseconds; None for a file that is not there."""

_NONE = type(None)
_KINDS: Mapping[str, tuple[type, ...]] = {
    "action": (str,),
    "choices": (list, _NONE),
    "flags": (list,),
    "is_boolean": (bool,),
    "nargs": (str, int, _NONE),
    "type": (str, _NONE),
}


def checkout_arguments(
    checkout: Path, script: str, *, root: Path | None = None, folder: Path | None = None
) -> Arguments | None:
    """The arguments of a script of a checkout; None where they cannot be read from it.

    `root` is the folder that the script imports its modules from, by default the one it lies in. `folder` is where
    results are kept, by default the user's cache folder; one that cannot be used is done without.
    """
    path = (checkout / script).absolute()
    root = path.parent if root is None else root.absolute()
    place = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    kept = (folder or cache_folder()) / "arguments" / f"{place}.json"
    found = _kept(kept, root)
    if found is None:
        found, files = _read(root, path.relative_to(root).as_posix())
        if found is not None:
            _keep(kept, found, files)
    return found


def _read(root: Path, script: str) -> tuple[Arguments | None, dict[str, Stamp]]:
    from cinderlora.sd_scripts.extract import extract_arguments  # with ast and argparse 20 ms

    files: dict[str, Stamp] = {}

    def read(name: str) -> str | None:
        files[name] = _stamp(root / name)  # before the text: a change in between makes the result stale, not wrong
        if files[name] is None:
            return None
        try:
            return (root / name).read_text(encoding="utf-8-sig")
        except (OSError, ValueError):
            return None

    found = extract_arguments(script, read)
    if found is None:
        return None, files
    return Arguments(found.arguments, complete=found.complete, notes=found.notes), files


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _kept(path: Path, root: Path) -> Arguments | None:
    """A result that was kept and still holds; anything else, a broken file included, is none."""
    try:
        data = json.loads(path.read_bytes())
        if data["version"] != _VERSION or any(_stamp(root / name) != stamp for name, stamp in data["files"].items()):
            return None
        arguments, complete, notes = data["arguments"], data["complete"], data["notes"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    sound = isinstance(complete, bool) and isinstance(notes, list) and isinstance(arguments, dict)
    if not sound or not all(map(_is_argument, arguments.values())):
        return None
    return Arguments(arguments, complete=complete, notes=tuple(notes))


def _is_argument(value: Any) -> bool:
    return isinstance(value, dict) and all(name in value and isinstance(value[name], _KINDS[name]) for name in _KINDS)


def _keep(path: Path, found: Arguments, files: Mapping[str, Stamp]) -> None:
    from cinderlora.serial import write_whole

    data = {
        "version": _VERSION,
        "files": files,
        "complete": found.complete,
        "notes": found.notes,
        "arguments": found,
    }
    try:
        write_whole(path, json.dumps(data))
    except OSError:
        return  # read-only or full: it will be read again
