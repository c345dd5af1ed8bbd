"""Jobs side by side when they are done: the settings in which they differ, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from cinderlora.errors import RunNotFound
from cinderlora.events import Event, Failed, Finished, Progress, SampleSaved
from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.problems import Diagnosis
from cinderlora.queues.entries import Entry
from cinderlora.queues.freezing import job_of
from cinderlora.running.base import RunBase
from cinderlora.running.folder import RunFolder
from cinderlora.types import SETTINGS, Job, Plan, Result

if TYPE_CHECKING:
    from cinderlora.registry import Registry

__all__ = ["Outcome", "Sample", "differing", "outcomes"]


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
    loss: float | None = None
    seconds: float | None = None
    told: dict[str, Any] = {}
    samples = []
    for event in _heard(entry, registry):
        match event:
            case Progress(loss=known):
                loss = known
            case SampleSaved(path=path, step=step, index=index):
                samples.append(Sample(path, step, index))
            case Finished(result=result):
                told["result"] = result
                seconds = result.seconds
            case Failed(diagnosis=diagnosis):
                told["diagnosis"] = diagnosis
    if seconds is None and entry.ended is not None and entry.started is not None:
        seconds = entry.ended - entry.started
    return Outcome(entry=entry, settings=settings, loss=loss, seconds=seconds, samples=samples, **told)


def _heard(entry: Entry, registry: Registry | None) -> Iterable[Event]:
    """What the run has told so far."""
    if entry.run is None:
        return
    try:
        follower = RunBase(RunFolder(entry.run), registry=registry)._own_follower
    except RunNotFound:
        return
    yield from follower.poll()
    while follower.is_behind:
        yield from follower.poll()
