"""Works off a queue: starts what waits where there is room, and puts on record how it ended. One process per queue.

Everything it knows is on disk, and every look begins there: what it does after a crash is what it does always. Before a
run is started, the entry says so, with the id that the run will have. So whoever comes next finds out whether there is
such a run, and nothing is started twice:

    waiting ── intent: "starting", run_id ── run folder with that id ── "running", run ── as the run ended
"""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from contextlib import suppress
from pathlib import Path

import attrs

from cinderlora.errors import CinderloraError, RunNotFound
from cinderlora.problems import Problem
from cinderlora.queues.base import put_in, retried
from cinderlora.queues.entries import Entry, EntryState, Gpu, in_order
from cinderlora.queues.freezing import Frozen, freeze
from cinderlora.queues.slots import free_slot, machine_gpus
from cinderlora.queues.store import Store
from cinderlora.running import supervisor
from cinderlora.running.devices import placed
from cinderlora.running.folder import RunFolder
from cinderlora.running.guardian import Guardian
from cinderlora.running.starting import begin, begin_again
from cinderlora.types import Plan

__all__ = ["QueueSupervisor"]

_POLL = 0.05  # seconds between two looks: most of what the next job waits for
_AGAIN = 1.0  # seconds until something is tried again that went wrong
_LOG_LIMIT = 1 << 20  # bytes

_LORA_TAKEN = "launch_lora_taken"
"""A run that writes the same LoRA has not ended: the job keeps its place, others come first."""

_NOT_THE_JOBS_FAULT = {"disk_full", "launch_runs_folder", "launch_supervisor"}
"""Codes of failures that every other job would meet as well: the queue pauses, and the job keeps its place."""


