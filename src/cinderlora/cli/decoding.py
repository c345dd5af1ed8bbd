"""A bar for the time that many pictures take."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cinderlora.cli.terminal import Terminal

__all__ = ["counting"]


@contextmanager
def counting(terminal: Terminal, what: str) -> Iterator[Callable[[int, int], object] | None]:
    """Gives what to call with how many are done, and of how many: it draws a bar, in a terminal and for people only.

    `what` is the key of a text. What Pillow warns of meanwhile is not printed: it goes on all the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if terminal.json or not terminal.err.is_terminal or terminal.err.is_dumb_terminal:
            yield None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=terminal.err, transient=True) as bar:
            task = bar.add_task(terminal.say(what), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
