"""What is read from musubi-tuner's output; the recording is of its own scripts (see README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
from cinderlora_musubi.log import parse
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import Activity, Failure, Log, Phase, Progress

RECORDING = Path(__file__).parent / "recordings/zimage.log"

ENCODING = "Encoding dataset [0]"


@pytest.mark.parametrize(
    ("line", "phase", "events"),
    [
        (f"INFO:musubi_tuner.cache_latents:{ENCODING}", "loading", [Phase("caching_latents"), Log(ENCODING, "INFO")]),
        (
            f"INFO:musubi_tuner.cache_text_encoder_outputs:{ENCODING}", "loading",
            [Phase("caching_text_encoders"), Log(ENCODING, "INFO")],
        ),
        ("WARNING:musubi_tuner.x:careful", None, [Log("careful", "WARNING")]),
        ("INFO:musubi_tuner.training.trainer_base:", "training", []),
        ("INFO: no module's", None, None),
        ("running training / 学習開始", "loading", None),
        ("4it [00:01,  3.92it/s]", "caching_latents", None),
    ],
)  # fmt: skip
def test_lines(line, phase, events):
    assert parse(line, phase) == events


@given(line=st.text(), phase=st.sampled_from([None, "loading", "caching_latents", "training", "sampling"]))
def test_it_never_raises(line, phase):
    parse(line, phase)
    parse(f"INFO:musubi_tuner.cache_latents:{line}", phase)


def test_a_recording_of_the_real_scripts(zimage):
    events = list(zimage.events([RECORDING.read_bytes()]))
    phases = [event.name for event in events if isinstance(event, Phase)]
    assert phases[:4] == ["loading", "caching_latents", "loading", "caching_text_encoders"]
    assert {"training", "sampling", "saving"} <= set(phases)
    steps = [event for event in events if isinstance(event, Progress)]
    assert (steps[-1].step, steps[-1].total, steps[-1].epochs) == (8, 8, 1)
    assert Activity("caching_latents", 4, None) in [e for e in events if isinstance(e, Activity)] or any(
        isinstance(e, Activity) and (e.label, e.done) == ("caching_latents", 4) for e in events
    )
    assert not any(isinstance(event, Log) and event.text.startswith("INFO:") for event in events)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ValueError: No training items found in the dataset. Please ensure that", "musubi_no_items"),
        ("OSError: Can't load tokenizer for 'Tongyi-MAI/Z-Image'. If you were trying", "musubi_tokenizer"),
        ("ModuleNotFoundError: No module named 'musubi_tuner'", "musubi_not_installed"),
        ("ValueError: Image size too small: dataset/elena/001.png and 0 more", "musubi_picture_small"),
    ],
)
def test_failures_of_its_own(zimage, line, code):
    failure = Failure(model_type="zimage", exit_code=1, lines=["Traceback (most recent call last):", line])
    found = zimage.diagnosis(failure)
    assert found.code == code and found.evidence == (line,) and found.fix


def test_what_others_share_the_core_tells(zimage):
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 MiB."
    found = zimage.diagnosis(Failure(model_type="zimage", exit_code=1, lines=[line], phase="training"))
    assert found.code == "cuda_out_of_memory"
