"""The options of `train` and `check`, which say what to train; those of settings are made from what is known."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cinderlora.errors import SettingError
from cinderlora.types import SETTINGS, SettingInfo

__all__ = ["JobCommand", "job_options", "json_option"]


class SettingValue(click.ParamType):  # type: ignore[type-arg]
    """A number or text for a setting; a mistake is told with the setting's code, as everywhere."""

    def __init__(self, info: SettingInfo) -> None:
        self._info = info
        self.name = info.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kinds: dict[str, Callable[[Any], Any]] = {"int": int, "float": float}
        try:
            return kinds.get(self._info.kind, str)(value)
        except ValueError as error:
            raise SettingError(
                "setting_type", setting=self._info.name, value=repr(value), expected=self._info.kind
            ) from error


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not equals or not key:
            option = param.opts[0] if param else ""
            raise SettingError(
                "option_form", option=option, value=repr(value), expected=f"{option} {self.name.upper()}"
            )
        return key, rest


def toml_value(text: str) -> Any:
    """The value that a text is in TOML; the text itself where it is none: `8`, `true`, `["a=1"]`, `adafactor`."""
    import tomllib

    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = table["value"]
    odd = len(table) > 1 or isinstance(value, (datetime.date, datetime.time, dict))
    return text if odd or (isinstance(value, float) and not math.isfinite(value)) else value


def _setting_option(info: SettingInfo) -> click.Option:
    flag = f"--{info.name.replace('_', '-')}"
    text = info.label["en"]
    if info.choices:
        text += f": {', '.join(info.choices)}"
    elif info.low is not None and info.high is not None:
        text += f", usually {info.low:g} to {info.high:g}"
    if info.kind == "bool":
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=f"{text}.")
    if info.kind == "strs":
        metavar = "KEY=VALUE" if info.name.endswith("_args") else "FOLDER"
        return click.Option([flag], multiple=True, metavar=metavar, help=f"{text}; can be repeated.")
    return click.Option([flag], type=SettingValue(info), metavar=info.kind.upper(), help=f"{text}.")


def _options() -> list[click.Parameter]:
    """Fresh ones for each command."""
    folder = click.Path(path_type=Path)
    return [
        click.Argument(["job_file"], required=False, type=folder, metavar="[JOB.toml]"),
        click.Option(["--type", "-t", "model_type"], metavar="TYPE", help="Model type: flux, sdxl, sd3, ..."),
        click.Option(["--name", "-n"], help="The character's name; names the LoRA's file."),
        click.Option(["--trigger"], metavar="WORD", help="The trigger word; the name where not given."),
        click.Option(
            ["--dataset", "-d"],
            type=folder,
            help="Folder with pictures and captions, or its name in the configured one.",
        ),
        click.Option(["--output", "-o"], type=folder, help="Folder for the LoRA; ComfyUI's models/loras, or ./loras."),
        click.Option(["--preset", "-p"], help="A preset's name or file; auto (the default): what the GPU holds."),
        click.Option(
            ["--model", "-m", "models"],
            multiple=True,
            type=KeyValue(),
            metavar="ROLE=PATH",
            help="A model file, e.g. t5xxl=FILE; can be repeated.",
        ),
        click.Option(
            ["--models", "models_folder"],
            type=folder,
            metavar="FOLDER",
            help="Look for models here; by default in ComfyUI.",
        ),
        click.Option(
            ["--set", "extra"],
            multiple=True,
            type=KeyValue(),
            metavar="KEY=VALUE",
            help="A trainer argument by its own name; can be repeated.",
        ),
        click.Option(
            ["--trainer", "--sd-scripts", "checkout"],
            type=folder,
            metavar="FOLDER",
            help="The checkout of sd-scripts, or of the trainer that the model type has.",
        ),
        click.Option(["--python"], type=folder, metavar="PATH", help="The Python that has what the trainer needs."),
        click.Option(["--rehearsal"], is_flag=True, help="Practise: a miniature training without GPU and models."),
        *(_setting_option(info) for info in SETTINGS.values() if info.kind != "table"),
        json_option(),
    ]


def json_option() -> click.Option:
    """`--json`, which `Terminal` reads."""
    return click.Option(["--json"], is_flag=True, expose_value=False, help="One record per line, for programs.")


class JobCommand(click.Command):
    """A command with the job's options; its help has the settings apart from the rest."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        main: list[tuple[str, str]] = []
        settings: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (settings if param.name in SETTINGS else main).append(record)
        with formatter.section("Options"):
            formatter.write_dl(main)
        with formatter.section("Settings, over the preset's (0 or --no-... switches off what it has on)"):
            formatter.write_dl(settings)


def job_options(command: JobCommand) -> JobCommand:
    """Put the job's options before a command's own."""
    command.params[:0] = _options()
    return command
