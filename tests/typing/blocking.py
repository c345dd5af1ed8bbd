"""A blocking program that embeds training. Checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from cinderlora import Event, Plan, Result, Status, StopReport
from cinderlora.sync import Events, Run, attach, launch, runs


def train(plan: Plan) -> Path:
    with launch(plan, detach=True) as run:
        assert_type(run, Run)
        for event in run:
            assert_type(event, Event)
    assert_type(run.result, Result)
    return run.result.lora


def come_back(folder: Path) -> Status:
    run = attach(folder)
    events = run.events(since=run.status.seq)
    assert_type(events, Events)
    assert_type(next(events), Event)
    events.close()
    run.wait()
    assert_type(run.stop(grace=3.0), StopReport)
    assert_type(runs(), list[Run])
    with run.resume() as resumed:
        assert_type(resumed, Run)
    return run.status


async def mistaken(plan: Plan) -> None:
    async with launch(plan):  # type: ignore[attr-defined]
        pass
