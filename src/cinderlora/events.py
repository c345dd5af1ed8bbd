"""What a run can tell you: frozen, `match`-able, the same for every follower.

Every event has a `seq`, its place in the run's `output.log` (byte offset x 1024, plus a counter), so that it is the
same whoever reads the log and whenever, and a `time` (seconds since the epoch) that only a live follower knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from attrs import field, frozen

from cinderlora.frozendict import FrozenDict
from cinderlora.problems import Diagnosis
from cinderlora.types import Result

__all__ = [
    "Activity",
    "CheckpointSaved",
    "Event",
    "Failed",
    "Finished",
    "Log",
    "Phase",
    "Progress",
    "SampleSaved",
    "Started",
    "Stopped",
    "Warned",
]


@frozen
class Event:
    """What all events have. `seq` is None for what depends on the clock and has no place in the log (a stall)."""

    seq: int | None = field(default=None, kw_only=True)
    time: float | None = field(default=None, kw_only=True)


@frozen
class Started(Event):
    """The trainer was started; always the first event of a followed run."""

    name: str
    model_type: str
    output: Path
    rehearsal: bool = False
    first_step: int = 0
    """Steps that earlier runs had done when this one resumed; 0 otherwise."""


@frozen
class Phase(Event):
    """The trainer turned to something else.

    `name` is one of loading, caching_latents, caching_text_encoders, training, sampling, saving; an adapter may add
    its own. While sampling, `step` or `epoch` says for which.
    """

    name: str
    step: int | None = None
    epoch: int | None = None


@frozen
class Activity(Event):
    """A bar other than the training bar: caching, sampling, validation. `total` is None where the bar has none."""

    label: str
    done: int
    total: int | None


@frozen
class Progress(Event):
    """The training bar: comes whenever its step or its loss changes.

    `loss` is the trainer's moving average as last printed (None before the first; may be NaN),
    `seconds_per_step` the trainer's own smoothed rate, `eta` the seconds left at that rate, `epoch` counts from 1.
    """

    step: int
    total: int
    loss: float | None = None
    seconds_per_step: float | None = None
    eta: float | None = None
    epoch: int | None = None
    epochs: int | None = None


class _Unlocked(Progress):
    """A `Progress` as long as it can be written to."""

    __slots__ = ()
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__  # CPython stores quickly only where both are object's


def quick_progress(
    step: int,
    total: int,
    loss: float | None,
    seconds_per_step: float | None,
    eta: float | None,
    epoch: int | None = None,
    epochs: int | None = None,
    seq: int | None = None,
) -> Progress:
    """As `Progress(...)`, in a third of the time, which else were the larger part of reading a refresh of the bar."""
    event: Any = object.__new__(_Unlocked)
    event.seq = seq
    event.time = None
    event.step = step
    event.total = total
    event.loss = loss
    event.seconds_per_step = seconds_per_step
    event.eta = eta
    event.epoch = epoch
    event.epochs = epochs
    event.__class__ = Progress
    return cast("Progress", event)


@frozen
class SampleSaved(Event):
    """A sample picture lies on disk. `index` is its prompt's place in the prompt file, from 0."""

    path: Path
    step: int
    index: int


@frozen
class CheckpointSaved(Event):
    """A LoRA was saved, on the way (`step` as in its name) or at the end (the last step)."""

    path: Path
    step: int | None = None


@frozen
class Warned(Event):
    """Something a person should know of while the run goes on: `nan_loss`, `stalled`, `plugin_failed`, ..."""

    code: str
    message: str
    params: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)


@frozen
class Log(Event):
    """A line of the trainer's output that is not a bar, wrapping undone. `level` where the trainer printed one."""

    text: str
    level: str | None = None


@frozen
class Finished(Event):
    """The LoRA exists, is complete and finite, and has learned something. Always the last event, where it comes."""

    result: Result


@frozen
class Failed(Event):
    """The run ended without a usable LoRA. Always the last event, where it comes."""

    diagnosis: Diagnosis
    exit_code: int | None = None


@frozen
class Stopped(Event):
    """Somebody stopped the run. `by` is who, as they called themselves. Always the last event, where it comes."""

    by: str
