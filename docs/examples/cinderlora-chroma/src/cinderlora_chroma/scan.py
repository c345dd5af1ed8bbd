"""Which files are Chroma's, by what their headers say.

What sd-scripts can load is as in its `library/flux_utils.py` (v0.10.1): one file in Chroma's own layout, with or
without ComfyUI's prefix, of 19 double and 38 single blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cinderlora import Header, ModelFile, Problem
from cinderlora.models.components import lora_layers, model_file, problem, t5xxl, vae

__all__ = ["scan"]

DOUBLE, SINGLE = 19, 38
SWAPPABLE = 35  # of n blocks, n // 2 are double ones and each of the rest two single ones; two of each kind stay


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The transformers, T5XXLs and autoencoders among these headers."""
    for header in files:
        found = _transformer(header) or t5xxl(header) or _autoencoder(header)
        if found is not None:
            yield found


def _autoencoder(header: Header) -> ModelFile | None:
    ours = ("ae", "flux", "flux1", "chroma", "schnell")
    return vae(header, "ae", 16, ours=ours, others=("sd3", "sd35", "sd3.5"))


def _transformer(header: Header) -> ModelFile | None:
    tensors = header.tensors
    prefix = next(
        (p for p in ("", "model.diffusion_model.") if tensors.has_prefix(f"{p}distilled_guidance_layer.")), None
    )
    if prefix is None:
        return None
    if f"{prefix}transformer_blocks.0.attn.add_k_proj.weight" in tensors:
        return model_file(
            header, "model", prefix=prefix, problems=[problem(header, "model_layout", layout="diffusers")]
        )
    if tensors.shape(f"{prefix}img_in.weight") != (3072, 64):  # Radiance, on pixels, has another one
        return None
    starts = (f"{prefix}double_blocks.", f"{prefix}single_blocks.")
    return model_file(
        header,
        "model",
        layout="comfyui" if prefix else "bfl",
        prefix=prefix,
        layers=tensors.once("chroma layers", lambda: lora_layers(tensors, lambda name: name.startswith(starts))),
        limits={"blocks_to_swap": SWAPPABLE},
        problems=_problems(header, prefix),
    )


def _problems(header: Header, prefix: str) -> Iterator[Problem]:
    tensors = header.tensors
    if header.parts:
        yield problem(header, "model_sharded", parts=len(header.parts))
    double = tensors.count(f"{prefix}double_blocks.", ".img_attn.proj.weight")
    single = tensors.count(f"{prefix}single_blocks.", ".linear1.weight")
    if (double, single) != (DOUBLE, SINGLE):  # the script builds these, whatever the file has
        yield problem(header, "model_variant", variant=f"Chroma ({double} + {single} blocks)")
    others = [name for name in tensors if not name.startswith(prefix)]
    if prefix and others and min(others) < prefix:
        # The prefix is taken off until the first name without it.
        yield problem(header, "model_bundle_order")
