"""What the two faces of a run, the async and the blocking one, have in common. Blocking, but brief."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from cinderlora.errors import RunNotFound, StillRunning, TrainingFailed, TrainingStopped
from cinderlora.events import CheckpointSaved, Event, Failed, Finished, Progress, Stopped
from cinderlora.running.devices import placed, recorded_gpus
from cinderlora.running.folder import RunFolder, StateName
from cinderlora.running.folding import Status, fold_all
from cinderlora.running.follow import Follower
from cinderlora.running.guardian import Guardian
from cinderlora.running.starting import begin, default_runs_folder
from cinderlora.running.tail import Figures, last_figures
from cinderlora.types import Job, Plan, Result, Settings

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.gpu import Gpu
    from cinderlora.history.losses import LossCurve
    from cinderlora.problems import Problem
    from cinderlora.registry import Registry
    from cinderlora.trainers import Trainer

__all__ = ["RunBase"]


class RunBase:
    """One run: where it lies, how it stands, what came of it."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        registry: Registry | None = None,
        since: int | None = None,
        live: bool = False,
        adapters: dict[str, Adapter] | None = None,
    ) -> None:
        self._folder = folder
        self._adapters = {} if adapters is None else adapters  # those of a list have them in common
        self._registry = registry
        self._since = since
        self._live = live

    @classmethod
    def at(cls, folder: Path | str, *, registry: Registry | None = None, since: int | None = None) -> Self:
        """The run in a folder; raises `RunNotFound`."""
        run = cls(RunFolder(Path(folder).expanduser()), registry=registry, since=since)
        run._guardian.is_lost()
        return run

    @classmethod
    def all_in(
        cls,
        folder: Path | str | None,
        *,
        state: StateName | Collection[StateName] | None = None,
        model_type: str | None = None,
        name: str | None = None,
        since: datetime | float | None = None,
        limit: int | None = None,
        registry: Registry | None = None,
    ) -> list[Self]:
        """The runs in a folder of runs that are meant, newest first."""
        from cinderlora.running.listing import run_folders, selected

        path = Path(folder).expanduser() if folder is not None else default_runs_folder()
        found = selected(run_folders(path), state=state, model_type=model_type, name=name, since=since, limit=limit)
        adapters: dict[str, Adapter] = {}
        return [cls(run, registry=registry, adapters=adapters) for run in found]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.folder.name}: {self.state}>"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def name(self) -> str:
        """The character's name."""
        return self._folder.heading.name

    @property
    def model_type(self) -> str:
        """The model type, by name."""
        return self._folder.heading.model_type

    @property
    def created(self) -> float:
        """When it was launched, in seconds since the epoch."""
        return self._folder.heading.created

    @property
    def state(self) -> StateName:
        """running, finished, failed, stopped or lost. Cheap: the log is not read."""
        return self._folder.state_name

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since the epoch; None while it runs, and where nobody recorded it."""
        return self._folder.ended

    @property
    def seconds(self) -> float | None:
        """How long it took, or has been running so far; None where nobody recorded its end."""
        return self._folder.seconds

    @property
    def figures(self) -> Figures:
        """Step, total and loss (the moving average) as the trainer's bar last said. Reads the end of the log only, and
        of a run that was listed among many and has ended, not even that a second time."""
        listed = self._folder.listed
        if listed is not None and listed.figures is not None:
            return listed.figures
        figures = last_figures(self._folder, self._adapter)
        if figures is None:
            status = self.status
            figures = Figures(status.step, status.total, status.loss)
        if listed is not None:
            listed.note(figures)
        return figures

    def losses(self) -> LossCurve:
        """The loss by step, from what the script's tracker wrote where the job asked for one, else from the bar, which
        shows a moving average: `source` says which. Reads these files or the whole log: call it in a thread from async
        code."""
        from cinderlora.history.losses import loss_curve

        return loss_curve(self._folder, self._adapter)

    @property
    def job(self) -> Job:
        """What was wanted, from the run's record: its settings are the resolved ones. Raises `ConfigError` where that
        cannot be read, and for a run whose trainer keeps no record."""
        from cinderlora.running.resuming import recorded_job

        return recorded_job(self._folder)

    @property
    def status(self) -> Status:
        """How the run stands: its events so far, folded. The first call reads the log from its start, later ones go on
        from there."""
        return self._summary.update()

    @property
    def result(self) -> Result:
        """What the training left behind; raises `TrainingFailed` (with its diagnosis), `TrainingStopped`, or
        `StillRunning` unless the run finished."""
        match self._ending():
            case Finished(result=result):
                return result
            case Failed(diagnosis=diagnosis):
                raise TrainingFailed(diagnosis)
            case Stopped(by=by):
                raise TrainingStopped("training_stopped", by=by)
        raise StillRunning("still_running", folder=str(self.folder))

    def resume_plan(self, *, steps: int | None = None, trainer: Trainer | None = None) -> Plan:
        """The plan that goes on with this run, which has ended: from its newest complete saved state, or else from the
        weights of its newest complete checkpoint. `plan.resumed_from` says from what, `plan.warnings` what will not go
        on as if nothing had been.

        `steps` are those in all, where there are to be more than the run was to have. `trainer` is the one on record
        unless given. Raises `StillRunning`; `JobRefused`, where nothing is left to do or there is nothing to go on from
        (codes `resume_done`, `nothing_to_resume`), or where the job could not be launched either. Reads files for a
        second or so: call it in a thread from async code.
        """
        from cinderlora.registry import Registry
        from cinderlora.running.resuming import plan_to_resume

        registry = Registry.from_installed() if self._registry is None else self._registry
        return plan_to_resume(self._folder, registry[self.model_type], steps=steps, trainer=trainer)

    def changes(self, *, trainer: Trainer | None = None) -> tuple[Problem, ...]:
        """What is no longer as it was when this run was launched, as warnings (codes `changed_...`): the trainer's
        commit, model files, pictures, captions, what the trainer would be told. Raises what `repeat_plan` raises."""
        return self._to_repeat(None, trainer)[1]

    def repeat_plan(self, *, name: str | None = None, trainer: Trainer | None = None) -> Plan:
        """The plan that does the same again, from the run's record alone; among its `warnings` is what has changed.

        `name` is the new LoRA's, where it is not to replace the earlier one; `trainer` is the one on record unless
        given. Raises `ConfigError`, and `JobRefused` where the job could not be launched. Reads files for a second or
        so: call it in a thread from async code.
        """
        return self._to_repeat(name, trainer)[0]

    def _to_repeat(self, name: str | None, trainer: Trainer | None) -> tuple[Plan, tuple[Problem, ...]]:
        from cinderlora.history.repeating import plan_to_repeat
        from cinderlora.registry import Registry

        registry = Registry.from_installed() if self._registry is None else self._registry
        return plan_to_repeat(self._folder, registry[self.model_type], name=name, trainer=trainer)

    def _begin_repeated(
        self,
        name: str | None,
        trainer: Trainer | None,
        runs: Path | str | None,
        configs: Path | str | None,
        gpus: Sequence[Gpu] | None,
    ) -> Path:
        return self._begin_beside(self.repeat_plan(name=name, trainer=trainer), runs, configs, gpus)

    def _begin_beside(
        self, plan: Plan, runs: Path | str | None, configs: Path | str | None, gpus: Sequence[Gpu] | None
    ) -> Path:
        """Start a plan that follows from this run, on as many GPUs."""
        plan = placed(plan, gpus if gpus is not None else recorded_gpus(self._folder.launch.stages[-1]))
        return begin(plan, Path(runs) if runs else self.folder.parent, Path(configs) if configs else None)

    def _until_saved(self) -> _UntilSaved:
        """Raises `StillRunning` where no checkpoint is due any more. Reads the log, as `status` does."""
        summary = _Summary(self._folder, Follower(self._folder, self._adapter))
        status, settings, before = summary.update(), self._folder.settings(), self._folder.launch.first_step
        step = (status.step or before) - before
        total = None if status.total is None else status.total - before
        if status.state == "running" and settings is not None and not is_save_due(settings, step, total):
            raise StillRunning("no_checkpoint_due", run=self.folder.name, folder=str(self.folder), steps=status.total)
        return _UntilSaved(summary.follower)

    def _begin_resumed(
        self,
        steps: int | None,
        trainer: Trainer | None,
        runs: Path | str | None,
        configs: Path | str | None,
        gpus: Sequence[Gpu] | None,
    ) -> Path:
        return self._begin_beside(self.resume_plan(steps=steps, trainer=trainer), runs, configs, gpus)

    def _ending(self) -> Event | None:
        if self._own_follower.ending is not None:
            return self._own_follower.ending
        if self._guardian.is_over():
            self._summary.update()
        return self._summary.follower.ending

    @cached_property
    def _guardian(self) -> Guardian:
        return Guardian(self._folder)

    @property
    def _adapter(self) -> Adapter:
        if self.model_type not in self._adapters:
            self._adapters[self.model_type] = _adapter_for(self.model_type, self._registry)
        return self._adapters[self.model_type]

    @cached_property
    def _own_follower(self) -> Follower:
        """The one of the run's own iteration."""
        return Follower(self._folder, self._adapter, since=self._since, live=self._live)

    @cached_property
    def _summary(self) -> _Summary:
        return _Summary(self._folder, Follower(self._folder, self._adapter))


