"""Which files are SDXL's, by what their headers say.

What sd-scripts can load is as in its `library/sdxl_train_util.py` and `library/sdxl_model_util.py` (v0.10.1): one
checkpoint in Stability AI's layout with the U-Net, both text encoders and the VAE inside, all of them complete, or a
folder in diffusers' form.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from cinderlora.models import Header
from cinderlora.models.components import lora_layers, model_file, problem, vae
from cinderlora.problems import Problem
from cinderlora.types import ModelFile

__all__ = ["scan"]

PREFIX = "model.diffusion_model."

# Where each part lies, and a tensor that it cannot be without.
_INSIDE = {
    "clip_l": ("conditioner.embedders.0.", "transformer.text_model.embeddings.token_embedding.weight"),
    "clip_g": ("conditioner.embedders.1.", "model.token_embedding.weight"),
    "vae": ("first_stage_model.", "decoder.conv_in.weight"),
}
_IN_FOLDER = {
    "clip_l": ("text_encoder/", "text_model.embeddings.token_embedding.weight"),
    "clip_g": ("text_encoder_2/", "text_model.embeddings.token_embedding.weight"),
    "vae": ("vae/", "decoder.conv_in.weight"),
}

# The U-Net's cross-attention at the place where SDXL, the refiner, SD1 and SD2 differ: (channels, context).
_ATTENTION = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_DIFFUSERS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_FAMILIES: dict[tuple[int, ...], str] = {(640, 2048): "base", (768, 1280): "refiner"}
# The last of ten transformers at the deepest place; SSD-1B and Vega have fewer.
_DEEPEST = {
    "sgm": "middle_block.1.transformer_blocks.9.attn2.to_k.weight",
    "diffusers": "mid_block.attentions.0.transformer_blocks.9.attn2.to_k.weight",
}

# Kolors has SDXL's U-Net and another text encoder; ControlNets have its first half.
_OTHERS = ("encoder_hid_proj.weight", "controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight")

_TITLES = {
    "refiner": "SDXL Refiner",
    "inpaint": "SDXL Inpainting",
    "edit": "SDXL Edit",
    "playground": "Playground 2.5",
    "distilled": "a smaller SDXL, such as SSD-1B",
}


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The checkpoints, folders and VAEs among these headers; the refiner and the like with a problem that says so.

    "base" is everything that is built as SDXL is: Pony, Illustrious, Turbo and all that people made of it.
    """
    for header in files:
        found = _checkpoint(header) or _vae(header)
        if found is not None:
            yield found


def _vae(header: Header) -> ModelFile | None:
    ours = ("sdxl", "xl", "sdxlvae", "pony", "illustrious", "noobai")
    others = (
        "sd1",
        "sd15",
        "sd1.5",
        "v1",
        "sd2",
        "ema",
        "mse",
        "840000",
        "560000",
        "f8",
        "anime2",
        "orangemix",
        "anything",
    )
    return vae(header, "vae", 4, ours=ours, others=others)


def _checkpoint(header: Header) -> ModelFile | None:
    if header.format == "gguf":
        mine = header.metadata.get("general.architecture") == "sdxl"
        return model_file(header, "model") if mine else None
    prefix, layout, family = _family(header)
    if not family:
        return None
    tensors = header.tensors
    places = _IN_FOLDER if header.format == "diffusers" else _INSIDE
    inside = {role: start for role, (start, name) in places.items() if start + name in tensors}
    variant = _variant(header, prefix, layout, family)
    layers = tensors.once("sdxl layers", lambda: lora_layers(tensors, lambda name: _attention(name, prefix)))
    return model_file(
        header, "model", variant, layout=layout if prefix or layout == "diffusers" else "bare", prefix=prefix,
        inside=inside, layers=layers, problems=_problems(header, prefix, layout, variant, inside),
    )  # fmt: skip


def _family(header: Header) -> tuple[str, str, str]:
    """The prefix of the U-Net's names, whose names they are, and which relative it is; "" for no relative."""
    for prefix, layout, name in (
        (PREFIX, "sgm", _ATTENTION),
        ("", "sgm", _ATTENTION),
        ("unet/", "diffusers", _DIFFUSERS),
        ("", "diffusers", _DIFFUSERS),
    ):
        shape = header.tensors.shape(prefix + name)
        if shape is None:
            continue
        if any(f"{prefix}{other}" in header.tensors for other in _OTHERS):
            break
        if header.tensors.shape(f"{prefix}label_emb.0.0.weight") == (1280, 5632):
            break  # Kolors
        return prefix, layout, _FAMILIES.get(shape, "")
    return "", "", ""


def _variant(header: Header, prefix: str, layout: str, family: str) -> str:
    if family != "base":
        return family
    tensors = header.tensors
    shape = tensors.shape(f"{prefix}input_blocks.0.0.weight") or tensors.shape(f"{prefix}conv_in.weight") or ()
    # 4 latent channels; models for inpainting add the masked picture and the mask, those for editing a second picture.
    if len(shape) == 4 and shape[1] != 4:
        return "inpaint" if shape[1] == 9 else "edit"
    if prefix + _DEEPEST[layout] not in tensors:
        return "distilled"
    if "edm_mean" in tensors and "edm_std" in tensors:
        return "playground"
    return "v-prediction" if "v_pred" in tensors else "base"


def _problems(header: Header, prefix: str, layout: str, variant: str, inside: Container[str]) -> Iterator[Problem]:
    missing = sorted(role for role in _INSIDE if role not in inside)
    if variant in _TITLES:
        yield problem(header, "model_variant", variant=_TITLES[variant])
    elif layout == "diffusers" and header.format != "diffusers":
        yield problem(header, "model_layout", layout="diffusers")
    elif not prefix:
        yield problem(header, "model_prefix", prefix=PREFIX)
    elif missing:
        yield problem(header, "model_incomplete", missing=missing)
    if header.format != "diffusers":
        if header.parts:
            yield problem(header, "model_sharded", parts=len(header.parts))
        # sd-scripts reads a link by itself, once, and goes by the ending of what it finds.
        if header.link and not Path(header.link).is_absolute():
            yield problem(header, "model_link", target=header.link)
        elif Path(header.link or header.path).suffix.lower() != ".safetensors" and not header.problems:
            yield problem(header, "model_ending", target=Path(header.link or header.path).name)
    if header.tensors.precision(prefix) == "fp8_e4m3fn":
        yield problem(header, "model_fp8_for_nothing", severity="warning")
    if variant == "v-prediction":
        yield problem(header, "model_v_prediction", severity="warning")


def _attention(name: str, prefix: str) -> bool:
    """Whether a tensor belongs to the transformers between the convolutions: what `networks/lora.py` attaches itself
    to, unless it is given a `conv_dim`."""
    return (".transformer_blocks." in name or name.endswith((".proj_in.weight", ".proj_out.weight"))) and (
        name.startswith((f"{prefix}input_blocks.", f"{prefix}middle_block.", f"{prefix}output_blocks."))
        or name.startswith((f"{prefix}down_blocks.", f"{prefix}mid_block.", f"{prefix}up_blocks."))
    )
