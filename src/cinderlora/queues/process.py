"""Starting a queue's supervisor, from any program."""

from __future__ import annotations

import sys
from pathlib import Path

from cinderlora.errors import LaunchFailed
from cinderlora.running.detached import first_answer

__all__ = ["start_supervisor"]


def start_supervisor(folder: Path) -> None:
    """Returns when the queue in a folder has a supervisor, this one or another. Raises `LaunchFailed`."""
    argv = [sys.executable, "-P", "-X", "utf8", "-m", "cinderlora.queues", str(folder)]
    try:
        answer = first_answer(argv, folder)
    except OSError as error:
        raise LaunchFailed("queue_supervisor", folder=str(folder), why=str(error)) from error
    if answer not in {"started", "locked"}:
        why = (answer.splitlines() or ["it was killed"])[-1]
        raise LaunchFailed("queue_supervisor", folder=str(folder), why=why)
