"""What `check` says a training will take, against what the real sd-scripts then writes. Needs what
`test_sd_scripts.py` needs; `pytest -n0 -m sd_scripts tests/test_sd_scripts_cost.py`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cinderlora import CheckpointSaved, Finished, Progress, Registry, SampleSaved, SdScripts
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
    pytest.mark.timeout(1800),
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


@pytest.mark.parametrize("model_type", MODELS)
def test_what_is_predicted_comes_true(monkeypatch, several_sizes, tmp_path, model_type):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = {role: BENCH / f"models/{name}.safetensors" for role, name in MODELS[model_type].items()}
    missing = [path.name for path in models.values() if not path.exists()]
    if missing:
        pytest.skip(f"CINDERLORA_SD_SCRIPTS_BENCH has no {', '.join(missing)}")
    adapter, trainer = Registry.from_installed()[model_type], SdScripts(CHECKOUT or "", python=PYTHON)
    output = tmp_path / "out"
    job = adapter.job(
        name="elena",
        trigger="elena",
        dataset=several_sizes,
        output=output,
        models=models,
        preset="16gb",
        resolution=128 if model_type == "sdxl" else 256,  # below 256 all buckets are square
        steps=6,
        repeats=1,
        batch_size=2,
        save_every=3,
        save_state=True,
        sample_every=3,
        sample_steps=1,
        optimizer="AdamW",  # there is no bitsandbytes without CUDA
        network_dim=8,
        fp8_base=False,
        blocks_to_swap=0,
        extra={"tokenizer_cache_dir": str(BENCH / "tokenizers")},
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
