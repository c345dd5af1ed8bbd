"""A queue on disk: one small file per entry, replaced whole, changed by one process at a time.

    <queue folder>/
      queue.json          what goes for the whole queue
      entries/12.json     one entry: replaced at once, never written into
      plans/12.json       its plan, frozen when it was added
      aside/              what was no entry
      changes.lock        held by whoever changes something, for milliseconds
      supervisor.lock     held by the queue's supervisor while it lives
      supervisor.log      what went wrong there

Readers take no lock: a file is the old one or the new one.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from cinderlora.errors import QueueError
from cinderlora.queues.entries import (
    Entry,
    QueueSettings,
    entry_record,
    read_entry,
    read_settings,
    settings_record,
)
from cinderlora.running import supervisor

__all__ = ["Store"]

T = TypeVar("T")

_LOCK = "changes.lock"
_LOCK_LIMIT = 30.0  # seconds; a change takes milliseconds, on a sleeping network drive more
_LARGEST = 1 << 20  # bytes of a record; ours have a thousandth of it
_LARGEST_PLAN = 1 << 28
_SETTLED = 2.0  # seconds until a folder's time of change is certain to be followed by a later one
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Store:
    """The files of one queue. `changing` before anything is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries_folder = folder / "entries"
        self._plans_folder = folder / "plans"
        self._known: dict[str, tuple[list[int] | None, Entry | None]] = {}
        self._entries: dict[int, Entry] = {}
        self._changed: int | None = None
        self._settings = QueueSettings()
        self._settings_signature: list[int] | None = None

    # ---- reading ----------------------------------------------------------------------------------------------------

    def entries(self) -> Mapping[int, Entry]:
        """All entries by their ids. Cheap where nothing has changed."""
        try:
            changed = self._entries_folder.stat().st_mtime_ns
            if changed != self._changed or time.time() - changed / 1e9 < _SETTLED:
                self._look()
            self._changed = changed
        except OSError:
            self._known, self._entries, self._changed = {}, {}, None
        return self._entries

    def entry(self, number: int) -> Entry | None:
        """One entry as it stands, for a change."""
        return _read(self._entry_file(number), lambda record: _the_one(read_entry(record), number))

    def settings(self) -> QueueSettings:
        """What goes for the whole queue."""
        path = self.folder / "queue.json"
        signature = supervisor.signature(str(path))
        if signature != self._settings_signature:
            self._settings = _read(path, read_settings) or QueueSettings()
            self._settings_signature = signature
        return self._settings

    def plan_text(self, number: int) -> str:
        """The frozen plan of an entry, as it was written; raises OSError or ValueError."""
        path = self._plans_folder / f"{number}.json"
        if path.stat().st_size > _LARGEST_PLAN:
            raise ValueError("far too large")
        return path.read_text(encoding="utf-8")

    def put_aside(self) -> tuple[Path, ...]:
        """The files that were no entries."""
        with suppress(OSError):
            return tuple(sorted((self.folder / "aside").iterdir()))
        return ()

    def _look(self) -> None:
        known = {}
        with os.scandir(self._entries_folder) as files:
            for file in files:
                number = _number(file.name)
                if number is None:
                    continue
                signature = supervisor.signature(file.path)
                before = self._known.get(file.name)
                if before is None or before[0] != signature:
                    before = signature, self.entry(number)
                known[file.name] = before
        self._known = known
        self._entries = {entry.id: entry for _, entry in known.values() if entry is not None}

    def _entry_file(self, number: int) -> Path:
        return self._entries_folder / f"{number}.json"

    # ---- changing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who changes the queue. Raises `QueueError` where its folder cannot be written."""
        try:
            for folder in (self.folder, self._entries_folder, self._plans_folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the environment of trainers is in the plans
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise QueueError("queue_folder", folder=str(self.folder), why=error.strerror or str(error)) from error
        try:
            if not supervisor.lock(lock, _LOCK_LIMIT):
                raise QueueError("queue_busy", folder=str(self.folder), seconds=_LOCK_LIMIT)
            yield
        except OSError as error:
            raise QueueError("queue_folder", folder=str(self.folder), why=error.strerror or str(error)) from error
        finally:
            os.close(lock)

    def write(self, entry: Entry) -> None:
        """Put an entry on record."""
        _write(self._entry_file(entry.id), json.dumps(entry_record(entry), indent=1))

    def write_settings(self, settings: QueueSettings) -> None:
        """Put on record what goes for the whole queue."""
        _write(self.folder / "queue.json", json.dumps(settings_record(settings), indent=1))

    def write_plan(self, number: int, text: str) -> None:
        """Keep a frozen plan, before its entry."""
        _write(self._plans_folder / f"{number}.json", text)

    def delete(self, number: int) -> None:
        """Forget an entry: its record first, for without it a plan is nothing."""
        self._entry_file(number).unlink(missing_ok=True)
        (self._plans_folder / f"{number}.json").unlink(missing_ok=True)

    def new_id(self) -> int:
        """A number that no entry has had."""
        with suppress(OSError):
            taken = [_number(file.name) or 0 for file in self._entries_folder.iterdir()]
            return max([self.settings().next_id - 1, *taken]) + 1
        return self.settings().next_id

    def clean_up(self) -> None:
        """Put aside what is no entry, and remove what a process that was killed left half-written."""
        for folder in (self.folder, self._entries_folder, self._plans_folder):
            for path in folder.glob(".*.json.*"):
                path.unlink(missing_ok=True)
        for path in self._entries_folder.iterdir():
            number = _number(path.name)
            if number is None or self.entry(number) is None:
                self._set_aside(path)
        path = self.folder / "queue.json"
        if path.exists() and _read(path, read_settings) is None:
            self._set_aside(path)

    def _set_aside(self, path: Path) -> None:
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        path.replace(aside / f"{path.name}.{time.time_ns()}")


def _number(name: str) -> int | None:
    stem, dot, ending = name.partition(".")
    is_ours = ending == "json" and stem.isascii() and stem.isdecimal() and len(stem) < 16 and not stem.startswith("0")
    return int(stem) if dot and is_ours else None


def _the_one(entry: Entry, number: int) -> Entry:
    if entry.id != number:
        raise ValueError("the id is another one's")
    return entry


def _read(path: Path, read: Callable[[Any], T]) -> T | None:
    """What a JSON file says; None where it is not there, or is not what it should be."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return read(json.loads(path.read_text(encoding="utf-8")))
    except _UNREADABLE:
        return None


def _write(path: Path, text: str) -> None:
    """Replace a file at once; it outlasts a power cut. Only its owner may read it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
