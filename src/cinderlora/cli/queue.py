"""`queue` and its commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cinderlora.cli.job_options import JobCommand, KeyValue, job_options, json_option, toml_value
from cinderlora.cli.terminal import Terminal

if TYPE_CHECKING:
    from cinderlora.cli.request import Request
    from cinderlora.problems import Problem
    from cinderlora.queues import Entry
    from cinderlora.sync import Queue
    from cinderlora.types import Job

__all__ = ["queue"]

WRONG = 2


def _queue_option() -> click.Option:
    return click.Option(
        ["--queue", "folder"],
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="The queue's folder; by default in the user's data folder.",
    )


def _common() -> list[click.Parameter]:
    return [_queue_option(), json_option()]


def _ids(*, required: bool = True) -> click.Argument:
    return click.Argument(["numbers"], nargs=-1, type=int, required=required, metavar="ID...")


def _open(folder: Path | None, **options: Any) -> Queue:
    from cinderlora.sync import Queue

    return Queue(folder, **options)


class Commands(click.Group):
    """The queue's commands; one that is mistyped is told the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            from cinderlora.errors import UnknownName
            from cinderlora.names import nearest

            name, known = f"queue {args[0]}", list(self.commands)
            near = nearest(args[0], known)
            raise UnknownName("command_unknown", name=name, nearest=near and f"queue {near}", known=known)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands)
def queue() -> None:
    """Train one after the other: add jobs, and leave the rest to the queue.

    It runs one job per GPU, goes on when this terminal is closed, and ends when nothing is left to do.

    \b
    cinderlora queue add elena.toml
    cinderlora queue add elena.toml --sweep network_dim=8,16,32
    cinderlora queue watch
    """


# ---- adding ----------------------------------------------------------------------------------------------------------


class Sweep(KeyValue):
    """KEY=V1,V2,..."""

    name = "key=v1,v2"


