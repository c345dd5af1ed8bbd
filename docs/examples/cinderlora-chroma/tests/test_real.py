"""The real script on the CPU: eleven minutes and 11 GB of memory. See README.md for what the variables name."""

from __future__ import annotations

import os
from pathlib import Path

import cinderlora_chroma
import pytest

from cinderlora import Finished, Progress, Registry, SdScripts
from cinderlora.sync import launch
from cinderlora.testing import draw_pictures

CHECKOUT, MODEL = os.environ.get("CINDERLORA_SD_SCRIPTS"), os.environ.get("CINDERLORA_CHROMA_MODEL")
BENCH = Path(os.environ.get("CINDERLORA_SD_SCRIPTS_BENCH", "nowhere"))

pytestmark = [
    pytest.mark.skipif(not (CHECKOUT and MODEL), reason="CINDERLORA_CHROMA_MODEL names no model"),
    pytest.mark.timeout(3600),
]


def test_two_steps_of_the_real_training(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    registry = Registry()
    registry.register(cinderlora_chroma, name="chroma")
    chroma = registry["chroma"]
    trainer = SdScripts(CHECKOUT, python=os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON"))
    job = chroma.job(
        name="elena",
        trigger="elena",
        dataset=draw_pictures(tmp_path / "elena"),
        output=tmp_path / "loras",
        models={"model": MODEL, "t5xxl": BENCH / "models/t5xxl.safetensors", "ae": BENCH / "models/ae.safetensors"},
        preset="16gb",
        resolution=64,
        steps=2,
        repeats=1,
        network_dim=4,
        optimizer="AdamW",  # there is no bitsandbytes without CUDA
        sample_every=0,
        workers=0,
        extra={"tokenizer_cache_dir": str(BENCH / "tokenizers")},
    )
    assert not chroma.check(job, trainer).errors
    with launch(chroma.plan(job, trainer), runs=tmp_path / "runs", registry=registry) as run:
        events = list(run)
    print((run.folder / "output.log").read_text(encoding="utf-8"))
    assert isinstance(events[-1], Finished), events[-1]
    assert [event.step for event in events if isinstance(event, Progress)][-1] == 2
    assert run.result.lora.stat().st_size == pytest.approx(3_502_080 * 4 * 2, rel=0.01)
