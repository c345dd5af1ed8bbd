"""Which files are SDXL's, by what their headers say.

What sd-scripts can load is as in its `library/sdxl_model_util.py` (v0.10.1): one checkpoint in Stability AI's layout
with the U-Net, both text encoders and the VAE inside, all of them complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cinderlora.models import Header
from cinderlora.models.components import model_file, problem, vae
from cinderlora.types import ModelFile

__all__ = ["scan"]

PREFIX = "model.diffusion_model."

_INSIDE = {
    "clip_l": "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    "clip_g": "conditioner.embedders.1.model.token_embedding.weight",
    "vae": "first_stage_model.decoder.conv_in.weight",
}

# The U-Net's cross-attention at the place where SDXL, the refiner, SD1 and SD2 differ: (channels, context).
_ATTENTION = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_FAMILIES: dict[tuple[int, ...], str] = {
    (640, 2048): "base",
    (768, 1280): "refiner",
    (640, 768): "sd1",
    (640, 1024): "sd2",
}
_DIFFUSERS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"

_TITLES = {
    "refiner": "SDXL Refiner",
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "inpaint": "SDXL Inpainting",
    "edit": "SDXL Edit",
}


def scan(files: Sequence[Header]) -> Iterator[ModelFile]:
    """The checkpoints and VAEs among these headers; those of SD1, SD2 and the refiner with a problem that says so."""
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
    tensors = header.tensors
    prefix = PREFIX if PREFIX + _ATTENTION in tensors else ""
    family = _FAMILIES.get(tensors.shape(prefix + _ATTENTION) or ())
    if family is None:
        if tensors.shape(_DIFFUSERS) != (640, 2048):
            return None
        return model_file(header, "model", "base", problems=[problem(header, "model_layout", layout="diffusers")])
    variant = _variant(header, prefix, family)
    bundled = [role for role, name in _INSIDE.items() if name in tensors]
    if variant in {"sd1", "sd2"}:
        problems = [problem(header, "model_variant", variant=_TITLES[variant])]
        return model_file(header, "", variant, prefix=prefix, problems=problems)
    problems = []
    if variant in _TITLES:
        problems.append(problem(header, "model_variant", variant=_TITLES[variant]))
    elif not prefix:
        problems.append(problem(header, "model_prefix", prefix=PREFIX))
    elif len(bundled) < len(_INSIDE):
        problems.append(problem(header, "model_incomplete", missing=sorted(_INSIDE.keys() - set(bundled))))
    if header.parts:
        problems.append(problem(header, "model_sharded", parts=len(header.parts)))
    if variant == "v-prediction":
        problems.append(problem(header, "model_v_prediction", severity="warning"))
    return model_file(header, "model", variant, prefix=prefix, bundled=bundled, problems=problems)


def _variant(header: Header, prefix: str, family: str) -> str:
    if family != "base":
        return family
    shape = header.tensors.shape(f"{prefix}input_blocks.0.0.weight") or ()
    # 4 latent channels; models for inpainting add the masked picture and the mask, those for editing a second picture.
    if len(shape) == 4 and shape[1] != 4:
        return "inpaint" if shape[1] == 9 else "edit"
    return "v-prediction" if "v_pred" in header.tensors else "base"
