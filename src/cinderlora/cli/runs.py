"""`runs`, which lists them, `watch` and `stop`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.options import When, name_option, states_option, type_option
from cinderlora.cli.terminal import Terminal, clean, duration, loss_text
from cinderlora.errors import RunNotFound
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from cinderlora.running import Run, StopReport

__all__ = ["COLOURS", "find_run", "folder_option", "newest_run", "runs", "state_text", "stop", "watch"]

COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "stopped": "yellow", "lost": "red"}

_WIDE = 110  # columns, from which on there is room for loss and duration

folder_option = click.Option(
    ["--runs", "runs_folder"],
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder that runs are kept in.",
)


_MORE = ("show", "compare", "repeat", "prune")


class Runs(click.Group):
    """The commands that look back. Without one of them, what is there is listed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in {"list", *_MORE, *self.get_help_option_names(ctx)}:
            if len(args) > 0:
                _refuse_mistyped(args[0])
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["list", *_MORE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MORE:
            return super().get_command(ctx, cmd_name)
        from cinderlora.cli import history

        command: click.Command = getattr(history, cmd_name)
        return command


def _refuse_mistyped(word: str) -> None:
    """A word that looks like a command and is no folder was not meant for one."""
    from cinderlora.errors import UnknownName
    from cinderlora.names import nearest

    near = None if word.startswith("-") or Path(word).exists() else nearest(word, _MORE)
    if near is not None:
        known = ["list", *_MORE]
        raise UnknownName("command_unknown", name=f"runs {word}", nearest=f"runs {near}", known=known)


@click.group(cls=Runs, invoke_without_command=True)
def runs() -> None:
    """List the trainings, newest first; show, compare, repeat and remove them.

    \b
    cinderlora runs
    cinderlora runs --state failed --since 7d
    cinderlora runs show elena --plot loss.png
    """


@runs.command("list", params=[json_option()])
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@states_option
@type_option
@name_option
@click.option("--since", type=When(), metavar="WHEN", help="Only those launched since: 2026-01-31, 12h, 7d.")
@click.pass_obj
def list_runs(
    terminal: Terminal,
    folder: Path | None,
    limit: int,
    states: Sequence[str],
    model_type: str | None,
    name: str | None,
    since: float | None,
) -> None:
    """List the trainings, newest first. This is what `cinderlora runs` alone does, too."""
    import cinderlora
    from cinderlora.cli.tables import print_table

    folder = folder or terminal.config.runs
    about: Any = {"state": states or None, "model_type": model_type, "name": name, "since": since, "limit": limit}
    found = cinderlora.runs(folder, registry=Registry.from_installed(), **about)
    if terminal.json:
        for run in found:
            with suppress(RunNotFound):  # removed since
                terminal.record(_record(run))
        return
    if not found:
        terminal.note(terminal.say("no_runs", folder=folder or _default_folder()))
        return
    heads: tuple[str, ...] = ("state", "name", "type", "progress", "loss_word", "time", "when", "run")
    rows: list[tuple[object, ...]] = []
    for run in found:
        with suppress(RunNotFound):
            rows.append(_row(terminal, run))
    if terminal.out.width < _WIDE:
        heads, rows = (*heads[:4], *heads[6:]), [(*row[:4], *row[6:]) for row in rows]
    print_table(terminal, heads, rows)


@click.command(params=[json_option(), folder_option])
@click.argument("run", required=False, metavar="[RUN]")
@click.pass_obj
def watch(terminal: Terminal, run: str | None, runs_folder: Path | None) -> int:
    """Watch a training: a run folder, its name or a part of it; the newest that goes on where none is given.

    Ctrl-C ends watching, not the training. Exit codes are train's.
    """
    from cinderlora.cli.following import follow

    registry = Registry.from_installed()
    found = find_run(run, runs_folder or terminal.config.runs, registry, newest=True)
    # The run of a type that is no longer installed can be watched, too.
    title = registry[found.model_type].title if found.model_type in registry else found.model_type
    return follow(terminal, found, title)


@click.command(params=[json_option(), folder_option])
@click.argument("run", required=False, metavar="[RUN]")
@click.option(
    "--grace", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Seconds until force is used."
)
@click.option("--after", type=click.Choice(["checkpoint"]), help="Wait for the next one to be saved first.")
@click.pass_obj
def stop(
    terminal: Terminal,
    run: str | None,
    runs_folder: Path | None,
    grace: float,
    after: Literal["checkpoint"] | None,
) -> int:
    """Stop a training: a run folder, its name or a part of it; the only one that goes on where none is given."""
    import anyio

    found = find_run(run, runs_folder or terminal.config.runs, Registry.from_installed(), newest=False)
    if after is not None and found.state == "running":
        terminal.note(terminal.say("stop_waits", run=found.folder.name))
    report = anyio.run(lambda: found.stop(grace=grace, by="cinderlora stop", after=after))
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"run": str(found.folder), **to_json(report)})
    else:
        _show_stopped(terminal, found, report)
    return 1 if report.left else 0


