"""The three steps acted out, from a job to a LoRA, with the events of any other training."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from cinderlora import CheckpointSaved, Finished, Phase, Progress, SampleSaved, TrainingFailed
from cinderlora.sync import launch


def run_of(zimage, job, registry, runs: Path, **options):
    with launch(zimage.plan(job, zimage.rehearsal()), runs=runs, registry=registry, **options) as run:
        events = list(run)
    return run, events


def test_a_rehearsal_goes_from_pictures_to_a_lora(zimage, make_job, registry, pictures, tmp_path):
    before = sorted(pictures.iterdir())
    job = make_job()
    zimage.check(job, zimage.rehearsal()).raise_for_errors()
    run, events = run_of(zimage, job, registry, tmp_path / "runs")
    assert isinstance(events[-1], Finished)
    phases = [event.name for event in events if isinstance(event, Phase)]
    order = ["loading", "caching_latents", "caching_text_encoders", "training", "sampling"]
    assert [name for n, name in enumerate(phases) if name not in phases[:n]][:5] == order
    assert [event.step for event in events if isinstance(event, Progress)][-1] == 4
    assert [event.step for event in events if isinstance(event, SampleSaved)] == [2, 4]
    assert [event.path.name for event in events if isinstance(event, CheckpointSaved)] == [
        "cg_elena-step00000002.safetensors", "cg_elena-step00000004.safetensors", "cg_elena.safetensors",
    ]  # fmt: skip
    assert run.result.rehearsal and run.result.lora == job.output / "cg_elena.safetensors"
    assert len(list((run.folder / "cache/1").iterdir())) == 2 * 4
    assert sorted(pictures.iterdir()) == before, "something was written beside the person's pictures"


def test_it_goes_on_from_a_checkpoint(zimage, make_job, registry, tmp_path):
    run, _ = run_of(zimage, make_job(), registry, tmp_path / "runs")
    plan = run.resume_plan(steps=8)
    assert (plan.first_step, plan.steps, plan.resumed_from.kind) == (4, 8, "weights")
    with launch(plan, runs=tmp_path / "runs", registry=registry) as again:
        steps = [event.step for event in again if isinstance(event, Progress)]
    assert steps[-1] == 8 and again.result.lora == run.result.lora


def test_a_stage_that_fails_ends_the_run(zimage, make_job, registry, tmp_path):
    plan = zimage.plan(make_job(), zimage.rehearsal())
    broken = {name: text for name, text in plan.files.items() if name != "elena_dataset.toml"}
    with launch(attrs.evolve(plan, files=broken, configs=()), runs=tmp_path / "runs", registry=registry) as run:
        events = list(run)
    assert not any(isinstance(event, Progress) for event in events)
    with pytest.raises(TrainingFailed):
        _ = run.result
