"""What `check` says a training will take, against what the real sd-scripts then writes. Needs what
`test_sd_scripts.py` needs; `pytest -n0 -m sd_scripts tests/test_sd_scripts_cost.py`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cinderlora import Adapter, CheckpointSaved, Finished, Job, Progress, Registry, SampleSaved, SdScripts
from cinderlora.sd_scripts.config import job_buckets
from cinderlora.sync import launch

CHECKOUT = os.environ.get("CINDERLORA_SD_SCRIPTS")
PYTHON = os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON")
BENCH = Path(os.environ.get("CINDERLORA_SD_SCRIPTS_BENCH", "nowhere"))
MODELS = {
    "sd3": {"model": "sd3_tiny", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"},
    "flux": {"model": "flux_tiny", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "ae"},
    "sdxl": {"model": "sdxl_random"},
}

pytestmark = [
    pytest.mark.sd_scripts,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts"),
]


def size_of(paths) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


@pytest.fixture
def several_sizes(tmp_path: Path) -> Path:
    """Nine pictures of three aspect ratios with captions, in buckets of their own."""
    from PIL import Image

    folder = tmp_path / "elena"
    folder.mkdir()
    for n in range(9):
        shape = [(256, 256), (384, 192), (192, 384)][n % 3]
        Image.effect_noise(shape, 60).convert("RGB").save(folder / f"elena_{n}.png")
        (folder / f"elena_{n}.txt").write_text(f"elena, picture {n}")
    return folder


@pytest.fixture
def trainer(monkeypatch) -> SdScripts:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return SdScripts(CHECKOUT or "", python=PYTHON)


def job_of(model_type: str, dataset: Path, output: Path, **settings) -> tuple[Adapter, Job]:
    models = {role: BENCH / f"models/{name}.safetensors" for role, name in MODELS[model_type].items()}
    missing = [path.name for path in models.values() if not path.exists()]
    if missing:
        pytest.skip(f"CINDERLORA_SD_SCRIPTS_BENCH has no {', '.join(missing)}")
    adapter = Registry.from_installed()[model_type]
    job = adapter.job(
        name="elena",
        trigger="elena",
        dataset=dataset,
        output=output,
        models=models,
        preset="16gb",
        repeats=1,
        sample_steps=1,
        optimizer="AdamW",  # there is no bitsandbytes without CUDA
        network_dim=8,
        fp8_base=False,
        blocks_to_swap=0,
        extra={"tokenizer_cache_dir": str(BENCH / "tokenizers")},
        **settings,
    )
    return adapter, job


@pytest.mark.parametrize("model_type", MODELS)
def test_what_is_predicted_comes_true(trainer, several_sizes, tmp_path, model_type):
    output = tmp_path / "out"
    adapter, job = job_of(
        model_type,
        several_sizes,
        output,
        resolution=128 if model_type == "sdxl" else 256,  # below 256 all buckets are square
        steps=6,
        batch_size=2,
        save_every=3,
        save_state=True,
        sample_every=3,
    )
    report = adapter.check(job, trainer, runs=tmp_path / "runs")
    assert not report.errors
    disk = report.disk
    assert disk is not None

    with launch(adapter.plan(job, trainer), runs=tmp_path / "runs") as run:
        events = list(run)
    assert isinstance(events[-1], Finished), events[-1]

    log = (run.folder / "output.log").read_text(encoding="utf-8")
    last = [e for e in events if isinstance(e, Progress)][-1]
    from cinderlora import inspect_dataset

    buckets = {b.resolution: b.count for b in job_buckets(job, inspect_dataset(several_sizes)).buckets}
    seen = {
        (int(w), int(h)): int(n)
        for w, h, n in re.findall(r"bucket \d+: resolution \((\d+), (\d+)\), count: (\d+)", log)
    }
    checkpoints = [e.path for e in events if isinstance(e, CheckpointSaved)]
    final = output / "cg_elena.safetensors"
    states = size_of(path for folder in output.glob("*-state") for path in folder.rglob("*"))
    caches = size_of(run.folder.rglob("*.npz"))
    print(f"\n| {model_type} | predicted | seen |\n|---|---|---|")
    for what, predicted, found in (
        ("steps", report.steps, last.step),
        ("steps per epoch", report.steps_per_epoch, int(re.findall(r"num batches per epoch[^:]*: (\d+)", log)[-1])),
        ("epochs", report.epochs, last.epochs),
        ("buckets", buckets, seen),
        ("checkpoints", report.checkpoints, len([path for path in checkpoints if path != final])),
        ("samples", report.samples, len([e for e in events if isinstance(e, SampleSaved)])),
    ):
        print(f"| {what} | {predicted} | {found} |")
        assert predicted == found, what
    for what, size, found, tolerance in (
        ("LoRA", disk.lora, size_of([final]), 0.05),
        ("checkpoints, bytes", disk.checkpoints, size_of(path for path in checkpoints if path != final), 0.05),
        ("states, bytes", disk.states, states, 0.05),
        ("caches, bytes", disk.caches, caches, 0.05),
        # How well noise is compressed is not known beforehand.
        ("samples, bytes", disk.samples, size_of(output.glob("sample/*.png")), 1.0),
    ):
        print(f"| {what} | {size} | {found} |")
        assert size == pytest.approx(found, rel=tolerance), what
    assert report.disk_bytes == pytest.approx(size_of(output.rglob("*")) + caches, rel=0.05)
    ram, peak = report.ram, events[-1].result.ram_peak_bytes / 2**30
    print(f"| RAM, GB | {ram.gb:.1f} ({ram.low:.1f} to {ram.high:.1f}) | {peak:.1f} |")
    assert ram.low <= peak <= ram.high


@pytest.mark.parametrize("model_type", MODELS)
def test_with_the_text_encoders_a_lora_is_larger(trainer, several_sizes, tmp_path, model_type):
    settings = {"steps": 2, "save_every": 0, "save_state": True, "sample_every": 0, "resolution": 128, "batch_size": 1}
    encoders = {"train_text_encoder": True, "cache_text_encoders": model_type != "sdxl"}  # SDXL's cannot be cached then
    adapter, job = job_of(model_type, several_sizes, tmp_path / "out", **settings | encoders)
    disk = adapter.check(job, trainer).disk
    with launch(adapter.plan(job, trainer), runs=tmp_path / "runs") as run:
        *_, last = run
    assert isinstance(last, Finished), last
    log = (run.folder / "output.log").read_text(encoding="utf-8")
    modules = [int(count) for count in re.findall(r"enable LoRA for (?:text encoder|U-Net): (\d+) modules", log)]
    written, states = last.result.lora.stat().st_size, size_of((tmp_path / "out/cg_elena-state").iterdir())
    print(f"\n| {model_type} | modules {modules} | LoRA {disk.lora} / {written} | state {disk.states} / {states} |")
    assert modules[0] and modules[1]
    assert disk.lora == pytest.approx(written, rel=0.05)
    assert disk.states == pytest.approx(states, rel=0.05)
    assert disk.caches == pytest.approx(size_of(run.folder.rglob("*.npz")), rel=0.05)
