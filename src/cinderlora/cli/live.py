"""A run in a terminal, drawn anew some times a second: where it stands, how the loss goes, the last of the log."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType
from rich.live import Live as Drawing
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cinderlora.cli.curves import sparkline
from cinderlora.cli.display import phase_text, saved_text, warning_text
from cinderlora.cli.summary import show_outcome
from cinderlora.cli.terminal import Terminal, clean, duration, loss_text
from cinderlora.events import (
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    Progress,
    Started,
    Stopped,
    Warned,
)
from cinderlora.running.folding import Status, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Live"]

_LOG_LINES = 4
_POINTS = 512


class Live:
    """The live display. What is worth keeping (checkpoints, warnings, the end) stays above it."""

    def __init__(self, terminal: Terminal, folder: Path, *, title: str, details: str, lora: str, hint: str) -> None:
        self._terminal = terminal
        self._lora = lora
        self._title = title
        self._details = details
        self._hint = hint
        self._losses = Losses()
        self._status = Status(folder=folder, name="", model_type="")
        self._progress: Progress | None = None
        self._drawing = Drawing(console=terminal.out, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._drawing.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._drawing.stop()

    def stopping(self) -> None:
        self._hint = self._terminal.say("stopping")

    def show(self, event: Event) -> None:
        # The drawing thread sees the old status or the new one: both are frozen. A bar is refreshed by the million, and
        # only what is drawn or followed by something else need be folded in.
        if isinstance(event, Progress):
            self._progress = event
            self._losses.add(event.step, event.loss)
            return
        self._status, self._progress = fold(self._latest(), event), None
        match event:
            case Started(name=name, model_type=model_type, rehearsal=rehearsal):
                self._title = self._title or model_type
                self._terminal.print(f"{name} ({self._title})", "bold")
                if self._details:
                    self._terminal.print(self._details, "dim")
                self._terminal.print(self._terminal.say("run_folder", folder=self._status.folder), "dim")
                if rehearsal:
                    self._terminal.print(self._terminal.say("rehearsal", model_type=self._title), "yellow")
            case CheckpointSaved(path=path, step=step):
                self._terminal.print(saved_text(self._terminal, path, step, self._lora))
            case Warned():
                self._terminal.print(warning_text(self._terminal, event), "yellow")
            case Finished() | Failed() | Stopped():
                self._drawing.stop()
                show_outcome(self._terminal, event, self._status.folder)

    def _latest(self) -> Status:
        progress = self._progress
        return self._status if progress is None else fold(self._status, progress)

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def _render(self) -> RenderableType:
        status, say = self._latest(), self._terminal.say
        lines: list[RenderableType] = [Text(), self._phase(status)]
        if status.total:
            lines.append(self._bar(status))
        numbers = [say("loss", loss=loss_text(status.loss))] if status.loss is not None else []
        if status.seconds_per_step:
            numbers.append(say("per_step", seconds=f"{status.seconds_per_step:.3g}"))
        if status.eta is not None:
            numbers.append(say("eta", eta=duration(status.eta)))
        if status.started is not None:
            numbers.append(duration(time.time() - status.started))
        lines.append(_line(" · ".join(numbers)))
        if not self._terminal.out.options.ascii_only and (points := self._losses.points()):
            room = max(8, min(60, self._terminal.out.width - 2))
            lines.append(_line(sparkline(points, room), "cyan"))
        if status.sample:
            lines.append(_line(say("newest_sample", path=_short(status.sample, self._terminal.out.width - 12))))
        lines += [_line(text, "dim") for text in _last(status.log)]
        lines.append(_line(self._hint, "dim italic"))
        return Group(*lines)

    def _phase(self, status: Status) -> RenderableType:
        name = phase_text(self._terminal, status.phase or "starting")
        epoch = ""
        if status.phase == "training" and status.epoch and status.epochs:
            epoch = f" · {self._terminal.say('epoch', epoch=status.epoch, epochs=status.epochs)}"
        activity = status.activity
        if activity is None or not activity.total:
            return _line(f"{name}{epoch}", "bold")
        return _row(
            Text(clean(name), "bold", no_wrap=True, overflow="ellipsis"),
            ProgressBar(total=activity.total, completed=activity.done, width=20),
            Text(f"{activity.done}/{activity.total}", no_wrap=True),
        )

    def _bar(self, status: Status) -> RenderableType:
        step, total = status.step or 0, status.total or 1
        bar = ProgressBar(total=total, completed=step, style="grey30", complete_style="green", finished_style="green")
        return _row(bar, Text(f"{step}/{total}", no_wrap=True), Text(f"{100 * step // total}%", no_wrap=True), wide=0)


class Losses:
    """The losses of a run of any length, in a few hundred points."""

    def __init__(self) -> None:
        self._stride = 1
        self._kept: dict[int, float] = {}

    def add(self, step: int, loss: float | None) -> None:
        """Note a step's loss; a later figure for the same step goes over it."""
        if loss is None or not math.isfinite(loss) or step % self._stride:
            return
        self._kept[step] = loss
        if len(self._kept) > _POINTS:
            self._stride *= 2
            self._kept = {s: value for s, value in self._kept.items() if s % self._stride == 0}

    def points(self) -> list[float]:
        """The losses in the order of the steps."""
        return list(self._kept.values())


def _line(text: str, style: str = "") -> Text:
    return Text(clean(text), style, no_wrap=True, overflow="ellipsis")


def _row(*cells: RenderableType, wide: int | None = None) -> Table:
    row = Table.grid(padding=(0, 1), expand=wide is not None)
    for number in range(len(cells)):
        row.add_column(ratio=1 if number == wide else None, no_wrap=True)
    row.add_row(*cells)
    return row


def _last(log: Sequence[str]) -> list[str]:
    lines = [line for line in log[-20:] if line.strip()]
    return lines[-_LOG_LINES:]


def _short(path: Path, width: int) -> str:
    """A path, or its end where it is too long: the file's name is what tells."""
    text = str(path)
    return text if len(text) <= width else f"…{text[-max(width - 1, 8) :]}"
