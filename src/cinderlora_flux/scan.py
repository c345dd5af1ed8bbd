"""Which files are FLUX's, by what their headers say.

What sd-scripts can load is as in its `library/flux_utils.py` (v0.10.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from cinderlora.models import Header
from cinderlora.models.components import clip_l, lora_layers, model_file, problem, t5xxl, vae
from cinderlora.problems import Problem, Severity
from cinderlora.types import Layer, ModelFile

__all__ = ["blocks", "max_blocks_to_swap", "scan"]

COMFYUI_PREFIX = "model.diffusion_model."
IN_FOLDER = "transformer/"
WIDTH = 3072

# The parts that all-in-one files of ComfyUI carry, none of which sd-scripts takes from there.
_INSIDE = {"clip_l": "text_encoders.clip_l.", "t5xxl": "text_encoders.t5xxl.", "ae": "vae."}


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The transformers, CLIP-L, T5XXL and autoencoders among these headers.

    "dev" is everything that is built as FLUX.1 dev is, Krea and Kontext too: their headers do not differ.
    """
    for header in files:
        found = _transformer(header) or clip_l(header) or t5xxl(header) or _autoencoder(header)
        if found is not None:
            yield found


def _autoencoder(header: Header) -> ModelFile | None:
    # BFL's own name for it is "ae.safetensors".
    return vae(header, "ae", 16, ours=("flux", "flux1", "ae", "schnell"), others=("sd3", "sd35", "sd3.5"))


def _transformer(header: Header) -> ModelFile | None:
    if header.format == "gguf":
        mine = header.metadata.get("general.architecture") == "flux"
        return model_file(header, "model") if mine else None
    prefix, layout = _layout(header)
    if not layout:
        return None
    tensors = header.tensors
    inside = {role: start for role, start in _INSIDE.items() if tensors.has_prefix(start)}
    variant = _variant(header, prefix)
    problems = [*_loading_problems(header, prefix, layout)]
    if variant == "schnell":
        problems.append(
            problem(header, "model_distilled", variant="FLUX.1 schnell", better="FLUX.1 dev", severity="warning")
        )
    elif variant != "dev":
        problems.append(problem(header, "model_variant", variant=_TITLES[variant]))
    layers = tensors.once("flux layers", lambda: _layers(header, prefix, layout))
    found = model_file(
        header, "model", variant, layout="comfyui" if prefix == COMFYUI_PREFIX else layout, prefix=prefix,
        inside=inside, layers=layers, limits={"blocks_to_swap": max_blocks_to_swap(*blocks(header))}, problems=problems,
    )  # fmt: skip
    # Of a folder in diffusers' form sd-scripts takes the transformer alone, and only in the three shards of the
    # original; one in a single file can be given by itself.
    alone = [part for part in header.parts if part.parent.name == "transformer"]
    return attrs.evolve(found, path=alone[0]) if header.format == "diffusers" and len(alone) == 1 else found


_TITLES = {
    "chroma": "Chroma",
    "flux2": "FLUX.2",
    "controlnet": "FLUX.1 ControlNet",
    "fill": "FLUX.1 Fill",
    "control": "FLUX.1 Canny / Depth",
}


def _layout(header: Header) -> tuple[str, str]:
    """The prefix of the transformer's names, and whose names they are: "bfl", "diffusers", or "" for no FLUX."""
    tensors = header.tensors
    for prefix in (IN_FOLDER,) if header.format == "diffusers" else ("", COMFYUI_PREFIX):
        if f"{prefix}double_blocks.0.img_attn.qkv.weight" in tensors and f"{prefix}img_in.weight" in tensors:
            return prefix, "bfl"
        names = (
            "x_embedder.weight",
            "transformer_blocks.0.attn.add_k_proj.weight",
            "single_transformer_blocks.0.attn.to_q.weight",
        )
        if all(prefix + name in tensors for name in names):
            return prefix, "diffusers"
    return "", ""


