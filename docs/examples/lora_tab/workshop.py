"""What the tab can do: data sets, models, checks, the queue, runs and the installation. It draws nothing.

Trainings live in their run folders and in the queue, so this keeps only what can be read again at any time. Browsers
share one workshop; its methods may be called from any thread.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import anyio

import cinderlora
from cinderlora import Adapter, CinderloraError, Entry, Job, JobRefused, ModelLibrary, Problem, Report, sync
from cinderlora.dataset import DatasetEntry
from cinderlora.demo import write_dataset
from cinderlora.sd_scripts.installing import Installed, InstallStep, install
from cinderlora.trainers import Trainer

from .story import Story

HISTORY = 40  # runs that the history lists
STORIES = 8  # runs that are kept in memory
FRESH = 0.4  # seconds that all browsers share one look at the queue and the runs


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders that the tab works in. Nothing outside of them is read for a browser."""

    datasets: Path
    output: Path
    models: Path | None = None
    runs: Path | None = None
    queue: Path | None = None
    sd_scripts: Path | None = None
    sd_scripts_python: Path | None = None
    allowed: tuple[Path, ...] = ()
    """Further folders that data sets may lie in."""
    output_prefix: str | None = None
    """What the names of LoRAs begin with; the preset's or "cg_" where unset."""


@dataclass(frozen=True)
class Board:
    """The queue and the runs at one moment."""

    entries: Mapping[int, Entry]
    runs: Mapping[Path, sync.Run]
    halted: bool
    problem: Problem | None

    @property
    def current(self) -> Path | None:
        """The run to show to somebody who chose none: the one that goes on, or else the newest."""
        goes_on = (folder for folder, run in self.runs.items() if run.state == "running")
        return next(goes_on, next(iter(self.runs), None))


