"""The runs in a folder of runs, by the thousand: of a run that has ended, what a list says is read once and kept.

What is kept lies in the user's cache folder, one file for each folder of runs. An entry counts only while both records
of its run are the files that it was made from, by time of change (ns), bytes and inode: that costs two `stat` a run,
and nothing is ever told that is no longer so. A run that has not ended is read each time.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import time
import weakref
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cinderlora.errors import RunNotFound
from cinderlora.folders import cache_folder
from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder, StateName
from cinderlora.running.tail import Figures

__all__ = ["Index", "Listed", "run_folders", "selected"]

_WORTH_IT = 100  # runs: fewer are read as quickly as their index, and no cache is left for a folder of a few
_LIMIT = 256 << 20  # bytes; ten thousand runs have two million
# Seconds: a file that changed just now may change again within one tick of its file system's clock.
_SETTLED = supervisor.CLOCK_SLACK
_FORMAT = 1


class Row(NamedTuple):
    """What is kept of a run that has ended."""

    files: tuple[int, ...]
    """Which launch.json and which state.json it was made from: time of change (ns), bytes and inode of each."""
    name: str
    model_type: str
    created: float
    state: StateName
    ended: float
    seconds: float
    figures: Figures | None = None
    """None before somebody asked."""


class Listed:
    """What the index says of one run, as `RunFolder` takes it."""

    __slots__ = ("_index", "_key", "_row")

    def __init__(self, index: Index, key: str, row: Row) -> None:
        self._index, self._key, self._row = index, key, row

    @property
    def name(self) -> str:
        return self._row.name

    @property
    def model_type(self) -> str:
        return self._row.model_type

    @property
    def created(self) -> float:
        return self._row.created

    @property
    def state(self) -> StateName:
        return self._row.state

    @property
    def ended(self) -> float:
        return self._row.ended

    @property
    def seconds(self) -> float:
        return self._row.seconds

    @property
    def figures(self) -> Figures | None:
        """None where nobody has asked yet."""
        return self._row.figures

    def note(self, figures: Figures) -> None:
        """Keep what the end of the log says, for the next list."""
        self._row = self._row._replace(figures=figures)
        self._index.note(self._key, self._row)


class Index:
    """What is kept of the runs in one folder."""

    def __init__(self, folder: str) -> None:
        # The folder is named inside: two that share a name by chance only take turns. hashlib would take 10 ms to load.
        name = os.fsencode(folder)
        self._file = cache_folder() / "runs" / f"{zlib.crc32(name):08x}{zlib.adler32(name):08x}.json"
        self._folder = folder
        self.rows: dict[str, Row] = {}
        self._is_new = self._is_noted = False

    @classmethod
    def read(cls, folder: str) -> Index:
        """The index of a folder; an empty one where there is none that can be read."""
        index = cls(folder)
        with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            if index._file.stat().st_size <= _LIMIT:
                told = json.loads(index._file.read_bytes())
                if told["format"] == _FORMAT and told["folder"] == folder:
                    index.rows = _rows(told)
        return index

    def put(self, key: str, row: Row) -> None:
        """Keep a row, until `save`."""
        self.rows[key] = row
        self._is_new = True

    def note(self, key: str, row: Row) -> None:
        """Keep a row for a later list. It is written when nobody holds one of the list's runs any more, or the program
        ends: what is asked of each run is known one by one, and a thousand rows are written as quickly as one."""
        self.rows[key] = row
        if not self._is_noted:
            self._is_noted = True
            weakref.finalize(self, _save, self._file, self._folder, self.rows)

    def save(self) -> None:
        """Write it, where something is new."""
        if self._is_new:
            self._is_new = False
            _save(self._file, self._folder, self.rows)

    def forget_all_but(self, names: set[str]) -> None:
        """Drop what is kept of runs that are no longer there."""
        for key in [key for key in self.rows if key not in names]:
            del self.rows[key]


def _save(file: Path, folder: str, rows: Mapping[str, Row]) -> None:
    from cinderlora.serial import write_whole

    if len(rows) < _WORTH_IT:
        return
    known = rows.values()
    # By columns: a tenth of the time to read, since hardly any list has to be made.
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in known] for name in _COLUMNS}
    columns |= {name: [row.files[n] for row in known] for n, name in enumerate(_FILES)}
    for n, name in enumerate(Figures._fields):
        columns[name] = [row.figures[n] if row.figures is not None else None for row in known]
    columns["asked"] = [row.figures is not None for row in known]
    told = {"format": _FORMAT, "folder": folder, "runs": list(rows), **columns}
    with suppress(OSError):
        write_whole(file, json.dumps(told, separators=(",", ":")))


_COLUMNS: dict[str, set[type]] = {
    "name": {str},
    "model_type": {str},
    "created": {float},
    "state": {str},
    "ended": {float},
    "seconds": {float},
}
_FILES = ("launch_mtime_ns", "launch_size", "launch_inode", "state_mtime_ns", "state_size", "state_inode")
_KINDS: dict[str, set[type]] = {
    "runs": {str},
    **_COLUMNS,
    **{key: {int} for key in _FILES},
    "step": {int, type(None)},
    "total": {int, type(None)},
    "loss": {float, int, type(None)},
    "asked": {bool},
}


def _rows(told: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of an index; raises ValueError, KeyError or TypeError where it is none."""
    for name, kinds in _KINDS.items():
        if len(told[name]) != len(told["runs"]) or not set(map(type, told[name])) <= kinds:
            raise ValueError(name)
    figures = map(Figures, *(told[name] for name in Figures._fields))
    asked = (known if was_asked else None for known, was_asked in zip(figures, told["asked"], strict=True))
    files = zip(*(told[name] for name in _FILES), strict=True)
    rows = map(Row, files, *(told[name] for name in _COLUMNS), asked)
    return dict(zip(told["runs"], rows, strict=True))


