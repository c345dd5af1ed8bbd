"""`runs show`, `compare`, `repeat` and `prune`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.options import Age, name_option, states_option, type_option
from cinderlora.cli.runs import COLOURS, find_run, folder_option, newest_run, state_text
from cinderlora.cli.terminal import Terminal, clean, duration, gigabytes, loss_text
from cinderlora.errors import CinderloraError
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cinderlora.history.losses import LossCurve
    from cinderlora.history.pruning import Pruned
    from cinderlora.queues.comparing import Told
    from cinderlora.running import Run
    from cinderlora.types import Job

__all__ = ["compare", "prune", "repeat", "show"]

_WIDEST = 100  # columns: a curve in a pipe, or across a whole screen, is hard to read
_PICTURES = 6  # samples and checkpoints that are named
_SPARK = 24  # columns


def _found(terminal: Terminal, names: Sequence[str | None], folder: Path | None, registry: Registry) -> list[Run]:
    """The runs that are meant; None is the newest."""
    folder = folder or terminal.config.runs
    return [
        newest_run(folder, registry) if name is None else find_run(name, folder, registry, newest=False)
        for name in names
    ]


# ---- show ------------------------------------------------------------------------------------------------------------


@click.command(params=[json_option(), folder_option])
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the loss: .png, .jpg, .webp, .svg.")
@click.pass_obj
def show(terminal: Terminal, run: str | None, runs_folder: Path | None, plot: Path | None) -> None:
    """Show a training: how it went, what it was told, the loss, what it left; the newest one where none is given.

    \b
    cinderlora runs show
    cinderlora runs show elena --plot loss.png
    """
    from cinderlora.queues.comparing import told_by

    (found,) = _found(terminal, [run], runs_folder, Registry.from_installed())
    told, losses, job = told_by(found), found.losses(), _job(found)
    if terminal.json:
        terminal.record(_record(found, told, losses, job))
    else:
        _show(terminal, found, told, losses, job)
    if plot is not None:
        title = f"{found.name} ({_title(found)})"
        note = terminal.say(_kind(losses) if losses.is_average else "loss_both")
        _draw(terminal, [(found.name, losses)], plot, title=title, note=note)


def _draw(terminal: Terminal, curves: Sequence[tuple[str, LossCurve]], path: Path, **texts: str) -> None:
    from cinderlora.history.plotting import Curve, draw_curves

    draw_curves([Curve(clean(label)[:80], losses) for label, losses in curves], path, **texts)
    if terminal.json:
        terminal.record({"plot": str(path)})
    else:
        terminal.print(terminal.say("plot_is", path=path))


def _job(run: Run) -> Job | None:
    """What was wanted; None where nobody wrote it down."""
    try:
        return run.job
    except (CinderloraError, KeyError, TypeError, ValueError):
        return None


def _title(run: Run) -> str:
    return run._adapter.title


def _kind(losses: LossCurve) -> str:
    return "loss_average" if losses.is_average else "loss_per_step"


def _record(run: Run, told: Told, losses: LossCurve, job: Job | None) -> dict[str, Any]:
    from cinderlora.serial import to_json

    return {
        "folder": str(run.folder),
        "name": run.name,
        "model_type": run.model_type,
        "state": run.state,
        "created": run.created,
        "ended": run.ended,
        "seconds": run.seconds,
        **to_json(run.figures._asdict()),
        "job": to_json(job),
        **to_json(told),
        "losses": to_json(losses),
    }


def _show(terminal: Terminal, run: Run, told: Told, losses: LossCurve, job: Job | None) -> None:
    from rich.text import Text

    say, figures = terminal.say, run.figures
    head = Text(clean(f"{run.name} ({_title(run)}): "), "bold")
    terminal.out.print(head.append(state_text(terminal, run.state), COLOURS.get(run.state, "")), soft_wrap=True)
    took = "" if run.seconds is None else f", {duration(run.seconds)}"
    rows: dict[str, object] = {
        "when": f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(run.created))}{took}",
        "steps": f"{figures.step or 0}/{figures.total}" if figures.total else None,
        "loss_word": None if figures.loss is None else f"{loss_text(figures.loss)} ({say('average_word')})",
        "preset_word": job.preset if job else None,
        "dataset_word": job.dataset if job else None,
        "ram": gigabytes(told.ram_peak_bytes) if told.ram_peak_bytes else None,
        "vram": gigabytes(told.vram_peak_bytes) if told.vram_peak_bytes else None,
        "demo_run": run.folder,
        "lora": told.result.lora if told.result else None,
    }
    _grid(terminal, [(say(key), str(value)) for key, value in rows.items() if value is not None])
    _curve(terminal, losses)
    if job is not None:
        settings = {name: value for name, value in job.settings.items() if name != "extra"} | dict(job.settings.extra)
        terminal.print()
        terminal.print(say("settings"), "bold")
        _settings(terminal, settings)
    checkpoints = told.result.checkpoints if told.result else told.checkpoints
    samples = told.result.samples if told.result else tuple(sample.path for sample in told.samples)
    for key, paths in (("checkpoints", checkpoints), ("samples", samples)):
        _paths(terminal, say(key), paths)
    if told.diagnosis is not None:
        terminal.print()
        terminal.diagnosis(told.diagnosis)
        terminal.note(f"  {say('log_is', path=run.folder / 'output.log')}")
    elif run.state == "stopped":
        terminal.print(say("stopped", by=told.stopped_by) if told.stopped_by else say("stopped_plain"), "yellow")


def _grid(terminal: Terminal, rows: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from cinderlora.cli.tables import print_aligned

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(Text(clean(key), "dim"), Text(clean(value)))
    print_aligned(terminal, table)


def _settings(terminal: Terminal, settings: dict[str, Any]) -> None:
    """Settings in as many columns as there is room for."""
    from cinderlora.cli.queue_tables import value_text

    cells = [f"{clean(name)} = {clean(value_text(value))}" for name, value in settings.items()]
    room = min(_WIDEST, terminal.out.width)
    across = 3 if room >= 96 else 2 if room >= 58 else 1
    width = room // across
    short = [cell for cell in cells if len(cell) <= width - 2]
    down = -(-len(short) // across)
    for line in range(down):
        terminal.print("".join(cell.ljust(width) for cell in short[line::down]).rstrip())
    for cell in cells:
        if cell not in short:
            terminal.print(cell)


def _paths(terminal: Terminal, title: str, paths: Sequence[Path]) -> None:
    """Files by their names, below their folder; the last ones of many."""
    if not paths:
        return
    terminal.print()
    terminal.print(f"{title} ({len(paths)}): {paths[-1].parent}", "bold")
    if len(paths) > _PICTURES:
        terminal.print("  …" if not _plain(terminal) else "  ...")
    for path in paths[-_PICTURES:]:
        terminal.print(f"  {path.name if path.parent == paths[-1].parent else path}")


def _plain(terminal: Terminal) -> bool:
    return terminal.out.options.ascii_only


def _curve(terminal: Terminal, losses: LossCurve) -> None:
    from cinderlora.cli.curves import plot

    values = losses.average or losses.loss
    points = [(float(step), loss) for step, loss in zip(losses.steps, values, strict=True) if loss is not None]
    lines = plot(points, min(_WIDEST, terminal.out.width), 9, plain=_plain(terminal))
    if len(points) < 2 or not lines:
        return
    terminal.print()
    terminal.print(terminal.say(_kind(losses)), "bold")
    for line in lines[:-1]:
        terminal.out.print(line, style="cyan", soft_wrap=True)
    terminal.out.print(lines[-1], style="dim", soft_wrap=True)
    rates = [rate for rate in losses.learning_rate if rate is not None]
    if rates:
        numbers = {"first": f"{rates[0]:.3g}", "last": f"{rates[-1]:.3g}", "least": f"{min(rates):.3g}"}
        terminal.print(terminal.say("rate_is", greatest=f"{max(rates):.3g}", **numbers), "dim")


# ---- compare ---------------------------------------------------------------------------------------------------------


@click.command(params=[json_option(), folder_option])
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the losses together: .png, .jpg, .webp, .svg."
)
@click.pass_obj
def compare(terminal: Terminal, runs: Sequence[str], runs_folder: Path | None, plot: Path | None) -> None:
    """Show what is different about trainings, beside how their losses went.

    \b
    cinderlora runs compare elena-dim8 elena-dim16 --plot losses.png
    """
    from cinderlora.queues.comparing import differing

    if len(runs) < 2:
        raise click.UsageError(terminal.say("compare_two"))
    found = _found(terminal, runs, runs_folder, Registry.from_installed())
    jobs = [_job(run) for run in found]
    varied = differing([job for job in jobs if job is not None])
    settings = [{name: getattr(job.settings, name) for name in varied} if job else {} for job in jobs]
    curves = [run.losses() for run in found]
    if terminal.json:
        from cinderlora.serial import to_json

        for run, values, losses in zip(found, settings, curves, strict=True):
            about = {"folder": str(run.folder), "name": run.name, "state": run.state, "seconds": run.seconds}
            terminal.record(
                {**about, **to_json(run.figures._asdict()), "settings": to_json(values), "losses": to_json(losses)}
            )
    else:
        _compared(terminal, found, varied, settings, curves)
    if plot is not None:
        named = [(label, losses) for label, losses in zip(_labels(found), curves, strict=True)]
        _draw(terminal, named, plot, title="Loss", note=terminal.say("loss_average"))


def _labels(runs: Sequence[Run]) -> list[str]:
    """The names of runs; where two are the same, the names of the run folders."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [run.folder.name for run in runs]


