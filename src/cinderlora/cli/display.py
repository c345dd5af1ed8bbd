"""A run on the screen: live in a terminal, line by line in a pipe, record by record for a program."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from cinderlora.cli.summary import show_outcome
from cinderlora.cli.terminal import Terminal, duration, loss_text
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
from cinderlora.texts import text_of

if TYPE_CHECKING:
    from cinderlora.running import Run

__all__ = ["Display", "Lines", "Records", "display_for", "progress_line", "warning_text"]


class Display(Protocol):
    """Shows the events of one run."""

    def show(self, event: Event) -> None:
        """Show one more event."""

    def stopping(self) -> None:
        """Say that the run is being stopped."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def display_for(terminal: Terminal, run: Run, *, title: str, details: str, own: bool) -> Display:
    """The display for where the output goes. `own`: Ctrl-C stops the run, and does not only end watching it."""
    if terminal.json:
        return Records(terminal, run)
    if not terminal.out.is_terminal or terminal.out.is_dumb_terminal:
        return Lines(terminal, run.folder, title, details, lora=run._folder.launch.lora)
    from cinderlora.cli.live import Live

    hint = terminal.say("ctrl_c_stops" if own else "ctrl_c_leaves")
    return Live(terminal, run.folder, title=title, details=details, lora=run._folder.launch.lora, hint=hint)


class Records:
    """Each event as a line of JSON, behind a record of the run itself."""

    def __init__(self, terminal: Terminal, run: Run) -> None:
        self._terminal = terminal
        self._run = run

    def __enter__(self) -> Self:
        run = self._run
        self._terminal.record({"run": {"folder": str(run.folder), "name": run.name, "model_type": run.model_type}})
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, event: Event) -> None:
        from cinderlora.serial import to_json

        self._terminal.record(to_json(event))

    def stopping(self) -> None:
        pass


class Lines:
    """Plain lines, few enough to be read: a step for every 5 % and every minute."""

    def __init__(self, terminal: Terminal, folder: Path, title: str = "", details: str = "", *, lora: str = "") -> None:
        self._terminal = terminal
        self._folder = folder
        self._lora = lora
        self._title = title
        self._details = details
        self._phases: set[str] = set()
        self._percent = -5.0
        self._said = float("-inf")
        self._held: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._say_held()

    def stopping(self) -> None:
        self._terminal.note(self._terminal.say("stopping"))

    def show(self, event: Event) -> None:
        match event:
            case Started(name=name, model_type=model_type, rehearsal=rehearsal):
                self._say(f"{name} ({self._title or model_type})" + (f", {self._details}" if self._details else ""))
                self._say(self._terminal.say("run_folder", folder=self._folder))
                if rehearsal:
                    self._say(self._terminal.say("rehearsal", model_type=self._title or model_type))
            case Phase(name=name):
                self._phase(name)
            case Progress(step=step):
                # The last one for a step has that step's loss.
                self._say_earlier(step)
                self._held = event
            case SampleSaved(path=path, step=step):
                self._say_earlier(step)
                self._say(self._terminal.say("sample_saved", step=step, path=path))
            case CheckpointSaved(path=path, step=step):
                self._say_earlier(None if _is_final(path, step, self._lora) else step)
                self._say(saved_text(self._terminal, path, step, self._lora))
            case Warned():
                self._say(warning_text(self._terminal, event))
            case Finished() | Failed() | Stopped():
                self._say_held()
                show_outcome(self._terminal, event, self._folder)

    def _say(self, text: str) -> None:
        self._terminal.print(text)

    def _phase(self, name: str) -> None:
        # Sampling and saving show themselves by what is saved, and training goes on behind them.
        if name not in self._phases and name not in {"sampling", "saving"}:
            self._say(f"{phase_text(self._terminal, name)} ...")
        self._phases.add(name)

    def _say_earlier(self, step: int | None) -> None:
        """Say the step that is held, unless it is this one: its loss is printed behind its samples and checkpoints."""
        if self._held is not None and self._held.step != step:
            self._say_held()

    def _say_held(self) -> None:
        event, self._held = self._held, None
        if event is None or not event.step:
            return
        percent = 100 * event.step / event.total if event.total else 0.0
        last = event.step == event.total
        if percent >= self._percent + 5 or time.monotonic() > self._said + 60 or last:
            self._say(progress_line(self._terminal, event))
            self._percent, self._said = percent, time.monotonic()


def progress_line(terminal: Terminal, event: Progress) -> str:
    """Step 500/1500 (33%) - Loss: 0.0234 - ETA: 12m"""
    percent = 100 * event.step // event.total if event.total else 0
    parts = [terminal.say("step", step=event.step, total=event.total, percent=percent)]
    if event.loss is not None:
        parts.append(terminal.say("loss", loss=loss_text(event.loss)))
    if event.eta is not None and event.step < event.total:
        parts.append(terminal.say("eta", eta=duration(event.eta)))
    return " - ".join(parts)


def phase_text(terminal: Terminal, name: str) -> str:
    """A phase in the person's language; an adapter's own by its name."""
    try:
        return terminal.say(name)
    except KeyError:
        return name.replace("_", " ")


def _is_final(path: Path, step: int | None, lora: str) -> bool:
    """Whether it is the LoRA at the end, by its name; of a log alone that is not known, and sd-scripts' names tell:
    NAME-step00000500.safetensors is on the way."""
    return step is None or (path.name == lora if lora else f"{step:08d}" not in path.name)


def saved_text(terminal: Terminal, path: Path, step: int | None, lora: str) -> str:
    """A LoRA that was saved: a checkpoint on the way, or at the end the one called `lora`."""
    if step is None or _is_final(path, step, lora):
        return terminal.say("saved", path=path)
    return terminal.say("checkpoint_saved", step=step, path=path)


def warning_text(terminal: Terminal, event: Warned) -> str:
    """A warning in the person's language, where it has a text in it."""
    text = text_of(event.code, event.params, terminal.language)
    said = f"{text.message} {text.fix}".strip() if text else event.message
    return f"{terminal.say('warning')} [{event.code}] {said}"
