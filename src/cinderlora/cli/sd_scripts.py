"""`sd-scripts`: install the trainer, find it, see whether it can be used."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal, clean, gigabytes

if TYPE_CHECKING:
    from cinderlora.sd_scripts import SdScripts
    from cinderlora.sd_scripts.installing import Installed, InstallStep
    from cinderlora.sd_scripts.verify import Verification

__all__ = ["sd_scripts"]

_LEAST = 10.0  # seconds between two lines that only tell that something goes on


@click.group("sd-scripts")
def sd_scripts() -> None:
    """Install sd-scripts, which trains; find it, and see whether it can be used."""


# ---- install ---------------------------------------------------------------------------------------------------------


@sd_scripts.command(params=[json_option()])
@click.option("--path", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to; your data folder else.")
@click.option("--ref", metavar="TAG", help="A tag, branch or commit; the commit that cinderlora is tried with else.")
@click.option("--from", "source", metavar="URL|FOLDER", help="The repository; the original on GitHub else.")
@click.option(
    "--torch",
    type=click.Choice(["auto", "cpu", "cu126", "cu128"]),
    default="auto",
    help="PyTorch's build; auto (the default) goes by the NVIDIA driver.",
)
@click.option("--remember", is_flag=True, help="Write the folder into the configuration.")
@click.pass_obj
def install(
    terminal: Terminal, path: Path | None, ref: str | None, source: str | None, torch: str, remember: bool
) -> int:
    """Install it, and try whether it works.

    It gets a Python environment of its own. Needs git, and some 8 GB of disk space with CUDA. One that is there already
    is left as it is. When this is interrupted, nothing is left behind.

    Exit codes: 0 it can be used, 1 it failed, 2 the request was wrong, 130 interrupted.
    """
    import anyio

    from cinderlora.cli.app import FAILED, STOPPED, WRONG
    from cinderlora.errors import InstallFailed
    from cinderlora.sd_scripts.installing import SOURCE, default_path

    wanted = {"path": path or terminal.config.sd_scripts or default_path(), "source": source or SOURCE}
    try:
        installed = anyio.run(_install, terminal, {**wanted, "ref": ref, "torch": torch})
    except InstallFailed as error:
        terminal.error(error, error.params.get("output", ()))
        return FAILED if "step" in error.params else WRONG
    if installed is None:
        terminal.note(terminal.say("aborted"))
        return STOPPED
    if remember:
        _remember(installed.trainer.path)
    if terminal.json:
        facts = _record(terminal, installed.trainer, installed.verification)
        terminal.record({"installed": {**facts, "was_there": installed.was_there}})
    else:
        _tell(terminal, installed, remember)
    return 0 if installed.verification.ok else FAILED


async def _install(terminal: Terminal, wanted: dict[str, Any]) -> Installed | None:
    """Install and show it; None where a signal has ended it, when all is cleaned up."""
    import anyio

    from cinderlora.sd_scripts.installing import install as start

    done: list[Installed] = []
    failure: list[Exception] = []

    async def listen(*, task_status: Any) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                display.cleaning_up()
                tasks.cancel_scope.cancel()
                return

    with _display(terminal) as display:
        async with anyio.create_task_group() as tasks:
            if os.name == "posix":  # elsewhere Ctrl-C comes as an exception
                await tasks.start(listen)
            try:
                done.append(await start(**wanted, on_event=display.show))
            except Exception as error:  # the task group would wrap it
                failure.append(error)
            tasks.cancel_scope.cancel()
    if failure:
        raise failure[0]
    return done[0] if done else None


def _tell(terminal: Terminal, installed: Installed, remember: bool) -> None:
    from cinderlora.sd_scripts.installing import default_path

    path = installed.trainer.path
    _print_facts(terminal, installed.trainer, installed.verification)
    terminal.problems(installed.verification.problems)
    terminal.print(terminal.say("install_was_there" if installed.was_there else "installed", path=path), "bold")
    if remember:
        terminal.print(terminal.say("install_remembered"))
    elif path != (terminal.config.sd_scripts or default_path()):
        command = f"cinderlora config set sd_scripts {shlex.quote(str(path))}"
        terminal.print(terminal.say("install_remember", command=command))
    named = os.environ.get("CINDERLORA_SD_SCRIPTS")
    if named and Path(named).expanduser().absolute() != path:
        terminal.note(terminal.say("config_shadowed", variable="CINDERLORA_SD_SCRIPTS"), "yellow")


def _remember(path: Path) -> None:
    from cinderlora.config import Config, read_config
    from cinderlora.errors import ConfigError
    from cinderlora.serial import write_toml

    values = read_config(Config.file()) | {"sd_scripts": str(path)}
    values.pop("sd_scripts_python", None)  # another one's; this one has its own
    try:
        write_toml(Config.file(), values)
    except OSError as error:
        raise ConfigError("file_not_written", path=str(Config.file()), why=error.strerror or str(error)) from error


# ---- find and show ---------------------------------------------------------------------------------------------------


@sd_scripts.command(params=[json_option()])
@click.pass_obj
def find(terminal: Terminal) -> None:
    """Print where it is: exit code 2 where there is none."""
    trainer = _used(terminal, None)
    if terminal.json:
        terminal.record({"path": str(trainer.path)})
    else:
        terminal.print(str(trainer.path))


@sd_scripts.command(params=[json_option()])
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="Another Python than its own.")
@click.pass_obj
def show(terminal: Terminal, folder: Path | None, python: Path | None) -> int:
    """Show it and try whether it works.

    The one that is used here, or that of a folder. Takes some seconds.

    Exit codes: 0 it can be used, 2 it cannot.
    """
    from cinderlora.cli.app import DONE, WRONG

    trainer = _used(terminal, folder, python)
    found = trainer.verify()
    if terminal.json:
        terminal.record(_record(terminal, trainer, found))
    else:
        _print_facts(terminal, trainer, found)
        terminal.problems(found.problems)
        if found.ok:
            terminal.print(terminal.say("trainer_works"), "green")
    return DONE if found.ok else WRONG


def _used(terminal: Terminal, folder: Path | None, python: Path | None = None) -> SdScripts:
    """The sd-scripts of a folder, else the one that is configured, else the first one found."""
    from cinderlora.sd_scripts import SdScripts

    python = python or terminal.config.sd_scripts_python
    path = folder or terminal.config.sd_scripts
    return SdScripts(SdScripts.find().path if path is None else path, python=python)


def _record(terminal: Terminal, trainer: SdScripts, found: Verification) -> dict[str, Any]:
    from cinderlora.serial import to_json

    problems = [{**to_json(p), **p.text(terminal.language)._asdict()} for p in found.problems]
    facts = {"path": str(trainer.path), "version": trainer.version, "commit": trainer.commit, "ok": found.ok}
    return {**facts, **to_json(found), "problems": problems}


def _print_facts(terminal: Terminal, trainer: SdScripts, found: Verification) -> None:
    from rich.table import Table
    from rich.text import Text

    from cinderlora.cli.tables import print_aligned

    version = " ".join(filter(None, (trainer.version, f"({trainer.commit[:10]})" if trainer.commit else "")))
    torch = f"{found.torch} ({f'CUDA {found.cuda}' if found.cuda else 'CPU'})" if found.torch else ""
    python = f"{found.python} ({found.python_version})" if found.python_version else found.python
    rows = {
        "trainer_folder": trainer.path,
        "trainer_version": version,
        "trainer_python": python,
        "trainer_torch": torch,
        "trainer_gpus": ", ".join(found.gpus),
        "trainer_scripts": ", ".join(found.scripts),
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value:
            table.add_row(Text(terminal.say(key), "dim"), Text(clean(value)))
    print_aligned(terminal, table)


# ---- how it goes on --------------------------------------------------------------------------------------------------


class _Display(Protocol):
    def show(self, step: InstallStep) -> None: ...
    def cleaning_up(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...


def _display(terminal: Terminal) -> _Display:
    if terminal.json:
        return _Records(terminal)
    if not terminal.out.is_terminal or terminal.out.is_dumb_terminal:
        return _Lines(terminal)
    return _Live(terminal)


class _Records:
    """Each step as a line of JSON."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, step: InstallStep) -> None:
        from cinderlora.serial import to_json

        self._terminal.record({"step": to_json(step)})

    def cleaning_up(self) -> None:
        pass


