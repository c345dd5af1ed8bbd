"""The group of commands, loaded one by one, and what becomes of their errors."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from cinderlora import __version__
from cinderlora.cli.terminal import Terminal, clean

__all__ = ["run"]

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130
UNREAD = 141  # as the shell has it of every program that SIGPIPE ended

COMMANDS = {
    "demo": ("demo", "Try it out: draw a character, train a practice LoRA on it."),
    "train": ("train", "Train a LoRA, from options or from a job file."),
    "check": ("train", "Say what is wrong with a training before it starts."),
    "presets": ("presets", "List, show, compare and save presets."),
    "import": ("importing", "Take over a configuration of kohya_ss, sd-scripts, OneTrainer or ai-toolkit."),
    "adapters": ("adapters", "List the model types, check a plugin, begin a new one."),
    "models": ("models", "List the model files in a folder."),
    "dataset": ("dataset", "Say what is in a data set, and what is wrong with it."),
    "runs": ("runs", "List the trainings, newest first; show, compare, repeat, prune them."),
    "watch": ("runs", "Watch a training that goes on, or see one that has ended."),
    "stop": ("runs", "Stop a training."),
    "queue": ("queue", "Train one after the other: add, list, hold, remove, run, watch."),
    "ui": ("ui", "Train in the browser."),
    "resume": ("resume", "Go on with a training that was stopped or failed."),
    "sd-scripts": ("sd_scripts", "Install sd-scripts, which trains, or see whether it works."),
    "config": ("configuration", "Show or change where things are on this machine."),
    "parse": ("parse", "Turn the log of a training into events."),
}
"""Each command's module and what the overview says of it: modules are imported when a command is called."""


class Commands(click.Group):
    """The commands, imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"cinderlora.cli.{COMMANDS[cmd_name][0]}")
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(module, f"{name}_" if iskeyword(name) else name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from cinderlora.errors import UnknownName
            from cinderlora.names import nearest

            raise UnknownName("command_unknown", name=args[0], nearest=nearest(args[0], COMMANDS), known=list(COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="cinderlora", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where an unexpected error happened.")
@click.pass_context
def cinderlora(ctx: click.Context) -> None:
    """Train character LoRAs for FLUX, SDXL and SD3 with Kohya's sd-scripts.

    A first look, without GPU or downloads: cinderlora demo
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(argv: list[str]) -> int:
    """Run a command line; gives the exit code and lets no exception through."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows few characters is no reason to fail
    terminal = Terminal(argv)
    try:
        return _run(argv, terminal)
    except BrokenPipeError:
        _forget_stdout()
        return UNREAD  # whoever read along has seen enough
    except (KeyboardInterrupt, click.Abort):
        terminal.note(terminal.say("aborted"))
        return STOPPED


def _run(argv: list[str], terminal: Terminal) -> int:
    from cinderlora.errors import CinderloraError, TrainingFailed, TrainingStopped

    try:
        code: Any = cinderlora.main(args=argv, prog_name="cinderlora", standalone_mode=False, obj=terminal)
        sys.stdout.flush()
    except click.NoSuchOption as error:
        _no_such_option(error, terminal)
        return WRONG
    except click.ClickException as error:
        terminal.plain_error("usage", error.format_message())
        return WRONG
    except CinderloraError as error:
        terminal.error(error)
        return FAILED if isinstance(error, TrainingFailed) else STOPPED if isinstance(error, TrainingStopped) else WRONG
    except (BrokenPipeError, KeyboardInterrupt, click.Abort):
        raise
    except Exception as error:
        if terminal.debug:
            raise
        what = clean(f"{type(error).__name__}: {error}")
        terminal.plain_error("unexpected", terminal.say("unexpected", error=what), terminal.say("debug_hint"))
        return FAILED
    return code if isinstance(code, int) else DONE


def _no_such_option(error: click.NoSuchOption, terminal: Terminal) -> None:
    from cinderlora.errors import SettingError
    from cinderlora.names import nearest

    known = [name for p in error.ctx.command.params for name in (*p.opts, *p.secondary_opts)] if error.ctx else []
    terminal.error(SettingError("option_unknown", option=error.option_name, nearest=nearest(error.option_name, known)))


def _forget_stdout() -> None:
    """Keep Python from complaining, at its end, that it cannot write what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
