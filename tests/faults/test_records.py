"""Records that are damaged or lie, and clocks that are set."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cinderlora import Event, Failed, Finished, Plan, Progress, Registry, Stopped, sync
from cinderlora.running import supervisor

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]

Planner = Callable[..., Plan]
Untimed = Callable[[list[Event]], list[Event]]

UNTIL_GO = "bar(1, 4)\nwhile not os.path.exists(out + '/go'): time.sleep(0.01)\ntrain()"
HOSTILE = [
    None,
    True,
    -1,
    2**70,
    1e308,
    "",
    "../../../etc/passwd",
    "x" * 10_000,
    [],
    ["\0"],
    {},
    {"pid": 1, "start": ""},
]


def damaged(record: bytes, chance: random.Random) -> bytes:
    """A record as a power cut or a broken disk may leave it: no JSON of ours any more."""
    cut = record[: chance.randrange(len(record))]
    return chance.choice([cut, cut, cut + bytes(100), chance.randbytes(100), b"", b"[]", b"null", b"{}"])


def hostile(record: bytes, chance: random.Random) -> bytes:
    """A record with values that no supervisor writes."""
    values = json.loads(record)
    for key in chance.sample(sorted(values), chance.randint(1, 3)):
        values[key] = chance.choice(HOSTILE)
    return json.dumps(values).encode()


def replace(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.test")
    part.write_bytes(data)
    part.replace(path)


def alone(run: Any) -> None:
    """Wait until the supervisor of a run is gone."""
    while supervisor.is_supervised(str(run.folder)):
        time.sleep(0.01)


def test_a_state_that_is_damaged_while_it_runs(
    tally: Any, chance: random.Random, make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed
) -> None:
    """The training goes on, and whoever follows sees it to its end."""
    for n in tally.trials("state.json truncated while it runs", 5, 50):
        plan = make_plan(UNTIL_GO, output=run_folders.parent / f"out-{n}")
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            pass
        live: list[Event] = []
        follower = threading.Thread(target=lambda run=run, live=live: live.extend(run))  # type: ignore[misc]
        follower.start()
        for _ in range(chance.choice([1, 1, 3])):
            state = run.folder / "state.json"
            replace(state, damaged(state.read_bytes() or b"{}", chance))
            time.sleep(chance.uniform(0, 0.1))
        (plan.output / "go").touch()
        follower.join(60)
        same = untimed(live) == untimed(list(sync.attach(run.folder, registry=registry)))
        tally.count(run.state == "finished" and same, f"trial {n}: {run!r}, the same for all: {same}")


def test_a_state_that_is_damaged_and_nobody_looks_after_the_run(
    tally: Any,
    chance: random.Random,
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: Callable[[Any], list[Any]],
) -> None:
    """Nobody knows of its trainer any more: it is lost, and a stop still finds all of it."""
    for n in tally.trials("state.json truncated, supervisor killed: stopped", 3, 30):
        plan = make_plan("bar(1, 4)\nsay('')\ntime.sleep(1000)", output=run_folders.parent / f"out-{n}")
        with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
            next(event for event in run if isinstance(event, Progress))
        state = run.folder / "state.json"
        record = json.loads(state.read_text())
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        alone(run)
        replace(state, damaged(json.dumps(record).encode(), chance))
        launch = json.loads((run.folder / "launch.json").read_text())
        replace(run.folder / "launch.json", json.dumps({**launch, "created": 0}).encode())
        again = sync.attach(run.folder, registry=registry)
        was = again.state
        report = again.stop(grace=5)
        good = was == "lost" and len(report.asked) == 1 and report.left == () and still_running(again) == []
        tally.count(good, f"trial {n}: {was}, {report}")


def test_a_state_that_is_damaged_or_lies_after_the_end(
    tally: Any, chance: random.Random, make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """Whatever it says, there is an answer at once, and nothing claims to be running."""
    with sync.launch(make_plan(), runs=run_folders, registry=registry) as run:
        pass
    alone(run)
    state = run.folder / "state.json"
    sound = state.read_bytes()
    launch = json.loads((run.folder / "launch.json").read_text())
    replace(run.folder / "launch.json", json.dumps({**launch, "created": 0}).encode())
    for n in tally.trials("state.json truncated or hostile after the end", 20, 500):
        spoil = chance.choice([damaged, hostile])
        replace(state, spoil(sound, chance))
        begun = time.monotonic()
        again = sync.attach(run.folder, registry=registry)
        events = list(again)
        good = isinstance(events[-1], Finished | Failed | Stopped) and again.state != "running"
        good = good and again.stop().asked == () and time.monotonic() - begun < 60
        (listed,) = sync.runs(run_folders, registry=registry)
        good = good and listed.state == again.state
        tally.count(good, f"trial {n}: {again!r}, {state.read_bytes()[:500]!r}")
        alone(run)


def test_a_clock_that_is_set(
    tally: Any, chance: random.Random, make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed
) -> None:
    """Back or forward by up to a month, before the first file or in the middle: what the run writes is its own, what
    was there is not, and it takes no time that it did not take."""
    for n in tally.trials("clock set back or forward", 5, 50):
        shift = chance.choice([-1, 1]) * chance.choice([60, 3600, 86400, 30 * 86400])
        script = f"""
            set_at = time.time() + {shift}
            say("running training / 学習開始")
            for step in range(1, 5):
                bar(step, 4)
                sample(step)
                save("cg_elena-step%08d.safetensors" % step)
                if step > {chance.randrange(4)}:
                    for folder, _, names in os.walk(out):
                        for name in names:
                            if "%d" % step in name and "old" not in name:
                                os.utime(os.path.join(folder, name), (set_at, set_at))
            save("cg_elena.safetensors")
            os.utime(out + "/cg_elena.safetensors", (set_at, set_at))
            say("model saved.")
            bar(4, 4, "0.25")
        """
        plan = make_plan(textwrap.dedent(script), output=run_folders.parent / f"out-{n}")
        (plan.output / "sample").mkdir(parents=True)
        for name in ("cg_elena.safetensors", "cg_elena-step00000007.safetensors", "sample/cg_elena_000002_00_old.png"):
            (plan.output / name).write_bytes(b"old")
            when = time.time() - shift
            os.utime(plan.output / name, (when, when))
        with sync.launch(plan, runs=run_folders, registry=registry, detach=chance.random() < 0.5) as run:
            live = list(run)
        run.wait()
        found = run.result if run.state == "finished" else None
        good = found is not None and len(found.checkpoints) == 4 and len(found.samples) == 4
        good = good and found is not None and found.seconds is not None and 0 <= found.seconds < 60
        same = untimed(live) == untimed(list(sync.attach(run.folder, registry=registry)))
        tally.count(good and same, f"trial {n}: {run!r}, {shift}, {found}, the same for all: {same}")
