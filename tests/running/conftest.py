"""A small trainer that is a real process: what it does is written into each test."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest

import cinderlora
from cinderlora import Component, ModelType, Plan, Registry, Stage, hookimpl

# What a script needs to look like sd-scripts from outside: bars, announcements, files of its names.
PRELUDE = """
import json, os, signal, struct, sys, time
out = {output!r}

def say(text, end="\\n"):
    sys.stdout.buffer.write((text + end).encode("utf-8"))
    sys.stdout.flush()

def bar(step, total, loss="0.5"):
    percent = step * 100 // total
    say("\\rsteps: %3d%%|###   | %d/%d [00:01<00:09,  1.25it/s, avr_loss=%s]" % (percent, step, total, loss), end="")

def lora(name="cg_elena.safetensors", up=0.25, down=0.125, keep=None, steps=None):
    header, data = {{}}, b""
    if steps is not None:
        header["__metadata__"] = {{"ss_steps": str(steps[0]), "ss_max_train_steps": str(steps[1])}}
    for key, value in (("lora_unet_a.lora_down.weight", down), ("lora_unet_a.lora_up.weight", up)):
        part = struct.pack("<4f", value, value, value, value)
        header[key] = {{"dtype": "F32", "shape": [2, 2], "data_offsets": [len(data), len(data) + len(part)]}}
        data += part
    text = json.dumps(header).encode()
    with open(out + "/" + name, "wb") as file:
        file.write((struct.pack("<Q", len(text)) + text + data)[:keep])

def save(name, **how):
    say("\\nsaving checkpoint: %s/%s" % (out, name))
    lora(name, **how)

def sample(step, prompts=1):
    say("\\ngenerating sample images at step / サンプル画像生成 ステップ: %d" % step)
    os.makedirs(out + "/sample", exist_ok=True)
    for index in range(prompts):
        say("prompt: elena")
        say("\\n\\r  0%|          | 0/2 [00:00<?, ?it/s]\\x1b[A", end="")
        say("\\r100%|##########| 2/2 [00:01<00:00,  2.00it/s]")
        with open(out + "/sample/cg_elena_%06d_%02d_20260101000000_42.png" % (step, index), "wb") as file:
            file.write(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(4) + b"IEND\\xaeB`\\x82")

def state():
    while not os.path.exists("state.json"):
        time.sleep(0.01)
    return json.load(open("state.json"))

def train(total=4):
    say("running training / 学習開始")
    for step in range(1, total + 1):
        bar(step, total, "%.3g" % (1 / step))
        if step == 2:
            sample(2)
            save("cg_elena-step00000002.safetensors")
    save("cg_elena.safetensors")
    say("model saved.")
    bar(total, total, "%.3g" % (1 / total))
    say("")
"""

Planner = Callable[..., Plan]


class Toy:
    """An adapter of the tests' own: what is tested here is not any model type's."""

    @hookimpl
    def model_type(self) -> ModelType:
        return ModelType(
            name="toy",
            title="Toy",
            script="toy.py",
            network_module="networks.lora",
            components=[Component("model")],
        )


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(Toy(), name="toy")
    return registry


@pytest.fixture
def make_plan(tmp_path: Path) -> Planner:
    """Makes a plan of one script; a script that says nothing else trains four steps and saves."""

    def make(script: str = "train()", *, python: str = sys.executable, **changes: Any) -> Plan:
        output = changes.get("output", tmp_path / "out")
        text = PRELUDE.format(output=str(output)) + textwrap.dedent(script)
        plan = Plan(
            name="elena",
            model_type="toy",
            output=output,
            lora="cg_elena.safetensors",
            stages=[Stage(name="train", argv=[python, "-I", "-S", "-u", "trainer.py"])],
            files={"trainer.py": text, "elena_dataset.toml": "[general]\n"},
            configs=["elena_dataset.toml"],
            steps=4,
            zero_at_start=["lora_up"],
        )
        return attrs.evolve(plan, **changes)

    return make


@pytest.fixture
def run_folders(tmp_path: Path) -> Iterator[Path]:
    """The runs folder of a test; whatever still runs when the test is over is ended."""
    folder = tmp_path / "runs"
    yield folder
    from cinderlora import sync

    for run in sync.runs(folder, registry=Registry()):
        run.stop(grace=0)


def processes_of(run: Any) -> list[psutil.Process]:
    """The processes that have a run's mark in their environment."""
    import json

    mark = json.loads((run.folder / "launch.json").read_text())["id"]
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CINDERLORA_RUN_ID") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def still_running() -> Callable[[Any], list[psutil.Process]]:
    return processes_of


def _untimed(events: list[cinderlora.Event]) -> list[cinderlora.Event]:
    return [attrs.evolve(event, time=None) for event in events]


@pytest.fixture
def untimed() -> Callable[[list[cinderlora.Event]], list[cinderlora.Event]]:
    """Events without the time at which a live follower saw them."""
    return _untimed
