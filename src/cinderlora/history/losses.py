"""The loss of a run, step by step: from what a tracker wrote where there is one, else from the bar in its log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from cinderlora.events import Progress
from cinderlora.frozendict import as_tuple
from cinderlora.history.tensorboard import Scalar, scalars
from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter

__all__ = ["LossCurve", "loss_curve"]

_CHUNK = 1 << 18  # bytes of a log at a time
_FILES = 200  # event files, and four times as many folders, looked at
_LOSS, _AVERAGE, _RATE = "loss/current", "loss/average", "lr/"
_ESTIMATED = "lr/d*lr"
"""As train_network.py calls them (`generate_step_logs`, seen on 48d368fa), and musubi-tuner, which comes of it."""


@frozen(kw_only=True)
class LossCurve:
    """The loss of a run by step. All lists are as long as `steps`, or empty where that is not known."""

    source: Literal["tracker", "bar"]
    """Where it is from: "tracker", the files that the script's tracker wrote, with the loss of each step; or "bar", the
    trainer's progress bar, which shows a moving average only."""
    steps: tuple[int, ...] = field(default=(), converter=as_tuple)
    """Ascending; the steps of earlier runs are counted where the run was resumed."""
    average: tuple[float | None, ...] = field(default=(), converter=as_tuple)
    """The moving average: over the last epoch's steps, in the first epoch over all there were."""
    loss: tuple[float | None, ...] = field(default=(), converter=as_tuple)
    """The loss of the step alone."""
    learning_rate: tuple[float | None, ...] = field(default=(), converter=as_tuple)
    """The learning rate as it was logged, after the step. Of optimizers that find their own (Prodigy, D-Adaptation),
    the rate times what they found."""

    @property
    def is_average(self) -> bool:
        """Whether nothing but the moving average is known."""
        return not self.loss


def loss_curve(folder: RunFolder, adapter: Adapter) -> LossCurve:
    """The losses of a run. Reads the tracker's files, or else the whole log; raises `RunNotFound` where the run folder
    was removed."""
    return _tracked(folder) or _printed(folder, adapter)


# ---- from the bar ------------------------------------------------------------------------------------------------


def _printed(folder: RunFolder, adapter: Adapter) -> LossCurve:
    stream = adapter.event_stream(first_step=folder.launch.first_step)
    found: dict[int, float | None] = {}
    for chunk in _log(folder):
        for event in stream.feed(chunk):
            # The last figure for a step is that step's.
            if isinstance(event, Progress) and event.step:
                found[event.step] = event.loss
    for event in stream.close():
        if isinstance(event, Progress) and event.step:
            found[event.step] = event.loss
    steps = sorted(step for step, loss in found.items() if loss is not None)
    return LossCurve(source="bar", steps=steps, average=[found[step] for step in steps])


def _log(folder: RunFolder) -> Iterator[bytes]:
    state = folder.state()
    left = state.log_length if state is not None and state.ended is not None else None
    try:
        with folder.log.open("rb") as log:
            left = os.fstat(log.fileno()).st_size if left is None else left
            while left > 0 and (data := log.read(min(left, _CHUNK))):
                left -= len(data)
                yield data
    except OSError:
        return  # as a log that was removed


# ---- from a tracker ----------------------------------------------------------------------------------------------


def _tracked(folder: RunFolder) -> LossCurve | None:
    """What TensorBoard's files of the run say; None where there are none, or none with losses."""
    found: dict[str, dict[int, float]] = {}
    for path in _event_files(folder):
        try:
            with path.open("rb") as file:
                for scalar in scalars(file):
                    _take(scalar, found)
        except OSError:
            continue
    if not found.get(_LOSS):
        return None
    first, steps = folder.launch.first_step, sorted(found[_LOSS])
    rates = sorted(tag for tag in found if tag.startswith(_RATE))
    # With several parts, each of its own rate, the first one's: sd-scripts logs lr/unet, and all by number.
    rate = next((tag for tag in rates if tag.startswith(_ESTIMATED)), None)
    rate = rate or ("lr/unet" if "lr/unet" in found else next(iter(rates), None))

    def column(tag: str | None) -> tuple[float | None, ...]:
        known = found.get(tag or "", {})
        return tuple(known.get(step) for step in steps) if known else ()

    return LossCurve(
        source="tracker",
        steps=[step + first for step in steps],
        average=column(_AVERAGE),
        loss=column(_LOSS),
        learning_rate=column(rate),
    )


def _take(scalar: Scalar, found: dict[str, dict[int, float]]) -> None:
    wanted = scalar.tag in (_LOSS, _AVERAGE) or scalar.tag.startswith(_RATE)
    if wanted and scalar.step >= 0:
        found.setdefault(scalar.tag[:100], {})[scalar.step] = scalar.value


def _event_files(folder: RunFolder) -> list[Path]:
    """The event files that are the run's, the earliest first. In a folder that several runs write into, those that its
    trainer wrote, which they have in their names."""
    settings = folder.settings()
    if settings is None:
        return []
    from cinderlora.sd_scripts.config import TRACKED

    given = settings.extra.get("logging_dir")
    if given is None and settings.extra.get("log_with") is None:
        return []
    where = folder.path / (given if isinstance(given, str) else TRACKED)
    found = sorted(_below(where))
    if where.resolve().is_relative_to(folder.path.resolve()):
        return found
    state = folder.state()
    if state is None:
        return []
    return [path for path in found if _is_of(path, state.trainer["pid"], state.started, state.ended)]


def _below(folder: Path) -> Iterator[Path]:
    """Event files in a folder and those below it; links are not followed."""
    files = 0
    for number, (here, _, names) in enumerate(os.walk(folder)):
        for name in names:
            if ".tfevents." in name and files < _FILES:
                files += 1
                yield Path(here) / name
        if number >= 4 * _FILES:
            return


def _is_of(path: Path, pid: int, started: float, ended: float | None) -> bool:
    """Whether a file was written by a process while it ran: events.out.tfevents.TIME.HOST.PID.NUMBER."""
    parts = path.name.partition(".tfevents.")[2].split(".")
    if len(parts) < 4 or not parts[0].isdecimal() or parts[-2] != str(pid) or len(parts[0]) > 12:
        return False
    slack, at = supervisor.CLOCK_SLACK, int(parts[0])
    return started - slack <= at and (ended is None or at <= ended + slack)
