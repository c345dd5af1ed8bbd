"""`presets`: list, show, compare and save them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.tables import print_table, show_broken
from cinderlora.cli.terminal import Terminal, clean
from cinderlora.errors import ConfigError, UnknownName
from cinderlora.names import nearest
from cinderlora.types import SETTINGS, Preset, Settings

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.registry import Registry

__all__ = ["presets", "refuse_overwriting", "said", "write_preset"]

Lineage = Sequence[tuple[str, Preset]]
"""A preset as it was written, then its bases, each behind where it came from."""


class PresetCommands(click.Group):
    """Without one of its commands it lists, so that `presets flux` is `presets list flux`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((arg for arg in args if not arg.startswith("-")), None)
        is_help = first is None and any(arg in ctx.help_option_names for arg in args)
        if first not in self.commands and not is_help:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=PresetCommands, params=[json_option()], subcommand_metavar="[TYPE] | COMMAND ...")
def presets() -> None:
    """List the presets, of one model type or of all; show one, compare two, save one as a file.

    \b
    cinderlora presets flux
    cinderlora presets show flux/16gb
    cinderlora presets diff flux/16gb mine.toml
    cinderlora presets save flux/16gb --as mine --user

    Presets that are TOML files count if they lie in ./cinderlora/presets or in the user's folder for presets.
    """


type_option = click.option(
    "--type", "-t", "model_type", metavar="TYPE", help="The model type, where NAME leaves it open."
)


@presets.command("list", params=[json_option()])
@click.argument("model_type", required=False, metavar="[TYPE]")
@click.option("--fit", is_flag=True, help="Mark what fits this card, and what a training takes of it.")
@click.option("--vram", type=click.FloatRange(min=0, min_open=True), metavar="GB", help="For a card of so much memory.")
@click.pass_obj
def list_(terminal: Terminal, model_type: str | None, fit: bool, vram: float | None) -> None:
    """List the presets, of one model type or of all."""
    registry = terminal.registry
    chosen = [registry[model_type]] if model_type else list(registry.values())
    if fit or vram is not None:
        _show_fitting(terminal, chosen, vram)
        show_broken(terminal, registry)
        return
    rows = [(adapter, preset) for adapter in chosen for preset in adapter.presets.values()]
    if terminal.json:
        for _, preset in rows:
            terminal.record(_preset_record(preset))
        return
    heads = ("type", "name", "for", "px", "batch", "dim", "optimizer", "steps")
    cells = [
        (
            a.name,
            p.name,
            p.title or (f"{p.vram_gb:g} GB" if p.vram_gb else ""),
            p.resolution,
            p.batch_size,
            p.network_dim,
            p.optimizer,
            p.steps,
        )
        for a, p in rows
    ]
    print_table(terminal, heads, [["" if cell is None else cell for cell in row] for row in cells])
    show_broken(terminal, registry)


def _preset_record(preset: Preset) -> dict[str, Any]:
    from cinderlora.serial import settings_values

    return {
        "model_type": preset.model_type,
        "name": preset.name,
        "title": preset.title,
        "vram_gb": preset.vram_gb,
        "settings": settings_values(preset),
    }


def _show_fitting(terminal: Terminal, chosen: Sequence[Adapter], vram: float | None) -> None:
    """The presets with what each takes of the card: with the models that are found, else with the usual ones."""
    from cinderlora.gpu import fits, memory_gb
    from cinderlora.serial import to_json

    there = memory_gb() if vram is None else vram
    folder = terminal.config.models
    by_figure = False
    rows = []
    for adapter in chosen:
        models = adapter.scan_models(folder).defaults() if folder is not None and folder.is_dir() else {}
        by_figure |= "model" not in models
        best = adapter.fitting_preset(models, memory=there) if there is not None else None
        for preset in adapter.presets.values():
            takes = adapter.vram(preset.settings(), models)
            fit = None if there is None else fits(preset, there, takes if "model" in models else None)
            is_best = bool(fit) and best is not None and preset.name == best.name
            if terminal.json:
                found = {"estimate": to_json(takes), "fits": fit, "largest_fitting": is_best}
                terminal.record(_preset_record(preset) | found)
            marks = {None: "", True: terminal.say("fits_yes"), False: terminal.say("fits_no")}
            rows.append(
                (
                    adapter.name,
                    preset.name,
                    preset.resolution or "",
                    preset.batch_size or "",
                    "" if takes is None else f"{takes.gb:.1f} GB ({takes.low:.1f}-{takes.high:.1f})",
                    terminal.say("fits_best") if is_best else marks[fit],
                )
            )
    if terminal.json:
        return
    print_table(terminal, ("type", "name", "px", "batch", "takes", "fits"), rows)
    if there is None:
        terminal.note(terminal.say("fits_no_card"))
    else:
        terminal.print(terminal.say("fits_for", there=f"{there:.1f}"), "dim", prose=True)
        if by_figure:
            terminal.print(terminal.say("fits_by_figure"), "dim", prose=True)


