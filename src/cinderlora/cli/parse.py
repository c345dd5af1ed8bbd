"""`parse`: the events of any sd-scripts log."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal
from cinderlora.events import Event
from cinderlora.registry import Registry

__all__ = ["parse"]

_CHUNK = 1 << 16
_IN_MEMORY = 1 << 24


@click.command(params=[json_option()])
@click.option("--type", "-t", "model_type", required=True, metavar="TYPE", help="The model type that was trained.")
@click.option("--exit-code", type=int, help="How the training ended: with it, --json gives the diagnosis, too.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-")
@click.pass_obj
def parse(terminal: Terminal, model_type: str, exit_code: int | None, file: Path) -> None:
    """Turn the log of a training into events, and say why it failed where it did; - is the standard input.

    The training need not have been started by cinderlora.
    """
    from cinderlora.errors import ConfigError

    adapter = Registry.from_installed()[model_type]
    try:
        # What comes in by a pipe is shown as it comes, and kept to be read again for the diagnosis.
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) if str(file) == "-" else file.open("rb") as log:
            pieces = _kept(sys.stdin.buffer, log) if str(file) == "-" else _pieces(log)
            _show_events(terminal, adapter.title, adapter.events(pieces))
            if terminal.json and exit_code is None:
                return
            log.seek(0)
            diagnosis = adapter.diagnose(_pieces(log), exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError("file_unreadable", path=str(file), why=error.strerror or str(error)) from error
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"diagnosis": to_json(diagnosis)})
    elif diagnosis is not None:
        terminal.diagnosis(diagnosis)


def _show_events(terminal: Terminal, title: str, events: Iterator[Event]) -> None:
    from cinderlora.cli.display import Lines
    from cinderlora.serial import to_json

    with Lines(terminal, Path(), title) as lines:
        for event in events:
            if terminal.json:
                terminal.record(to_json(event))
            else:
                lines.show(event)


def _pieces(log: IO[bytes]) -> Iterator[bytes]:
    while piece := log.read(_CHUNK):
        yield piece


def _kept(source: IO[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read1(_CHUNK):  # type: ignore[attr-defined]
        copy.write(piece)
        yield piece
