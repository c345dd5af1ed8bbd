"""The events of a run folded into how it stands, for front ends that poll. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from cinderlora.events import (
    Activity,
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    Log,
    Phase,
    Progress,
    SampleSaved,
    Started,
    Stopped,
    Warned,
)
from cinderlora.problems import Diagnosis
from cinderlora.running.folder import StateName
from cinderlora.types import Result

__all__ = ["LOG_LINES", "Status", "fold", "fold_all"]

LOG_LINES = 200


@frozen(kw_only=True)
class Status:
    """How a run stands: everything its events have said so far, in one piece."""

    folder: Path
    name: str
    model_type: str
    state: StateName = "running"
    """running, finished, failed, stopped, or lost: it ended, and nobody was there to see how."""
    phase: str | None = None
    activity: Activity | None = None
    """The bar inside the phase, where there is one."""
    step: int | None = None
    total: int | None = None
    loss: float | None = None
    seconds_per_step: float | None = None
    eta: float | None = None
    """Seconds left, as the trainer last said."""
    epoch: int | None = None
    epochs: int | None = None
    sample: Path | None = None
    """The newest sample picture."""
    checkpoints: tuple[Path, ...] = ()
    warnings: tuple[Warned, ...] = ()
    log: tuple[str, ...] = field(default=(), repr=False)
    """The last lines of the log, at most 200."""
    seq: int = 0
    """The last event's: to go on from, with `attach(folder, since=status.seq)`."""
    started: float | None = None
    """Seconds since the epoch."""
    ended: float | None = None
    result: Result | None = None
    """Of a run that finished."""
    diagnosis: Diagnosis | None = None
    """Of a run that failed."""
    stopped_by: str | None = None


def fold(status: Status, event: Event) -> Status:
    """How the run stands after one more event."""
    seq = status.seq if event.seq is None else event.seq
    match event:
        case Progress():
            return attrs.evolve(
                status,
                seq=seq,
                step=event.step,
                total=event.total,
                loss=event.loss,
                seconds_per_step=event.seconds_per_step,
                eta=event.eta,
                epoch=event.epoch,
                epochs=event.epochs,
                activity=None,
            )
        case Log():
            return attrs.evolve(status, seq=seq, log=(*status.log[1 - LOG_LINES :], event.text))
        case Phase():
            return attrs.evolve(status, seq=seq, phase=event.name, activity=None)
        case Activity():
            return attrs.evolve(status, seq=seq, activity=event)
        case SampleSaved():
            return attrs.evolve(status, seq=seq, sample=event.path)
        case CheckpointSaved():
            return attrs.evolve(status, seq=seq, checkpoints=(*_without(status.checkpoints, event.path), event.path))
        case Warned():
            return attrs.evolve(status, seq=seq, warnings=(*status.warnings, event))
        case Started():
            return attrs.evolve(status, seq=seq, started=event.time)
        case Finished():
            return _over(status, event, "finished", result=event.result)
        case Failed():
            return _over(status, event, "failed", diagnosis=event.diagnosis)
        case Stopped():
            return _over(status, event, "stopped", stopped_by=event.by)
    return attrs.evolve(status, seq=seq)


def fold_all(status: Status, events: list[Event]) -> Status:
    """As `fold` over all of them. Of several `Progress`, which a long log has by the million, the last says it all."""
    last = next((n for n in range(len(events) - 1, -1, -1) if isinstance(events[n], Progress)), 0)
    for n, event in enumerate(events):
        if n >= last or not isinstance(event, Progress):
            status = fold(status, event)
    return status


def _over(status: Status, event: Event, state: StateName, **outcome: Any) -> Status:
    seq = status.seq if event.seq is None else event.seq
    return attrs.evolve(status, seq=seq, state=state, ended=event.time, eta=None, activity=None, phase=None, **outcome)


def _without(paths: tuple[Path, ...], path: Path) -> tuple[Path, ...]:
    # sd-scripts writes the last step twice where a checkpoint falls on it.
    return tuple(p for p in paths if p != path)