# ---- one preset ------------------------------------------------------------------------------------------------------


def find_preset(terminal: Terminal, wanted: str, model_type: str | None) -> tuple[Adapter, Lineage]:
    """The preset of a name, of `TYPE/NAME` or in a file. Raises `CinderloraError` where there is none, or several."""
    registry = terminal.registry
    if wanted.endswith(".toml"):
        preset = Preset.load(Path(wanted).expanduser())
        kind = model_type or preset.model_type
        if kind is None:
            raise UnknownName("model_type_missing", known=sorted(registry))
        return registry[kind], registry[kind].preset_lineage(preset)
    kind, _, name = wanted.rpartition("/")
    if kind or model_type:
        adapter = registry[kind or model_type or ""]
        return adapter, adapter.preset_lineage(name)
    found = [adapter for adapter in registry.values() if name in adapter.presets]
    if len(found) > 1:
        raise UnknownName("preset_ambiguous", name=name, known=[f"{adapter.name}/{name}" for adapter in found])
    if not found:
        _refuse_broken(registry, name)
        known = [f"{adapter.name}/{preset}" for adapter in registry.values() for preset in adapter.presets]
        near = nearest(name, {preset.rpartition("/")[2]: None for preset in known})
        raise UnknownName("preset_nowhere", name=name, nearest=near, known=known)
    return found[0], found[0].preset_lineage(name)


def _refuse_broken(registry: Registry, name: str) -> None:
    """Raise `UnknownName` that says why, where there would be such a preset were it not broken."""
    for adapter in registry.values():
        try:
            adapter.presets[name]
        except UnknownName as error:
            if error.code == "preset_broken":
                raise


def _resolved(lineage: Lineage) -> Settings:
    settings = Settings()
    for _, preset in lineage:
        settings = settings.over(preset.settings())
    return settings


def _flat(settings: Settings) -> dict[str, Any]:
    """The settings that are set by name, those of `extra` one by one."""
    values = {name: value for name, value in settings.items() if name != "extra"}
    return values | {f"extra.{key}": value for key, value in settings.extra.items()}


def said(terminal: Terminal, value: object) -> str:
    """A setting's value for people."""
    if value is None or value == ():
        return terminal.say("not_set")
    if isinstance(value, bool):
        return terminal.say("on" if value else "off")
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@presets.command(params=[json_option()])
@click.argument("name")
@type_option
@click.pass_obj
def show(terminal: Terminal, name: str, model_type: str | None) -> None:
    """Show the settings of a preset, and which of its bases each comes from.

    NAME is a preset's name, TYPE/NAME or a TOML file.
    """
    adapter, lineage = find_preset(terminal, name, model_type)
    (provider, preset), values = lineage[0], _flat(_resolved(lineage))
    origins = {key: next(p.name for _, p in lineage if key in _flat(p)) for key in values}
    vram = next((p.vram_gb for _, p in lineage if p.vram_gb), None)
    if terminal.json:
        record = _preset_record(preset.evolve(model_type=adapter.name, vram_gb=vram))
        record |= {"base": preset.base, "provider": provider, "settings": _record(values), "from": origins}
        terminal.record(record)
        return
    terminal.print(f"{adapter.name}/{preset.name}" + (f": {preset.title}" if preset.title else ""), "bold")
    about = [f"{vram:g} GB" if vram else "", provider]
    about += [terminal.say("preset_base", base=preset.base)] if preset.base else []
    terminal.print(", ".join(filter(None, about)), "dim")
    rows = [(key, said(terminal, value), origins[key]) for key, value in values.items()]
    print_table(terminal, ("key", "value", "from"), rows)