class _Lines(_Records):
    """A line for each step, and now and then one that tells that it goes on."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._number = 0
        self._said = 0.0

    def show(self, step: InstallStep) -> None:
        if step.number != self._number:
            self._number = step.number
            self._say(_title(self._terminal, step))
        elif step.detail and time.monotonic() - self._said > _LEAST:
            self._say(f"  {_detail(step)}")

    def cleaning_up(self) -> None:
        self._terminal.note(self._terminal.say("cleaning_up"))

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._terminal.print(text)


class _Live:
    """The step that goes on with its bar, below those that are done."""

    def __init__(self, terminal: Terminal) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._terminal = terminal
        self._number = 0
        self._title = ""
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn()
        detail = TextColumn("{task.fields[detail]}", style="dim", markup=False)
        self._progress = Progress(*columns, detail, console=terminal.out, transient=True)
        self._task = self._progress.add_task("", total=None, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, step: InstallStep) -> None:
        if step.number != self._number:
            if self._title:
                self._terminal.print(self._title, "dim")
            self._number, self._title = step.number, _title(self._terminal, step)
            self._begin(self._title)
        width = max(10, self._terminal.out.width - 60)
        self._progress.update(self._task, total=step.total, completed=step.done, detail=_detail(step)[:width])

    def cleaning_up(self) -> None:
        self._begin(self._terminal.say("cleaning_up"))

    def _begin(self, title: str) -> None:
        from rich.markup import escape

        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(escape(title), total=None, detail="")


def _title(terminal: Terminal, step: InstallStep) -> str:
    return f"[{step.number}/{step.of}] {terminal.say(f'step_{step.name}')}"


def _detail(step: InstallStep) -> str:
    size = f" {gigabytes(step.done)} / {gigabytes(step.total)}" if step.done and step.total and step.number > 2 else ""
    return clean(step.detail) + size
