"""`presets`, `adapters` and `models`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal, clean, gigabytes
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from rich.table import Table

    from cinderlora.adapter import Adapter
    from cinderlora.models import ModelLibrary
    from cinderlora.types import ModelFile

__all__ = ["adapters", "models", "presets", "print_aligned", "print_table"]


def print_table(terminal: Terminal, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their heads (keys of the words), made harmless; long cells are folded to a terminal's width."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(terminal.say(head), overflow="fold")
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
@click.argument("model_type", required=False, metavar="[TYPE]")
@click.pass_obj
def presets(terminal: Terminal, model_type: str | None) -> None:
    """List the presets, of one model type or of all."""
    registry = Registry.from_installed()
    chosen = [registry[model_type]] if model_type else list(registry.values())
    rows = [(adapter, preset) for adapter in chosen for preset in adapter.presets.values()]
    if terminal.json:
        from cinderlora.serial import settings_values

        for _, preset in rows:
            terminal.record(
                {
                    "model_type": preset.model_type,
                    "name": preset.name,
                    "title": preset.title,
                    "vram_gb": preset.vram_gb,
                    "settings": settings_values(preset),
                }
            )
        return
    heads = ("type", "name", "for", "px", "batch", "dim", "optimizer", "steps")
    cells = [
        (a.name, p.name, p.title, p.resolution, p.batch_size, p.network_dim, p.optimizer, p.steps) for a, p in rows
    ]
    print_table(terminal, heads, [["" if cell is None else cell for cell in row] for row in cells])
    _show_broken(terminal, registry)


@click.command(params=[json_option()])
@click.pass_obj
def adapters(terminal: Terminal) -> None:
    """List the model types, where they come from, and plugins that cannot be used."""
    registry = Registry.from_installed()
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
    _show_broken(terminal, registry)


def _show_broken(terminal: Terminal, registry: Registry) -> None:
    for name, broken in registry.broken.items():
        terminal.note(terminal.say("broken", name=name, why=broken), "yellow")


@click.command(params=[json_option()])
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--type", "-t", "model_type", metavar="TYPE", help="For this model type only.")
@click.pass_obj
def models(terminal: Terminal, folder: Path | None, model_type: str | None) -> int | None:
    """List the model files in a folder (ComfyUI's where that is configured) and what each is good for."""
    from cinderlora.errors import ConfigError

    folder = folder or terminal.config.models
    if folder is None:
        raise ConfigError("models_folder_missing")
    if not folder.expanduser().exists():
        raise ConfigError("folder_not_found", path=str(folder))
    registry = Registry.from_installed()
    for adapter in [registry[model_type]] if model_type else registry.values():
        library = adapter.scan_models(folder.expanduser())
        if terminal.json:
            _record_models(terminal, adapter, library)
        else:
            _show_models(terminal, adapter, library, folder)
    return None


def _record_models(terminal: Terminal, adapter: Adapter, library: ModelLibrary) -> None:
    from cinderlora.serial import to_json

    chosen = {file.path for file in library.defaults().values()}
    for file in library.files:
        terminal.record({"model_type": adapter.name, **to_json(file), "default": file.path in chosen})


def _show_models(terminal: Terminal, adapter: Adapter, library: ModelLibrary, folder: Path) -> None:
    terminal.print(adapter.title, "bold")
    files = [file for component in adapter.type.components for file in library.of(component.role)]
    defaults = library.defaults()
    for problem in library.problems:
        terminal.problems([problem])
    if not files:
        terminal.print(f"  {terminal.say('no_models', model_type=adapter.title, folder=folder)}\n")
        return
    chosen = {file.path for file in defaults.values()}
    rows = [
        (
            f"{'*' if file.path in chosen else ' '} {file.role}",
            _within(file.path, folder),
            file.variant,
            file.precision,
            gigabytes(file.size) if file.size is not None else "",
        )
        for file in files
    ]
    print_table(terminal, ("role", "file", "variant", "precision", "size"), rows)
    terminal.problems([problem for file in files for problem in file.problems])
    missing = _missing(adapter, defaults)
    if missing:
        terminal.note(terminal.say("missing_roles", model_type=adapter.title, roles=", ".join(missing)), "yellow")
    terminal.print(f"{terminal.say('default_mark')}\n", "dim")


def _missing(adapter: Adapter, chosen: dict[str, ModelFile]) -> list[str]:
    inside = set(chosen["model"].bundled) if "model" in chosen else set()
    return [c.title for c in adapter.type.components if c.required and c.role not in chosen and c.role not in inside]


def _within(path: Path, folder: Path) -> Path:
    root = folder.expanduser().absolute()
    return path.relative_to(root) if path.is_relative_to(root) else path
