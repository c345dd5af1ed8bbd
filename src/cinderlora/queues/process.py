"""Starting a queue's supervisor, from any program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cinderlora.errors import LaunchFailed

__all__ = ["start_supervisor"]

_LIMIT = 60.0  # seconds; a Python on a sleeping network drive takes its time


def start_supervisor(folder: Path) -> None:
    """Returns when the queue in a folder has a supervisor, this one or another. Raises `LaunchFailed`."""
    argv = [sys.executable, "-P", "-X", "utf8", "-m", "cinderlora.queues", str(folder)]
    flags = 0 if os.name == "posix" else 0x00000008 | 0x00000200  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            creationflags=flags,
        )
    except OSError as error:
        raise LaunchFailed("queue_supervisor", folder=str(folder), why=str(error)) from error
    if os.name == "posix":
        # The first process goes at once; the output stays open until the supervisor has answered.
        try:
            said, _ = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise LaunchFailed("queue_supervisor", folder=str(folder), why=f"no answer in {_LIMIT:g} s") from error
    else:
        assert process.stdout is not None  # noqa: S101
        said = process.stdout.read()
        process.stdout.close()
        process.returncode = 0  # it lives on, and nobody waits for it
    answer = said.decode("utf-8", "replace").strip()
    if answer not in {"started", "locked"}:
        why = (answer.splitlines() or ["it was killed"])[-1]
        raise LaunchFailed("queue_supervisor", folder=str(folder), why=why)
