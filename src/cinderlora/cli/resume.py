"""`resume`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.runs import find_run, folder_option, newest_run
from cinderlora.cli.terminal import Terminal
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.running import Run
    from cinderlora.trainers import Trainer
    from cinderlora.types import Plan

__all__ = ["resume", "trainer_asked_for"]


@click.command(params=[json_option(), folder_option])
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--steps", type=int, metavar="N", help="Steps in all, to train on beyond those that were wanted.")
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
@click.option("--dry-run", is_flag=True, help="Print what would run, and start nothing.")
@click.pass_obj
def resume(
    terminal: Terminal,
    run: str | None,
    runs_folder: Path | None,
    steps: int | None,
    checkout: Path | None,
    python: Path | None,
    detach: bool,
    dry_run: bool,
) -> int:
    """Go on with a training that was stopped or failed: a run folder, its name or a part of it; else the newest one.

    It goes on from the newest complete saved state (--save-state makes the trainer leave some), or else from the
    weights of the newest complete checkpoint, and says which. Files of the earlier run are not overwritten.

    \b
    cinderlora resume
    cinderlora resume --steps 2000

    Exit codes are train's.
    """
    from cinderlora.cli.following import Launch, train_and_follow
    from cinderlora.cli.train import show_plan

    registry = Registry.from_installed()
    folder = runs_folder or terminal.config.runs
    found = newest_run(folder, registry) if run is None else find_run(run, folder, registry, newest=False)
    plan = found.resume_plan(
        steps=steps, trainer=trainer_asked_for(found, registry[found.model_type], checkout, python)
    )
    if dry_run:
        if not terminal.json:
            terminal.problems(plan.warnings)
        return show_plan(terminal, plan)
    if terminal.json:
        from cinderlora.serial import to_json

        terminal.record({"resumed_from": to_json(plan.resumed_from)})
    launch = Launch(
        plan=plan,
        runs=folder or found.folder.parent,
        title=registry[found.model_type].title,
        details=_details(terminal, plan),
    )
    return train_and_follow(terminal, launch, detach=detach)


def trainer_asked_for(run: Run, adapter: Adapter, checkout: Path | None, python: Path | None) -> Trainer | None:
    """The trainer that was asked for: what was not said is as the run had it. None: all of it."""
    from cinderlora.running.resuming import recorded_trainer

    if checkout is not None:
        return adapter.trainer_type(checkout, python=python)
    return None if python is None else recorded_trainer(run.folder, adapter, python=python)


def _details(terminal: Terminal, plan: Plan) -> str:
    assert plan.resumed_from is not None  # noqa: S101 - a plan to resume says so
    origin = plan.resumed_from
    return terminal.say(f"resumes_{origin.kind}", step=origin.step, steps=plan.steps, name=origin.path.name)