def _variant(header: Header, prefix: str) -> str:
    tensors = header.tensors
    if tensors.has_prefix(f"{prefix}distilled_guidance_layer."):
        return "chroma"
    if tensors.has_prefix(f"{prefix}double_stream_modulation_img."):
        return "flux2"
    if any(
        tensors.has_prefix(prefix + name)
        for name in ("controlnet_blocks.", "controlnet_x_embedder.", "input_hint_block.")
    ):
        return "controlnet"
    shape = tensors.shape(f"{prefix}img_in.weight") or tensors.shape(f"{prefix}x_embedder.weight") or ()
    # 64 values of a patch of latents; Fill adds the masked picture and the mask, Canny and Depth a control picture.
    # Quantised weights are packed, so their shape tells nothing.
    if len(shape) == 2 and shape[0] == WIDTH and shape[1] != 64:
        return "fill" if shape[1] == 384 else "control"
    guided = (f"{prefix}guidance_in.in_layer.weight", f"{prefix}time_text_embed.guidance_embedder.linear_1.weight")
    return "dev" if any(name in tensors for name in guided) else "schnell"


def _loading_problems(header: Header, prefix: str, layout: str) -> Iterator[Problem]:
    parts = [part for part in header.parts if header.format != "diffusers" or part.parent.name == "transformer"]
    if len(parts) > 1 and not (len(parts) == 3 and "00001-of-00003" in parts[0].name):
        # sd-scripts knows the three shards of the original in the layout of diffusers, no other set.
        yield problem(header, "model_sharded", parts=len(parts))
    if layout == "bfl" and f"{prefix}double_blocks.0.img_attn.norm.key_norm.weight" in header.tensors:
        yield problem(header, "model_layout", layout="norm.weight")  # ComfyUI's own: the loader knows norm.scale
    if prefix != COMFYUI_PREFIX:
        return
    if layout == "diffusers":
        yield problem(header, "model_layout", layout=f"diffusers, {prefix}")
        return
    severity = header.tensors.once("flux bundle order", lambda: _bundle_order(header, prefix))
    if severity is not None:
        yield problem(header, "model_bundle_order", severity)


def _bundle_order(header: Header, prefix: str) -> Severity | None:
    names = list(header.tensors)
    others = [name for name in names if not name.startswith(prefix)]
    if others and min(others) < prefix:
        return "error"  # whether names have a prefix is told from the alphabetically first one
    if any(not name.startswith(prefix) for name in names[: len(names) - len(others)]):
        # The prefix is taken off until the first name without it, in the order in which safetensors hands them out:
        # by name up to 0.4, in the file's own order later.
        return "warning"
    return None


def _layers(header: Header, prefix: str, layout: str) -> tuple[Layer, ...]:
    """The linear layers of all blocks: what `networks/lora_flux.py` attaches itself to where it is told nothing."""
    if layout == "bfl":
        starts = (f"{prefix}double_blocks.", f"{prefix}single_blocks.")
        return lora_layers(header.tensors, lambda name: name.startswith(starts))
    double, single = blocks(header)
    # Layers that diffusers keeps apart (queries, keys, values, the MLP's first one) are joined on loading.
    shapes = {
        (WIDTH, 6 * WIDTH): 2 * double,  # img_mod.lin, txt_mod.lin
        (WIDTH, 3 * WIDTH): 2 * double + single,  # img_attn.qkv, txt_attn.qkv; modulation.lin
        (WIDTH, WIDTH): 2 * double,  # img_attn.proj, txt_attn.proj
        (WIDTH, 4 * WIDTH): 2 * double,  # img_mlp.0, txt_mlp.0
        (4 * WIDTH, WIDTH): 2 * double,  # img_mlp.2, txt_mlp.2
        (WIDTH, 7 * WIDTH): single,  # linear1
        (5 * WIDTH, WIDTH): single,  # linear2
    }
    return tuple(Layer(inputs, outputs, count) for (inputs, outputs), count in shapes.items() if count)


def blocks(header: Header) -> tuple[int, int]:
    """How many double and single blocks the transformer has: 19 and 38 in FLUX.1."""
    prefix, layout = _layout(header)
    if layout == "diffusers":
        ends = ("transformer_blocks.", ".attn.add_k_proj.weight"), ("single_transformer_blocks.", ".attn.to_q.weight")
    else:
        ends = ("double_blocks.", ".img_attn.proj.weight"), ("single_blocks.", ".linear1.weight")
    double, single = (header.tensors.count(prefix + start, end) for start, end in ends)
    return double, single


def max_blocks_to_swap(double: int, single: int) -> int:
    """The most blocks that sd-scripts can swap: of n, n // 2 are double blocks, and each further one is two single
    blocks; two of each kind stay on the GPU. 35 for FLUX.1."""
    return max((n for n in range(2 * double) if n // 2 <= double - 2 and (n - n // 2) * 2 <= single - 2), default=0)
