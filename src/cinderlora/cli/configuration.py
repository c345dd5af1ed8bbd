"""`config`: where things are on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal
from cinderlora.config import CONFIG_NAMES, Config, read_config
from cinderlora.errors import ConfigError, SettingError
from cinderlora.names import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["config"]

_FOLDERS = frozenset({"comfyui", "sd_scripts", "sd_scripts_python", "runs", "datasets", "output"})


@click.group(invoke_without_command=True, params=[json_option()])
@click.pass_context
def config(ctx: click.Context) -> None:
    """Show or change where things are on this machine: ComfyUI, sd-scripts, runs, data sets, output, language.

    Environment variables such as CINDERLORA_COMFYUI go over it, options of a command over both.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(show)


@config.command(params=[json_option()])
@click.pass_obj
def show(terminal: Terminal) -> None:
    """Show all settings and where each comes from."""
    from cinderlora.cli.tables import print_table

    loaded = terminal.config
    in_file = read_config(Config.file())
    if terminal.json:
        values = {name: _text(getattr(loaded, name)) for name in CONFIG_NAMES}
        terminal.record({"path": str(Config.file()), **values})
        return
    rows = []
    for name in CONFIG_NAMES:
        value = getattr(loaded, name)
        source = "environment" if os.environ.get(_variable(name)) else "" if name in in_file else "default"
        rows.append(
            (
                name,
                terminal.say("not_set") if value is None else value,
                terminal.say(source) if source else Config.file().name,
            )
        )
    print_table(terminal, ("key", "value", "from"), rows)
    terminal.print(f"\n{Config.file()}", "dim")


@config.command("set", params=[json_option()])
@click.argument("key")
@click.argument("value")
@click.pass_obj
def set_(terminal: Terminal, key: str, value: str) -> None:
    """Set KEY to VALUE."""
    values = _known(key)
    values[key] = _checked(key, value)
    _write(values)
    if terminal.json:
        terminal.record({"path": str(Config.file()), "key": key, "value": values[key]})
        return
    terminal.print(terminal.say("config_saved", key=key, value=values[key], path=Config.file()))
    if key in _FOLDERS and not Path(values[key]).exists():
        terminal.note(terminal.say("no_such_folder", path=values[key]), "yellow")
    if os.environ.get(_variable(key)):
        terminal.note(terminal.say("config_shadowed", variable=_variable(key)), "yellow")


@config.command(params=[json_option()])
@click.argument("key")
@click.pass_obj
def unset(terminal: Terminal, key: str) -> None:
    """Set KEY back to its default."""
    values = _known(key)
    values.pop(key, None)
    _write(values)
    if terminal.json:
        terminal.record({"path": str(Config.file()), "key": key, "value": None})
    else:
        terminal.print(terminal.say("config_removed", key=key, path=Config.file()))


@config.command(params=[json_option()])
@click.pass_obj
def path(terminal: Terminal) -> None:
    """Print where the configuration file is; it need not exist."""
    if terminal.json:
        terminal.record({"path": str(Config.file())})
    else:
        terminal.print(str(Config.file()))


def _known(key: str) -> dict[str, str]:
    """The file's values; raises `ConfigError` for a key that is none, and for a file that is wrong."""
    if key not in CONFIG_NAMES:
        near = nearest(key, CONFIG_NAMES)
        raise ConfigError("config_key_unknown", path=str(Config.file()), where=key, nearest=near, known=CONFIG_NAMES)
    return read_config(Config.file())


def _checked(key: str, value: str) -> str:
    """The value as it is kept: folders whole, so that they are found from everywhere."""
    from cinderlora.names import is_plain_file_name
    from cinderlora.texts import LANGUAGES

    if not value.isprintable() or not value.strip():
        raise SettingError(
            "setting_type", setting=key, value=repr(value), expected="path" if key in _FOLDERS else "str"
        )
    if key in _FOLDERS:
        # Not resolved: the python of a virtual environment is a link, and has to be called by its own name.
        return str(Path(value).expanduser().absolute())
    if key == "language" and value not in LANGUAGES:
        raise SettingError("setting_choice", setting=key, value=repr(value), choices=LANGUAGES)
    if key == "output_prefix" and not is_plain_file_name(f"{value}name"):
        raise SettingError("name_unsafe", name=repr(value))
    return value


def _write(values: Mapping[str, str]) -> None:
    from cinderlora.serial import write_toml

    try:
        write_toml(Config.file(), values)
    except OSError as error:
        raise ConfigError("file_not_written", path=str(Config.file()), why=error.strerror or str(error)) from error


def _variable(name: str) -> str:
    return f"CINDERLORA_{name.upper()}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
