"""What cinderlora asks of an adapter, and what Lumina's own files are told by."""

from __future__ import annotations

import os
from pathlib import Path

import cinderlora_lumina
import pytest

from cinderlora import ModelFile, Registry, SdScripts
from cinderlora.models.hollow import write_hollow
from cinderlora.testing import adapter_checks, draw_pictures, make_header, sample_header

COMFYUI = "model.diffusion_model."
Z_IMAGE = make_header({"cap_embedder.1.weight": (3840, 2560), "x_embedder.weight": (3840, 64)}, "z_image.safetensors")


def all_in_one(mark: bool = True):
    """Neta Lumina as it is published, with ComfyUI's names."""
    tensors = {COMFYUI + name: tensor for name, tensor in sample_header("lumina2").tensors.items()}
    gemma = {f"text_encoders.gemma2_2b.transformer.{n}": t for n, t in sample_header("gemma2_2b").tensors.items()}
    vae = {f"vae.{name}": tensor for name, tensor in sample_header("flux_ae").tensors.items()}
    return make_header({**tensors, **gemma, **vae, **({"text_encoders.gemma2_2b.logit_scale": ()} if mark else {})})


CHECKS = adapter_checks(
    cinderlora_lumina,
    headers={
        "model": [sample_header("lumina2"), sample_header("lumina2", prefix=COMFYUI), all_in_one()],
        "gemma2": sample_header("gemma2_2b"),
        "ae": sample_header("flux_ae"),
    },
    others=[Z_IMAGE, sample_header("t5xxl"), sample_header("sdxl_vae")],
    arguments=Path(__file__).with_name("arguments.json"),
    checkout=os.environ.get("CINDERLORA_SD_SCRIPTS"),
)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_adapter(check):
    check()


@pytest.fixture
def lumina():
    registry = Registry()
    registry.register(cinderlora_lumina, name="lumina")
    return registry["lumina"]


def seen(header):
    (file,) = cinderlora_lumina.scan_models([header])
    return file


def test_a_model_tells_what_follows_from_its_header():
    file = seen(sample_header("lumina2"))
    assert (file.limits, file.parameters) == ({"blocks_to_swap": 24}, {"model": 2_609_771_456})
    # What networks/lora_lumina.py attaches itself to: the linear layers of 30 blocks and of the final layer.
    assert sum(layer.count for layer in file.layers["model"]) == 180


def test_all_in_one_file_is_given_for_each_of_its_parts(lumina, tmp_path):
    header = all_in_one()
    file = seen(header)
    assert file.usable and set(file.bundled) == {"gemma2", "ae"}
    assert [problem.code for problem in seen(all_in_one(mark=False)).problems] == ["model_bundle_order"]
    path = write_hollow(tmp_path / "neta.safetensors", dict(header.tensors))
    models = lumina.scan_models(tmp_path).defaults()
    assert set(models) == {"model"}
    job = lumina.job(
        name="elena", trigger="elena", dataset=draw_pictures(tmp_path / "elena"), output=tmp_path, models=models
    )
    assert not lumina.check(job, SdScripts.rehearsal()).errors
    config = lumina.plan(job, SdScripts.rehearsal()).files["elena_kohya_training.toml"]
    for key in ("pretrained_model_name_or_path", "gemma2", "ae"):
        assert f'{key} = "{path}"' in config


def test_a_file_of_its_own_goes_over_what_is_inside(lumina, tmp_path):
    models = {
        "model": ModelFile(path="all.safetensors", role="model", bundled=["gemma2", "ae"]),
        "ae": "ae.safetensors",
    }
    job = lumina.job(name="elena", trigger="elena", dataset=tmp_path, output=tmp_path, models=models)
    args = lumina.build_args(job)
    assert args["gemma2"].endswith("all.safetensors") and "ae" not in args


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        (
            {n: t for n, t in sample_header("lumina2").tensors.items() if not n.startswith("layers.25.")},
            "model_variant",
        ),
        (
            {n: t for n, t in sample_header("lumina2").tensors.items() if n != "cap_embedder.0.weight"},
            "model_incomplete",
        ),
        ({"time_caption_embed.caption_embedder.1.weight": (2304, 2304)}, "model_layout"),
    ],
)
def test_what_the_script_cannot_load_is_said(tensors, code):
    file = seen(make_header(tensors))
    assert [problem.code for problem in file.problems] == [code] and not file.usable
