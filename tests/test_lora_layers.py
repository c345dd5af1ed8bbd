"""Which layers a LoRA is trained on: against the trainer's own network modules."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import cinderlora_flux.scan as flux
import cinderlora_sd3.scan as sd3
import cinderlora_sdxl.scan as sdxl
from cinderlora.models import Header, Tensor
from cinderlora.types import Layer

CHECKOUT = os.environ.get("CINDERLORA_SD_SCRIPTS")
PYTHON = os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON", "python")

# Modules, and numbers in a LoRA of dim 1 without the alphas: what networks/lora_flux.py, lora_sd3.py and lora.py
# (48d368fa) attach to the models of these headers where they are told nothing; the last test asks them again.
TRUE = {
    "flux_dev": (304, 4_786_176),
    "flux_schnell": (304, 4_786_176),
    "sdxl_base": (722, 2_659_840),
    "sd3_medium": (237, 1_671_168),
    "sd35_medium": (263, 1_850_880),
    "clip_l": (72, 165_888),
    "clip_g": (192, 737_280),
    "t5xxl": (24 * 7, 24 * 75_776),
    "sdxl_base/clip_l": (72, 165_888),
    "sdxl_base/clip_g": (192, 737_280),
}
CLAIMS = {"sdxl": sdxl.scan, "sd3": sd3.scan, "clip_g": sd3.scan}


def tensors_of(name: str, dtype: str = "BF16") -> dict[str, Tensor]:
    known = json.loads(gzip.decompress((Path(__file__).parent / f"data/headers/{name}.json.gz").read_bytes()))
    return {tensor: Tensor(dtype, tuple(shape)) for tensor, shape in known["tensors"].items()}


def seen(name: str, dtype: str = "BF16", prefix: str = "") -> tuple[Layer, ...]:
    """The layers of a header's own part, or of another, as "header/role"."""
    name, _, role = name.partition("/")
    tensors = {prefix + tensor: shape for tensor, shape in tensors_of(name, dtype).items()}
    claim = next((claim for start, claim in CLAIMS.items() if name.startswith(start)), flux.scan)
    (file,) = claim([Header(path=Path(f"{name}.safetensors"), size=1, tensors=tensors)])
    return file.layers.get(role or file.role, ())


def numbers(layers: Iterable[Layer]) -> tuple[int, int]:
    """Modules, and what a LoRA of dim 1 holds."""
    layers = tuple(layers)
    total = sum(layer.count * (layer.inputs * layer.kernel**2 + layer.outputs) for layer in layers)
    return sum(layer.count for layer in layers), total


def counted(layers: Iterable[Layer]) -> Counter[tuple[int, int, int]]:
    found: Counter[tuple[int, int, int]] = Counter()
    for layer in layers:
        found[layer.inputs, layer.outputs, layer.kernel] += layer.count
    return found


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F8_E4M3"])
@pytest.mark.parametrize("name", TRUE)
def test_the_layers_are_those_that_the_trainer_takes(name: str, dtype: str) -> None:
    assert numbers(seen(name, dtype)) == TRUE[name]


def test_a_prefix_changes_nothing() -> None:
    assert seen("flux_dev", prefix="model.diffusion_model.") == seen("flux_dev")


def test_text_encoders_inside_a_checkpoint_have_theirs() -> None:
    tensors = tensors_of("sd3_medium")
    for role in ("clip_l", "clip_g", "t5xxl"):
        tensors |= {f"text_encoders.{role}.transformer.{name}": t for name, t in tensors_of(role).items()}
    (file,) = sd3.scan([Header(path=Path("sd3.safetensors"), size=1, tensors=tensors)])
    assert {role: numbers(layers) for role, layers in file.layers.items()} == {
        "model": TRUE["sd3_medium"],
        **{role: TRUE[role] for role in ("clip_l", "clip_g", "t5xxl")},
    }


def test_what_diffusers_keeps_apart_is_counted_as_it_is_joined() -> None:
    names = [
        "x_embedder.weight",
        "context_embedder.weight",
        *(f"transformer_blocks.{i}.attn.add_k_proj.weight" for i in range(19)),
        *(f"single_transformer_blocks.{i}.attn.to_q.weight" for i in range(38)),
    ]
    tensors = {name: Tensor("BF16", (3072, 64 if name == "x_embedder.weight" else 3072)) for name in names}
    (file,) = flux.scan([Header(path=Path("flux.safetensors"), size=1, tensors=tensors)])
    assert counted(file.layers["model"]) == counted(seen("flux_dev"))


def test_packed_weights_do_not_tell_their_layers() -> None:
    assert seen("flux_dev", "U8") == ()


# Builds each model without weights and lets the trainer's module attach itself; [inputs, outputs, kernel] of each.
SCRIPT = """
import gzip, json, sys
sys.path.insert(0, ".")
import torch
from accelerate import init_empty_weights
from library import flux_models, sd3_models, sd3_utils, sdxl_original_unet
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from networks import lora, lora_flux, lora_sd3

def clip(width, layers):
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, projection_dim=width))

def shapes(modules):
    sizes = [(m.lora_down.weight.shape, m.lora_up.weight.shape) for m in modules]
    return [[down[1], up[0], down[2] if len(down) > 2 else 1] for down, up in sizes]

found, start = {}, "model.diffusion_model."
with init_empty_weights():
    encoders = [clip(768, 12), clip(1280, 32)]
    unet = sdxl_original_unet.SdxlUNet2DConditionModel()
for name in ("dev", "schnell"):
    with torch.device("meta"):
        model = flux_models.Flux(flux_models.configs[name].params)
    found[f"flux_{name}"] = shapes(lora_flux.LoRANetwork([], model).unet_loras)
for name in ("sd3_medium", "sd35_medium"):
    header = json.loads(gzip.open(f"{sys.argv[1]}/{name}.json.gz").read())["tensors"]
    names = {key[len(start):]: torch.empty(shape, device="meta")
             for key, shape in header.items() if key.startswith(start)}
    with init_empty_weights():
        model = sd3_models.create_sd3_mmdit(sd3_utils.analyze_state_dict_state(names), "torch")
    network = lora_sd3.LoRANetwork(encoders, model)
    found[name] = shapes(network.unet_loras)
for number, name in ((1, "clip_l"), (2, "clip_g")):
    found[name] = shapes(m for m in network.text_encoder_loras if m.lora_name.startswith(f"lora_te{number}_"))
network = lora.LoRANetwork(encoders, unet, is_sdxl=True)
found["sdxl_base"] = shapes(network.unet_loras)
for number, name in ((1, "clip_l"), (2, "clip_g")):
    modules = [m for m in network.text_encoder_loras if m.lora_name.startswith(f"lora_te{number}_")]
    found[f"sdxl_base/{name}"] = shapes(modules)
print(json.dumps(found))
"""


@pytest.mark.sd_scripts
@pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts")
def test_the_trainers_own_modules_say_the_same(data: Path) -> None:
    command = [PYTHON, "-W", "ignore", "-c", SCRIPT, str(data / "headers")]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name, modules in json.loads(ended.stdout.splitlines()[-1]).items():
        assert counted(seen(name)) == Counter(map(tuple, modules)), name
        assert numbers(seen(name)) == TRUE[name]
