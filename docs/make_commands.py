"""The page of the commands, from click's own description of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from cinderlora.cli.app import cinderlora
from cinderlora.cli.job_options import JobCommand
from cinderlora.types import SETTINGS

HEAD = """# Commands

Every command with its options, as `--help` tells them; [Command line](../command-line.md) is the guide. Made by
`python docs/make_pages.py`.

Each has `-h` and `--help`.
"""

SETTINGS_TOO = """Each [setting](settings.md) has an option of its name, which goes over the preset: `--network-dim 32`,
`--gradient-checkpointing`, `--no-gradient-checkpointing`."""


def page() -> str:
    root = click.Context(cinderlora, info_name="cinderlora")
    return "\n".join([HEAD, *(section(context) for context in contexts(root))])


def contexts(context: click.Context) -> Iterator[click.Context]:
    """Of a command and all below it."""
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from contexts(click.Context(below, info_name=name, parent=context))


def section(context: click.Context) -> str:
    command = context.command
    usage = context.get_usage().removeprefix("Usage: ")
    parts = [f"## {context.command_path}", f"```text\n{usage}\n```", *paragraphs(command)]
    rows = list(options(context))
    if rows:
        parts.append("| option | is |\n|---|---|\n" + "\n".join(rows))
    if isinstance(command, JobCommand):
        parts.append(SETTINGS_TOO)
    return "\n\n".join(parts) + "\n"


def paragraphs(command: click.Command) -> Iterator[str]:
    """What it says of itself; lines that begin with the program's name are examples."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = paragraph.replace("\b", "").strip("\n")
        if text.startswith("cinderlora "):
            yield f"<!-- not run: an example of the help, whose files are not here -->\n```sh\n{text}\n```"
        else:
            yield escaped(" ".join(text.split()))


def options(context: click.Context) -> Iterator[str]:
    for param in context.command.get_params(context):
        record = param.get_help_record(context)
        is_setting = isinstance(context.command, JobCommand) and param.name in {*SETTINGS} - {"extra"}
        if record is None or not record[1] or "--help" in param.opts or is_setting:
            continue
        yield f"| `{record[0].replace('|', chr(92) + '|')}` | {escaped(record[1])} |"


def escaped(text: str) -> str:
    return re.sub(r"([<>|*_])", r"\\\1", text)
