"""What cinderlora asks of an adapter, and what Chroma's own files are told by."""

from __future__ import annotations

import os
from pathlib import Path

import cinderlora_chroma
import pytest

from cinderlora import Registry, SdScripts
from cinderlora.models import Tensors
from cinderlora.testing import adapter_checks, draw_pictures, make_header, sample_header

COMFYUI = "model.diffusion_model."
CHECKS = adapter_checks(
    cinderlora_chroma,
    headers={
        "model": [sample_header("chroma"), sample_header("chroma", prefix=COMFYUI, dtype="F8_E4M3")],
        "t5xxl": sample_header("t5xxl"),
        "ae": sample_header("flux_ae"),
    },
    others=[sample_header("clip_l"), sample_header("sdxl_vae")],
    logs=[Path(__file__).with_name("chroma.log")],
    checkout=os.environ.get("CINDERLORA_SD_SCRIPTS"),
)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_adapter(check):
    check()


@pytest.fixture
def chroma():
    registry = Registry()
    registry.register(cinderlora_chroma, name="chroma")
    return registry["chroma"]


def seen(header):
    (file,) = cinderlora_chroma.scan_models([header])
    return file


def codes(file):
    return [problem.code for problem in file.problems]


def test_a_model_tells_what_follows_from_its_header():
    file = seen(sample_header("chroma", dtype="F8_E4M3"))
    assert (file.precision, file.limits, codes(file)) == ("fp8_e4m3fn", {"blocks_to_swap": 35}, [])
    # As the script says: "create LoRA for FLUX all blocks: 228 modules."
    assert sum(layer.count for layer in file.layers["model"]) == 228


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: {n: s for n, s in t.items() if not n.startswith("double_blocks.18.")}, "model_variant"),
        (lambda t: {**{COMFYUI + n: s for n, s in t.items()}, "a.weight": (1, 1)}, "model_bundle_order"),
        (
            lambda t: {"distilled_guidance_layer.x": (1,), "transformer_blocks.0.attn.add_k_proj.weight": (1, 1)},
            "model_layout",
        ),
    ],
)
def test_what_the_script_cannot_load_is_said(change, code):
    file = seen(make_header(change({name: tensor.shape for name, tensor in sample_header("chroma").tensors.items()})))
    assert code in codes(file) and not file.usable


def test_chroma_radiance_and_flux_are_none_of_it():
    tensors = Tensors({**sample_header("chroma").tensors, "img_in.weight": None})
    radiance = {n: t.shape for n, t in tensors.items() if t is not None}
    assert not list(cinderlora_chroma.scan_models([make_header(radiance), sample_header("flux_dev")]))


def test_the_training_is_one_of_chroma(chroma, tmp_path):
    job = chroma.job(
        name="elena", trigger="elena", dataset=draw_pictures(tmp_path / "elena"), output=tmp_path, preset="16gb"
    )
    plan = chroma.plan(job, SdScripts.rehearsal())
    config = plan.files["elena_kohya_training.toml"]
    for line in (
        'model_type = "chroma"',
        "apply_t5_attn_mask = true",
        "guidance_scale = 0.0",
        "network_train_unet_only = true",
    ):
        assert line in config
    assert "clip_l" not in config
    assert "--l 4 --d 42" in plan.files["elena_sample_prompts.txt"]


def test_it_takes_less_than_flux(chroma):
    flux = Registry.from_installed()["flux"]
    for name in ("8gb", "24gb"):
        settings = chroma.presets[name].settings()
        assert chroma.vram(settings).gb < flux.vram(settings).gb
