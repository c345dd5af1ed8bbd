"""A data set, the adapter, and a folder that looks like a checkout of musubi-tuner."""

from __future__ import annotations

import sys
from pathlib import Path

import cinderlora_musubi
import pytest
from cinderlora_musubi.tuner import MusubiTuner

from cinderlora import Registry
from cinderlora.testing import draw_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("datasets") / "elena")


@pytest.fixture(scope="session")
def registry() -> Registry:
    registry = Registry()
    registry.register(cinderlora_musubi, name="zimage")
    return registry


@pytest.fixture(scope="session")
def zimage(registry):
    return registry["zimage"]


@pytest.fixture
def models(tmp_path) -> dict[str, Path]:
    files = {"model": "z_image_bf16.safetensors", "qwen3": "qwen3.safetensors", "vae": "ae.safetensors"}
    return {role: tmp_path / name for role, name in files.items()}


@pytest.fixture
def make_job(zimage, pictures, models, tmp_path):
    def make(**settings):
        given = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": tmp_path / "out", "models": models}
        small = {"resolution": 64, "steps": 4, "save_every": 2, "sample_every": 2, "sample_steps": 2, "repeats": 2}
        return zimage.job(**{**given, **small, **settings})

    return make


@pytest.fixture
def tuner(tmp_path) -> MusubiTuner:
    """A checkout with the three scripts, whose sources say nothing."""
    scripts = tmp_path / "musubi-tuner/src/musubi_tuner"
    scripts.mkdir(parents=True)
    for name in (
        "hv_train_network",
        "zimage_train_network",
        "zimage_cache_latents",
        "zimage_cache_text_encoder_outputs",
    ):
        (scripts / f"{name}.py").write_text("")
    return MusubiTuner(tmp_path / "musubi-tuner", python=sys.executable)
