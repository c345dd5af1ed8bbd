"""What this machine has: room on its file systems, and memory."""

from __future__ import annotations

import shutil
from pathlib import Path

from attrs import frozen

__all__ = ["Memory", "Room", "memory", "room"]

_CGROUP = Path("/sys/fs/cgroup/memory.max")


@frozen
class Room:
    """The file system that a folder lies on, or will lie on."""

    folder: Path
    """The nearest folder above that is there."""
    device: int
    """Two folders with the same one share their room."""
    free: int
    """Bytes that may still be written."""


@frozen
class Memory:
    """Memory in GB (2**30 bytes)."""

    total: float
    free: float


def room(folder: Path) -> Room | None:
    """Where a folder lies and how much room is left there; None where the system does not say."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        return Room(there, there.stat().st_dev, shutil.disk_usage(there).free)
    except OSError:
        return None


def memory(cgroup: Path = _CGROUP) -> Memory:
    """The machine's memory, or what a container may use of it."""
    import psutil

    of_all = psutil.virtual_memory()
    total = min(of_all.total, _limit(cgroup) or of_all.total)
    return Memory(total / 2**30, min(of_all.available, total) / 2**30)


def _limit(cgroup: Path) -> int | None:
    try:
        text = cgroup.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