def _files(path: str) -> tuple[int, ...] | None:
    """What tells whether a run's records are the ones that were read; None where there is no run."""
    try:
        launch = os.stat(f"{path}/{supervisor.LAUNCH}")  # noqa: PTH116 - pathlib takes as long again
        state = os.stat(f"{path}/{supervisor.STATE}")  # noqa: PTH116
    except OSError:
        return None
    return (launch.st_mtime_ns, launch.st_size, launch.st_ino, state.st_mtime_ns, state.st_size, state.st_ino)


def run_folders(folder: Path) -> list[RunFolder]:
    """The run folders in a folder of runs, in no order."""
    root = str(folder.absolute())
    try:
        entries = os.scandir(root)
    except OSError:
        return []
    index = Index.read(root)
    found: list[RunFolder] = []
    names = set()
    with entries:
        for entry in entries:
            name, path = entry.name, entry.path
            # A name with a dot is a run that is being laid out.
            if name.startswith("."):
                continue
            files = _files(path)
            row = index.rows.get(name)
            if row is not None and row.files == files:
                found.append(RunFolder(path, listed=Listed(index, name, row)))
            elif files is not None or entry.is_dir():
                try:
                    found.append(_read(path, name, files, index))
                except RunNotFound:
                    continue
            names.add(name)
    index.forget_all_but(names)
    index.save()
    return found


def selected(
    found: list[RunFolder],
    *,
    state: StateName | Collection[StateName] | None = None,
    model_type: str | None = None,
    name: str | None = None,
    since: datetime | float | None = None,
    limit: int | None = None,
) -> list[RunFolder]:
    """Those that are meant, newest first. What costs most is asked last."""
    earliest = since.timestamp() if isinstance(since, datetime) else since
    if model_type is not None:
        found = [run for run in found if run.heading.model_type == model_type]
    if name is not None:
        fits = re.compile(fnmatch.translate(name)).match
        found = [run for run in found if fits(run.heading.name)]
    if earliest is not None:
        found = [run for run in found if run.heading.created >= earliest]
    found.sort(key=lambda run: (run.heading.created, run.folder_name), reverse=True)
    if state is None:
        return found[:limit]
    states = {state} if isinstance(state, str) else set(state)
    return list(islice((run for run in found if _stands(run, states)), limit))


def _stands(run: RunFolder, states: Collection[str]) -> bool:
    try:
        return run.state_name in states
    except RunNotFound:  # removed since
        return False


def _read(path: str, name: str, files: tuple[int, ...] | None, index: Index) -> RunFolder:
    """A run that is not in the index, or no longer as the index has it."""
    folder = RunFolder(path)
    state = folder.state()
    # What was read has to be what was looked at before.
    if files is None or state is None or state.ended is None or folder.signature != [*files[3:]]:
        return folder
    if abs(time.time() - max(files[0], files[3]) / 1e9) > _SETTLED:
        launch, took = folder.launch, folder.seconds or 0.0
        row = Row(files, launch.name, launch.model_type, launch.created, state.name, state.ended, took)
        index.put(name, row)
        folder.listed = Listed(index, name, row)
    return folder
