"""What was read before: of files that have not changed since, nothing is read again.

Headers are kept for the next model type that asks for them, as many as there is room for; what a model type made of a
file is small and kept for all.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

from cinderlora.models.folders import FoundFile
from cinderlora.models.headers import Header, Layout, read_header
from cinderlora.types import ModelFile

__all__ = ["HeaderCache"]

# About 0.2 kB each. Files of one structure share their tensors, so this is room for many more files of people's own
# folders; beyond it those that were not asked for the longest are read again.
MAX_TENSORS = 60_000

Stamp = tuple[FoundFile | None, ...]

# About 1 kB each.
MAX_CLAIMS = 20_000

# A disk comes back, permissions are given, a download ends, all without a change of the file.
_PASSING = frozenset({"model_unreadable", "model_unfinished"})

# Seconds a file, above which reading waits for a disk or a network and several threads wait better than one. Below,
# they would only take turns at decoding.
_SLOW = 0.01
_READERS = 8


class HeaderCache:
    """The headers of files by path, size and time of change. Several threads may use one."""

    def __init__(self, max_tensors: int = MAX_TENSORS) -> None:
        self._max_tensors = max_tensors
        self._headers: OrderedDict[str, tuple[FoundFile, Header]] = OrderedDict()
        self._users: dict[int, int] = {}  # how many headers share some tensors, by their id
        self._tensors = 0
        self._layouts: dict[bytes, Layout] = {}
        self._claims: OrderedDict[Hashable, tuple[Stamp, tuple[ModelFile, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def claimed(self, key: Hashable, stamp: Stamp) -> tuple[ModelFile, ...] | None:
        """What was made of these files before, where they have not changed since; `key` says which and by whom."""
        with self._lock:
            entry = self._claims.get(key)
            if entry is None or entry[0] != stamp:
                return None
            self._claims.move_to_end(key)
            return entry[1]

    def remember(self, key: Hashable, stamp: Stamp, claimed: tuple[ModelFile, ...]) -> None:
        """Keep what was made of files, for `claimed`."""
        if any(problem.code in _PASSING for file in claimed for problem in file.problems):
            return
        with self._lock:
            self._claims[key] = (stamp, claimed)
            self._claims.move_to_end(key)
            while len(self._claims) > MAX_CLAIMS:
                self._claims.popitem(last=False)

    def read(self, files: Sequence[FoundFile]) -> list[Header]:
        """The headers of these files, in their order. Never raises for what is wrong with a file."""
        with self._lock:
            known = [self._known(file) for file in files]
        unknown = [file for file, header in zip(files, known, strict=True) if header is None]
        if not unknown:
            return [header for header in known if header is not None]
        fresh = dict(zip(unknown, self._read(unknown), strict=True))
        with self._lock:
            for file, header in fresh.items():
                self._remember(file, header)
        return [header or fresh[file] for file, header in zip(files, known, strict=True)]

    def _read(self, files: Sequence[FoundFile]) -> Iterator[Header]:
        waited = 0.0
        for number, file in enumerate(files, 1):
            began, worked = time.monotonic(), time.thread_time()
            header = read_header(file.path, self._layouts)
            waited += time.monotonic() - began - (time.thread_time() - worked)
            yield header
            if number >= 4 and waited > number * _SLOW:
                break
        if number < len(files):
            from concurrent.futures import ThreadPoolExecutor  # 5 ms that hardly anybody needs

            with ThreadPoolExecutor(_READERS, "cinderlora-headers") as pool:
                yield from pool.map(lambda file: read_header(file.path, self._layouts), files[number:])

    def _known(self, file: FoundFile) -> Header | None:
        entry = self._headers.get(file.path)
        if entry is None or entry[0] != file:
            return None
        self._headers.move_to_end(file.path)
        return entry[1]

    def _remember(self, file: FoundFile, header: Header) -> None:
        self._forget(file.path)
        if any(problem.code in _PASSING for problem in header.problems):
            return
        self._headers[file.path] = (file, header)
        key = id(header.tensors)
        if key not in self._users:
            self._tensors += len(header.tensors)
        self._users[key] = self._users.get(key, 0) + 1
        while self._tensors > self._max_tensors and len(self._headers) > 1:
            self._forget(next(iter(self._headers)))

    def _forget(self, path: str) -> None:
        entry = self._headers.pop(path, None)
        if entry is None:
            return
        tensors = entry[1].tensors
        self._users[id(tensors)] -= 1
        if not self._users[id(tensors)]:
            del self._users[id(tensors)]
            self._tensors -= len(tensors)
            for digest in [d for d, layout in self._layouts.items() if layout.tensors is tensors]:
                del self._layouts[digest]

    def __len__(self) -> int:
        return len(self._headers)
