"""The real sd-scripts, driven from job to LoRA, stopped, and made to fail.

Runs where `CINDERLORA_SD_SCRIPTS` names a checkout, `CINDERLORA_SD_SCRIPTS_PYTHON` its interpreter, and
`CINDERLORA_SD_SCRIPTS_BENCH` a folder with checkpoints small enough for a CPU: `models/` (sd3_tiny, flux_tiny,
sdxl_random, clip_l, clip_g, t5xxl, ae, all .safetensors) and `tokenizers/`, sd-scripts' tokenizer cache. They are
large: one at a time, `pytest -n0 -m sd_scripts`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import attrs
import psutil
import pytest

import cinderlora
from cinderlora import CheckpointSaved, Failed, Finished, Progress, Registry, SampleSaved, SdScripts, Stopped
from cinderlora.sync import launch

CHECKOUT = os.environ.get("CINDERLORA_SD_SCRIPTS")
PYTHON = os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON")
BENCH = Path(os.environ.get("CINDERLORA_SD_SCRIPTS_BENCH", "nowhere"))
NEEDED = {
    "sd3": {"model": "sd3_tiny", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"},
    "flux": {"model": "flux_tiny", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "ae"},
    "sdxl": {"model": "sdxl_random"},
}

pytestmark = [
    pytest.mark.sd_scripts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts"),
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


@pytest.fixture(scope="module")
def trainer() -> SdScripts:
    return SdScripts(CHECKOUT or "", python=PYTHON)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def models_of(model_type: str) -> dict[str, Path]:
    models = {role: BENCH / f"models/{name}.safetensors" for role, name in NEEDED[model_type].items()}
    missing = [path.name for path in models.values() if not path.exists()]
    if missing:
        pytest.skip(f"CINDERLORA_SD_SCRIPTS_BENCH has no {', '.join(missing)}")
    return models


def small_job(registry: Registry, model_type: str, pictures: Path, output: Path, **options):
    settings = {
        "preset": "16gb",
        "steps": 8,
        "save_every": 4,
        "sample_every": 4,
        "sample_steps": 2,
        "resolution": 128,
        "network_dim": 4,
        "optimizer": "AdamW",  # there is no bitsandbytes without CUDA
        "blocks_to_swap": 0,
        "fp8_base": False,
        "batch_size": 1,
    } | options
    extra = {"tokenizer_cache_dir": str(BENCH / "tokenizers"), **settings.pop("extra", {})}
    models = models_of(model_type) | settings.pop("models", {})
    job = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": output, "models": models}
    return registry[model_type].job(**job, extra=extra, **settings)


def run(registry, job, trainer, tmp_path, stop_at: int | None = None):
    events, plan = [], registry[job.model_type].plan(job, trainer)
    with launch(plan, runs=tmp_path / "runs") as training:
        for event in training:
            events.append(event)
            if stop_at is not None and isinstance(event, Progress) and event.step == stop_at:
                training.stop(by="the test")
    return events, training


def processes_of(folder: Path) -> list[psutil.Process]:
    """What still runs for a run: by its working folder, where the trainer and its workers are started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("model_type", NEEDED)
def test_from_pictures_to_a_lora(registry, trainer, pictures, tmp_path, model_type):
    output = tmp_path / "loras ü"
    steps = 4 if model_type == "sdxl" else 8
    options = {"steps": steps, "save_every": steps // 2, "sample_every": steps // 2}
    job = small_job(registry, model_type, pictures, output, **options)
    report = registry[model_type].check(job, trainer)
    assert not report.errors
    assert (report.images, report.steps_per_epoch, report.checkpoints, report.samples) == (6, 60, 2, 2)
    events, training = run(registry, job, trainer, tmp_path)

    assert isinstance(events[-1], Finished), events[-1]
    losses = {e.step: e.loss for e in events if isinstance(e, Progress) and e.step}
    assert list(losses) == list(range(1, steps + 1))
    assert all(loss is not None for loss in losses.values())
    on_disk = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    said = {e.path for e in events if isinstance(e, (CheckpointSaved, SampleSaved))}
    assert {path.relative_to(output).as_posix() for path in said} == on_disk
    assert training.result.lora == output / "cg_elena.safetensors"
    assert (training.result.steps, training.result.loss) == (steps, losses[steps])
    assert {e.step for e in events if isinstance(e, SampleSaved)} == {steps // 2, steps}
    # The buckets that were planned are the ones that were made; nothing lies beside the person's pictures.
    log = (training.folder / "output.log").read_text(encoding="utf-8")
    assert "bucket 0: resolution (128, 128), count: 60" in log
    assert not list(pictures.glob("*.npz"))
    again = list(cinderlora.sync.attach(training.folder))
    assert [(type(e), e.seq) for e in again] == [(type(e), e.seq) for e in events]


def test_stopped_on_the_way_it_leaves_no_process_and_no_half_file(registry, trainer, pictures, tmp_path):
    job = small_job(registry, "sd3", pictures, tmp_path / "out", steps=3000, save_every=50, sample_every=0)
    events, training = run(registry, job, trainer, tmp_path, stop_at=20)
    assert isinstance(events[-1], Stopped)
    assert events[-1].by == "the test"
    assert processes_of(training.folder) == []
    assert not (tmp_path / "out/cg_elena.safetensors").exists()


def broken(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"models": {"model": "nowhere.safetensors"}}, "model_file_missing"),
        ({"models": {"model": "TRUNCATED"}}, "model_file_truncated"),
        ({"models": {"model": "RUBBISH"}}, "model_file_unreadable"),
        ({"models": {"t5xxl": "nowhere.safetensors"}}, "model_file_missing"),
        ({"models": {"model": "flux_tiny"}}, "wrong_architecture"),
        ({"models": {"clip_g": "t5xxl"}}, "component_not_loaded"),
        ({"optimizer": "AdamW8bit"}, "missing_package"),
        ({"optimizer": "NoSuchOptimizer"}, "bad_setting"),
        ({"learning_rate": 1e30, "sample_every": 0}, "nan_loss"),
        ({"network_module": "networks.nope"}, "wrong_network_module"),
    ],
    ids=str,
)
def test_a_failure_is_diagnosed(registry, trainer, pictures, tmp_path, options, code):
    whole = BENCH / "models/sd3_tiny.safetensors"
    models = {}
    for role, file in options.get("models", {}).items():
        match file:
            case "TRUNCATED":
                with whole.open("rb") as start:
                    models[role] = broken(tmp_path, "half.safetensors", start.read(1 << 20))
            case "RUBBISH":
                models[role] = broken(tmp_path, "rubbish.safetensors", b"\xff" * 4096)
            case "flux_tiny" | "t5xxl":
                models[role] = BENCH / f"models/{file}.safetensors"
            case _:
                models[role] = tmp_path / file
    job = small_job(registry, "sd3", pictures, tmp_path / "out", **options | {"models": models})
    events, _ = run(registry, job, trainer, tmp_path)
    assert isinstance(events[-1], Failed)
    found = events[-1].diagnosis
    assert found.code == code, found
    assert found.cause and found.fix and found.evidence


