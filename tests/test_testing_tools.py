"""What `cinderlora.testing` has besides its checks: sample headers, pictures, played recordings, fixtures."""

from __future__ import annotations

import gzip
import json
import runpy
import time
from pathlib import Path

import anyio
import pytest

import cinderlora
from cinderlora import CheckpointSaved, Failed, Finished, Progress, Registry, SampleSaved
from cinderlora.models.zoo import what_is
from cinderlora.sync import launch
from cinderlora.testing import ScriptedTrainer, draw_pictures, make_header, sample_header
from cinderlora.testing.headers import FAMILIES, MODELS, PARTS
from cinderlora.testing.scripted import RECORDINGS

pytest_plugins = ["cinderlora.testing.fixtures"]
DATA = Path(__file__).parent / "data"


# ---- sample headers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*MODELS, *PARTS])
def test_a_sample_is_the_real_header(kind):
    real = json.loads(gzip.decompress((DATA / f"headers/{kind}.json.gz").read_bytes()))["tensors"]
    assert {name: list(tensor.shape) for name, tensor in sample_header(kind).tensors.items()} == real


def test_the_samples_were_written_from_the_real_headers():
    text = runpy.run_path(str(DATA / "headers/make_samples.py"))["text"]
    there = Path(cinderlora.__file__).parent / "testing/sample_headers.txt"
    assert there.read_text(encoding="utf-8") == text(), "run: python tests/data/headers/make_samples.py"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_known_for_what_it_is(family):
    for kind in FAMILIES[family]:
        assert what_is(sample_header(kind)).startswith("SD3" if family == "SD3" else family)


def test_a_header_is_made_of_shapes():
    header = make_header({"a.weight": (2, 3)}, dtype="F16", metadata={"format": "pt"})
    assert (header.size, header.precision, header.tensors.parameters()) == (12, "fp16", 6)
    assert sample_header("clip_l", dtype="F8_E4M3", prefix="x.").tensors.has_prefix("x.text_model.")
    with pytest.raises(KeyError):
        sample_header("flux_9")


def test_pictures_are_pictures(tmp_path):
    from PIL import Image

    folder = draw_pictures(tmp_path / "new/elena", count=9)
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == len({path.read_bytes() for path in pictures}) == 9
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
        assert path.with_suffix(".txt").read_text(encoding="utf-8").startswith("elena, a ")
    found = cinderlora.inspect_dataset(folder, trigger="elena").problems
    assert [problem.code for problem in found] == ["few_pictures"]


# ---- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_are_those_of_the_real_trainer(name):
    captured = {"complete": "sd3-complete", "out_of_memory": "sd3-fail-out-of-memory"}[name]
    assert ScriptedTrainer(name).recording == (DATA / f"captures/{captured}/output.log").read_bytes()


def played(trainer, tmp_path, **settings):
    registry = Registry.from_installed()
    sd3 = registry["sd3"]
    job = sd3.job(
        name="mira", trigger="mira", dataset=draw_pictures(tmp_path / "mira"), output=tmp_path / "loras ü", **settings
    )
    with launch(sd3.plan(job, trainer), runs=tmp_path / "runs") as run:
        return list(run), run, job


def test_a_recording_is_played_under_the_jobs_names(tmp_path):
    events, run, job = played(ScriptedTrainer("complete"), tmp_path)
    assert isinstance(events[-1], Finished)
    assert [event.step for event in events if isinstance(event, Progress)][-1] == 8
    saved = [event.path for event in events if isinstance(event, (CheckpointSaved, SampleSaved))]
    assert len(saved) >= 4 and all(path.exists() and path.is_relative_to(job.output) for path in saved)
    assert run.result.lora == job.output / "cg_mira.safetensors" and run.result.lora.exists()
    assert run.result.rehearsal


def test_a_recorded_failure_fails_as_it_did(tmp_path):
    events, _, job = played(ScriptedTrainer("out_of_memory"), tmp_path)
    assert isinstance(events[-1], Failed) and events[-1].diagnosis.code == "cuda_out_of_memory"
    assert not (job.output / "cg_mira.safetensors").exists()


def test_it_takes_as_long_as_the_bar_says(tmp_path):
    recording = b"".join(
        f"\rsteps: {10 * n:3d}%|{'#' * n}| {n}/10 [00:{n:02d}<00:{10 - n:02d}, 1.00s/it, avr_loss=0.5]".encode()
        for n in range(11)
    )
    started = time.monotonic()
    events, _, _ = played(ScriptedTrainer(recording, speed=20), tmp_path)
    assert time.monotonic() - started >= 0.5  # ten seconds, twenty times as fast
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(11))
    with pytest.raises(ValueError, match="speed"):
        ScriptedTrainer(recording, speed=0)


@pytest.mark.anyio
async def test_bytes_come_through_as_they_are_and_the_exit_code_is_said(tmp_path):
    recording = bytes(range(1, 256)) + b"\r\n\n\r\xff\xfe"
    _, run, _ = await anyio.to_thread.run_sync(played, ScriptedTrainer(recording, exit_code=3), tmp_path)
    assert (run.folder / "output.log").read_bytes() == recording
    assert json.loads((run.folder / "state.json").read_text(encoding="utf-8"))["exit_code"] == 3


# ---- fixtures --------------------------------------------------------------------------------------------------------


def test_the_fixtures_work_together(
    temporary_registry, scripted_trainer, character_pictures, cinderlora_home, sample_headers, tmp_path
):
    flux = temporary_registry["flux"]
    job = flux.job(name="elena", trigger="elena", dataset=character_pictures, output=tmp_path / "out", steps=8)
    with launch(flux.plan(job, scripted_trainer("complete"))) as run:
        assert isinstance(list(run)[-1], Finished)
    assert run.folder.is_relative_to(cinderlora_home)
    assert set(sample_headers) == {*MODELS, *PARTS}


def test_the_rehearsal_fixture_trains(temporary_registry, rehearsal_trainer, character_pictures, tmp_path):
    sdxl = temporary_registry["sdxl"]
    options = {"resolution": 64, "steps": 2, "sample_every": 0}
    job = sdxl.job(name="elena", trigger="elena", dataset=character_pictures, output=tmp_path, **options)
    assert not sdxl.check(job, rehearsal_trainer).errors
