"""A queue on the screen: its list, its live view, its jobs compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cinderlora.cli.tables import print_aligned, print_table
from cinderlora.cli.terminal import Terminal, clean, duration, loss_text
from cinderlora.queues.entries import Entry, QueueStatus

if TYPE_CHECKING:
    from cinderlora.problems import Problem
    from cinderlora.queues import Outcome
    from cinderlora.sync import Queue

__all__ = ["show_list", "show_outcomes", "value_text", "watch_lines", "watch_live"]

_COLOURS = {
    "running": "cyan",
    "starting": "cyan",
    "held": "magenta",
    "finished": "green",
    "failed": "red",
    "stopped": "yellow",
    "lost": "red",
}
_ENDED_SHOWN = 10
_COMING_SHOWN = 12  # in the live view, which is to fit on the screen
_REFRESH = 0.25  # seconds
_WIDE = 80  # columns, from which on there is room for what can be told otherwise


def show_list(terminal: Terminal, status: QueueStatus, *, everything: bool) -> None:
    """The list at a glance, and below it what the queue does."""
    ended = [entry for entry in status.entries if entry.is_ended]
    earlier = 0 if everything else max(0, len(ended) - _ENDED_SHOWN)
    shown = [*ended[earlier:], *(entry for entry in status.entries if not entry.is_ended)]
    if not shown:
        terminal.note(terminal.say("queue_empty", folder=status.folder))
    else:
        if earlier:
            terminal.print(terminal.say("queue_earlier", count=earlier), "dim")
        rows = [_cells(terminal, entry, _where(terminal, entry, with_reason=True)) for entry in shown]
        heads = ("number", "state", "name", "type", "progress", "gpu")
        if terminal.out.width < _WIDE:
            heads, rows = _without_type(heads), [_without_type(row) for row in rows]
        print_table(terminal, heads, rows)
        for line, style in _state_lines(terminal, status):
            terminal.print(line, style)
    for entry in shown:
        if entry.problem is not None and not terminal.json:
            _tell(terminal, f"{entry.id} {entry.name}", entry.problem)


def _without_type(cells: tuple[Any, ...]) -> tuple[Any, ...]:
    return cells[:3] + cells[4:]


def _cells(terminal: Terminal, entry: Entry, progress: str) -> tuple[Any, ...]:
    gpus = ", ".join(map(str, entry.gpus)) if entry.is_under_way else ""
    return (entry.id, _state(terminal, entry), entry.name, entry.model_type, progress, gpus)


def _state(terminal: Terminal, entry: Entry) -> Text:
    return Text(_state_word(terminal, entry.state), _COLOURS.get(entry.state, ""))


def _state_word(terminal: Terminal, state: str) -> str:
    known = {"failed": "state_failed", "stopped": "state_stopped", "starting": "state_starting"}
    return terminal.say(known.get(state, state))


def _where(terminal: Terminal, entry: Entry, *, with_reason: bool = False) -> str:
    """How far it is, or why it went no further."""
    status = entry.status
    if status is not None and status.step and status.total:
        text = f"{status.step}/{status.total} ({100 * status.step // status.total}%)"
        return text if status.eta is None else f"{text} {terminal.say('eta', eta=duration(status.eta))}"
    if status is not None and status.phase:
        from cinderlora.cli.display import phase_text

        return phase_text(terminal, status.phase)
    if entry.problem is not None:
        return entry.problem.code
    if entry.state == "failed" and with_reason:
        return _diagnosis(entry)
    if entry.steps is None:
        return ""
    if entry.state == "finished" and entry.started is not None and entry.ended is not None:
        return terminal.say("queue_steps_took", steps=entry.steps, time=duration(entry.ended - entry.started))
    return terminal.say("queue_steps", steps=entry.steps)


def _diagnosis(entry: Entry) -> str:
    """The code of why its run failed."""
    from cinderlora.errors import RunNotFound
    from cinderlora.sync import attach

    try:
        diagnosis = attach(entry.run).status.diagnosis if entry.run is not None else None
    except RunNotFound:
        return ""
    return diagnosis.code if diagnosis is not None else ""


def _state_lines(terminal: Terminal, status: QueueStatus) -> list[tuple[str, str]]:
    """What the queue does, and what to do about it."""
    waiting = sum(entry.state == "waiting" for entry in status.entries)
    lines = []
    if status.paused:
        text = status.problem.text(terminal.language) if status.problem is not None else None
        if text is not None:
            lines.append((f"{text.message} {text.fix}", "yellow"))
        lines.append((terminal.say("queue_is_paused"), "yellow"))
    elif waiting and not status.is_running:
        lines.append((terminal.say("queue_stands", count=waiting), "yellow"))
    if status.put_aside:
        lines.append((terminal.say("queue_aside", folder=status.put_aside[0].parent, count=len(status.put_aside)), ""))
    return lines


def _tell(terminal: Terminal, what: str, problem: Problem) -> None:
    text = problem.text(terminal.language)
    terminal.note(f"{what} [{problem.code}] {text.message} {text.fix}".rstrip(), "yellow")


# ---- watching --------------------------------------------------------------------------------------------------------


def watch_lines(terminal: Terminal, queue: Queue) -> None:
    """A line for each change."""
    for entry in queue.watch():
        text = f"{time.strftime('%H:%M:%S')} {entry.id} {entry.name}: {_state_word(terminal, entry.state)}"
        if entry.state == "finished":
            text += f" ({entry.lora})"
        elif entry.problem is not None:
            text += f" [{entry.problem.code}]"
        terminal.print(text)


def watch_live(terminal: Terminal, queue: Queue) -> None:
    """The list with progress, drawn anew some times a second, until nothing is left to do."""
    from rich.live import Live

    idle = 0
    with Live(console=terminal.out, auto_refresh=False, transient=False) as live:
        while idle < 2:  # between two looks a supervisor may have been on its way
            status = queue.status()
            idle = idle + 1 if status.is_idle else 0
            live.update(_drawn(terminal, status), refresh=True)
            if idle < 2:
                time.sleep(_REFRESH)


def _drawn(terminal: Terminal, status: QueueStatus) -> RenderableType:
    ended = [entry for entry in status.entries if entry.is_ended]
    under_way = [entry for entry in status.entries if entry.is_under_way]
    coming = [entry for entry in status.entries if not entry.is_ended and not entry.is_under_way]
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(no_wrap=True)
    for entry in (*ended[-_ENDED_SHOWN:], *under_way, *coming[:_COMING_SHOWN]):
        table.add_row(
            Text(str(entry.id), "dim"),
            _state(terminal, entry),
            Text(", ".join(f"GPU {gpu}" for gpu in entry.gpus) if entry.is_under_way else "", "dim"),
            Text(clean(entry.name), "bold" if entry.is_under_way else ""),
            _bar(terminal, entry),
        )
    lines: list[RenderableType] = [table]
    if len(coming) > _COMING_SHOWN:
        lines.append(Text(terminal.say("queue_more", count=len(coming) - _COMING_SHOWN), "dim"))
    lines += [Text(clean(line), style) for line, style in _state_lines(terminal, status)]
    lines.append(Text(terminal.say("queue_hint"), "dim italic", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _bar(terminal: Terminal, entry: Entry) -> RenderableType:
    status, text = entry.status, Text(clean(_where(terminal, entry)), no_wrap=True, overflow="ellipsis")
    if status is None or not status.step or not status.total:
        return text
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=status.total, completed=status.step, width=12, style="grey30", complete_style="green")
    row.add_row(bar, text)
    return row


# ---- comparing -------------------------------------------------------------------------------------------------------


def show_outcomes(terminal: Terminal, outcomes: Sequence[Outcome]) -> None:
    """The jobs as rows: what is different about them, and what came of it. The least loss is marked."""
    if not outcomes:
        terminal.note(terminal.say("queue_no_outcomes"))
        return
    varied = list(outcomes[0].settings)
    losses = [outcome.loss for outcome in outcomes if outcome.result is not None and outcome.loss is not None]
    least = min(losses, default=None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(terminal.say("number"), justify="right")
    table.add_column(terminal.say("name"), overflow="fold")
    for name in varied:
        table.add_column(clean(name), justify="right", overflow="fold")
    table.add_column("Loss", justify="right")
    table.add_column(terminal.say("time"), justify="right")
    is_wide = terminal.out.width >= _WIDE + 20
    table.add_column("LoRA" if is_wide else terminal.say("state"), overflow="fold")
    for outcome in outcomes:
        best = outcome.loss is not None and outcome.loss == least and len(losses) > 1
        ended = outcome.result.lora.name if outcome.result and is_wide else _ending(terminal, outcome)
        table.add_row(
            str(outcome.entry.id),
            Text(clean(outcome.entry.name)),
            *(Text(clean(value_text(outcome.settings.get(name)))) for name in varied),
            Text(loss_text(outcome.loss), "bold green" if best else ""),
            duration(outcome.seconds) if outcome.seconds is not None else "-",
            Text(clean(ended), "" if outcome.result and is_wide else _COLOURS.get(outcome.entry.state, "")),
        )
    print_aligned(terminal, table)
    folders = sorted({outcome.result.lora.parent for outcome in outcomes if outcome.result is not None})
    for folder in folders:
        terminal.print(f"LoRA: {Path(folder)}", "dim")


def _ending(terminal: Terminal, outcome: Outcome) -> str:
    state = _state_word(terminal, outcome.entry.state)
    return f"{state} [{outcome.diagnosis.code}]" if outcome.diagnosis is not None else state


def value_text(value: Any) -> str:
    """A setting's value for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