@job_options
@click.command(cls=JobCommand, params=[_queue_option()])
@click.option(
    "--sweep",
    multiple=True,
    type=Sweep(),
    metavar="KEY=V1,V2",
    help="A job for each of these values of a setting; several give all combinations.",
)
@click.option("--hold", is_flag=True, help="Do not start it before it is released.")
@click.option("--no-start", is_flag=True, help="Only add it: see queue run.")
@click.option("--runs", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the run folder in this folder.")
@click.option(
    "--configs", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the three configuration files here, too."
)
@click.option("--dry-run", is_flag=True, help="Print what would be added, and add nothing.")
@click.pass_obj
def add(
    terminal: Terminal,
    /,
    folder: Path | None,
    sweep: Sequence[tuple[str, str]],
    hold: bool,
    no_start: bool,
    runs: Path | None,
    configs: Path | None,
    dry_run: bool,
    **given: Any,
) -> int:
    """Add a training, or with --sweep several: what `cinderlora train` takes.

    The configuration is frozen now; pictures and models must still be the same files when it starts.

    \b
    cinderlora queue add -t flux -n elena -d datasets/elena
    cinderlora queue add elena.toml --sweep network_dim=8,16 --sweep seed=1,2
    """
    from cinderlora.cli.request import Options, make_request
    from cinderlora.cli.train import refuse, show_plan
    from cinderlora.problems import Report

    request = make_request(Options.of(given), terminal.config, terminal.registry)
    jobs = _swept(request.job, sweep)
    found = _problems(request, jobs)
    report = Report(problems=found)
    if report.errors:
        return refuse(terminal, request, report)
    plans = [request.adapter.plan(job, request.trainer) for job in jobs]
    if dry_run:
        for plan in plans:
            show_plan(terminal, plan)
        return 0
    if not terminal.json:
        terminal.problems(report.warnings)
    to = _open(folder)
    last = len(plans) - 1
    for number, plan in enumerate(plans):
        start = number == last and not no_start  # one start is enough for all
        entry = to.add(plan, hold=hold, start=start, runs=runs or terminal.config.runs, configs=configs)
        _say(terminal, "queue_added", entry)
    return 0


def _swept(job: Job, sweeps: Sequence[tuple[str, str]]) -> tuple[Job, ...]:
    from cinderlora.types import SETTINGS

    def value(name: str, text: str) -> Any:
        return text if name in SETTINGS and SETTINGS[name].kind == "str" else toml_value(text)

    values: dict[str, list[Any]] = {}
    for key, text in sweeps:
        name = key.replace("-", "_")
        values.setdefault(name, []).extend(value(name, part.strip()) for part in text.split(",") if part.strip())
    return job.sweep(**values)


def _problems(request: Request, jobs: Sequence[Job]) -> tuple[Problem, ...]:
    """What is wrong with the jobs; what is said of several is said once."""
    found = [problem for job in jobs for problem in request.adapter.check(job, request.trainer).problems]
    return tuple({(problem.code, str(problem)): problem for problem in found}.values())


def _say(terminal: Terminal, word: str, entry: Entry) -> None:
    if terminal.json:
        _record(terminal, entry)
    else:
        terminal.print(terminal.say(word, entry=entry.id, name=entry.name))


def _record(terminal: Terminal, entry: Entry) -> None:
    from cinderlora.serial import to_json

    terminal.record({"entry": to_json(entry)})


# ---- looking ---------------------------------------------------------------------------------------------------------


@click.command("list", params=_common())
@click.option("--all", "everything", is_flag=True, help="Those that ended long ago, too.")
@click.pass_obj
def list_entries(terminal: Terminal, /, folder: Path | None, everything: bool) -> None:
    """List the jobs: how those stand that run, what comes next, what came of the others."""
    from cinderlora.cli.queue_tables import show_list
    from cinderlora.serial import to_json

    at = _open(folder)
    status = at.status()
    if terminal.json:
        record = to_json(status)
        terminal.record({"queue": {key: value for key, value in record.items() if key != "entries"}})
        for entry in status.entries:
            _record(terminal, entry)
        return
    show_list(terminal, status, everything=everything)


@click.command(params=_common())
@click.pass_obj
def watch(terminal: Terminal, /, folder: Path | None) -> None:
    """Watch the queue until nothing is left to do. Ctrl-C ends watching, not the queue."""
    from cinderlora.cli.queue_tables import watch_lines, watch_live

    at = _open(folder)
    try:
        if terminal.json:
            for entry in at.watch():
                _record(terminal, entry)
        elif terminal.out.is_terminal and not terminal.out.is_dumb_terminal:
            watch_live(terminal, at)
        else:
            watch_lines(terminal, at)
    except KeyboardInterrupt:
        if at.is_running:
            terminal.note(terminal.say("queue_goes_on"))
        raise


@click.command(params=[_ids(required=False), *_common()])
@click.option("--sheet", type=click.Path(path_type=Path), metavar="PNG", help="Draw their samples side by side.")
@click.pass_obj
def table(terminal: Terminal, /, numbers: Sequence[int], folder: Path | None, sheet: Path | None) -> None:
    """Compare what came of jobs, all or some: the settings in which they differ, loss, time, LoRA."""
    from cinderlora.cli.queue_tables import show_outcomes
    from cinderlora.queues.sheet import draw_sheet
    from cinderlora.serial import to_json

    outcomes = _open(folder).outcomes(numbers or None)
    if terminal.json:
        for outcome in outcomes:
            terminal.record({"outcome": to_json(outcome)})
    else:
        show_outcomes(terminal, outcomes)
    if sheet is not None:
        draw_sheet(outcomes, sheet)
        if terminal.json:
            terminal.record({"sheet": str(sheet)})
        else:
            terminal.print(terminal.say("queue_sheet", path=sheet))


# ---- changing --------------------------------------------------------------------------------------------------------


@click.command(params=[_ids(), *_common()])
@click.pass_obj
def hold(terminal: Terminal, /, numbers: Sequence[int], folder: Path | None) -> None:
    """Keep jobs from being started."""
    at = _open(folder)
    for number in numbers:
        _say(terminal, "queue_held", at.hold(number))


@click.command(params=[_ids(), *_common()])
@click.pass_obj
def release(terminal: Terminal, /, numbers: Sequence[int], folder: Path | None) -> None:
    """Let jobs that are held be started when their turn comes."""
    at = _open(folder)
    for number in numbers:
        _say(terminal, "queue_released", at.release(number))


@click.command(params=[click.Argument(["number"], type=int, metavar="ID"), *_common()])
@click.option("--to", type=click.IntRange(min=1), metavar="PLACE", help="To this place; 1 is started next.")
@click.option("--before", type=int, metavar="ID", help="Before another job.")
@click.pass_obj
def move(terminal: Terminal, /, number: int, folder: Path | None, to: int | None, before: int | None) -> None:
    """Put a job elsewhere in the queue; to its front unless said otherwise."""
    at = _open(folder)
    at.move(number, to=to, before=before)
    _say(terminal, "queue_moved", at.entry(number))


@click.command(params=[_ids(required=False), *_common()])
@click.option("--stop", "stops", is_flag=True, help="Stop those that run.")
@click.option("--ended", is_flag=True, help="All that have ended.")
@click.option(
    "--grace", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Seconds until force is used."
)
@click.pass_obj
def remove(
    terminal: Terminal, /, numbers: Sequence[int], folder: Path | None, stops: bool, ended: bool, grace: float
) -> None:
    """Take jobs out of the queue. Their run folders and LoRAs stay."""
    at = _open(folder)
    chosen = [*numbers, *(entry.id for entry in at.entries() if ended and entry.is_ended and entry.id not in numbers)]
    if not chosen and not ended:
        raise click.UsageError("Missing argument 'ID...'.")
    for number in chosen:
        entry = at.entry(number)
        if stops and entry.is_under_way:
            at.stop(number, grace=grace, by="cinderlora queue remove")
        at.remove(number)
        _say(terminal, "queue_removed", entry)


@click.command(params=[_ids(), *_common()])
@click.option(
    "--grace", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Seconds until force is used."
)
@click.pass_obj
def stop(terminal: Terminal, /, numbers: Sequence[int], folder: Path | None, grace: float) -> None:
    """Stop jobs that run. The queue goes on with the next one: see pause."""
    at = _open(folder)
    for number in numbers:
        report = at.stop(number, grace=grace, by="cinderlora queue stop")
        _say(terminal, "queue_had_ended" if report.already_ended else "queue_stopped", at.entry(number))


@click.command(params=[_ids(), *_common()])
@click.pass_obj
def retry(terminal: Terminal, /, numbers: Sequence[int], folder: Path | None) -> None:
    """Add jobs that have ended once more, with the same configuration."""
    at = _open(folder)
    for number in numbers:
        _say(terminal, "queue_added", at.retry(number))


@click.command(params=_common())
@click.option("--gpus", metavar="LIST", help="The GPUs that jobs may have: 0,1 as nvidia-smi counts, or all.")
@click.option("--gpus-per-job", type=click.IntRange(min=1), metavar="N", help="How many each job gets.")
@click.option("--stop-on-failure/--no-stop-on-failure", default=None, help="Pause when a job fails.")
@click.option(
    "--retry-out-of-memory/--no-retry-out-of-memory",
    default=None,
    help="Try a job that ran out of memory once more, as its diagnosis advises.",
)
@click.pass_obj
def run(terminal: Terminal, /, folder: Path | None, gpus: str | None, **options: Any) -> None:
    """Work off the queue, in the background; also go on after a pause. What is said here stays until said otherwise."""
    at = _open(folder, gpus=_gpus(gpus), **options)
    at.start()
    status = at.status()
    if terminal.json:
        terminal.record({"queue": {"folder": str(at.folder), "is_running": status.is_running}})
        return
    count = sum(entry.state == "waiting" for entry in status.entries)
    terminal.print(terminal.say("queue_runs", count=count) if status.is_running else terminal.say("queue_nothing"))


@click.command(params=_common())
@click.pass_obj
def pause(terminal: Terminal, /, folder: Path | None) -> None:
    """Start nothing more. What runs goes on; so does the queue with: queue run."""
    at = _open(folder)
    at.pause()
    if terminal.json:
        terminal.record({"queue": {"folder": str(at.folder), "paused": True}})
    else:
        terminal.print(terminal.say("queue_paused"))


def _gpus(text: str | None) -> Any:
    if text is None or text == "all":
        return text
    return [int(part) if part.strip().isdecimal() else part.strip() for part in text.split(",") if part.strip()]


for _command in (add, list_entries, hold, release, move, remove, run, pause, stop, retry, watch, table):
    queue.add_command(_command)
