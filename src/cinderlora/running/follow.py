"""From a run folder to the events of the run: the same ones for every follower, now or next year. Blocking, in pieces.

Each look takes the length of the log, then reads the state, then the log up to that length. The supervisor writes the
other way round: that it is closing, then the log's length. So what was there before a state that did not say so is
counted, and nothing else is read before the final length is known.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from cinderlora.events import (
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    Phase,
    Progress,
    SampleSaved,
    Started,
    Stopped,
    Warned,
)
from cinderlora.markers import Marker, SamplesDue
from cinderlora.problems import Diagnosis, Problem
from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder, State
from cinderlora.running.guardian import Guardian
from cinderlora.texts import text_of
from cinderlora.types import LoraFacts, Result

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter

__all__ = ["POLL", "Follower"]

POLL = 0.04  # seconds between two looks; half of what an event may take
_CHUNK = 1 << 16  # bytes at a time: some milliseconds of parsing
# Seconds that nothing may be printed: loading SDXL is silent for half a minute on a slow disk. How long steps take is
# known, so between them less is too long, but never less than some of them take.
_STALLED, _STALLED_IN_STEPS, _STEPS = 600.0, 180.0, 20
_LARGE_LOG = 500_000_000  # bytes: a training prints some megabytes
_BEFORE_THE_END = 1020  # what is told between the log's last event and the ending is numbered from here on


class Follower:
    """Reads a run's events, from the start: `poll()` gives what is new and never waits.

    `since` leaves out what a client has seen already. `time` is set on events that are seen as they happen, and on the
    start and the end, which are on record.
    """

    def __init__(self, folder: RunFolder, adapter: Adapter, *, since: int | None = None, live: bool = False) -> None:
        self.folder = folder
        self.ending: Event | None = None
        """The last event, once it was given: there will be nothing more."""
        self.is_behind: bool = False
        """There is more to read at once."""
        self._adapter = adapter
        self._since = -1 if since is None else since
        self._live = live
        self._log = str(folder.log)
        self._stream = adapter.event_stream(first_step=folder.launch.first_step)
        self._files = _Files(folder)
        self._guardian = Guardian(folder)
        self._at: int | None = None  # bytes of the log that were read; None before the start was given
        self._state: State | None = None  # as of the last look
        self._is_large = False
        self._heard = time.monotonic()
        self._phase: str | None = None
        self._progress: Progress | None = None
        self._checkpoints: dict[Path, None] = {}
        self._samples: dict[Path, None] = {}
        self._numbered = 0

    def poll(self) -> list[Event]:
        """What is new; a piece of it at a time, so that a long log does not hold up an event loop. Raises `RunNotFound`
        where the run folder was removed."""
        if self.ending is not None or self._is_quiet():
            return []
        live = self._live
        events = [event for event in self._look() if event.seq is None or event.seq > self._since]
        if not live:
            return events
        now = time.time()
        return [event if event.time is not None else attrs.evolve(event, time=now) for event in events]

    def _is_quiet(self) -> bool:
        """Whether nothing has happened since the last look: nearly all looks find that."""
        return (
            self._state is not None
            and self._state.ended is None
            and not self.is_behind
            and self._live
            and self._log_length() == self._at
            and self.folder.state() is self._state
            and not self._guardian.is_lost()
            and time.monotonic() - self._heard <= self._patience()
        )

    def _look(self) -> Iterator[Event]:
        there = self._log_length()
        state = self._state = self.folder.state()
        lost = (state is None or state.ended is None) and self._guardian.is_lost()
        if state is None:
            if lost:
                yield from self._never_started()
            return
        if self._at is None:
            yield self._started(state)
            for n, problem in enumerate(self.folder.launch.warnings, 1):
                yield Warned(problem.code, str(problem), problem.params, seq=n, time=state.started)
            self._at = 0
        if state.ended is not None:
            there = state.log_length
        elif state.closing and not lost:
            there = self._at
        data = self._read(self._at, there)
        self._at += len(data)
        if data:
            yield from self._resolved(self._stream.feed(data), state)
            self._heard = time.monotonic()
        self.is_behind = bool(data) and self._at < there
        if self.is_behind:
            return
        if state.ended is not None or lost:
            yield from self._resolved(self._stream.close(), state)
            for n, problem in enumerate(self._problems(state)):
                seq = there * 1024 + _BEFORE_THE_END + n
                yield Warned(problem.code, str(problem), problem.params, seq=seq, time=state.ended)
            self.ending = self._ending(state, there)
            yield self.ending
        elif not self._live:
            self._live = True
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > (patience := self._patience()):
            self._heard = float("inf")  # once, until something is heard again
            yield _stalled(patience)

    def _patience(self) -> float:
        """Seconds of silence that are explained by what the trainer is at."""
        rate = self._progress.seconds_per_step if self._progress is not None else None
        return max(_STALLED_IN_STEPS, _STEPS * rate) if rate and self._phase == "training" else _STALLED

    # ---- the log ----------------------------------------------------------------------------------------------------

    def _log_length(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116 - pathlib takes as long again
        except OSError:
            return 0

    def _read(self, begin: int, end: int) -> bytes:
        if end <= begin:
            return b""
        try:
            with self.folder.log.open("rb", buffering=0) as log:
                log.seek(begin)
                return log.read(min(end - begin, _CHUNK))
        except OSError:
            return b""  # as a log that was removed

    # ---- what the log does not say ----------------------------------------------------------------------------------

    def _started(self, state: State) -> Started:
        launch = self.folder.launch
        return Started(
            launch.name,
            launch.model_type,
            launch.publish or launch.output,
            rehearsal=launch.rehearsal,
            first_step=launch.first_step,
            seq=0,
            time=state.started,
        )

    def _resolved(self, events: Iterable[Event], state: State) -> Iterator[Event]:
        """The stream's events, with its markers replaced by what is on disk or on record."""
        for event in events:
            if not self._is_large and event.seq is not None and event.seq // 1024 > _LARGE_LOG:
                self._is_large = True
                problem = Problem("log_large", {"megabytes": _LARGE_LOG // 1_000_000, "log": str(self.folder.log)})
                yield Warned(problem.code, str(problem), problem.params, seq=_LARGE_LOG * 1024 + 1023)
            match event:
                case SamplesDue():
                    for index, path in self._files.samples(event, state):
                        if path not in self._samples:
                            self._samples[path] = None
                            yield SampleSaved(path, event.step, index, seq=self._number(event))
                case Marker():
                    continue
                case CheckpointSaved():
                    saved = self._files.checkpoint(event.path.name, state)
                    if saved is not None:
                        self._checkpoints[saved] = None
                        yield attrs.evolve(event, path=saved)
                case _:
                    if isinstance(event, Progress):
                        self._progress = event
                    elif isinstance(event, Phase):
                        self._phase = event.name
                    yield event

    def _number(self, marker: Event) -> int:
        """The next number for what a marker stands for: behind all of its line's own, which end below 512."""
        line = (marker.seq or 0) // 1024 * 1024
        self._numbered = max(line + 511, self._numbered) + 1
        return self._numbered

    # ---- the ending -------------------------------------------------------------------------------------------------

    def _ending(self, state: State, length: int) -> Event:
        """How it ended, from the recorded facts."""
        seq, ended = length * 1024 + 1023, state.ended
        if state.name == "finished":
            return Finished(self._result(state), seq=seq, time=ended)
        if state.name == "stopped":
            return Stopped(state.stopped_by or "", seq=seq, time=ended)
        return Failed(self._diagnosis(state), state.exit_code, seq=seq, time=ended)

    def _problems(self, state: State) -> Iterator[Problem]:
        """What is worth knowing of how it ended, besides the ending."""
        launch = self.folder.launch
        if state.partial:
            yield Problem("files_partial", {"names": list(state.partial), "folder": str(launch.output)})
        if state.publish_problem:
            params = {"folder": str(launch.publish), "why": state.publish_problem, "output": str(launch.output)}
            yield Problem("not_published", params)
        for folder, why in state.copy_problems.items():
            yield Problem("not_copied", {"folder": folder, "why": why})

    def _in_place(self, path: Path, state: State) -> Path:
        """Where a file of the run is now: those of a resumed training are put among the earlier runs' in the end."""
        launch = self.folder.launch
        name = state.published.get(path.relative_to(launch.output).as_posix())
        return path if name is None or launch.publish is None else launch.publish / name

    def _result(self, state: State) -> Result:
        launch = self.folder.launch
        lora = launch.output / launch.lora
        return Result(
            lora=self._in_place(lora, state),
            steps=self._progress.step if self._progress else None,
            loss=self._progress.loss if self._progress else None,
            seconds=state.seconds if state.seconds is not None else _between(state),
            checkpoints=tuple(self._in_place(path, state) for path in self._checkpoints if path != lora),
            samples=tuple(self._in_place(path, state) for path in self._samples),
            copies=tuple(Path(path) for path in state.copies),
            rehearsal=launch.rehearsal,
            ram_peak_bytes=state.max_rss_bytes,
            vram_peak_bytes=state.max_vram_bytes,
        )

    def _diagnosis(self, state: State) -> Diagnosis:
        lora = state.lora if state.ended is not None else None
        failure = self._stream.failure(
            self.folder.launch.model_type,
            state.exit_code,
            lora=lora,
            settings=self.folder.settings(),
            oom_kills=state.oom_kills or 0,
            gpu_others=state.gpu_others,
        )
        found = self._adapter.diagnosis(failure)
        if state.exit_code is None and found.code in {"unknown", "killed", "no_lora_written"}:
            return Diagnosis("run_lost", {"lora": _usable(self.folder, state.lora)}, failure.lines[-5:])
        return found

    def _never_started(self) -> Iterator[Event]:
        """A folder that was laid out, and then nothing: the machine went down."""
        launch = self.folder.launch
        output = launch.publish or launch.output
        if self._at is None:
            yield Started(launch.name, launch.model_type, output, launch.rehearsal, launch.first_step, seq=0)
        self.ending = Failed(Diagnosis("run_lost"), seq=(self._at or 0) * 1024 + 1023)
        yield self.ending


def _between(state: State) -> float | None:
    """How long it took, by the clock."""
    return None if state.ended is None else max(0.0, state.ended - state.started)


def _usable(folder: RunFolder, facts: LoraFacts) -> str:
    """The LoRA's path where the file looks as it should; nobody knows whether all steps are in it."""
    return str(folder.launch.output / folder.launch.lora) if facts.good else ""


def _stalled(seconds: float) -> Warned:
    from cinderlora.gpu import load

    params = {"minutes": int(seconds / 60), "gpu": load()}
    text = text_of("stalled", params, "en")
    return Warned("stalled", f"{text.message} {text.fix}" if text else "stalled", params)


class _Files:
    """The checkpoints and samples of a run: those on record, and while it runs those on disk, but for what lay there
    before."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._output = folder.launch.output
        self._begins = Path(folder.launch.lora).stem + "_"
        self._first_step = folder.launch.first_step
        self._recorded: dict[str, list[str]] = {}
        self._record: State | None = None

    def checkpoint(self, name: str, state: State) -> Path | None:
        """A LoRA that the trainer said it saves, if it is or was there."""
        path = self._output / name
        return path if name in state.files or (state.ended is None and self._is_new(path, name)) else None

    def samples(self, due: SamplesDue, state: State) -> list[tuple[int, Path]]:
        """The pictures that are due, each with the place of its prompt."""
        # sd-scripts names them by its own count of steps, or by epochs.
        when = f"{due.step - self._first_step:06d}" if due.epoch is None else f"e{due.epoch:06d}"
        found: dict[int, Path] = {}
        for path in self._pictures(when, state):
            number = path.name.removeprefix(f"{self._begins}{when}_").partition("_")[0]
            if number.isdecimal() and due.index in {None, int(number)}:
                found.setdefault(int(number), path)
        return sorted(found.items())

    def _pictures(self, when: str, state: State) -> list[Path]:
        """The pictures of one round, by name."""
        folder = self._output / "sample"
        if state is not self._record:
            self._record, self._recorded = state, {}
            for name in sorted(state.files):
                if name.startswith(f"sample/{self._begins}"):
                    key = name.removeprefix(f"sample/{self._begins}").partition("_")[0]
                    self._recorded.setdefault(key, []).append(name.removeprefix("sample/"))
        names = set(self._recorded.get(when, ()))
        if state.ended is None:
            with suppress(OSError):
                for path in folder.iterdir():
                    is_one = path.name.startswith(f"{self._begins}{when}_")
                    is_one = is_one and path.suffix.lower() in supervisor.PICTURES
                    if is_one and self._is_new(path, f"sample/{path.name}"):
                        names.add(path.name)
        return [folder / name for name in sorted(names)]

    def _is_new(self, path: Path, name: str) -> bool:
        found = supervisor.signature(str(path))
        return found is not None and self._folder.before.get(name) != found
