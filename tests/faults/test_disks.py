"""Disks that are full or for reading only, in a mount namespace with small disks of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cinderlora import Plan

pytestmark = [pytest.mark.faults]

Planner = Callable[..., Plan]

# What each case's own part finds: the folders "runs" and "loras", each on a disk of its own, and what fills them.
BEFORE = """
import json, os, subprocess, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from cinderlora import Failed, LaunchFailed, Plan, Registry, RunNotFound, Stage, sync
from cinderlora.running import supervisor

here = Path(sys.argv[2])
runs, loras = here / "runs", here / "loras"
for disk in (runs, loras):
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)], check=True)
registry = Registry()

def plan(script):
    prelude = Path(sys.argv[3]).read_text()
    return Plan(
        name="elena", model_type="toy", output=loras, lora="cg_elena.safetensors", steps=4,
        stages=[Stage(name="train", argv=[sys.executable, "-I", "-S", "-u", "trainer.py"])],
        files={"trainer.py": prelude + script}, zero_at_start=["lora_up"],
    )

def fill(disk):
    with open(disk / "filler", "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass

def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

def state(run):
    return json.loads((run.folder / "state.json").read_text())

def everything(folder):
    return sorted(path.name for path in folder.iterdir())

WAIT = "while not os.path.exists(out + '/go'): time.sleep(0.01)\\n"
"""
AFTER = """
print("survived")
"""

CASES = {
    "disk full for log and state, from then on": """
        with sync.launch(plan("say('ready')\\n" + WAIT + "say('x' * 3000000)\\ntrain()"), runs=runs, registry=registry,
                         detach=True) as run:
            pass
        fill(runs)
        (loras / "go").touch()
        run.wait()
        assert run.state == "finished", state(run)
        log = (run.folder / "output.log").read_bytes()
        assert len(log) == state(run)["log_length"] > 3000000
        assert b"model saved." in log
        assert os.stat(run.folder / "output.log").st_blocks * 512 < 4000000, "the room is given back"
    """,
    "disk full for the log, more than was reserved": """
        much = plan(WAIT + "say('x' * 20000000)\\ntrain()")
        with sync.launch(much, runs=runs, registry=registry, detach=True) as run:
            pass
        fill(runs)
        (loras / "go").touch()
        *_, last = run
        assert isinstance(last, Failed), last
        assert state(run)["exit_code"] == 1
    """,
    "disk full for the state, room is made later": """
        with sync.launch(plan(WAIT + "train()"), runs=runs, registry=registry, detach=True) as run:
            pass
        # Somebody takes all room that is given back, as long as the disk is full.
        for name in ("output.log", "supervisor.lock"):
            os.truncate(run.folder / name, (run.folder / name).stat().st_size)
        fill(runs)
        (loras / "go").touch()
        pid = state(run)["trainer"]
        while supervisor.is_running(pid):
            fill(runs)
        time.sleep(1.5)
        assert run.state == "running", "nobody can say yet"
        (runs / "filler").unlink()
        run.wait()
        assert run.state in {"finished", "failed"}  # it could not print its last lines
        assert state(run)["exit_code"] is not None
    """,
    "disk full for a checkpoint": """
        script = WAIT + "lora('cg_elena-step00000001.safetensors')\\n" + (
            "with open(out + '/cg_elena-step00000002.safetensors', 'wb') as file:\\n"
            "    file.write((10 ** 6).to_bytes(8, 'little'))\\n"
            "    for n in range(100): file.write(bytes(10 ** 6))\\n"
        )
        with sync.launch(plan(script), runs=runs, registry=registry, detach=True) as run:
            pass
        (loras / "filler").write_bytes(bytes(6 << 20))
        (loras / "go").touch()
        *_, last = run
        assert isinstance(last, Failed), last
        assert last.diagnosis.code == "disk_full", last
        assert everything(loras) == [
            "cg_elena-step00000001.safetensors", "cg_elena-step00000002.safetensors.partial", "filler", "go",
        ]
    """,
    "disk full at the start": """
        fill(runs)
        try:
            with sync.launch(plan("train()"), runs=runs, registry=registry):
                raise AssertionError("it started")
        except LaunchFailed as error:
            assert error.code == "disk_full", error
        (runs / "filler").unlink()
        assert everything(runs) == everything(loras) == [], (everything(runs), everything(loras))
    """,
    "run folder or output folder for reading only": """
        for disk, code in ((runs, "launch_runs_folder"), (loras, "output_not_writable")):
            read_only(disk)
            try:
                with sync.launch(plan("train()"), runs=runs, registry=registry):
                    raise AssertionError("it started")
            except LaunchFailed as error:
                assert error.code == code, error
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            assert everything(runs) == everything(loras) == []
    """,
    "a run that ended, on a disk for reading only": """
        with sync.launch(plan("train()"), runs=runs, registry=registry) as run:
            before = list(run)
        while supervisor.is_supervised(str(run.folder)):
            time.sleep(0.01)
        read_only(runs)
        again = sync.attach(run.folder, registry=registry)
        assert [event.seq for event in again] == [event.seq for event in before]
        assert again.state == "finished"
        assert again.stop().already_ended
    """,
    "a run that was lost, on a disk for reading only": """
        lasting = plan("bar(1, 4)\\nsay('')\\ntime.sleep(100)")
        with sync.launch(lasting, runs=runs, registry=registry, detach=True) as run:
            for event in run.events():
                if type(event).__name__ == "Progress":
                    break
        record = state(run)
        for process in (record["supervisor"], record["trainer"]):
            os.kill(process["pid"], 9)
            while supervisor.is_running(process):
                time.sleep(0.01)
        read_only(runs)
        again = sync.attach(run.folder, registry=registry)
        assert again.state == "lost"
        *_, last = again
        assert isinstance(last, Failed), last
        assert again.stop().state == "lost"
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_disks(tally: Any, own_mounts: list[str], make_plan: Planner, tmp_path: Path, case: str) -> None:
    for n in tally.trials(case, 1, 3):
        here = tmp_path / str(n)
        here.mkdir()
        prelude = here / "prelude.py"
        prelude.write_text(make_plan("\n", output=here / "loras").files["trainer.py"])
        script = BEFORE + textwrap.dedent(CASES[case]) + AFTER
        argv = [*own_mounts, sys.executable, "-c", script, json.dumps(sys.path), str(here), str(prelude)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        tally.count(done.stdout.endswith("survived\n"), done.stderr)