def _record(values: Mapping[str, Any]) -> dict[str, Any]:
    from cinderlora.serial import to_json

    return {key: to_json(value) for key, value in values.items()}


@presets.command(params=[json_option()])
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@type_option
@click.pass_obj
def diff(terminal: Terminal, first: str, second: str, model_type: str | None) -> None:
    """Show the settings in which two presets differ, bases and the model type's defaults counted.

    A and B are each a preset's name, TYPE/NAME or a TOML file.
    """
    sides = []
    for wanted in (first, second):
        adapter, lineage = find_preset(terminal, wanted, model_type)
        defaults = Settings(**{info.name: info.default for info in adapter.settings()})
        sides.append(_flat(_resolved(lineage).over(defaults)))
    one, other = sides
    order = list(SETTINGS)
    names = sorted({*one, *other}, key=lambda n: (order.index("extra" if n.startswith("extra.") else n), n))
    rows = [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]
    if terminal.json:
        differences = {name: list(_record({"a": a, "b": b}).values()) for name, a, b in rows}
        terminal.record({"a": first, "b": second, "differences": differences})
        return
    if not rows:
        terminal.print(terminal.say("preset_same"))
        return
    from rich.text import Text

    cells = [(name, said(terminal, a), said(terminal, b)) for name, a, b in rows]
    print_table(terminal, ("key", Text(clean(first)), Text(clean(second))), cells)


@presets.command(params=[json_option()])
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE.toml]")
@click.option("--as", "new_name", metavar="NAME", help="The name that it is to have.")
@click.option("--user", "place", flag_value="user", help="Into the user's folder for presets.")
@click.option("--project", "place", flag_value="project", help="Into ./cinderlora/presets.")
@click.option("--with-base", is_flag=True, help="What it sets itself and the name of its base, not all values.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@type_option
@click.pass_obj
def save(
    terminal: Terminal,
    name: str,
    file: Path | None,
    new_name: str | None,
    place: str | None,
    with_base: bool,
    force: bool,
    model_type: str | None,
) -> None:
    """Save a preset as a TOML file, to be changed or handed round.

    NAME is a preset's name, TYPE/NAME or a TOML file. Without --with-base the file has all values and stands on its
    own.
    """
    from cinderlora.preset_files import preset_folders

    if (file is None) == (place is None):
        raise click.UsageError("Say where: FILE.toml, --user or --project.")
    adapter, lineage = find_preset(terminal, name, model_type)
    preset = lineage[0][1]
    saved = preset.evolve(name=new_name or preset.name, model_type=adapter.name)
    if not with_base:
        vram = next((p.vram_gb for _, p in lineage if p.vram_gb), None)
        saved = saved.evolve(base=None, vram_gb=vram, **dict(_resolved(lineage).items()))
    if file is None:
        _refuse_taken(adapter, saved.name)
        project, user = preset_folders()
        file = (user if place == "user" else project) / f"{saved.name}.toml"
    write_preset(terminal, saved, file.expanduser(), force=force)


def _refuse_taken(adapter: Adapter, name: str) -> None:
    """A file in the folder for presets needs a name of its own, which no other preset has."""
    from cinderlora.errors import JobRefused
    from cinderlora.names import is_plain_file_name
    from cinderlora.problems import Problem

    if not is_plain_file_name(name):
        raise JobRefused((Problem("name_unsafe", {"name": repr(name)}),))
    if name in adapter.presets and not Path(adapter.preset_lineage(name)[0][0]).is_file():
        raise UnknownName("preset_taken", name=name, model_type=adapter.title)


def write_preset(terminal: Terminal, preset: Preset, file: Path, *, force: bool) -> None:
    """Write a preset file, and say so."""
    refuse_overwriting(file, force=force)
    try:
        preset.save(file)
    except OSError as error:
        raise ConfigError("file_not_written", path=str(file), why=error.strerror or str(error)) from error
    if terminal.json:
        terminal.record({"preset": preset.name, "path": str(file)})
    else:
        terminal.print(terminal.say("saved", path=file))


def refuse_overwriting(file: Path, *, force: bool) -> None:
    """Raise `ConfigError` where a file is in the way that nobody said may be replaced."""
    if file.exists() and not force:
        raise ConfigError("file_in_the_way", path=str(file))
