"""A real SD3 training by two processes, on the CPU. See tests/test_sd_scripts.py for what it needs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import cinderlora
from cinderlora import CheckpointSaved, Progress, Registry, SampleSaved, sync

CHECKOUT = os.environ.get("CINDERLORA_SD_SCRIPTS")
BENCH = Path(os.environ.get("CINDERLORA_SD_SCRIPTS_BENCH", "nowhere"))

pytestmark = [
    pytest.mark.sd_scripts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts"),
]


@pytest.fixture(autouse=True)
def _two_processes_without_a_card(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(data / "ranks/site"))


@pytest.fixture
def trainer() -> cinderlora.SdScripts:
    return cinderlora.SdScripts(CHECKOUT or "", python=os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON"))


@pytest.fixture
def make_job(pictures: Path, tmp_path: Path) -> Callable[..., Any]:
    names = {"model": "sd3_tiny", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"}

    def make(**settings: Any) -> cinderlora.Job:
        small = {"steps": 8, "save_every": 4, "sample_every": 4, "sample_steps": 2, "resolution": 128, "repeats": 1}
        fit = {"optimizer": "AdamW", "blocks_to_swap": 0, "fp8_base": False, "batch_size": 1, "network_dim": 4}
        extra = {"tokenizer_cache_dir": str(BENCH / "tokenizers"), **settings.pop("extra", {})}
        return Registry.from_installed()["sd3"].job(
            name="elena",
            trigger="elena",
            dataset=pictures,
            output=tmp_path / "out",
            preset="16gb",
            models={role: BENCH / f"models/{name}.safetensors" for role, name in names.items()},
            extra=extra,
            **small | fit | settings,
        )

    return make


def test_two_processes_train_to_one_lora(
    make_job: Callable[..., Any], trainer: cinderlora.SdScripts, run_folders: Path
) -> None:
    adapter, job = Registry.from_installed()["sd3"], make_job()
    report = adapter.check(job, trainer, gpus=[0, 1])
    assert (report.steps_per_epoch, report.epochs, report.processes) == (3, 3, 2)
    with sync.launch(adapter.plan(job, trainer), runs=run_folders, gpus=[0, 1]) as run:
        events = list(run)
    assert run.state == "finished"
    progress = [event for event in events if isinstance(event, Progress)]
    assert sorted({(event.step, event.total) for event in progress}) == [(step, 8) for step in range(9)]
    assert [event.step for event in progress] == sorted(event.step for event in progress)
    assert progress[-1].epochs == report.epochs
    saved = [event.path.name for event in events if isinstance(event, CheckpointSaved)]
    assert saved == ["cg_elena-step00000004.safetensors", "cg_elena-step00000008.safetensors", "cg_elena.safetensors"]
    assert [event.step for event in events if isinstance(event, SampleSaved)] == [4, 8]
    assert run.result.steps == 8 and run.result.ram_peak_bytes is not None
    assert run.result.ram_peak_bytes > 1 << 30  # the models alone are that large


def test_two_processes_are_stopped_and_resumed(
    make_job: Callable[..., Any],
    trainer: cinderlora.SdScripts,
    run_folders: Path,
    still_running: Callable[[Any], list[psutil.Process]],
) -> None:
    plan = Registry.from_installed()["sd3"].plan(make_job(steps=400, sample_every=0, save_state=True), trainer)
    with sync.launch(plan, runs=run_folders, gpus=[0, 1]) as run:
        next(event for event in run if isinstance(event, Progress) and event.step == 6)
        assert sum("sd3_train" in " ".join(process.cmdline()) for process in still_running(run)) >= 3
        report = run.stop(by="the test")
    assert run.state == "stopped" and not report.left and not still_running(run)
    with run.resume(steps=8) as resumed:
        steps = [event.step for event in resumed if isinstance(event, Progress)]
    assert resumed.state == "finished"
    assert (steps[0], steps[-1]) == (4, 8)
    assert "accelerate.commands.launch" in json.loads((resumed.folder / "launch.json").read_text())["stages"][0]["argv"]


def test_two_machines_train_to_one_lora(
    make_job: Callable[..., Any], trainer: cinderlora.SdScripts, run_folders: Path, tmp_path: Path
) -> None:
    in_memory = {"cache_latents_to_disk": False, "cache_text_encoder_outputs_to_disk": False}
    adapter, main = Registry.from_installed()["sd3"], make_job(extra=in_memory, steps=4)
    both = {"runs": run_folders, "machines": 2, "main_address": "127.0.0.1:29655"}
    other = main.evolve(output=tmp_path / "other")
    with (
        sync.launch(adapter.plan(other, trainer), machine_rank=1, **both) as assisting,
        sync.launch(adapter.plan(main, trainer), **both) as run,
    ):
        pass
    assert (run.state, assisting.state) == ("finished", "finished")
    assert run.result.lora.exists() and not assisting.result.lora.exists()