class QueueSupervisor:
    """Holds the queue's lock, whose file descriptor it is given."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._store = Store(folder)
        self._machine: tuple[Gpu, ...] | None = None
        self._runs: dict[int, tuple[RunFolder, Guardian]] = {}
        self._not_before: dict[int, float] = {}
        self._complaint = ""

    def run(self) -> None:
        """Work until nothing is left to do, or somebody removes the queue."""
        cleaned = False
        while self._folder.is_dir():
            try:
                if not cleaned:
                    with self._store.changing():
                        self._store.clean_up()
                    cleaned = True
                if not self._look() and self._is_done():
                    return
                time.sleep(_POLL)
            except Exception:  # whatever it is, the other jobs are to be run, and this one is not to be lost
                self._complain(traceback.format_exc())
                time.sleep(_AGAIN)

    def _look(self) -> bool:
        """Do what there is to do; says whether something is under way or can be started."""
        entries = self._store.entries()
        for entry in entries.values():
            if entry.state == "starting":
                self._go_on_starting(entry)
            elif entry.state == "running":
                self._look_at(entry)
        while self._start_next():
            pass
        return any(entry.is_under_way for entry in self._store.entries().values())

    def _is_done(self) -> bool:
        """Whether nothing is left to do; if so, the lock is given up, while nobody can add anything."""
        with self._store.changing():
            entries = self._store.entries().values()
            if any(entry.is_under_way for entry in entries):
                return False
            if self._waiting():
                if self._room() is not None:
                    return False
                # Nothing has a GPU, and there still are not enough.
                settings = self._store.settings()
                params = {"gpus": list(self._machine or ()), "per_job": settings.gpus_per_job}
                problem = Problem("queue_gpus_few", params)
                self._store.write_settings(attrs.evolve(settings, paused=True, problem=problem))
            os.close(self._lock)
            return True

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _waiting(self) -> list[Entry]:
        """What is to be started, in order."""
        settings = self._store.settings()
        if settings.paused:
            return []
        return in_order((e for e in self._store.entries().values() if e.state == "waiting"), settings.order)

    def _next(self) -> Entry | None:
        now = time.monotonic()
        return next((entry for entry in self._waiting() if self._not_before.get(entry.id, now) <= now), None)

    def _room(self) -> tuple[Gpu, ...] | None:
        """The GPUs that a job would get now."""
        settings = self._store.settings()
        if self._machine is None:
            self._machine = machine_gpus()
        taken = [entry.gpus for entry in self._store.entries().values() if entry.is_under_way]
        return free_slot(settings.gpus, settings.gpus_per_job, self._machine, taken)

    def _start_next(self) -> bool:
        """Start the next job, if there is one and there is room for it."""
        if self._next() is None or self._room() is None:
            return False
        with self._store.changing():
            entry, gpus = self._next(), self._room()
            if entry is None or gpus is None:
                return False
            entry = attrs.evolve(entry, state="starting", run_id=os.urandom(8).hex(), gpus=gpus, problem=None)
            self._store.write(entry)
        self._start(entry)
        return True

    def _start(self, entry: Entry) -> None:
        """Start the run of an entry, which has none."""
        try:
            frozen = Frozen.read(self._store.plan_text(entry.id))
        except (OSError, ValueError) as error:
            self._not_started(entry, _problem(error))
            return
        problem = frozen.problem()
        if problem is not None:
            self._not_started(entry, problem)
            return
        try:
            folder = begin(placed(frozen.plan, entry.gpus or None), entry.runs, entry.configs, entry.run_id)
        except Exception as error:  # one job that cannot be started must not keep the others waiting
            if _run_folder(entry) is None:
                self._not_started(entry, _problem(error))
            return
        self._started(entry, RunFolder(folder))

    def _go_on_starting(self, entry: Entry) -> None:
        """Find out what became of a start that somebody was killed in, and go on from there."""
        folder = _run_folder(entry)
        if folder is None:
            for unfinished in entry.runs.glob(f".*.{entry.run_id}"):
                shutil.rmtree(unfinished, ignore_errors=True)
            self._start(entry)
        elif _was_started(folder):
            self._started(entry, folder)
        elif not supervisor.is_supervised(str(folder.path)):
            self._start_laid_out(entry, folder)

    def _start_laid_out(self, entry: Entry, folder: RunFolder) -> None:
        try:
            plan = Frozen.read(self._store.plan_text(entry.id)).plan
            begin_again(folder, plan)
        except Exception as error:
            # A supervisor that was on its way all the time may have been the first.
            if _was_started(folder) or supervisor.is_supervised(str(folder.path)):
                return
            shutil.rmtree(folder.path, ignore_errors=True)
            self._not_started(entry, _problem(error))
        else:
            self._started(entry, folder)

    def _started(self, entry: Entry, folder: RunFolder) -> None:
        state = folder.state()
        started = state.started if state is not None else time.time()
        with self._store.changing():
            self._store.write(attrs.evolve(entry, state="running", run=folder.path, started=started))

    def _not_started(self, entry: Entry, problem: Problem) -> None:
        back = attrs.evolve(entry, state="waiting", run_id=None, gpus=(), problem=problem)
        if problem.code == _LORA_TAKEN:
            self._not_before[entry.id] = time.monotonic() + _AGAIN
            with self._store.changing():
                self._store.write(back)
        elif problem.code in _NOT_THE_JOBS_FAULT:
            with self._store.changing():
                self._store.write_settings(attrs.evolve(self._store.settings(), paused=True, problem=problem))
                self._store.write(back)
        else:
            self._end(entry, "failed", time.time(), problem)

    # ---- ending -----------------------------------------------------------------------------------------------------

    def _look_at(self, entry: Entry) -> None:
        """Put the end of a run on record, once it has ended."""
        try:
            if entry.run is None:
                raise RunNotFound("run_not_found", folder="")
            if entry.id not in self._runs:
                folder = RunFolder(entry.run)
                self._runs[entry.id] = folder, Guardian(folder)
            folder, guardian = self._runs[entry.id]
            if not guardian.is_over():
                return
            state, name = folder.state(), folder.state_name
        except RunNotFound as error:
            self._end(entry, "lost", time.time(), Problem(error.code, error.params))
            return
        ended = state.ended if state is not None and state.ended is not None else time.time()
        self._end(entry, "lost" if name == "running" else name, ended, None)

    def _end(self, entry: Entry, state: EntryState, ended: float, problem: Problem | None) -> None:
        self._runs.pop(entry.id, None)
        settings = self._store.settings()
        again: tuple[Plan, Entry] | None = None
        if state == "failed" and entry.run is not None and settings.retry_out_of_memory and not entry.changes:
            again, problem = self._another_try(entry)
        with self._store.changing():
            if self._store.entry(entry.id) is None:
                return  # somebody has removed it
            if again is not None:
                # The new entry first: where only this is done, it is found when the end is put on record again.
                plan, other = again
                if not any(e.retry_of == entry.id for e in self._store.entries().values()):
                    other = attrs.evolve(other, id=self._store.new_id())
                    put_in(self._store, other, freeze(plan).text(), self._store.settings(), first=True)
            elif state in {"failed", "lost"} and settings.stop_on_failure:
                because = Problem("queue_paused_by_failure", {"entry": entry.id, "name": entry.name})
                self._store.write_settings(attrs.evolve(self._store.settings(), paused=True, problem=because))
            self._store.write(attrs.evolve(entry, state=state, ended=ended, problem=problem))

    def _another_try(self, entry: Entry) -> tuple[tuple[Plan, Entry] | None, Problem | None]:
        """What to run instead of a job that ran out of memory; or why there is nothing."""
        from cinderlora.queues.retrying import plan_with_advice

        try:
            frozen = Frozen.read(self._store.plan_text(entry.id))
            problem = frozen.problem()
            found = plan_with_advice(entry, frozen) if problem is None else None
        except Exception as error:  # plugins take part in it
            why = f"{type(error).__name__}: {error}"
            return None, Problem("queue_no_retry", {"why": why})
        if found is None:
            return None, problem
        plan, changes = found
        return (plan, attrs.evolve(retried(entry, 0), changes=changes, steps=plan.steps)), None

    # ---- what went wrong --------------------------------------------------------------------------------------------

    def _complain(self, text: str) -> None:
        """Leave a word where somebody may look for it, once for each cause."""
        if text == self._complaint:
            return
        self._complaint = text
        with suppress(OSError):
            path = self._folder / "supervisor.log"
            mode = "w" if path.exists() and path.stat().st_size > _LOG_LIMIT else "a"
            with path.open(mode, encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _problem(error: Exception) -> Problem:
    if isinstance(error, CinderloraError):
        return Problem(error.code, error.params)
    return Problem("queue_not_started", {"why": f"{type(error).__name__}: {error}"})


def _run_folder(entry: Entry) -> RunFolder | None:
    """The run folder that has the entry's id, if there is one."""
    with suppress(OSError):
        for path in entry.runs.iterdir():
            if not path.name.startswith(".") and f"-{entry.name}-{entry.model_type}" in path.name:
                with suppress(OSError, ValueError, RunNotFound):
                    record = json.loads((path / supervisor.LAUNCH).read_text(encoding="utf-8"))
                    if isinstance(record, dict) and record.get("id") == entry.run_id:
                        return RunFolder(path)
    return None


def _was_started(folder: RunFolder) -> bool:
    return (folder.path / supervisor.STATE).exists()
