"""How a run ended, for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cinderlora.cli.terminal import Terminal, duration, loss_text
from cinderlora.events import Event, Failed, Finished, Stopped

if TYPE_CHECKING:
    from cinderlora.types import Result

__all__ = ["show_outcome"]


def show_outcome(terminal: Terminal, event: Event, folder: Path) -> None:
    """Say how a run ended, by its last event; `folder` is the run folder."""
    match event:
        case Finished(result=result):
            _finished(terminal, result)
        case Failed(diagnosis=diagnosis):
            terminal.diagnosis(diagnosis)
            terminal.note(f"  {terminal.say('log_is', path=folder / 'output.log')}")
        case Stopped(by=by):
            terminal.note(terminal.say("stopped", by=by) if by else terminal.say("stopped_plain"), "bold yellow")


def _finished(terminal: Terminal, result: Result) -> None:
    terminal.print(terminal.say("done", lora=result.lora), "bold green")
    numbers = terminal.say(
        "done_numbers",
        steps="?" if result.steps is None else result.steps,
        time="?" if result.seconds is None else duration(result.seconds),
        loss=loss_text(result.loss),
        samples=len(result.samples),
        checkpoints=len(result.checkpoints),
    )
    terminal.print(f"  {numbers}")
    for copy in result.copies:
        terminal.print(f"  {terminal.say('copy_is', path=copy)}")
    if result.samples:
        terminal.print(f"  {terminal.say('samples_in', folder=result.samples[-1].parent)}")
    if result.rehearsal:
        terminal.print(f"  {terminal.say('was_rehearsal')}", "yellow")
