"""The tables that commands show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cinderlora.cli.terminal import Terminal, clean
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["print_aligned", "print_table", "show_broken"]


def print_table(terminal: Terminal, heads: Sequence[str | Text], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their heads (keys of the words, or texts), made harmless; long cells are folded to a terminal's
    width."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head if isinstance(head, Text) else terminal.say(head), overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    print_aligned(terminal, table)


def print_aligned(terminal: Terminal, table: Table) -> None:
    """A table; in a pipe without the blanks that fill it up on the right."""
    if terminal.out.is_terminal:
        terminal.out.print(table)
        return
    with terminal.out.capture() as captured:
        terminal.out.print(table)
    terminal.print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def show_broken(terminal: Terminal, registry: Registry) -> None:
    """The plugins and preset files that cannot be used, and why."""
    from cinderlora.errors import CinderloraError

    for name, broken in registry.broken.items():
        why = str(broken)
        if isinstance(broken.error, CinderloraError):
            why = " ".join(broken.error.text(terminal.language)).strip()
        if broken.provider == broken.name:
            terminal.note(terminal.say("broken_file", why=why), "yellow")
        else:
            terminal.note(terminal.say("broken", name=name, why=why), "yellow")
