"""Jobs of a moment: real processes, whose plans are data as any other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from cinderlora import Launcher, Plan, Registry, Stage, sync

# A trainer that notes when it began and ended, and leaves a LoRA that passes every check.
TRAINER = """
import json, os, struct, sys, time
name, out, notes, act = sys.argv[1:5]

def note(word):
    with open(notes, "a") as file:
        file.write("%s %s %.6f %s\\n" % (word, name, time.time(), os.environ.get("CUDA_VISIBLE_DEVICES") or "-"))

note("began")
if act == "fail":
    sys.exit(3)
while act == "wait" and not os.path.exists(os.path.join(out, name + ".go")):
    time.sleep(0.01)
header, data = {}, b""
for key in ("lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"):
    part = struct.pack("<4f", 0.5, 0.5, 0.5, 0.5)
    header[key] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [len(data), len(data) + len(part)]}
    data += part
text = json.dumps(header).encode()
with open(os.path.join(out, "cg_%s.safetensors" % name), "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
note("ended")
"""

MakePlan = Callable[..., Plan]


class Notes:
    """What the trainers of a test have noted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[tuple[str, str, float, str]]:
        text = self.path.read_text() if self.path.exists() else ""
        rows = [line.split() for line in text.splitlines()]
        return [(word, name, float(when), gpus) for word, name, when, gpus in rows]

    def began(self) -> list[str]:
        return [name for word, name, _, _ in self.lines() if word == "began"]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def make_plan(tmp_path: Path, notes: Notes) -> MakePlan:
    """Makes a plan of a moment. `act`: "" ends well, "fail" does not, "wait" waits for `go`."""
    output = tmp_path / "out"
    output.mkdir(exist_ok=True)

    def make(name: str, act: str = "", **changes: object) -> Plan:
        argv = [sys.executable, "-I", "-S", "trainer.py", name, str(output), str(notes.path), act]
        plan = Plan(
            name=name,
            model_type="toy",
            output=output,
            lora=f"cg_{name}.safetensors",
            stages=[Stage(name="train", argv=argv, launcher=Launcher(argv=argv))],
            files={"trainer.py": TRAINER},
            steps=1,
            zero_at_start=["lora_up"],
        )
        return attrs.evolve(plan, **changes)

    return make


@pytest.fixture
def go(tmp_path: Path) -> Callable[[str], None]:
    """Lets a job go on that waits."""
    return lambda name: (tmp_path / "out" / f"{name}.go").touch()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A queue's folder on a machine without GPU; whatever still runs when the test is over is ended."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path = tmp_path / "queue"
    yield path
    queue = sync.Queue(path)
    if path.exists():
        queue.pause()
    for run in sync.runs(tmp_path / "data/cinderlora/runs", registry=Registry()):
        run.stop(grace=0)
    queue.wait()


def supervisor_of(folder: Path) -> int | None:
    """The pid of a queue's supervisor, found by its command line."""
    import psutil

    for process in psutil.process_iter():
        try:
            if process.cmdline()[-3:] == ["-m", "cinderlora.queues", str(folder)] and process.ppid() != os.getpid():
                return process.pid
        except (psutil.Error, IndexError):
            continue
    return None
