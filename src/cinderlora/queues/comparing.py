"""Jobs side by side when they are done: the settings in which they differ, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from cinderlora.errors import RunNotFound
from cinderlora.events import CheckpointSaved, Event, Failed, Finished, Progress, SampleSaved, Stopped
from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.problems import Diagnosis
from cinderlora.queues.entries import Entry
from cinderlora.queues.freezing import job_of
from cinderlora.running.base import RunBase
from cinderlora.running.folder import RunFolder
from cinderlora.running.follow import Follower
from cinderlora.types import SETTINGS, Job, Plan, Result

if TYPE_CHECKING:
    from cinderlora.registry import Registry

__all__ = ["Outcome", "Sample", "Told", "differing", "outcomes", "told_by"]


@frozen
class Sample:
    """A sample picture, drawn after so many steps; `index` is its prompt's place in the prompt file, from 0."""

    path: Path
    step: int
    index: int = 0


@frozen(kw_only=True)
class Outcome:
    """What came of one entry, beside others."""

    entry: Entry
    settings: Mapping[str, Any] = field(factory=FrozenDict, converter=FrozenDict)
    """Its values of the settings in which the entries differ; None where one is unset."""
    loss: float | None = None
    """The last moving average that the trainer printed."""
    seconds: float | None = None
    """How long it ran."""
    result: Result | None = None
    """Of one that finished."""
    diagnosis: Diagnosis | None = None
    """Of one that failed."""
    samples: tuple[Sample, ...] = field(default=(), converter=as_tuple)


def outcomes(entries: Sequence[tuple[Entry, Plan]], registry: Registry | None = None) -> tuple[Outcome, ...]:
    """What came of entries. Reads the logs of their runs."""
    jobs = [job_of(plan) for _, plan in entries]
    varied = differing([job for job in jobs if job is not None])
    return tuple(
        _outcome(entry, {name: getattr(job.settings, name) for name in varied} if job else {}, registry)
        for (entry, _), job in zip(entries, jobs, strict=True)
    )


def differing(jobs: Sequence[Job]) -> tuple[str, ...]:
    """The names of the settings that are not the same in all jobs, in the order of a form."""

    def values(name: str) -> list[Any]:
        return [getattr(job.settings, name) for job in jobs]

    return tuple(name for name in SETTINGS if any(value != values(name)[0] for value in values(name)))


def _outcome(entry: Entry, settings: Mapping[str, Any], registry: Registry | None) -> Outcome:
    try:
        told = Told() if entry.run is None else told_by(RunBase(RunFolder(entry.run), registry=registry))
    except RunNotFound:
        told = Told()
    seconds = told.result.seconds if told.result is not None else None
    if seconds is None and entry.ended is not None and entry.started is not None:
        seconds = entry.ended - entry.started
    return Outcome(
        entry=entry,
        settings=settings,
        loss=told.loss,
        seconds=seconds,
        result=told.result,
        diagnosis=told.diagnosis,
        samples=told.samples,
    )


@frozen(kw_only=True)
class Told:
    """What a run has told so far."""

    loss: float | None = None
    result: Result | None = None
    diagnosis: Diagnosis | None = None
    stopped_by: str | None = None
    samples: tuple[Sample, ...] = field(default=(), converter=as_tuple)
    checkpoints: tuple[Path, ...] = field(default=(), converter=as_tuple)
    ram_peak_bytes: int | None = None
    vram_peak_bytes: int | None = None


def told_by(run: RunBase) -> Told:
    """What a run has told so far. Reads its log."""
    told: dict[str, Any] = {}
    samples: list[Sample] = []
    checkpoints: dict[Path, None] = {}
    for event in _heard(run):
        match event:
            case Progress(loss=known):
                told["loss"] = known
            case SampleSaved(path=path, step=step, index=index):
                samples.append(Sample(path, step, index))
            case CheckpointSaved(path=path):
                checkpoints[path] = None
            case Finished(result=result):
                told["result"] = result
            case Failed(diagnosis=diagnosis):
                told["diagnosis"] = diagnosis
            case Stopped(by=by):
                told["stopped_by"] = by
    state = run._folder.state()
    if state is not None:
        told |= {"ram_peak_bytes": state.max_rss_bytes, "vram_peak_bytes": state.max_vram_bytes}
    return Told(samples=samples, checkpoints=checkpoints, **told)


def _heard(run: RunBase) -> Iterable[Event]:
    follower = Follower(run._folder, run._adapter)
    yield from follower.poll()
    while follower.is_behind:
        yield from follower.poll()
