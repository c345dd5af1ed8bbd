"""Ending a run: its whole process tree, politely, after a grace period by force. Blocking, and from any process.

sd-scripts takes no notice of a wish to stop, and a signal to a launcher alone orphans the trainer below it. So the
trainer's session gets the signal first, then whatever else is found to belong to the run: descendants, processes that
left both session and parent but still have the run's mark in their environment, and those that have neither: on Linux
they are children of the supervisor by now.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from attrs import frozen

from cinderlora.errors import RunNotFound
from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder, State, StateName
from cinderlora.running.guardian import Guardian

__all__ = ["GRACE", "Ended", "StopReport", "stop_run"]

GRACE = 10.0  # seconds
_POLL = 0.02
_LOOK = 0.1  # seconds between two looks for processes
_FORCE_LIMIT = 10.0  # seconds in which what was killed has to be gone; longer only where a device driver hangs
_RELEASE_LIMIT = 5.0  # seconds in which the driver has to report the GPU's memory free
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
    partial: tuple[Path, ...] = ()
    """Files that were half-written, under the names they were given: "cg_elena-step00000500.safetensors.partial"."""
    gpu_released: bool | None = None
    """Whether the GPU memory that the processes held was seen free again; None where they held none, or where NVIDIA's
    library cannot tell."""
    seconds: float = 0.0


def stop_run(folder: RunFolder, grace: float = GRACE, by: str | None = None) -> StopReport:
    """End a run and wait for the record of it; `grace` is the seconds its processes have before they are killed.

    Harmless where the run has ended, and where somebody else is stopping it at the same time.
    """
    from cinderlora.gpu import held_by

    begun = time.monotonic()
    state = _state(folder)
    if state is not None and state.ended is not None:
        return StopReport(state=state.name, already_ended=True, partial=_partial(folder, state))
    _leave_word(folder, grace, by)
    processes = _Processes(folder)
    guardian = Guardian(folder)
    asked: dict[psutil.Process, Ended] = {}
    forced: dict[psutil.Process, Ended] = {}
    holds_memory = False
    while True:
        waited = time.monotonic() - begun
        state = _state(folder)
        # Again and again: a launcher may start its trainer anew while it is being ended.
        processes.look(state)
        left = processes.left()
        if left and not asked:
            holds_memory = held_by({process.pid for process in left}) > 0
        if waited < grace:
            asked.update(processes.ask(left, state))
        else:
            forced.update(processes.kill(left))
        # The supervisor goes by itself, right after its last word.
        is_done = _is_over(guardian) and processes.supervisor(state) is None
        if not left and (is_done or waited > grace + _RECORD_LIMIT):
            break
        if left and waited > grace + _FORCE_LIMIT:
            break
        time.sleep(_POLL)
    return StopReport(
        state=_name(folder),
        asked=tuple(asked.values()),
        forced=tuple(forced.values()),
        left=tuple(_named(process) for process in left),
        partial=_partial(folder, _state(folder)),
        gpu_released=_is_released({process.pid for process in asked}) if holds_memory else None,
        seconds=time.monotonic() - begun,
    )


def _state(folder: RunFolder) -> State | None:
    """The record, or None where the run folder was removed: what runs is ended all the same."""
    try:
        return folder.state()
    except RunNotFound:
        return None


def _name(folder: RunFolder) -> StateName:
    try:
        return folder.state_name
    except RunNotFound:
        return "lost"


def _is_over(guardian: Guardian) -> bool:
    try:
        return guardian.is_over()
    except RunNotFound:
        return True


def _partial(folder: RunFolder, state: State | None) -> tuple[Path, ...]:
    return () if state is None else tuple(folder.launch.output / name for name in state.partial)


def _is_released(pids: set[int]) -> bool:
    """Whether processes that have ended hold no memory of the GPU any more; a driver takes its time to say so."""
    from cinderlora.gpu import held_by

    until = time.monotonic() + _RELEASE_LIMIT
    while held_by(pids) > 0:
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK)
    return True


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

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._mark = folder.launch.id
        self._found: set[psutil.Process] = set()
        self._asked: set[psutil.Process] = set()
        self._looked = float("-inf")

    def look(self, state: State | None) -> None:
        """Note who belongs to the run: the trainer's tree and session, and who carries the run's mark. The supervisor
        does not: it gave the mark to the trainer and has none."""
        if time.monotonic() - self._looked < _LOOK:
            return  # reading everybody's environment takes milliseconds
        self._looked = time.monotonic()
        trainer = self._trainer(state)
        looking_after = self.supervisor(state)
        children: dict[int, list[psutil.Process]] = {}
        found = set(self._found)
        for pid in psutil.pids():  # not process_iter: it keeps its finds for all threads to stumble over
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                children.setdefault(process.ppid(), []).append(process)
                in_session = trainer is not None and trainer in {process.pid, _session(process)}
                if in_session or _is_marked(process, self._mark):
                    found.add(process)
        if looking_after is not None:
            found.update(child for child in children.get(looking_after, ()))
        parents = [process for process in found if _is_there(process)]
        while parents:
            below = [child for parent in parents for child in children.get(parent.pid, ()) if child not in found]
            found.update(below)
            parents = below
        self._found = {process for process in found if process.pid != os.getpid()}

    def _trainer(self, state: State | None) -> int | None:
        """The trainer's pid, if it is there and nobody else's: a record in a folder can name any process."""
        if state is None or not supervisor.is_of_run(state.trainer, self._mark):
            return None
        pid: int = state.trainer["pid"]
        with suppress(psutil.Error):
            return pid if _is_marked(psutil.Process(pid), self._mark) else None
        return None

    def supervisor(self, state: State | None) -> int | None:
        """The supervisor's pid, if its command line says that it is this run's."""
        if state is None or not supervisor.is_running(state.supervisor):
            return None
        with suppress(psutil.Error, OSError):
            line = psutil.Process(state.supervisor["pid"]).cmdline()
            script = next((n for n, word in enumerate(line) if Path(word).name == Path(supervisor.__file__).name), None)
            if script is not None and script + 1 < len(line) and Path(line[script + 1]).samefile(self._folder.path):
                return int(state.supervisor["pid"])
        return None

    def left(self) -> list[psutil.Process]:
        """Those that were found and are still there."""
        return [process for process in self._found if _is_there(process)]

    def ask(self, processes: list[psutil.Process], state: State | None) -> dict[psutil.Process, Ended]:
        """Ask processes to end, each one once; gives those that had not been asked before."""
        new = {process: _named(process) for process in processes if process not in self._asked}
        trainer = self._trainer(state)
        group = None
        if os.name == "posix" and trainer is not None and any(process.pid == trainer for process in new):
            # All of the group at once: a launcher that hears of its child's end before its own would report it.
            with suppress(OSError):
                supervisor.signal_group(trainer, signal.SIGTERM)
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
