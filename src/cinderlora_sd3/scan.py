"""Which files are SD3's, by what their headers say.

What sd-scripts can load is as in its `library/sd3_utils.py` (v0.10.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cinderlora.models import Header
from cinderlora.models.components import (
    clip_g,
    clip_l,
    lora_layers,
    model_file,
    precision_problems,
    problem,
    t5xxl,
    vae,
)
from cinderlora.problems import Problem
from cinderlora.types import ModelFile

__all__ = ["blocks", "max_blocks_to_swap", "scan"]

PREFIX = "model.diffusion_model."

_INSIDE = {
    "clip_l": "text_encoders.clip_l.",
    "clip_g": "text_encoders.clip_g.",
    "t5xxl": "text_encoders.t5xxl.",
    "vae": "first_stage_model.",
}
_MMDIT = ("x_embedder.proj.weight", "context_embedder.weight", "joint_blocks.0.x_block.attn.qkv.weight")
_DIFFUSERS = ("pos_embed.proj.weight", "transformer_blocks.0.attn.add_k_proj.weight", "context_embedder.weight")


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The checkpoints, bare transformers, text encoders and VAEs among these headers."""
    for header in files:
        found = _checkpoint(header) or clip_l(header) or clip_g(header) or t5xxl(header) or _vae(header)
        if found is not None:
            yield found


def _vae(header: Header) -> ModelFile | None:
    return vae(header, "vae", 16, ours=("sd3", "sd35", "sd3.5"), others=("flux", "flux1", "ae", "schnell"))


def _checkpoint(header: Header) -> ModelFile | None:
    if header.format == "gguf":
        mine = header.metadata.get("general.architecture") == "sd3"
        return model_file(header, "model") if mine else None
    tensors = header.tensors
    prefix = next((p for p in (PREFIX, "") if all(p + name in tensors for name in _MMDIT)), None)
    if prefix is None:
        return _in_diffusers_layout(header)
    inside = {role: start for role, start in _INSIDE.items() if tensors.has_prefix(start)}
    layers = tensors.once(
        "sd3 layers", lambda: lora_layers(tensors, lambda name: name.startswith(f"{prefix}joint_blocks."))
    )
    return model_file(
        header, "model", _variant(header, prefix), layout="sgm" if prefix else "bare", prefix=prefix, inside=inside,
        layers=layers, limits={"blocks_to_swap": max_blocks_to_swap(blocks(header))},
        problems=_problems(header, prefix, list(inside)),
    )  # fmt: skip


def _in_diffusers_layout(header: Header) -> ModelFile | None:
    """sd-scripts has no loader for it, neither as a file nor as a folder."""
    tensors, prefix = header.tensors, "transformer/" if header.format == "diffusers" else ""
    if not all(prefix + name in tensors for name in _DIFFUSERS) or tensors.has_prefix(f"{prefix}controlnet_blocks."):
        return None
    variant = "sd3-medium"
    if f"{prefix}transformer_blocks.0.attn.norm_k.weight" in tensors:
        dual = f"{prefix}transformer_blocks.0.attn2.to_q.weight" in tensors
        variant = "sd3.5-medium" if dual else "sd3.5-large"
    problems = [problem(header, "model_layout", layout="diffusers")]
    return model_file(header, "model", variant, layout="diffusers", prefix=prefix, problems=problems)


def _problems(header: Header, prefix: str, bundled: Sequence[str]) -> Iterator[Problem]:
    if header.tensors.has_prefix(f"{prefix}controlnet_blocks."):
        yield problem(header, "model_variant", variant="SD3 ControlNet")
    if not prefix:
        yield problem(header, "model_prefix", prefix=PREFIX)
    if header.parts:
        yield problem(header, "model_sharded", parts=len(header.parts))
    encoders = [role for role in bundled if role != "vae"]
    if encoders:
        # They win over files of their own (CLIP-L does not), but their names keep a "transformer." that is not taken
        # off: none of their weights is loaded, and v0.10.1 ends with "Cannot copy out of meta tensor".
        wins = [role for role in encoders if role != "clip_l"]
        yield problem(header, "model_encoders_inside", roles=encoders, wins=wins, severity="warning")
    if "t5xxl" in encoders:  # the only one that is not converted on loading
        yield from precision_problems(header, header.tensors.precision(_INSIDE["t5xxl"]))


def _variant(header: Header, prefix: str) -> str:
    """SD3.5 normalises queries and keys; its medium model has a second attention in some blocks."""
    if f"{prefix}joint_blocks.0.context_block.attn.ln_k.weight" not in header.tensors:
        return "sd3-medium"
    dual = header.tensors.count(f"{prefix}joint_blocks.", ".x_block.attn2.ln_k.weight")
    return "sd3.5-medium" if dual else "sd3.5-large"


def blocks(header: Header) -> int:
    """How many blocks the transformer has: 24 in the medium models, 38 in the large one."""
    ending = ".x_block.attn.qkv.weight"
    return header.tensors.count(f"{PREFIX}joint_blocks.", ending) or header.tensors.count("joint_blocks.", ending)


def max_blocks_to_swap(depth: int) -> int:
    """The most blocks that sd-scripts can swap: two stay on the GPU. 22 for medium, 36 for large."""
    return max(depth - 2, 0)