def _compared(
    terminal: Terminal,
    runs: Sequence[Run],
    varied: Sequence[str],
    settings: Sequence[dict[str, Any]],
    curves: Sequence[LossCurve],
) -> None:
    """A column for each run where they fit side by side, which two or three do."""
    from rich.table import Table
    from rich.text import Text

    from cinderlora.cli.curves import means, sparkline
    from cinderlora.cli.queue_tables import value_text
    from cinderlora.cli.tables import print_aligned

    say = terminal.say
    finite = [[loss for loss in losses.average or losses.loss if loss is not None] for losses in curves]
    every = [loss for losses in finite for loss in means(losses, _SPARK)]
    low, high = min(every, default=0.0), max(every, default=1.0)
    least = min((run.figures.loss for run in runs if run.figures.loss is not None), default=None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    heads = ["name", *varied, "loss_word", "time", "state", "course"]
    known = {"name", "loss_word", "time", "state", "course"}
    rows: dict[str, list[RenderableType]] = {head: [] for head in heads}
    for run, label, values, losses in zip(runs, _labels(runs), settings, finite, strict=True):
        figures = run.figures
        rows["name"].append(Text(clean(label), "bold"))
        for name in varied:
            rows[name].append(Text(clean(value_text(values.get(name)))))
        best = figures.loss is not None and figures.loss == least
        rows["loss_word"].append(Text(loss_text(figures.loss), "bold green" if best else ""))
        rows["time"].append(Text(duration(run.seconds) if run.seconds is not None else "-"))
        rows["state"].append(Text(state_text(terminal, run.state), COLOURS.get(run.state, "")))
        drawn = sparkline(losses, _SPARK, low=low, high=high, plain=_plain(terminal)) if losses else ""
        rows["course"].append(Text(drawn, "cyan"))
    table.add_column()
    for _ in runs:
        table.add_column(overflow="fold")
    for head in heads:
        table.add_row(Text(say(head) if head in known else clean(head), "dim"), *rows[head])
    table.show_header = False
    print_aligned(terminal, table)
    if not varied:
        terminal.print(say("compare_same"))
    if len({_kind(losses) for losses in curves}) > 1 or all(losses.is_average for losses in curves):
        terminal.print(say("compare_averages"), "dim")


# ---- repeat ----------------------------------------------------------------------------------------------------------


@click.command(params=[json_option(), folder_option])
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--name", metavar="NAME", help="Another name, so that the earlier LoRA stays.")
@click.option(
    "--trainer",
    "--sd-scripts",
    "checkout",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Another checkout than the run had.",
)
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="Another Python than the run had.")
@click.option("--detach", is_flag=True, help="Start it and leave it to itself: see watch and stop.")
@click.option("--dry-run", is_flag=True, help="Say what has changed and print what would run, and start nothing.")
@click.option("--yes", is_flag=True, help="Train even if something has changed since.")
@click.pass_obj
def repeat(
    terminal: Terminal,
    run: str | None,
    runs_folder: Path | None,
    name: str | None,
    checkout: Path | None,
    python: Path | None,
    detach: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Train the same again, from a run's own record; the newest one where none is given.

    It says what is no longer as it was: the trainer's commit, model files, pictures, captions. Exit codes are train's.

    \b
    cinderlora runs repeat elena --name elena-again
    """
    from cinderlora.cli.following import Launch, train_and_follow
    from cinderlora.cli.resume import trainer_asked_for
    from cinderlora.cli.train import show_plan
    from cinderlora.running.devices import placed, recorded_gpus

    registry = Registry.from_installed()
    (found,) = _found(terminal, [run], runs_folder, registry)
    adapter = registry[found.model_type]
    plan = found.repeat_plan(name=name, trainer=trainer_asked_for(found, adapter, checkout, python))
    gpus = recorded_gpus(found._folder.launch.stages[-1])
    changes = [problem for problem in plan.warnings if problem.code.startswith("changed_")]
    if terminal.json:
        from cinderlora.serial import to_json

        told = [{**to_json(problem), **problem.text(terminal.language)._asdict()} for problem in changes]
        terminal.record({"repeats": str(found.folder), "changes": told})
    else:
        terminal.problems(changes)
        if not changes:
            terminal.note(terminal.say("repeat_unchanged", run=found.folder.name))
        lora = (plan.publish or plan.output) / plan.lora
        if lora.exists():
            terminal.note(terminal.say("repeat_replaces", lora=lora), "yellow")
    if dry_run:
        return show_plan(terminal, placed(plan, gpus))
    if changes and not yes:
        _ask(terminal, found)
    launch = Launch(
        plan=plan,
        runs=runs_folder or terminal.config.runs or found.folder.parent,
        title=adapter.title,
        details=terminal.say("repeat_of", run=found.folder.name),
        devices={"gpus": gpus},
    )
    return train_and_follow(terminal, launch, detach=detach)


def _ask(terminal: Terminal, run: Run) -> None:
    """Whether to train although something has changed; raises where nobody can be asked, or says no."""
    import sys

    from cinderlora.errors import JobRefused
    from cinderlora.problems import Problem

    if terminal.json or not (sys.stdin.isatty() and terminal.err.is_terminal):
        raise JobRefused((Problem("repeat_changed", {"run": run.folder.name}),))
    click.confirm(terminal.say("repeat_ask"), abort=True, err=True)


# ---- prune -----------------------------------------------------------------------------------------------------------


@click.command(params=[json_option(), folder_option])
@click.option("--older-than", type=Age(), metavar="AGE", help="Only those that ended longer ago: 12h, 30d, 8w.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="But for the newest so many.")
@states_option
@type_option
@name_option
@click.option("--yes", is_flag=True, help="Do it. Otherwise it only says what would go.")
@click.pass_obj
def prune(
    terminal: Terminal,
    runs_folder: Path | None,
    older_than: timedelta | None,
    keep: int | None,
    states: Sequence[str],
    model_type: str | None,
    name: str | None,
    yes: bool,
) -> None:
    """Remove the folders of trainings that have ended, and nothing else: LoRAs, checkpoints and samples stay.

    Says what would go, unless --yes is given. Runs that go on, or that were lost, are not touched.

    \b
    cinderlora runs prune --older-than 30d
    cinderlora runs prune --state failed --keep 5 --yes
    """
    from cinderlora.history.pruning import prune_runs

    if older_than is None and keep is None and not states:
        raise click.UsageError(terminal.say("prune_rule"))
    folder = runs_folder or terminal.config.runs
    about: Any = {"state": states or None, "model_type": model_type, "name": name}
    pruning = prune_runs(folder, older_than=older_than, keep=keep, delete=yes, **about)
    if terminal.json:
        from cinderlora.serial import to_json

        for run in pruning.runs:
            terminal.record(to_json(run))
        terminal.record({"runs": len(pruning.going), "bytes": pruning.bytes, "done": pruning.done})
        return
    if pruning.going:
        _pruned(terminal, pruning.going)
    for run in pruning.runs:
        if run.kept:
            params = {"run": run.folder.name, "why": run.why, "files": ", ".join(path.name for path in run.loras)}
            terminal.note(terminal.say(f"prune_kept_{run.kept}", **params), "yellow")
    word = "prune_none" if not pruning.going else "prune_done" if pruning.done else "prune_would"
    terminal.note(terminal.say(word, count=len(pruning.going), size=gigabytes(pruning.bytes)))


def _pruned(terminal: Terminal, runs: Sequence[Pruned]) -> None:
    from rich.text import Text

    from cinderlora.cli.tables import print_table

    rows = []
    for run in runs:
        when = "-" if run.ended is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(run.ended))
        state = Text(state_text(terminal, run.state), COLOURS.get(run.state, ""))
        rows.append((state, run.name, when, gigabytes(run.bytes), run.folder.name))
    print_table(terminal, ("state", "name", "ended", "size", "run"), rows)
