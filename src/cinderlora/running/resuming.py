"""From a run that has ended to the plan that goes on with it. Blocking; reads the run folder and what the run saved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cinderlora.errors import StillRunning
from cinderlora.problems import Problem, raise_for
from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder
from cinderlora.running.guardian import Guardian
from cinderlora.types import Job, Plan, Resumption, Settings

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.trainers import Saved, Trainer

__all__ = ["plan_to_resume", "recorded_job", "recorded_trainer"]

_RECORD_LIMIT = 10.0  # seconds for a supervisor that took over to record the end
_POLL = 0.05
_SILENCE = 60.0  # seconds that a trainer may have written to a slow disk after its last line


def plan_to_resume(
    folder: RunFolder, adapter: Adapter, *, steps: int | None = None, trainer: Trainer | None = None
) -> Plan:
    """The plan that goes on with a run: from the newest complete state it saved, or else from the newest complete
    checkpoint. `steps` are those in all, where they are to be others than the run's; `trainer` is the one on record
    unless given. Raises `StillRunning`, `JobRefused`, `ConfigError`."""
    from cinderlora.serial import read_toml

    _wait_for_the_record(folder)
    job = recorded_job(folder)
    record = read_toml(folder.path / "run.toml")
    trainer = trainer or recorded_trainer(folder.path, adapter)
    raise_for(_refusals(folder, trainer))
    wanted = steps if steps is not None else _total(folder, adapter, job)
    job = job.evolve(steps=wanted)
    saved, passed_over = _to_go_on_from(folder, trainer, wanted, extends=steps is not None)
    adapter.check(job, trainer).raise_for_errors()
    resumption = Resumption(
        run=folder.path, path=saved.path, kind=saved.kind, step=folder.launch.first_step + saved.step
    )
    plan = adapter.plan(job, trainer, resumption)
    said = _warnings(resumption, passed_over, record, trainer, job)
    return attrs.evolve(plan, warnings=(*said, *plan.warnings))


def _wait_for_the_record(folder: RunFolder) -> None:
    """Raise `StillRunning` unless the run is over. One whose supervisor was killed is being recorded just now."""
    guardian = Guardian(folder)
    until = time.monotonic() + _RECORD_LIMIT
    while not guardian.is_over():
        state = folder.state()
        if state is None or supervisor.is_running(state.trainer) or time.monotonic() > until:
            raise StillRunning("resume_running", folder=str(folder.path))
        time.sleep(_POLL)


def recorded_job(folder: RunFolder) -> Job:
    """The job on record: its settings are resolved, so no preset goes under them again. Raises `ConfigError`."""
    from cinderlora.serial import read_job

    read = read_job(folder.path / "run.toml")
    return Job(
        model_type=folder.launch.model_type,
        name=folder.launch.name,
        trigger=read.get("trigger", ""),
        dataset=read.get("dataset", folder.path / "dataset"),
        output=folder.launch.publish or folder.launch.output,
        models=read["models"],
        preset=read.get("preset"),
        settings=Settings(**read["settings"]),
    )


def recorded_trainer(folder: Path, adapter: Adapter, *, python: Path | None = None) -> Trainer:
    """The trainer that a run folder has on record, with another interpreter where one is given."""
    from cinderlora.serial import read_toml

    record = read_toml(folder / "run.toml").get("trainer", {})
    if record.get("kind") == "rehearsal":
        return adapter.rehearsal()
    return adapter.trainer_type(str(record.get("path", "")), python=python or record.get("python"))


def _refusals(folder: RunFolder, trainer: Trainer) -> Iterator[Problem]:
    if trainer.is_rehearsal != folder.launch.rehearsal:
        yield Problem("resume_rehearsal")


def _total(folder: RunFolder, adapter: Adapter, job: Job) -> int:
    """The steps in all. Where epochs were asked for, how many steps these are is in the log."""
    steps = folder.launch.steps or job.settings.steps or 0
    if "max_train_epochs" not in job.settings.extra:
        return steps
    from cinderlora.events import Progress
    from cinderlora.running.follow import Follower

    follower = Follower(folder, adapter)
    while follower.ending is None:
        for event in follower.poll():
            if isinstance(event, Progress):
                steps = event.total
    return steps


# ---- what there is ---------------------------------------------------------------------------------------------------


def _to_go_on_from(folder: RunFolder, trainer: Trainer, wanted: int, *, extends: bool) -> tuple[Saved, list[Path]]:
    """What the run goes on from, and what newer there is that is not complete. A run that has all steps but no LoRA
    goes on from an earlier one: the LoRA is written at the end of a training."""
    launch, state = folder.launch, folder.state()
    found: Sequence[Saved] = ()
    if state is not None:
        ended = state.ended if state.ended is not None else _last_word(folder)
        if state.exit_code is None:
            ended += _SILENCE  # nobody saw the end: the time is that of the last line in the log
        # Where the clock was set meanwhile, the run has two times for its start and two for its end.
        took = state.seconds or 0.0
        since, until = min(state.started, ended - took), max(ended, state.started + took)
        saved = trainer.saved_in(launch.output, launch.lora, state.files, since, until)
        if saved is None:
            raise_for([Problem("resume_unsupported", {"trainer": trainer.kind})])
        found = saved or ()
    whole = [saved for saved in found if saved.complete and saved.step > 0]
    done = launch.first_step + max((saved.step for saved in whole), default=0)
    if whole and done >= wanted and (extends or folder.state_name == "finished"):
        raise_for([Problem("resume_done", {"run": folder.path.name, "done": done, "steps": wanted})])
    usable = [saved for saved in whole if launch.first_step + saved.step < wanted]
    if not usable:
        raise_for([Problem("nothing_to_resume", {"run": folder.path.name, "folder": str(launch.output)})])
    best = max(usable, key=lambda saved: (saved.kind == "state", saved.step))
    broken = [saved.path for saved in found if not saved.complete and (saved.step > best.step or saved.step == 0)]
    return best, broken


def _last_word(folder: RunFolder) -> float:
    try:
        return folder.log.stat().st_mtime
    except OSError:
        return time.time()


def _warnings(
    resumption: Resumption, passed_over: list[Path], record: Mapping[str, Any], trainer: Trainer, job: Job
) -> Iterator[Problem]:
    from cinderlora.serial import identity

    if passed_over:
        names = [path.name for path in passed_over]
        yield Problem("resume_incomplete", {"names": names, "used": resumption.path.name}, severity="warning")
    if resumption.kind == "weights":
        params = {"checkpoint": resumption.path.name, "step": resumption.step}
        yield Problem("resume_weights_only", params, severity="warning")
    was = record.get("trainer", {}).get("commit")
    now = getattr(trainer, "commit", None)
    if was and now and was != now:
        yield Problem("resume_other_commit", {"was": was[:8], "now": now[:8]}, severity="warning")
    files = record.get("files", {})
    for role, file in job.models.items():
        if files.get(role, {}).get("size") and files[role] != identity(file):
            yield Problem("resume_model_changed", {"role": role, "path": str(file.path)}, severity="warning")
