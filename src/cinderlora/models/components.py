"""What several model types are made of: CLIP and T5 text encoders and autoencoders, known by their tensors.

For adapters: each function gives a `ModelFile` for a header that is such a component, and None for any other. What
sd-scripts cannot load (it takes one file, in the layout looked for here) is recognised all the same, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cinderlora.models.headers import Header, file_problem
from cinderlora.problems import Problem, Severity
from cinderlora.types import ModelFile

__all__ = ["clip_g", "clip_l", "lora", "model_file", "precision_problems", "problem", "t5xxl", "vae"]

_CLIP = "text_model.embeddings.token_embedding.weight"
_CLIP_POSITIONS = "text_model.embeddings.position_embedding.weight"
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
_LORA = (
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora_A.weight",
    ".lora_B.weight",
    ".hada_w1_a",
    ".lokr_w1",
    ".lokr_w2",
)


def problem(header: Header, code: str, severity: Severity = "error", **params: Any) -> Problem:
    """A problem of this file, for texts that name it."""
    return file_problem(header.path, code, severity, **params)


def model_file(
    header: Header, role: str, variant: str = "", *, prefix: str = "", bundled: Iterable[str] = (),
    problems: Iterable[Problem] = (),
) -> ModelFile:  # fmt: skip
    """A `ModelFile` for a header, with the precision of the weights below `prefix` and its problems."""
    precision = header.tensors.precision(prefix) if header.tensors else header.precision
    problems = list(problems)
    problems += [p for p in precision_problems(header, precision) if p not in problems]
    return ModelFile(
        path=header.path,
        role=role,
        variant=variant,
        precision=precision,
        size=header.size,
        bundled=tuple(bundled),
        problems=problems,
    )


def precision_problems(header: Header, precision: str) -> tuple[Problem, ...]:
    """Why weights kept like this cannot be trained on, where they cannot.

    sd-scripts refuses fp8_e5m2 and reads *scaled* fp8 without its scales, which gives noise
    (https://github.com/kohya-ss/sd-scripts/issues/2166); it has no loader for four and eight bit integers.
    """
    if precision in {"fp8_scaled", "fp8_e5m2"}:
        return (problem(header, f"model_{precision}"),)
    if precision in {"", "fp32", "fp16", "bf16", "fp8_e4m3fn", "fp64"} or header.format == "gguf":
        return ()  # for GGUF the header says so itself
    return (problem(header, "model_quantized", precision=precision),)


def _one_file(header: Header) -> tuple[Problem, ...]:
    return (problem(header, "model_sharded", parts=len(header.parts)),) if header.parts else ()


def clip_l(header: Header) -> ModelFile | None:
    """CLIP ViT-L/14, role clip_l: the text encoder of width 768, in the layout of transformers."""
    if header.tensors.shape(_CLIP) != (49408, 768):
        return None
    problems = list(_one_file(header))
    positions = header.tensors.shape(_CLIP_POSITIONS)
    if positions is not None and positions != (77, 768):  # LongCLIP has 248; sd-scripts builds 77
        problems.append(problem(header, "model_variant", variant=f"LongCLIP ({positions[0]} tokens)"))
    return model_file(header, "clip_l", problems=problems)


def clip_g(header: Header) -> ModelFile | None:
    """OpenCLIP ViT-bigG/14, role clip_g: the text encoder of width 1280, in the layout of transformers."""
    if header.tensors.shape(_CLIP) != (49408, 1280):
        return None
    problems = list(_one_file(header))
    if "text_projection.weight" not in header.tensors:
        problems.append(problem(header, "model_incomplete", missing="text_projection.weight"))
    return model_file(header, "clip_g", problems=problems)


def t5xxl(header: Header) -> ModelFile | None:
    """The encoder of T5 v1.1 XXL, role t5xxl. UMT5 and other sizes have other shapes."""
    if header.format == "gguf" and header.metadata.get("general.architecture") == "t5encoder":
        return model_file(header, "t5xxl")
    if header.tensors.shape("shared.weight") != (32128, 4096) or header.tensors.shape(_T5) != (4096, 4096):
        return None
    return model_file(header, "t5xxl", problems=_one_file(header))


def vae(
    header: Header, role: str, channels: int, *, ours: Iterable[str], others: Iterable[str], prefix: str = ""
) -> ModelFile | None:
    """A KL autoencoder with this many latent channels, as `role`.

    Models of different types have autoencoders of the same tensors and shapes: those of FLUX and SD3 differ in
    nothing but their weights, and so do those of SDXL and SD1. A header cannot tell them apart. The file's name and
    its folder's can: words (whole ones, in small letters) that speak for `ours` or for `others`. One that is named like
    another's is not claimed; one that is named like nobody's is, with a warning.
    """
    shape = header.tensors.shape(f"{prefix}decoder.conv_in.weight")
    encoder = header.tensors.shape(f"{prefix}encoder.conv_out.weight")
    if shape is None or len(shape) != 4 or shape[1] != channels or encoder is None or encoder[0] != 2 * channels:
        return None
    named = _named(header, tuple(ours), tuple(others))
    if named is False:
        return None
    problems = list(_one_file(header))
    if f"{prefix}encoder.down.0.block.0.conv1.weight" not in header.tensors:
        problems.append(problem(header, "model_layout", layout="diffusers"))
    if named is None:
        problems.append(problem(header, "model_vae_unnamed", severity="warning"))
    return model_file(header, role, prefix=prefix, problems=problems)


def _named(header: Header, ours: tuple[str, ...], others: tuple[str, ...]) -> bool | None:
    """Whether a file is named like ours (True) or another's (False); its folder is asked where its name is silent."""
    for name in (header.path.stem, header.path.parent.name):
        words = {word for word in re.split(r"[^a-z0-9.]+", name.lower()) if word}
        words |= {part for word in words for part in word.split(".")}
        mine, other = bool(words & set(ours)), bool(words & set(others))
        if mine != other:
            return mine
    return None


def lora(header: Header) -> ModelFile | None:
    """A LoRA or one of its kin, role lora; `variant` is the architecture its metadata name, if they do."""
    if not header.tensors.once("lora", lambda: any(name.endswith(_LORA) for name in header.tensors)):
        return None
    names = ("modelspec.architecture", "ss_base_model_version")
    return model_file(header, "lora", next((header.metadata[n] for n in names if n in header.metadata), ""))
