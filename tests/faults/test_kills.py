"""Processes of a run killed at random instants: front ends, supervisors, trainers, whoever stops."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cinderlora import Failed, Plan, Progress, Registry, sync
from cinderlora.running import supervisor

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]

Planner = Callable[..., Plan]
ProcessesOf = Callable[[Any], list[psutil.Process]]

# A quarter of a second of training, that says at its end that it has all steps.
SHORT = """
    say("running training / 学習開始")
    for step in range(1, 11):
        bar(step, 10)
        time.sleep(0.02)
        if step == 5:
            save("cg_elena-step%08d.safetensors" % step)
    say("saving checkpoint: " + out + "/cg_elena.safetensors")
    lora(steps=(10, 10))
    say("model saved.")
"""
ENDLESS = """
    step = 0
    while True:
        step += 1
        bar(step, 100000)
        time.sleep(0.01)
"""
DEAF = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "


def state_of(run: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run.folder / "state.json").read_text())
    return record


def killed(process: dict[str, Any]) -> None:
    """Kill a recorded process, and see it go."""
    if supervisor.is_running(process):
        os.kill(process["pid"], signal.SIGKILL)
    while supervisor.is_running(process):
        time.sleep(0.005)


def is_being_started(run: Any) -> bool:
    """Whether a supervisor of the run is there: on a machine under load it takes its seconds to begin."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(run.folder) in process.cmdline():
                return True
    return False


