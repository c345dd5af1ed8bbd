"""Ending a run: its whole process tree, politely, after a grace period by force. Blocking, and from any process.

sd-scripts takes no notice of a wish to stop, and a signal to a launcher alone orphans the trainer below it. So the
trainer's session gets the signal first, then whatever else is found to belong to the run: descendants, and processes
that left both session and parent but still have the run's mark in their environment.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import NamedTuple

import psutil
from attrs import frozen

from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder, State, StateName
from cinderlora.running.guardian import Guardian

__all__ = ["GRACE", "Ended", "StopReport", "stop_run"]

GRACE = 10.0  # seconds
_POLL = 0.02
_LOOK = 0.1  # seconds between two looks for processes
_FORCE_LIMIT = 10.0  # seconds in which what was killed has to be gone; longer only where a device driver hangs
_RECORD_LIMIT = 60.0  # seconds for the supervisor to look at the LoRA and write the record


class Ended(NamedTuple):
    """A process that stopping had to do with."""

    pid: int
    name: str


@frozen(kw_only=True)
class StopReport:
    """What stopping a run took."""

    state: StateName
    """How the run stands now: "stopped", or how it had ended before; "running" if it could not be ended."""
    already_ended: bool = False
    """There was nothing left to stop."""
    asked: tuple[Ended, ...] = ()
    """The processes that were asked to end."""
    forced: tuple[Ended, ...] = ()
    """Those of them that did not, and were killed."""
    left: tuple[Ended, ...] = ()
    """Those that could not even be killed."""
    seconds: float = 0.0


def stop_run(folder: RunFolder, grace: float = GRACE, by: str | None = None) -> StopReport:
    """End a run and wait for the record of it; `grace` is the seconds its processes have before they are killed.

    Harmless where the run has ended, and where somebody else is stopping it at the same time.
    """
    begun = time.monotonic()
    state = folder.state()
    if state is not None and state.ended is not None:
        return StopReport(state=state.name, already_ended=True)
    _leave_word(folder, grace, by)
    processes = _Processes(folder.launch.id)
    guardian = Guardian(folder)
    asked: dict[psutil.Process, Ended] = {}
    forced: dict[psutil.Process, Ended] = {}
    while True:
        waited = time.monotonic() - begun
        state = folder.state()
        # Again and again: a launcher may start its trainer anew while it is being ended.
        processes.look(state)
        left = processes.left()
        if waited < grace:
            asked.update(processes.ask(left, state))
        else:
            forced.update(processes.kill(left))
        # The supervisor goes by itself, right after its last word.
        is_done = guardian.is_over() and not (state is not None and supervisor.is_running(state.supervisor))
        if not left and (is_done or waited > grace + _RECORD_LIMIT):
            break
        if left and waited > grace + _FORCE_LIMIT:
            break
        time.sleep(_POLL)
    return StopReport(
        state=folder.state_name,
        asked=tuple(asked.values()),
        forced=tuple(forced.values()),
        left=tuple(_named(process) for process in left),
        seconds=time.monotonic() - begun,
    )


def _leave_word(folder: RunFolder, grace: float, by: str | None) -> None:
    """Say who stops the run, before it is done: the first one counts. A full disk keeps nobody from stopping."""
    if not (folder.path / supervisor.STOP).exists():
        request = {"by": by or _me(), "time": time.time(), "grace": grace}
        with suppress(OSError):
            supervisor.write_whole(str(folder.path), supervisor.STOP, request)


def _me() -> str:
    with suppress(psutil.Error, OSError):
        process = psutil.Process()
        return f"{process.username()} ({process.name()} {process.pid})"
    return f"process {os.getpid()}"


class _Processes:
    """The processes of one run, told from others by their start time: a pid alone may be somebody else's by now."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._found: set[psutil.Process] = set()
        self._asked: set[psutil.Process] = set()
        self._looked = float("-inf")

    def look(self, state: State | None) -> None:
        """Note who belongs to the run: the trainer's tree and session, and who carries the run's mark. The supervisor
        does not: it gave the mark to the trainer and has none."""
        if time.monotonic() - self._looked < _LOOK:
            return  # reading everybody's environment takes milliseconds
        self._looked = time.monotonic()
        trainer = state.trainer["pid"] if state is not None and supervisor.is_running(state.trainer) else None
        children: dict[int, list[psutil.Process]] = {}
        found = set(self._found)
        for pid in psutil.pids():  # not process_iter: it keeps its finds for all threads to stumble over
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                children.setdefault(process.ppid(), []).append(process)
                in_session = trainer is not None and trainer in {process.pid, _session(process)}
                if in_session or _is_marked(process, self._mark):
                    found.add(process)
        parents = [process for process in found if _is_there(process)]
        while parents:
            below = [child for parent in parents for child in children.get(parent.pid, ()) if child not in found]
            found.update(below)
            parents = below
        self._found = {process for process in found if process.pid != os.getpid()}

    def left(self) -> list[psutil.Process]:
        """Those that were found and are still there."""
        return [process for process in self._found if _is_there(process)]

    def ask(self, processes: list[psutil.Process], state: State | None) -> dict[psutil.Process, Ended]:
        """Ask processes to end, each one once; gives those that had not been asked before."""
        new = {process: _named(process) for process in processes if process not in self._asked}
        trainer = state.trainer["pid"] if state is not None else None
        group = None
        if os.name == "posix" and trainer is not None and any(process.pid == trainer for process in new):
            # All of the group at once: a launcher that hears of its child's end before its own would report it.
            with suppress(OSError):
                os.killpg(trainer, signal.SIGTERM)
                group = trainer
        for process in new:
            with suppress(psutil.Error, OSError):
                if group is None or os.getpgid(process.pid) != group:
                    process.terminate()
        self._asked.update(new)
        return new

    def kill(self, processes: list[psutil.Process]) -> dict[psutil.Process, Ended]:
        """End processes by force."""
        killed = {process: _named(process) for process in processes}
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        return killed


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(supervisor.RUN_ID) == mark)
    except (psutil.Error, OSError, ValueError):
        return False  # another user's, or gone


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid) if os.name == "posix" else None
    except OSError:
        return None


def _is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _named(process: psutil.Process) -> Ended:
    try:
        return Ended(process.pid, process.name())
    except psutil.Error:
        return Ended(process.pid, "")
