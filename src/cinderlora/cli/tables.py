"""`adapters`, and the tables that other commands show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal, clean
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["adapters", "print_aligned", "print_table", "show_broken"]


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


@click.command(params=[json_option()])
@click.pass_obj
def adapters(terminal: Terminal) -> None:
    """List the model types, where they come from, and plugins that cannot be used."""
    registry = terminal.registry
    found = list(registry.values())
    named = {adapter.name: list(adapter.presets) for adapter in found}  # asking for them finds what is broken there
    if terminal.json:
        for adapter in found:
            kind = adapter.type
            terminal.record(
                {
                    "name": kind.name,
                    "title": kind.title,
                    "script": kind.script,
                    "network_module": kind.network_module,
                    "min_vram_gb": kind.min_vram_gb,
                    "components": [c.role for c in kind.components],
                    "presets": named[kind.name],
                    "provider": adapter.provider,
                }
            )
        for broken in registry.broken.values():
            terminal.record({"broken": {"name": broken.name, "provider": broken.provider, "why": str(broken)}})
        return
    if not found:
        terminal.note(terminal.say("no_adapters"))
    rows = [
        (
            a.name,
            a.title,
            f"{a.type.min_vram_gb:g} GB" if a.type.min_vram_gb is not None else "",
            ", ".join(named[a.name]),
            a.type.script,
            a.provider,
        )
        for a in found
    ]
    if rows:
        print_table(terminal, ("type", "name", "min_vram", "presets", "script", "provider"), rows)
    show_broken(terminal, registry)


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
