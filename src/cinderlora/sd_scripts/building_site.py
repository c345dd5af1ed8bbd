"""The folder that an installation is at work in: claimed by one at a time, marked until all is done, else removed.

A virtual environment cannot be moved, so an installation has to be made where it is going to be used. A mark in the
folder says that it is not complete; nobody takes it for a checkout as long as that is there.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cinderlora.errors import InstallFailed
from cinderlora.sd_scripts.checkout import INSTALLING

__all__ = ["building_site"]

_OWNER = "owner.json"
_MOMENT = 60.0  # seconds in which somebody who has claimed a folder has said who they are


@contextmanager
def building_site(path: Path) -> Iterator[Path]:
    """Claim a folder to install into; gives a folder in it for temporary files.

    Left normally, the folder loses its mark. Left by an exception, it goes with all that is in it, and so does what an
    installation that was killed has left there. Raises `InstallFailed` where there is anything else, or where another
    installation is at work.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    was_empty = _is_empty(path)
    mark = _claim(path)
    try:
        temporary = mark / "tmp"
        temporary.mkdir()
        yield temporary
        # First it is no mark any more, all at once; then it is tidied up.
        done = mark.rename(mark.with_name(f"{mark.name}-done"))
        _remove_tree(done)
    except BaseException:
        _discard(path)
        if was_empty:
            path.mkdir(exist_ok=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def _claim(path: Path) -> Path:
    mark = path / INSTALLING
    try:
        for leftover in path.parent.glob(f"{glob.escape(_doomed_name(path))}*"):
            _remove_tree(leftover)
        while True:
            if mark.exists():
                if _is_at_work(mark):
                    raise InstallFailed("install_under_way", path=str(path))
                _discard(path)
            if path.exists() and not _is_empty(path):
                if mark.exists():
                    continue  # somebody else was faster
                raise InstallFailed("install_in_the_way", path=str(path))
            path.mkdir(parents=True, exist_ok=True)
            try:
                mark.mkdir()
            except FileExistsError:
                continue
            _sign(mark)
            return mark
    except OSError as error:
        raise InstallFailed("install_folder", path=str(path), why=error.strerror or str(error)) from error


def _is_empty(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except OSError:  # no folder, or one that nobody may look into
        return False


def _sign(mark: Path) -> None:
    import psutil

    me = psutil.Process()
    (mark / _OWNER).write_text(json.dumps({"pid": me.pid, "started": me.create_time()}), encoding="utf-8")


def _is_at_work(mark: Path) -> bool:
    """Whether the process that claimed the folder is still there. A pid alone may be another's by now."""
    import psutil

    try:
        owner = json.loads((mark / _OWNER).read_text(encoding="utf-8"))
        return bool(abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) < 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # it is there, and another user's
    except (OSError, ValueError, TypeError, KeyError):
        with suppress(OSError):
            return time.time() - mark.stat().st_mtime < _MOMENT
        return False


def _doomed_name(path: Path) -> str:
    return f".{path.name}.cinderlora-removing-"


def _discard(path: Path) -> None:
    """Remove what an installation has made: at once under its own name, then for good."""
    doomed = path.with_name(_doomed_name(path) + secrets.token_hex(4))
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    except OSError:
        # A mount point, or on Windows a file that is open: piece by piece, the mark last.
        with suppress(OSError):
            for entry in sorted(path.iterdir(), key=lambda entry: entry.name == INSTALLING):
                _remove_tree(entry)
            path.rmdir()
    else:
        _remove_tree(doomed)


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if os.name == "nt":  # git makes its objects read-only, which keeps them from being deleted there
        for file in path.rglob("*"):
            with suppress(OSError):
                file.chmod(stat.S_IWRITE)
    shutil.rmtree(path, ignore_errors=True)
