"""Z-Image: its presets, its own arguments, and its files as their headers tell them. Pure.

What musubi-tuner loads is as in its `zimage` modules (30c658c4, v0.3.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from cinderlora import Header, Job, Layer, ModelFile, Preset
from cinderlora.models.components import model_file, problem, vae

__all__ = ["PRESETS", "scan", "zimage_args"]

PRESETS = (
    Preset(
        name="24gb",
        title="24 GB and more",
        vram_gb=24,
        resolution=1024,
        network_dim=32,
        optimizer="AdamW8bit",
        steps=2000,
        sample_steps=25,  # this and the scale are the base model's, by musubi-tuner's documentation
        sample_scale=4.0,
    ),
    Preset(
        name="16gb",
        title="16 GB, the model in FP8",
        vram_gb=16,
        base="24gb",
        resolution=768,
        network_dim=16,
        fp8_base=True,
        extra={"fp8_llm": True},
    ),
    Preset(
        name="12gb",
        title="12 GB, the model in FP8, slower",
        vram_gb=12,
        base="16gb",
        blocks_to_swap=14,
    ),
)
"""By the card's memory. No card was at hand: the figures are arithmetic on six billion weights, in 16 bits 12.3 GB and
in FP8 half of that, with musubi-tuner's advice to go to FP8 and to swap blocks where that is too much."""

MOST_SWAPPED = 28  # of 30 blocks


def zimage_args(job: Job) -> dict[str, Any]:
    """Z-Image's own arguments, by musubi-tuner's documentation (docs/zimage.md): how noise levels are drawn, and that
    FP8 has to be scaled."""
    args: dict[str, Any] = {
        "timestep_sampling": "shift",
        "weighting_scheme": "none",
        "discrete_flow_shift": 2.0,
    }
    return args | {"fp8_scaled": True} if job.settings.fp8_base else args


# ---- which files are Z-Image's ----

_WIDTH, _CAPTION_WIDTH = 3840, 2560
_CAPTIONS = "cap_embedder.1.weight"  # Lumina Image 2 has the same names, in other sizes
_QWEN3 = "model.layers.0.self_attn.q_norm.weight"
_COMFYUI = "model.diffusion_model."
_VAE_OURS = ("flux", "flux1", "ae", "zimage", "z-image", "z")
_VAE_OTHERS = ("sd3", "sd35", "sd3.5")


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The transformers, Qwen3 encoders and autoencoders among these headers. The autoencoder is FLUX'."""
    for header in files:
        found = _transformer(header) or _qwen3(header) or _autoencoder(header)
        if found is not None:
            yield found


def _transformer(header: Header) -> ModelFile | None:
    tensors = header.tensors
    prefix = next((p for p in ("", _COMFYUI) if tensors.shape(p + _CAPTIONS) == (_WIDTH, _CAPTION_WIDTH)), None)
    if prefix is None:
        return None
    problems = []
    if prefix:
        problems.append(problem(header, "model_layout", layout=prefix.rstrip(".")))
    name = header.path.stem.lower().replace("_", "-")
    turbo = "turbo" in name and "de-turbo" not in name
    if turbo:
        better = "Z-Image (base) or De-Turbo"
        problems.append(problem(header, "model_distilled", variant="Z-Image Turbo", better=better, severity="warning"))
    layout = "comfyui" if tensors.shape(f"{prefix}layers.0.attention.qkv.weight") else "diffusers"
    return model_file(
        header,
        "model",
        "turbo" if turbo else "base",
        layout=layout,
        prefix=prefix,
        layers=tensors.once("zimage layers", lambda: _layers(header, prefix)),
        limits={"blocks_to_swap": MOST_SWAPPED},
        problems=problems,
    )


def _layers(header: Header, prefix: str) -> tuple[Layer, ...]:
    """What `networks/lora_zimage.py` attaches itself to: attention and MLP of the main blocks, not their modulation,
    not the refiners'. Joined queries, keys and values are taken apart on loading."""
    shapes: dict[tuple[int, int], int] = {}
    for name, tensor in header.tensors.items():
        if not name.startswith(f"{prefix}layers.") or not name.endswith(".weight") or len(tensor.shape) != 2:
            continue
        if "adaLN_modulation" in name:
            continue
        joined = 3 if ".qkv." in name else 1
        shape = (tensor.shape[1], tensor.shape[0] // joined)
        shapes[shape] = shapes.get(shape, 0) + joined
    return tuple(Layer(inputs, outputs, count) for (inputs, outputs), count in shapes.items())


def _qwen3(header: Header) -> ModelFile | None:
    if _QWEN3 not in header.tensors:
        return None
    shape = header.tensors.shape("model.embed_tokens.weight") or (0, 0)
    if shape[-1] != _CAPTION_WIDTH:
        return model_file(header, "", f"Qwen3 of width {shape[-1]}")
    return model_file(header, "qwen3", layout="transformers")


def _autoencoder(header: Header) -> ModelFile | None:
    found = vae(header, "vae", 16, ours=_VAE_OURS, others=_VAE_OTHERS)
    if found is None:
        return None
    # Unlike sd-scripts, musubi-tuner takes it in diffusers' layout as well.
    return attrs.evolve(found, problems=[p for p in found.problems if p.code != "model_layout"])
