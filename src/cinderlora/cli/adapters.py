"""`adapters`: list the model types, check a plugin, begin a new one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import SkipTest

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.tables import print_table, show_broken
from cinderlora.cli.terminal import Terminal, clean
from cinderlora.errors import PluginError, UnknownName

if TYPE_CHECKING:
    from cinderlora.models.headers import Header
    from cinderlora.testing import Check

__all__ = ["adapters"]

FAILED = 1

Outcome = Literal["ok", "failed", "skipped"]


class AdapterCommands(click.Group):
    """Without one of its commands it lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not any(arg in ctx.help_option_names for arg in args) and all(arg.startswith("-") for arg in args):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=AdapterCommands, params=[json_option()], subcommand_metavar="[COMMAND] ...")
def adapters() -> None:
    """List the model types, where they come from, and plugins that cannot be used; check one, begin a new one.

    \b
    cinderlora adapters
    cinderlora adapters check flux
    cinderlora adapters new lumina --title "Lumina Image 2"
    """


@adapters.command("list", params=[json_option()], short_help="List the model types.")
@click.pass_obj
def list_(terminal: Terminal) -> None:
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


# ---- check -----------------------------------------------------------------------------------------------------------


@adapters.command(params=[json_option()], short_help="Check a plugin.")
@click.argument("name")
@click.option(
    "--checkout",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The trainer's checkout, to hold arguments against. Otherwise sd-scripts, where it is set up.",
)
@click.option(
    "--log",
    "logs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Output of its trainer, to be understood.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="ROLE=FILE",
    help="A model file that it has to claim for a role. Its header is read alone.",
)
@click.option("--no-rehearsal", is_flag=True, help="Its trainer has no rehearsal.")
@click.pass_obj
def check(
    terminal: Terminal,
    name: str,
    checkout: Path | None,
    logs: tuple[Path, ...],
    headers: tuple[str, ...],
    no_rehearsal: bool,
) -> int:
    """Check whether a plugin does all that is asked of one. Takes a few seconds.

    NAME is a model type's or a plugin's. In the plugin's own tests, cinderlora.testing.adapter_checks gives the same
    checks to pytest.

    \b
    cinderlora adapters check lumina
    cinderlora adapters check lumina --header model=lumina_2.safetensors
    """
    from cinderlora.testing import adapter_checks

    plugin, trainer = _plugin(terminal, name)
    checks = adapter_checks(
        plugin,
        checkout=checkout or (_sd_scripts(terminal) if trainer == "sd-scripts" else None),
        headers=_headers(headers),
        logs=logs,
        rehearsal=not no_rehearsal,
    )
    counts: dict[Outcome, int] = {"ok": 0, "failed": 0, "skipped": 0}
    width = max(len(terminal.say(f"check_{outcome}")) for outcome in counts)
    for one, outcome, why, seconds in _run(checks):
        counts[outcome] += 1
        if terminal.json:
            terminal.record({"check": str(one), "outcome": outcome, "why": why, "seconds": round(seconds, 3)})
        else:
            _show(terminal, one, outcome, why, width)
    if not terminal.json:
        summary = "check_all_right" if not counts["failed"] else "check_to_change"
        terminal.print()
        terminal.print(terminal.say(summary, **counts, tried=counts["ok"] + counts["failed"]), "bold")
    return FAILED if counts["failed"] else 0


def _headers(given: Sequence[str]) -> dict[str, list[Header]]:
    from cinderlora.models import read_header

    found: dict[str, list[Header]] = {}
    for option in given:
        role, equals, file = option.partition("=")
        if not (role and equals and file):
            raise click.BadParameter(f"{option!r} is not ROLE=FILE.", param_hint="--header")
        header = read_header(Path(file).expanduser())
        if header.problems:
            raise click.BadParameter(" ".join(map(str, header.problems)), param_hint="--header")
        found.setdefault(role, []).append(header)
    return found


def _plugin(terminal: Terminal, name: str) -> tuple[object, str]:
    """A plugin by its model type's name or its own, and the kind of trainer that is its; also one that the registry
    refuses: what is wrong with it is what the checks are for."""
    from importlib.metadata import entry_points

    from cinderlora.names import nearest
    from cinderlora.registry import ENTRY_POINTS

    registry = terminal.registry
    if name in registry:
        return registry.plugin(registry[name].plugin), registry[name].type.trainer
    if name in registry.plugins:
        return registry.plugin(name), "sd-scripts"
    entries = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name in entries:
        try:
            return entries[name].load(), "sd-scripts"
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise PluginError("plugin_invalid", plugin=name, provider=entries[name].value, why=why) from error
    known = sorted({*registry, *entries})
    raise UnknownName("adapter_unknown", name=name, nearest=nearest(name, known), known=known)


def _sd_scripts(terminal: Terminal) -> Path | None:
    from cinderlora.errors import TrainerNotFound
    from cinderlora.sd_scripts import SdScripts

    try:
        return SdScripts.find(terminal.config.sd_scripts).path
    except TrainerNotFound:
        return None


def _run(checks: Sequence[Check]) -> Iterator[tuple[Check, Outcome, str, float]]:
    for one in checks:
        started = time.monotonic()
        outcome, why = _outcome(one)
        yield one, outcome, why, time.monotonic() - started


def _outcome(check: Check) -> tuple[Outcome, str]:
    try:
        check()
    except AssertionError as error:
        return "failed", str(error)
    except SkipTest as error:
        return "skipped", str(error)
    except Exception as error:  # of the plugin, where none was reckoned with
        return "failed", f"{type(error).__name__}: {error}"
    return "ok", ""


def _show(terminal: Terminal, check: Check, outcome: Outcome, why: str, width: int) -> None:
    from rich.padding import Padding
    from rich.text import Text

    colour = {"ok": "green", "failed": "bold red", "skipped": "dim"}[outcome]
    mark = terminal.say(f"check_{outcome}").ljust(width)
    terminal.out.print(Text.assemble((mark, colour), "  ", str(check)), soft_wrap=True)
    if why:
        said = Text(clean(why), "" if outcome == "failed" else "dim")
        terminal.out.print(Padding(said, (0, 0, 0, width + 2), expand=False))


# ---- new -------------------------------------------------------------------------------------------------------------


@adapters.command(params=[json_option()], short_help="Begin a package for a model type.")
@click.argument("name")
@click.option("--title", default="", metavar="TEXT", help="What people call the model.")
@click.option("--script", default="", metavar="FILE", help="The trainer's script. Default: NAME_train_network.py.")
@click.option(
    "--network-module", default="", metavar="MODULE", help="The trainer's module. Default: networks.lora_NAME."
)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where to; it must not be there. Default: ./cinderlora-NAME.",
)
@click.pass_obj
def new(terminal: Terminal, name: str, title: str, script: str, network_module: str, folder: Path | None) -> None:
    """Write a package for a new model type, which passes its checks at once.

    NAME is how programs will call the model type: small letters, digits and single underscores.
    """
    from cinderlora.new_adapter import adapter_files, refuse_taken, write_adapter

    files = adapter_files(name, title=title, script=script, network_module=network_module)
    refuse_taken(name)
    folder = folder or Path(f"cinderlora-{name.replace('_', '-')}")
    written = write_adapter(files, folder.expanduser())
    if terminal.json:
        terminal.record(_record(name, folder, written))
        return
    for path in written:
        terminal.print(str(path))
    terminal.print()
    terminal.print(terminal.say("adapter_next", folder=folder, name=name))


def _record(name: str, folder: Path, written: Sequence[Path]) -> dict[str, Any]:
    return {"adapter": name, "path": str(folder), "files": [str(path) for path in written]}
