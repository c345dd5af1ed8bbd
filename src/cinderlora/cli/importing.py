"""`import`: take over a configuration of another program."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.presets import refuse_overwriting, said, write_preset
from cinderlora.cli.tables import print_table
from cinderlora.cli.terminal import Terminal
from cinderlora.errors import ConfigError
from cinderlora.importing import FORMATS, Imported, Taken, import_config

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter

__all__ = ["import_"]

WRONG = 2


@click.command("import", params=[json_option()])
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--type", "-t", "model_type", metavar="TYPE", help="The model type, where the file leaves it open.")
@click.option(
    "--format", "format_", metavar="FORMAT", help=f"What it is, where that cannot be told: {', '.join(FORMATS)}."
)
@click.option(
    "--save", "job", type=click.Path(path_type=Path), metavar="JOB.toml", help="Write a job file for `train`."
)
@click.option("--save-preset", "preset", type=click.Path(path_type=Path), metavar="PRESET.toml", help="Write a preset.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.pass_obj
def import_(
    terminal: Terminal,
    file: Path,
    model_type: str | None,
    format_: str | None,
    job: Path | None,
    preset: Path | None,
    force: bool,
) -> int:
    """Take over a configuration: a kohya_ss preset or saved configuration (JSON), an sd-scripts TOML, a .sh or .bat
    that starts a training, a configuration of OneTrainer (JSON) or ai-toolkit (YAML).

    \b
    cinderlora import elena.json
    cinderlora import train.bat --save elena.toml
    cinderlora train elena.toml --dataset datasets/elena

    It says what is taken, what is kept as it is, and what has no counterpart. Scripts are read, never run.

    Exit codes: 0 imported, 2 it is none of these, or for no model type that is installed.
    """
    for path in (job, preset):
        if path is not None:
            refuse_overwriting(path.expanduser(), force=force)
    imported = import_config(
        file,
        format=format_,
        model_type=model_type,
        registry=terminal.registry,
    )
    adapter = terminal.registry[imported.model_type] if imported.model_type else None
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"imported": to_json(imported)})
    else:
        _show(terminal, file, imported, adapter)
    if adapter is None:
        return WRONG
    if job is not None:
        _save_job(terminal, imported, job.expanduser())
    if preset is not None:
        write_preset(terminal, imported.preset(preset.stem), preset.expanduser(), force=force)
    return 0


def _save_job(terminal: Terminal, imported: Imported, path: Path) -> None:
    try:
        imported.save_job(path)
    except OSError as error:
        raise ConfigError("file_not_written", path=str(path), why=error.strerror or str(error)) from error
    if terminal.json:
        terminal.record({"job": str(path)})
        return
    terminal.print(terminal.say("saved", path=path))
    missing = [] if imported.dataset else ["--dataset", terminal.say("folder_word")]
    missing += [] if imported.name else ["--name", terminal.say("name_word")]
    missing += [] if imported.trigger else ["--trigger", terminal.say("trigger_word")]
    command = " ".join(["cinderlora", "check", shlex.quote(str(path)), *missing])
    terminal.print(terminal.say("import_next", command=command))


def _show(terminal: Terminal, file: Path, imported: Imported, adapter: Adapter | None) -> None:
    format_ = terminal.say(f"format_{imported.format}")
    title = adapter.title if adapter else terminal.say("unknown_type")
    terminal.print(terminal.say("import_head", file=file.name, format=format_, model_type=title), "bold")
    for read in imported.files[1:]:
        terminal.print(terminal.say("import_read", path=read), "dim")
    own = [entry for entry in imported.taken if entry.setting and not entry.setting.startswith("extra.")]
    kept = [entry for entry in imported.taken if entry.setting.startswith("extra.")]
    anyway = [entry.key for entry in imported.taken if not entry.setting]
    terminal.print()
    print_table(terminal, ("theirs", "value", "here"), [_row(terminal, entry) for entry in own])
    if kept:
        terminal.print(f"\n{terminal.say('import_kept')}", "bold")
        print_table(terminal, ("theirs", "value", "here"), [_row(terminal, entry) for entry in kept])
    # Without a model type, a problem says so once for all that hangs on it.
    dropped = [entry for entry in imported.dropped if entry.why.code != "import_type_needed"]
    if dropped:
        terminal.print(f"\n{terminal.say('import_dropped')}", "bold")
        rows = [(entry.key, entry.value, entry.why.text(terminal.language).message) for entry in dropped]
        print_table(terminal, ("theirs", "value", "why"), rows)
    if anyway:
        terminal.print(f"\n{terminal.say('import_anyway', names=', '.join(anyway))}", "dim")
    if imported.implied:
        values = {**dict(imported.settings.items()), **{f"extra.{k}": v for k, v in imported.settings.extra.items()}}
        told = [f"{name} {said(terminal, values.get(name))}" for name in imported.implied]
        terminal.print(f"\n{terminal.say('import_implied', names=', '.join(told))}", "dim")
    terminal.print()
    terminal.problems(imported.problems)


def _row(terminal: Terminal, entry: Taken) -> tuple[str, str, str]:
    now = tuple(entry.now) if isinstance(entry.now, list) else entry.now
    same = entry.setting == entry.key
    return (entry.key, entry.value, f"{'' if same else entry.setting + ' '}{said(terminal, now)}")
