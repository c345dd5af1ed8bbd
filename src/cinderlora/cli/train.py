"""`train` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cinderlora.cli.devices import gpus_of, gpus_option, machine_options, machines_option
from cinderlora.cli.job_options import JobCommand, job_options
from cinderlora.cli.terminal import Terminal, gigabytes

if TYPE_CHECKING:
    from cinderlora.cli.request import Request
    from cinderlora.cost.data import Estimate
    from cinderlora.cost.machine import Memory
    from cinderlora.gpu import Gpu
    from cinderlora.problems import Report
    from cinderlora.types import Plan

__all__ = ["check", "show_plan", "train"]

WRONG = 2
BUCKETS = 8  # that are named; pictures of any size make dozens


@job_options
@click.command(cls=JobCommand)
@click.option("--runs", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the run folder in this folder.")
@click.option(
    "--configs", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the three configuration files here, too."
)
@gpus_option
@machine_options
@click.option("--detach", is_flag=True, help="Start it and leave it to itself: see watch and stop.")
@click.option("--dry-run", is_flag=True, help="Print what would run, and start nothing.")
@click.pass_obj
def train(
    terminal: Terminal,
    /,
    runs: Path | None,
    configs: Path | None,
    gpus: str | None,
    machines: int,
    machine_rank: int,
    main_address: str | None,
    detach: bool,
    dry_run: bool,
    **given: Any,
) -> int:
    """Train a LoRA, from options or from a job file; options go over it.

    \b
    cinderlora train -t flux -n elena -d datasets/elena
    cinderlora train elena.toml --steps 2000
    cinderlora train elena.toml --gpus 0,1

    Exit codes: 0 done, 1 the training failed, 2 the request was wrong, 130 stopped.
    """
    from cinderlora.cli.following import Launch, train_and_follow

    devices: dict[str, Any] = {"gpus": gpus_of(gpus), "machines": machines}
    request, report = _checked(terminal, given, runs or terminal.config.runs, **devices)
    if report.errors:
        return refuse(terminal, request, report)
    plan = request.adapter.plan(request.job, request.trainer)
    devices |= {"machine_rank": machine_rank, "main_address": main_address}
    if dry_run:
        from cinderlora.running.devices import placed

        return show_plan(terminal, placed(plan, **devices))
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"report": to_json(report)})
    else:
        terminal.problems(report.warnings)
    launch = Launch(
        plan=plan,
        runs=runs or terminal.config.runs,
        configs=configs,
        title=request.adapter.title,
        details=_details(terminal, request, report),
        devices=devices,
    )
    return train_and_follow(terminal, launch, detach=detach)


@job_options
@click.command(cls=JobCommand)
@gpus_option
@machines_option
@click.pass_obj
def check(terminal: Terminal, /, gpus: str | None, machines: int, **given: Any) -> int:
    """Say what is wrong with a training, and what it will come to. Starts and writes nothing.

    Exit codes: 0 it can start (warnings or not), 2 it cannot.
    """
    request, report = _checked(terminal, given, terminal.config.runs, gpus=gpus_of(gpus), machines=machines)
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"report": to_json(report)})
        return WRONG if report.errors else 0
    _show_numbers(terminal, request, report)
    if report.errors:
        refuse(terminal, request, report)
        count = len(report.errors)
        terminal.note(terminal.say("refused_one" if count == 1 else "refused", count=count), "bold red")
        return WRONG
    terminal.problems(report.warnings)
    terminal.print(terminal.say("all_right"), "green")
    return 0


def _checked(
    terminal: Terminal, given: dict[str, Any], runs: Path | None, *, gpus: Sequence[Gpu] | None, machines: int
) -> tuple[Request, Report]:
    from cinderlora.cli.decoding import counting
    from cinderlora.cli.request import Options, make_request
    from cinderlora.dataset import can_decode

    request = make_request(Options.of(given), terminal.config, terminal.registry)
    with counting(terminal, "decoding") as progress:
        report = request.adapter.check(
            request.job,
            request.trainer,
            runs=runs,
            decode=can_decode(),
            progress=progress,
            gpus=gpus,
            machines=machines,
        )
    return request, report


def refuse(terminal: Terminal, request: Request, report: Report) -> int:
    from cinderlora.errors import JobRefused

    if terminal.json:
        terminal.error(JobRefused(report.errors))
        return WRONG
    terminal.problems(report.problems)
    if any(p.code == "component_missing" for p in report.errors):
        looked = terminal.say("models_looked", folder=request.models_folder) if request.models_folder else ""
        terminal.note(f"  -> {looked or terminal.say('models_hint')}")
    return WRONG


def show_plan(terminal: Terminal, plan: Plan) -> int:
    """The dry run."""
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"plan": to_json(plan)})
    else:
        terminal.print(str(plan))
    return 0


def _details(terminal: Terminal, request: Request, report: Report) -> str:
    numbers = {name: getattr(report, name) for name in ("images", "steps_per_epoch", "steps", "epochs")}
    told = [terminal.say("preset", preset=request.job.preset)] if request.job.preset else []
    if None not in numbers.values():
        told.append(terminal.say("numbers", **numbers))
    return ", ".join(told)


def _show_numbers(terminal: Terminal, request: Request, report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    from cinderlora.cli.tables import print_aligned
    from cinderlora.cli.terminal import clean

    job = request.job
    rows = {
        "name": f"{job.name} ({request.adapter.title}{f', {job.preset}' if job.preset else ''})",
        "pictures": report.images,
        "buckets": _buckets(terminal, report),
        "steps_per_epoch": report.steps_per_epoch,
        "steps": report.steps,
        "epochs": report.epochs,
        "time": _time(terminal, request, report),
        "checkpoints": _each(terminal, report.checkpoints, report.disk.lora if report.disk else None),
        "samples": report.samples,
        "disk": _disk(terminal, report),
        **_memories(terminal, request, report),
        "file": job.output / f"{job.lora_name}.safetensors",
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value is not None:
            table.add_row(Text(terminal.say(key), "dim"), Text(clean(value), overflow="fold"))
    for role, file in job.models.items():
        table.add_row(Text(clean(role), "dim"), Text(clean(file.path), overflow="fold"))
    print_aligned(terminal, table)


def _buckets(terminal: Terminal, report: Report) -> str | None:
    """512x512: 220, 576x384: 10; those with most pictures, where there are many."""
    if not report.buckets:
        return None
    counted = sorted(report.buckets.items(), key=lambda bucket: -bucket[1])
    told = [f"{size}: {count}" for size, count in counted[:BUCKETS]]
    rest = [terminal.say("more_buckets", count=len(counted) - BUCKETS)] if len(counted) > BUCKETS else []
    return ", ".join(told + rest)


def _time(terminal: Terminal, request: Request, report: Report) -> str | None:
    """How long the steps will take, where an earlier run tells the rate."""
    from cinderlora.cli.terminal import duration
    from cinderlora.history.pace import earlier_pace

    rehearsal = request.trainer.is_rehearsal
    pace = earlier_pace(request.job, terminal.config.runs, rehearsal=rehearsal, registry=terminal.registry)
    seconds = report.seconds_at(pace.seconds_per_step) if pace is not None else None
    if pace is None or seconds is None:
        return None
    rate = f"{pace.seconds_per_step:.3g}"
    return terminal.say("time_at", time=duration(seconds), rate=rate, run=pace.run.folder.name)


def _each(terminal: Terminal, count: int | None, size: int | None) -> str | None:
    if not count or size is None:
        return None if count is None else str(count)
    return terminal.say("each", count=count, size=gigabytes(size))


def _disk(terminal: Terminal, report: Report) -> str | None:
    """The whole and its parts, the largest first."""
    import attrs

    if report.disk is None or report.disk_bytes is None:
        return None
    sizes: dict[str, int | None] = attrs.asdict(report.disk)
    known = sorted(((size, name) for name, size in sizes.items() if size), reverse=True)
    parts = [terminal.say(f"disk_{name}", size=gigabytes(size)) for size, name in known]
    return f"{gigabytes(report.disk_bytes)}: {', '.join(parts)}" if parts else None


def _memories(terminal: Terminal, request: Request, report: Report) -> dict[str, str | None]:
    """What the card and the machine need to have, and what they have."""
    from cinderlora import gpu
    from cinderlora.cost import machine

    meant = None if report.vram_gb is None else terminal.say("meant_for", gb=f"{report.vram_gb:g}")
    if request.trainer.is_rehearsal:
        return {"vram": meant}
    vram = meant if report.vram is None else _estimated(terminal, report.vram)
    ram = None if report.ram is None else _estimated(terminal, report.ram)
    found = {"vram": gpu.memory(), "ram": machine.memory()}
    return {
        key: said and "; ".join([said, *_found(terminal, found[key])])
        for key, said in {"vram": vram, "ram": ram}.items()
    }


def _estimated(terminal: Terminal, estimate: Estimate) -> str:
    figures = {name: f"{getattr(estimate, name):.1f}" for name in ("gb", "low", "high")}
    return terminal.say("estimated", **figures)


def _found(terminal: Terminal, memory: Memory | None) -> list[str]:
    if memory is None:
        return []
    return [terminal.say("memory_found", there=f"{memory.total:.1f}", free=f"{memory.free:.1f}")]
