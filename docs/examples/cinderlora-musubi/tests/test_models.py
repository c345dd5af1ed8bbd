"""Which files are Z-Image's."""

from __future__ import annotations

import cinderlora_musubi
import pytest
from cinderlora_musubi.zimage import scan
from headers import autoencoder, qwen3, transformer

from cinderlora.testing import make_header


@pytest.mark.parametrize("joined", [False, True])
def test_a_transformer_in_either_layout(joined):
    (file,) = scan([transformer(joined=joined)])
    assert (file.role, file.variant, file.layout) == ("model", "base", "comfyui" if joined else "diffusers")
    assert file.usable and file.limits["blocks_to_swap"] == 28
    layers = {(layer.inputs, layer.outputs): layer.count for layer in file.layers["model"]}
    assert layers == {(3840, 3840): 3, (3840, 10240): 1}


@pytest.mark.parametrize(
    ("name", "codes"),
    [("z_image_turbo_bf16.safetensors", ["model_distilled"]), ("z_image_de_turbo_v1_bf16.safetensors", [])],
)
def test_turbo_is_told_by_its_name(name, codes):
    (file,) = scan([transformer(name)])
    assert [problem.code for problem in file.problems] == codes and file.usable


def test_one_that_musubi_tuner_cannot_load_says_so():
    (file,) = scan([transformer(prefix="model.diffusion_model.")])
    assert [problem.code for problem in file.problems] == ["model_layout"] and not file.usable


def test_others_files_are_left_to_others():
    assert not list(scan([transformer(width=2304), make_header({"a.weight": (3, 3)})]))  # the first is Lumina's


def test_the_encoder_is_known_by_its_width():
    right, other = scan([qwen3(), qwen3(width=4096)])
    assert right.role == "qwen3" and right.usable and not other.usable


def test_the_autoencoder_is_taken_in_diffusers_layout_too():
    (file,) = scan([autoencoder()])
    assert file.role == "vae" and file.layout == "diffusers" and file.usable


def test_the_plugin_names_no_module_like_a_hook():
    assert callable(cinderlora_musubi.presets) and callable(cinderlora_musubi.trainer)