def _show_stopped(terminal: Terminal, run: Run, report: StopReport) -> None:
    name = run.folder.name
    if report.already_ended:
        terminal.print(terminal.say("stop_over", run=name, state=state_text(terminal, report.state)))
        return
    if report.forced:
        terminal.note(terminal.say("stop_forced", names=", ".join(f"{p.name} {p.pid}" for p in report.forced)))
    if report.partial:
        terminal.note(terminal.say("stop_partial", names=", ".join(clean(path.name) for path in report.partial)))
    if report.left:
        terminal.note(terminal.say("stop_left", names=", ".join(f"{p.name} {p.pid}" for p in report.left)), "bold red")
        return
    terminal.print(terminal.say("stop_done", run=name, seconds=f"{report.seconds:.1f}"))
    if report.gpu_released is not None:
        terminal.print(terminal.say("stop_gpu_released" if report.gpu_released else "stop_gpu_held"))


# ---- finding one -----------------------------------------------------------------------------------------------------


def find_run(name: str | None, folder: Path | None, registry: Registry, *, newest: bool) -> Run:
    """The run that is meant: by its folder, by its folder's name or a part of that only it has, or one that goes on.
    Raises `RunNotFound` where there is none, or where several could be meant."""
    from cinderlora import attach

    if name is None:
        return _going_on(_all_runs(folder, registry), folder, newest=newest)
    if not name.strip():
        raise RunNotFound("run_not_found", folder=repr(name))
    path = Path(name).expanduser()
    if (path / "launch.json").is_file():
        return attach(path, registry=registry)
    found = _all_runs(folder, registry)
    matching = [run for run in found if run.folder.name == name] or [run for run in found if name in run.folder.name]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise RunNotFound("run_ambiguous", name=name, runs=_names(matching))
    raise RunNotFound("run_unknown", name=name, folder=str(folder or _default_folder()))


def newest_run(folder: Path | None, registry: Registry) -> Run:
    """The newest run; raises `RunNotFound` where there is none."""
    found = _all_runs(folder, registry)
    if not found:
        raise RunNotFound("no_run", folder=str(folder or _default_folder()))
    return found[0]


def _going_on(found: Sequence[Run], folder: Path | None, *, newest: bool) -> Run:
    running = [run for run in found if run.state == "running"]
    if not running:
        latest = found[0].folder.name if found else ""
        raise RunNotFound("no_run_going_on", folder=str(folder or _default_folder()), latest=latest)
    if len(running) > 1 and not newest:
        raise RunNotFound("several_runs_going_on", runs=_names(running))
    return running[0]


def _names(runs: Sequence[Run]) -> list[str]:
    return [clean(run.folder.name) for run in runs[:5]] + (["…"] if len(runs) > 5 else [])


def _all_runs(folder: Path | None, registry: Registry) -> list[Run]:
    import cinderlora

    return cinderlora.runs(folder, registry=registry)


def _default_folder() -> Path:
    from cinderlora.running.starting import default_runs_folder

    return default_runs_folder()


# ---- the list --------------------------------------------------------------------------------------------------------


def _row(terminal: Terminal, run: Run) -> tuple[object, ...]:
    from rich.text import Text

    figures, seconds = run.figures, run.seconds
    progress = ""
    if figures.total:
        progress = f"{figures.step or 0}/{figures.total} ({100 * (figures.step or 0) // figures.total}%)"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
    took = "" if seconds is None else duration(seconds)
    state = Text(state_text(terminal, run.state), COLOURS.get(run.state, ""))
    return (state, run.name, run.model_type, progress, loss_text(figures.loss), took, when, run.folder.name)


def state_text(terminal: Terminal, state: str) -> str:
    """How a run stands, in the person's language."""
    return terminal.say(f"state_{state}" if state in {"failed", "stopped"} else state)


def _record(run: Run) -> dict[str, object]:
    from cinderlora.serial import to_json

    status = run.status
    return {
        "folder": str(run.folder),
        "name": run.name,
        "model_type": run.model_type,
        "state": run.state,
        "created": run.created,
        "ended": run.ended,
        "seconds": run.seconds,
        "lora": str(status.result.lora) if status.result else None,
        **to_json({key: getattr(status, key) for key in ("phase", "step", "total", "loss", "eta", "sample")}),
    }