class Workshop:
    """Everything behind the tab. `registry` is for programs that registered plugins in code."""

    def __init__(self, places: Places, registry: cinderlora.Registry | None = None, *, rehearsal: bool = False) -> None:
        self.places = places
        self.registry = cinderlora.Registry.from_installed() if registry is None else registry
        self.rehearsal = rehearsal
        self.installation: InstallStep | Installed | Problem | None = None
        self._board: tuple[float, Board] | None = None
        self._stories: dict[Path, Story] = {}
        self.pictures = tempfile.TemporaryDirectory(prefix="lora-tab-")
        self._lock = Lock()

    @property
    def queue(self) -> sync.Queue:
        return sync.Queue(self.places.queue, registry=self.registry)

    # ---- what can be chosen ----

    def datasets(self) -> dict[str, DatasetEntry]:
        return {str(entry.path): entry for entry in cinderlora.list_datasets(self.places.datasets)}

    def draw_demo(self) -> Path:
        return write_dataset(self.places.datasets / "elena")[0].parent

    def models(self, adapter: Adapter) -> ModelLibrary:
        return adapter.scan_models(self.places.models or ())

    # ---- from a wish, which is what the form says, to a training ----

    def check(self, wish: Mapping[str, Any]) -> Report:
        """What is wrong with a wish, and what it will take."""
        try:
            adapter, job, trainer = self._request(wish)
            return adapter.check(job, trainer, runs=self.places.runs)
        except JobRefused as refusal:
            return Report(refusal.problems)
        except CinderloraError as error:
            return Report([Problem(error.code, error.params)])

    def start(self, wish: Mapping[str, Any]) -> Entry:
        """Put a training at the end of the queue, which starts it when its turn comes."""
        self.check(wish).raise_for_errors()
        return self._add(*self._request(wish)[1:])

    def _request(self, wish: Mapping[str, Any]) -> tuple[Adapter, Job, Trainer]:
        adapter = self.registry[wish["model_type"]]
        known = {str(file.path): file for file in self.models(adapter).files}
        job = adapter.job(
            name=wish["name"].strip(),
            trigger=wish["trigger"].strip(),
            dataset=self._allowed_dataset(wish["dataset"].strip()),
            output=self.places.output,
            preset=wish["preset"],
            models={role: known[path] for role, path in wish["models"].items() if path in known},
            **({"output_prefix": self.places.output_prefix} | wish["settings"]),
        )
        return adapter, job, self._trainer(adapter, rehearsal=wish["rehearsal"])

    def _trainer(self, adapter: Adapter, *, rehearsal: bool) -> Trainer:
        """The trainer of a model type. One that is not there is for `check` to tell, beside all else."""
        kind = adapter.trainer_type
        if rehearsal:
            return kind.rehearsal()
        is_ours = kind.kind == cinderlora.SdScripts.kind
        path, python = (self.places.sd_scripts, self.places.sd_scripts_python) if is_ours else (None, None)
        try:
            return kind.find(path, python=python)
        except cinderlora.TrainerNotFound as error:
            return kind(error.params["path"], python=python)

    def _allowed_dataset(self, text: str) -> Path:
        if not text:
            raise JobRefused((Problem("dataset_missing"),))
        roots = [self.places.datasets, *self.places.allowed]
        if (path := inside(text, roots)) is None:
            # Whether there is such a folder outside of them is nothing that a browser may ask.
            params = {"path": text, "folders": ", ".join(map(str, roots))}
            raise JobRefused((Problem("folder_not_allowed", params, message=f"{text!r} is not allowed."),))
        return path

    def _add(self, wanted: Job | cinderlora.Plan, trainer: Trainer | None = None) -> Entry:
        entry = self.queue.add(wanted, trainer, runs=self.places.runs)
        self._board = None
        return entry

    # ---- what goes on ----

    def board(self) -> Board:
        with self._lock:
            if self._board is None or time.monotonic() - self._board[0] > FRESH:
                queue = self.queue  # asked first: the runs of its entries are among those that are listed then
                entries, settings = {entry.id: entry for entry in queue.entries()}, queue.settings
                runs = sync.runs(self.places.runs, limit=HISTORY, registry=self.registry)
                halted = settings.paused or not (queue.is_running or all(e.is_ended for e in entries.values()))
                self._board = time.monotonic(), Board(entries, {r.folder: r for r in runs}, halted, settings.problem)
            return self._board[1]

    def story(self, folder: Path) -> Story:
        """A run as it has been told so far: one follower for all browsers."""
        with self._lock:
            story = self._stories.pop(folder, None) or Story(folder, self.registry)
            self._stories[folder] = story  # whoever was asked for last is the last to go
            while len(self._stories) > STORIES:
                self._stories.pop(next(iter(self._stories))).events.close()
            return story

    def picture(self, sample: Path) -> Path | None:
        """A copy of a sample for browsers; None for what is no picture, or lies where no samples of ours do."""
        from PIL import Image

        if (path := inside(sample, [self.places.output, *self.board().runs])) is None:
            return None
        with self._lock, suppress(OSError, ValueError, SyntaxError):  # as Pillow says that it is none
            identity = f"{path}{path.stat().st_mtime_ns}"
            copy = Path(self.pictures.name) / f"{sha256(identity.encode()).hexdigest()}.png"
            if not copy.exists():
                with Image.open(path) as image:
                    image.convert("RGB").save(copy)
            return copy
        return None

    def stop(self, folder: Path) -> None:
        sync.attach(folder, registry=self.registry).stop(by="web")

    def try_again(self, folder: Path) -> Entry:
        """Queue a run that failed once more, with what its diagnosis advises."""
        story, run = self.story(folder), sync.attach(folder, registry=self.registry)
        diagnosis = story.status().diagnosis
        job = run.job.evolve(**(diagnosis.changes if diagnosis else {}))
        return self._add(job, self._trainer(self.registry[run.model_type], rehearsal=story.rehearsal))

    def resume(self, folder: Path) -> Entry:
        """Queue what goes on with a run that has ended."""
        return self._add(sync.attach(folder, registry=self.registry).resume_plan())

    def install(self) -> None:
        """Begin to install sd-scripts, unless that goes on."""
        with self._lock:
            if not isinstance(self.installation, InstallStep):
                self.installation = InstallStep(name="preparing", number=1)
                Thread(target=self._install, daemon=True).start()

    def _install(self) -> None:
        tell = partial(setattr, self, "installation")
        try:
            self.installation = anyio.run(partial(install, self.places.sd_scripts, on_event=tell))
        except CinderloraError as error:
            self.installation = Problem(error.code, error.params)


def inside(path: Path | str, folders: Iterable[Path]) -> Path | None:
    """The path with all links followed, where it lies in one of the folders."""
    try:
        real = Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111 - the method fails for ~nobody
        return real if any(real.is_relative_to(os.path.realpath(folder)) for folder in folders) else None
    except (OSError, ValueError):
        return None
