"""Records that name processes of others, in a process namespace: where that goes wrong, everybody is signalled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cinderlora import Plan

pytestmark = [pytest.mark.faults]

Planner = Callable[..., Plan]

PIDS = 14  # that the script tries, each as what it is and as one that was reused
SCRIPT = """
import json, os, subprocess, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
import psutil
from cinderlora import Plan, Registry, Stage, sync
from cinderlora.running import supervisor

here, prelude = Path(sys.argv[2]), Path(sys.argv[3])
registry = Registry()
plan = Plan(
    name="elena", model_type="toy", output=here / "loras", lora="cg_elena.safetensors", steps=4,
    stages=[Stage(name="train", argv=[sys.executable, "-I", "-S", "-u", "trainer.py"])],
    files={"trainer.py": prelude.read_text() + "train()"}, zero_at_start=["lora_up"],
)
with sync.launch(plan, runs=here / "runs", registry=registry) as run:
    pass
while supervisor.is_supervised(str(run.folder)):
    time.sleep(0.01)

stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
nameless = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={})
other = dict(os.environ, CINDERLORA_RUN_ID="0123456789abcdef")
marked = subprocess.Popen(["sleep", "1000"], start_new_session=True, env=other)
parent = subprocess.Popen(
    [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '1000'])"], start_new_session=True
)
while not psutil.Process(parent.pid).children():
    time.sleep(0.01)
strangers = [psutil.Process(p.pid) for p in (stranger, nameless, marked, parent)]
strangers += psutil.Process(parent.pid).children()

ended = json.loads((run.folder / "state.json").read_text())
launch = json.loads((run.folder / "launch.json").read_text())
(run.folder / "launch.json").write_text(json.dumps({**launch, "created": 0}))
pids = [1, os.getpid(), *(p.pid for p in strangers), 0, -1, 2**31, 2**70, True, None, "1"]
for pid in pids:
    real = supervisor.start_of(pid) if type(pid) is int and 0 < pid < 2**31 else None
    for start in (real, "long ago"):
        named = {"pid": pid, "start": start}
        record = {key: ended[key] for key in ("started", "stage", "files")}
        record.update(state="running", trainer=named, supervisor=named)
        (run.folder / "state.json").write_text(json.dumps(record))
        (run.folder / "stop.json").unlink(missing_ok=True)
        again = sync.attach(run.folder, registry=registry)
        begun = time.monotonic()
        report = again.stop(grace=0.2)
        good = report.asked == report.forced == report.left == () and again.state != "running"
        good = good and time.monotonic() - begun < 60
        good = good and all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in strangers)
        while supervisor.is_supervised(str(run.folder)):
            time.sleep(0.01)
        print(json.dumps([good, f"{named}: {again!r} {report}"]), flush=True)
"""


def test_strangers_in_a_record(tally: Any, own_processes: list[str], make_plan: Planner, tmp_path: Path) -> None:
    """They are neither waited for nor ended."""
    prelude = tmp_path / "prelude.py"
    prelude.write_text(make_plan("\n", output=tmp_path / "loras").files["trainer.py"])
    # A shell is the first process there: a stranger, too.
    shell = ["sh", "-c", '"$@"; echo over', "sh"]
    argv = [*own_processes, *shell, sys.executable, "-c", SCRIPT, json.dumps(sys.path), str(tmp_path), str(prelude)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    *said, last = done.stdout.splitlines()
    assert last == "over", done.stderr
    assert len(said) == PIDS * 2, done.stderr
    count = len(said)
    for line, _ in zip(said, tally.trials("state.json that names strangers or reused pids", count, count), strict=True):
        tally.count(*json.loads(line))
