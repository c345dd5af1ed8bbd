"""The blocking face: the same runs and the same events, without an event loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import cinderlora
from cinderlora import Finished, LaunchFailed, Plan, Progress, Registry, StillRunning, Stopped, sync

Planner = Callable[..., Plan]
ENDLESS = "while True: bar(1, 4); say(''); time.sleep(0.01)"


def test_a_training_from_start_to_end(
    make_plan: Planner, registry: Registry, run_folders: Path, tmp_path: Path, untimed: Callable[..., Any]
) -> None:
    plan = make_plan("while not os.path.exists('go'): time.sleep(0.01)\ntrain()")
    with sync.launch(plan, runs=run_folders, configs=tmp_path / "configs", registry=registry) as run:
        with pytest.raises(StillRunning):
            _ = run.result
        assert run.status.state == "running"
        (run.folder / "go").touch()
        events = []
        for event in run:
            events.append(event)
            if isinstance(event, Progress):
                break
        events += run
    assert isinstance(events[-1], Finished)
    assert run.result.lora.is_file()
    assert run.status.state == run.state == "finished"
    assert (tmp_path / "configs" / "elena_dataset.toml").is_file()
    assert untimed(list(sync.attach(run.folder, registry=registry))) == untimed(events)
    assert untimed(list(run.events(since=events[2].seq))) == untimed(events[3:])
    assert [other.folder for other in sync.runs(run_folders, registry=registry)] == [run.folder]


@pytest.mark.anyio
async def test_both_faces_see_the_same(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any]
) -> None:
    with sync.launch(make_plan(), runs=run_folders, registry=registry) as run:
        pass
    there = [event async for event in cinderlora.attach(run.folder, registry=registry)]
    assert untimed(there) == untimed(list(run))


def test_a_loop_that_waits_is_ended_from_another_thread(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any]
) -> None:
    silent = "say('now'); time.sleep(100)"
    with sync.launch(make_plan(silent), runs=run_folders, registry=registry, detach=True) as run:
        events, seen, told = run.events(), [], threading.Event()

        def listen() -> None:
            for event in events:
                seen.append(event)
                if isinstance(event, cinderlora.Log):
                    told.set()

        thread = threading.Thread(target=listen)
        thread.start()
        assert told.wait(60)
        events.close()
        thread.join(60)
    assert not thread.is_alive()
    assert list(events) == [] and run.state == "running"
    run.stop(grace=0)
    assert untimed(list(run))[: len(seen)] == untimed(seen)


def test_left_by_an_exception_it_stops(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: Callable[[Any], list[psutil.Process]]
) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        sync.launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run,
    ):
        _ = 1 / 0
    assert run.state == "stopped"
    assert still_running(run) == []
    assert isinstance(list(run)[-1], Stopped)


def test_detached_it_goes_on(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    with sync.launch(make_plan(ENDLESS), runs=run_folders, detach=True, registry=registry) as run:
        pass
    assert run.state == "running"
    assert run.stop(by="Kim").state == "stopped"
    assert run.stop().already_ended


def test_stopped_from_another_thread(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    with sync.launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
        thread = threading.Thread(target=run.stop, kwargs={"by": "the window's button"})
        thread.start()
        *_, last = run
        thread.join()
    assert isinstance(last, Stopped)
    assert last.by == "the window's button"


def test_a_start_that_fails(make_plan: Planner, run_folders: Path) -> None:
    with pytest.raises(LaunchFailed), sync.launch(make_plan(python="/no/such/python"), runs=run_folders):
        pass
    assert not run_folders.exists()


CTRL_C = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from cinderlora import Plan, Registry, Stage, sync

plan = Plan(
    name="elena", model_type="toy", output=Path({output!r}), lora="cg_elena.safetensors",
    stages=[Stage(name="train", argv=[sys.executable, "-I", "-S", "-u", "trainer.py"])],
    files={{"trainer.py": {script!r}}},
)
print("ready", flush=True)
with sync.launch(plan, runs={runs!r}, registry=Registry()) as run:
    for event in run:
        pass
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.3])
def test_ctrl_c_stops_it(
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    delay: float,
    still_running: Callable[[Any], list[psutil.Process]],
) -> None:
    plan = make_plan(ENDLESS)
    source = CTRL_C.format(
        path=sys.path, output=str(plan.output), script=plan.files["trainer.py"], runs=str(run_folders)
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert b"KeyboardInterrupt" in said
    for run in sync.runs(run_folders, registry=registry):
        assert run.state == "stopped"
        assert still_running(run) == []
