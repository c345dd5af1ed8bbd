"""Which files are Lumina Image 2's, by what their headers say.

What sd-scripts can load is as in its `library/lumina_util.py` (v0.10.1): the transformer in Alpha-VLLM's own layout, of
26 blocks; and all in one file, as Neta Lumina is published, with ComfyUI's names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cinderlora import Header, ModelFile, Problem
from cinderlora.models.components import lora_layers, model_file, problem, vae

__all__ = ["scan"]

WIDTH, BLOCKS = 2304, 26
PREFIX = "model.diffusion_model."
_INSIDE = {"gemma2": "text_encoders.gemma2_2b.transformer.", "ae": "vae."}
# By this name the script knows an all-in-one file's Gemma, and it stops taking "model." off the names that follow.
_MARK = "text_encoders.gemma2_2b.logit_scale"


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The transformers, all-in-one files, Gemmas and autoencoders among these headers."""
    for header in files:
        found = _transformer(header) or _gemma2(header) or _autoencoder(header)
        if found is not None:
            yield found


def _autoencoder(header: Header) -> ModelFile | None:
    ours = ("ae", "flux", "flux1", "lumina", "lumina2", "neta", "schnell")
    return vae(header, "ae", 16, ours=ours, others=("sd3", "sd35", "sd3.5"))


def _transformer(header: Header) -> ModelFile | None:
    tensors = header.tensors
    if tensors.shape("time_caption_embed.caption_embedder.1.weight") == (WIDTH, 2304):
        return model_file(header, "model", problems=[problem(header, "model_layout", layout="diffusers")])
    # Z-Image is built alike, and wider.
    own = {"cap_embedder.1.weight": (WIDTH, 2304), "x_embedder.weight": (WIDTH, 64)}
    prefixes = [p for p in ("", PREFIX) if all(tensors.shape(p + name) == shape for name, shape in own.items())]
    if not prefixes:
        return None
    prefix = prefixes[0]
    # What `networks/lora_lumina.py` attaches itself to where it is told nothing.
    starts = tuple(prefix + part for part in ("layers.", "noise_refiner.", "context_refiner.", "final_layer."))
    inside = {role: start for role, start in _INSIDE.items() if tensors.has_prefix(start)}
    return model_file(
        header,
        "model",
        layout="comfyui" if prefix else "original",
        prefix=prefix,
        inside=inside,
        layers=tensors.once("lumina layers", lambda: lora_layers(tensors, lambda name: name.startswith(starts))),
        limits={"blocks_to_swap": BLOCKS - 2},
        problems=_problems(header, prefix, inside),
    )


def _problems(header: Header, prefix: str, inside: dict[str, str]) -> Iterator[Problem]:
    tensors = header.tensors
    if header.parts:
        yield problem(header, "model_sharded", parts=len(header.parts))
    blocks = tensors.count(f"{prefix}layers.", ".attention.qkv.weight")
    if blocks != BLOCKS:  # the script builds these, whatever the file has
        yield problem(header, "model_variant", variant=f"Lumina ({blocks} blocks)")
    if f"{prefix}cap_embedder.0.weight" not in tensors:  # by this one the script knows the prefix
        yield problem(header, "model_incomplete", missing=f"{prefix}cap_embedder.0.weight")
    if "gemma2" in inside and _MARK not in tensors:
        yield problem(header, "model_bundle_order", "warning")


def _gemma2(header: Header) -> ModelFile | None:
    """Gemma 2 2B, with or without the prefix that its published files have."""
    tensors = header.tensors
    for prefix in ("model.", ""):
        if (
            tensors.shape(f"{prefix}embed_tokens.weight") == (256000, 2304)
            and f"{prefix}layers.0.pre_feedforward_layernorm.weight" in tensors
        ):
            problems = [problem(header, "model_sharded", parts=len(header.parts))] if header.parts else []
            return model_file(header, "gemma2", layout="transformers", problems=problems)
    return None