def test_front_ends_killed(
    tally: Any, chance: random.Random, nursery: Any, make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """Whatever had been started goes on to its end; nothing else is left but a folder whose name begins with a dot."""
    launched = 0
    for n in tally.trials("front end killed (SIGKILL)", 20, 200):
        plan = make_plan(SHORT, output=run_folders.parent / f"out-{n}")
        runs = run_folders / str(n)
        pid, _ = nursery.start(plan, runs, detach=chance.random() < 0.5)
        time.sleep(chance.uniform(0, 0.4))
        with suppress(ProcessLookupError):  # it was as quick as that
            os.kill(pid, signal.SIGKILL)
        found = sync.runs(runs, registry=registry)
        if not found:
            tally.count(True)
            continue
        (run,) = found
        until = time.monotonic() + 3  # the supervisor may be starting just now
        while not (run.folder / "state.json").exists() and time.monotonic() < until:
            time.sleep(0.01)
            if is_being_started(run):
                until = time.monotonic() + 3  # it forks itself away: one look may find neither parent nor child
        if not (run.folder / "state.json").exists():
            never_started = (
                not supervisor.is_supervised(str(run.folder)) and not (run.folder / "output.log").read_text()
            )
            tally.count(never_started, f"trial {n}: {run!r} is neither started nor not")
            continue
        launched += 1
        run.wait()
        tally.count(run.state == "finished", f"trial {n}: {run!r}")
    tally.note = f"{launched} of them with a trainer, all finished"


def test_supervisors_killed(
    tally: Any, chance: random.Random, make_plan: Planner, registry: Registry, run_folders: Path, untimed: Any
) -> None:
    """Whoever attaches next has the run looked after again; the same end is told to all."""
    for n in tally.trials("supervisor killed, the trainer lives", 10, 100):
        plan = make_plan(SHORT, output=run_folders.parent / f"out-{n}")
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            pass
        for _ in range(chance.choice([1, 1, 2])):
            time.sleep(chance.uniform(0, 0.3))
            killed(state_of(run)["supervisor"])
            again = sync.attach(run.folder, registry=registry)
        live = untimed(list(again))
        same = live == untimed(list(sync.attach(run.folder, registry=registry)))
        tally.count(run.state == "finished" and same, f"trial {n}: {run!r}, the same for all: {same}")


def test_supervisors_and_trainers_killed(
    tally: Any, chance: random.Random, make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """As when the machine goes down: the run is over, its LoRA good or not, and nothing claims to be running."""
    for n in tally.trials("supervisor and trainer killed", 5, 50):
        plan = make_plan(SHORT, output=run_folders.parent / f"out-{n}")
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            pass
        time.sleep(chance.uniform(0, 0.3))
        record = state_of(run)
        killed(record["supervisor"])
        killed(record["trainer"])
        run = sync.attach(run.folder, registry=registry)
        run.wait()
        whole = state_of(run).get("lora", {}).get("all_steps") is True
        tally.count(run.state == ("finished" if whole else "lost"), f"trial {n}: {run!r}, the LoRA whole: {whole}")


def test_trainers_killed(
    tally: Any,
    chance: random.Random,
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: ProcessesOf,
) -> None:
    """The run has failed, says that it was killed, and no half-written file passes for a result."""
    script = textwrap.dedent("subprocess = __import__('subprocess')\nsubprocess.Popen(['sleep', '100'])\n")
    for n in tally.trials("trainer killed", 10, 100):
        plan = make_plan(script + textwrap.dedent(SHORT), output=run_folders.parent / f"out-{n}")
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            pass
        time.sleep(chance.uniform(0, 0.4))
        killed(state_of(run)["trainer"])
        *_, last = run
        named = not isinstance(last, Failed) or last.diagnosis.code == "killed"
        whole = all(supervisor.is_whole(str(path)) for path in plan.output.glob("*.safetensors"))
        good = run.state in {"failed", "finished"} and named and whole and still_running(run) == []
        tally.count(good, f"trial {n}: {run!r}, {last}")


@pytest.mark.parametrize(
    ("case", "child"),
    [
        ("stop: a grandchild ignores SIGTERM", DEAF + "time.sleep(1000)"),
        ("stop: a child forks and exits", DEAF + "os.fork() and os._exit(0); time.sleep(1000)"),
        ("stop: a grandchild leaves the group", DEAF + "os.setpgid(0, 0); time.sleep(1000)"),
        (
            "stop: a grandchild leaves session and parent",
            DEAF + "os.setsid(); os.fork() and os._exit(0); time.sleep(99)",
        ),
    ],
)
def test_stopping_a_tree(
    tally: Any,
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: ProcessesOf,
    case: str,
    child: str,
) -> None:
    script = f"""
        import subprocess
        child = subprocess.Popen([sys.executable, "-u", "-c", {child!r}], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"deaf\\n"
    """
    plan = make_plan(textwrap.dedent(script) + textwrap.dedent(ENDLESS))
    slowest = 0.0
    for n in tally.trials(case, 3, 30):
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            next(event for event in run if isinstance(event, Progress))
        report = run.stop(grace=0.5)
        slowest = max(slowest, report.seconds - 0.5)
        there = still_running(run)
        good = report.state == "stopped" and report.left == () and len(report.forced) >= 1 and there == []
        tally.count(good, f"trial {n}: {report}, still there: {there}")
    tally.note = f"grace + {slowest:.2f} s at most"


def test_whoever_stops_is_killed_over_it(
    tally: Any,
    chance: random.Random,
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: ProcessesOf,
) -> None:
    """The trainer ignores SIGTERM, and so does a child in a session of its own: the supervisor ends them."""
    script = f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        import subprocess
        subprocess.Popen([sys.executable, "-c", {DEAF + "os.setsid(); time.sleep(1000)"!r}])
    """
    plan = make_plan(textwrap.dedent(script) + textwrap.dedent(ENDLESS))
    for n in tally.trials("stop: whoever stops is killed over it", 1, 10):
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            next(event for event in run if isinstance(event, Progress))
        command = f"from cinderlora import sync; sync.attach({str(run.folder)!r}).stop(grace=1)"
        stopper = subprocess.Popen([sys.executable, "-c", command])
        while not (run.folder / "stop.json").exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        stopper.kill()
        stopper.wait()
        begun = time.monotonic()
        run.wait()
        took = time.monotonic() - begun
        good = run.state == "stopped" and still_running(run) == [] and took < 60
        tally.count(good, f"trial {n}: {run!r} after {took:.1f} s")


def test_two_launches_at_one_moment(
    tally: Any, nursery: Any, make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """Of two that would write the same LoRA, one trains and the other is told so; others get folders of their own."""
    for n in tally.trials("two launches of one name at one moment", 5, 50):
        runs = run_folders / str(n)
        outputs = [run_folders.parent / f"{n}-{which}" for which in ("a", "a", "b")]
        plan = [
            make_plan("while not os.path.exists(out + '/go'): time.sleep(0.01)\ntrain()", output=o) for o in outputs
        ]
        at = time.time() + 0.05
        answers = [nursery.start(each, runs, at=at)[1] for each in plan]
        until = time.monotonic() + 30
        while "launch_lora_taken" not in {path.read_text() for path in answers if path.exists()}:
            assert time.monotonic() < until
            time.sleep(0.01)
        for output in outputs:
            (output / "go").touch()
        found = []
        while len(found) < 2 and time.monotonic() < until:
            found = sync.runs(runs, registry=registry)
        for run in found:
            run.wait()
        while not all(path.exists() and path.read_text() for path in answers):  # made, and written a moment later
            time.sleep(0.01)
        said = sorted(path.read_text() for path in answers)
        good = said == sorted([*(run.folder.name for run in found), "launch_lora_taken"])
        good &= [run.state for run in found] == ["finished", "finished"]
        tally.count(good, f"trial {n}: {said}, {found}")