def test_a_data_set_that_is_gone_is_diagnosed_though_the_exit_code_is_0(registry, trainer, pictures, tmp_path):
    plan = registry["sd3"].plan(small_job(registry, "sd3", pictures, tmp_path / "out"), trainer)
    with launch(attrs.evolve(plan, links=()), runs=tmp_path / "runs") as training:
        *_, last = training
    assert isinstance(last, Failed)
    assert (last.exit_code, last.diagnosis.code) == (0, "dataset_empty")


def test_a_trainer_that_was_killed_is_diagnosed(registry, trainer, pictures, tmp_path):
    job = small_job(registry, "sd3", pictures, tmp_path / "out", steps=3000, save_every=0, sample_every=0)
    with launch(registry["sd3"].plan(job, trainer), runs=tmp_path / "runs") as training:
        for event in training:
            if isinstance(event, Progress) and event.step == 5:
                record = json.loads((training.folder / "state.json").read_text())
                os.kill(record["trainer"]["pid"], signal.SIGKILL)
    assert isinstance(event, Failed)
    assert (event.exit_code, event.diagnosis.code) == (-9, "killed")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB: less than one LoRA."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_diagnosed(registry, trainer, pictures, tmp_path, small_disk):
    job = small_job(registry, "sd3", pictures, small_disk, sample_every=0)
    events, _ = run(registry, job, trainer, tmp_path)
    assert isinstance(events[-1], Failed)
    assert events[-1].diagnosis.code == "disk_full"
    assert not [e for e in events if isinstance(e, CheckpointSaved)]


def test_a_picture_that_cannot_be_read_is_named(registry, trainer, pictures, tmp_path):
    job = small_job(registry, "sd3", pictures, tmp_path / "out")
    plan = registry["sd3"].plan(job, trainer)
    # Behind the check's back, as a disk error would.
    victim = pictures / "elena_02.png"
    data = victim.read_bytes()
    victim.write_bytes(data[: len(data) // 3])
    with launch(plan, runs=tmp_path / "runs") as training:
        *_, last = training
    assert isinstance(last, Failed)
    assert last.diagnosis.code == "image_unreadable"
    assert "elena_02" in last.diagnosis.cause
    shutil.rmtree(training.folder)


@pytest.mark.parametrize("model_type", NEEDED)
def test_stopped_and_resumed(registry, trainer, pictures, tmp_path, model_type):
    """Stopped behind its first checkpoint, it goes on from the state saved there and reaches the full count."""
    output = tmp_path / "out"
    settings = {"steps": 6, "save_every": 2, "sample_every": 0, "save_state": True}
    job = small_job(registry, model_type, pictures, output, **settings)
    with launch(registry[model_type].plan(job, trainer), runs=tmp_path / "runs") as training:
        for event in training:
            if isinstance(event, CheckpointSaved):
                training.stop()
    assert isinstance(event, Stopped)
    assert processes_of(training.folder) == []
    saved = {path.name: path.read_bytes() for path in output.glob("*.safetensors")}
    assert "cg_elena-step00000002.safetensors" in saved
    assert "cg_elena.safetensors" not in saved

    with training.resume() as rest:
        events = list(rest)
    assert isinstance(events[-1], Finished), events[-1]
    steps = [e.step for e in events if isinstance(e, Progress) and e.step]
    assert (steps[-1], rest.result.steps, rest.result.lora) == (6, 6, output / "cg_elena.safetensors")
    assert min(steps) >= 2
    assert rest.result.lora.exists()
    for name, data in saved.items():
        assert (output / name).read_bytes() == data, f"{name} was overwritten"
    assert processes_of(rest.folder) == []