def is_out_of_reach(error: BaseException | None) -> bool:
    """Whether an error says that the run folder was removed. Nobody stopped that training, so it is not stopped."""
    return isinstance(error, RunNotFound) and error.code == "run_removed"


def is_save_due(settings: Settings, step: int, total: int | None) -> bool:
    """Whether a training saves a checkpoint between a step and its end, as far as its settings tell. Steps are counted
    as the trainer does, from 0 where it resumed."""
    if any(settings.extra.get(key) for key in ("save_every_n_epochs", "save_n_epoch_ratio")):
        return True
    if not settings.save_every:
        return False
    return total is None or (step // settings.save_every + 1) * settings.save_every < total


class _UntilSaved:
    """Follows a run from now on, until it has saved a checkpoint, and what belongs to that, and has gone on."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._saved = False

    def poll(self) -> bool:
        """Whether it has, or has ended; to be asked until then."""
        for event in self._follower.poll():
            if isinstance(event, CheckpointSaved):
                self._saved = True
            elif self._saved and isinstance(event, Progress):
                return True  # its bar moved on: states and samples of that step are written, too
        return self._follower.ending is not None


class _Summary:
    """The status of a run, kept up to date by a follower of its own: iterating takes nothing away from it."""

    def __init__(self, folder: RunFolder, follower: Follower) -> None:
        self.follower = follower
        self._folder = folder
        launch = folder.launch
        self._status = Status(folder=folder.path, name=launch.name, model_type=launch.model_type, total=launch.steps)

    def update(self) -> Status:
        self._status = fold_all(self._status, self.follower.poll())
        while self.follower.is_behind:
            self._status = fold_all(self._status, self.follower.poll())
        if self.follower.ending is not None:
            # Of a run that nobody saw ending, the last event is `Failed`: there is no usable LoRA.
            self._status = attrs.evolve(self._status, state=self._folder.state_name)
        return self._status


def _adapter_for(model_type: str, registry: Registry | None) -> Adapter:
    """The adapter for a run. The run of a type that is no longer installed is read by the core's own parser."""
    from cinderlora.adapter import Adapter
    from cinderlora.errors import UnknownName
    from cinderlora.registry import Registry
    from cinderlora.types import ModelType

    registry = Registry.from_installed() if registry is None else registry
    try:
        return registry[model_type]
    except UnknownName:
        kind = ModelType(name=model_type, title=model_type, script="", network_module="", components=())
        return Adapter(registry, kind, "cinderlora")
