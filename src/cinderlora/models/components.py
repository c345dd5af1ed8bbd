"""What several model types are made of: CLIP and T5 text encoders and autoencoders, known by their tensors.

For adapters: each function gives a `ModelFile` for a header that is such a component, and None for any other. What
sd-scripts cannot load (it takes one file, in the layout looked for here) is recognised all the same, and says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cinderlora.models.headers import Header, Tensors, file_problem
from cinderlora.problems import Problem, Severity
from cinderlora.types import Layer, ModelFile

__all__ = ["clip_g", "clip_l", "lora", "lora_layers", "model_file", "precision_problems", "problem", "t5xxl", "vae"]

# Kept like this, a tensor has the shape that the model says; four bits and the like are packed.
_FLOATS = ("fp64", "fp32", "fp16", "bf16", "fp8_e4m3fn", "fp8_e5m2", "fp8_scaled")

_CLIP = "text_model.embeddings.token_embedding.weight"
_CLIP_POSITIONS = "text_model.embeddings.position_embedding.weight"
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
# The layers of CLIP and T5 as transformers names them, and of CLIP as OpenCLIP does.
_ENCODER = re.compile(
    r"(?:transformer\.)?(?:text_model\.encoder\.layers|encoder\.block)\.|model\.transformer\.resblocks\."
)
_JOINED = ".attn.in_proj_weight"
_LORA = (
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora_A.weight",
    ".lora_B.weight",
    ".hada_w1_a",
    ".lokr_w1",
    ".lokr_w2",
    ".lora.down.weight",
    "_lora.down.weight",
    ".oft_blocks",
    ".oft_diag",
    ".diff",
)


def problem(header: Header, code: str, severity: Severity = "error", **params: Any) -> Problem:
    """A problem of this file, for texts that name it."""
    return file_problem(header.path, code, severity, **params)


def model_file(
    header: Header, role: str, variant: str = "", *, layout: str = "", prefix: str = "",
    inside: Mapping[str, str] | None = None, layers: Iterable[Layer] = (), limits: Mapping[str, float] | None = None,
    problems: Iterable[Problem] = (),
) -> ModelFile:  # fmt: skip
    """A `ModelFile` for a header: its own part is what lies below `prefix`, `inside` says below which the others do.

    How much each part holds and how that is kept is counted here, and what forbids its use for that is added to the
    problems. `precisions` has one word for each part, and under `"<role>.rest"` how the rest of it is kept where that
    is mixed: `{"model": "fp8_e4m3fn", "model.rest": "bf16+fp32"}`. `layers` are those of its own part that a LoRA is
    trained on; those of the text encoders inside are found here.
    """
    inside = inside or {}
    parts = {role: header.tensors.part(prefix)} if header.tensors else {}
    parts |= {other: header.tensors.part(start) for other, start in inside.items()}
    precision = parts[role].precision if role in parts else header.precision
    precisions = {role: precision} if precision else {}
    for name, part in parts.items():
        precisions[name] = part.precision
        if part.others:
            precisions[f"{name}.rest"] = "+".join(part.others)
    problems = list(problems)
    problems += [p for p in precision_problems(header, precision) if p not in problems]
    trained = {role: tuple(layers)} | {other: _encoder_layers(header.tensors, start) for other, start in inside.items()}
    return ModelFile(
        path=header.path,
        role=role,
        variant=variant,
        precision=precision,
        size=header.size,
        bundled=tuple(inside),
        problems=problems,
        limits=limits or {},
        layout=layout,
        parameters={name: part.parameters for name, part in parts.items()},
        precisions=precisions,
        layers={name: found for name, found in trained.items() if found and precisions.get(name) in _FLOATS},
    )


def lora_layers(tensors: Tensors, wanted: Callable[[str], bool]) -> tuple[Layer, ...]:
    """The layers among the tensors with wanted names: matrices, and kernels of one pixel, which LoRA treats alike."""
    flat = {tensor for tensor in set(tensors.values()) if len(tensor.shape) > 1 and tensor.shape[2:] in {(), (1, 1)}}
    shapes = Counter(
        [
            tensor.shape[:2]
            for name, tensor in tensors.items()
            if tensor in flat and name.endswith(".weight") and wanted(name)
        ]
    )
    return tuple(Layer(inputs, outputs, count) for (outputs, inputs), count in shapes.items())


def precision_problems(header: Header, precision: str) -> tuple[Problem, ...]:
    """Why weights kept like this cannot be trained on, where they cannot.

    sd-scripts refuses fp8_e5m2 and reads *scaled* fp8 without its scales, which gives noise
    (https://github.com/kohya-ss/sd-scripts/issues/2166); it has no loader for four and eight bit integers.
    """
    if precision in {"fp8_scaled", "fp8_e5m2"}:
        return (problem(header, f"model_{precision}"),)
    if precision in {"", *_FLOATS} or header.format == "gguf":
        return ()  # for GGUF the header says so itself
    return (problem(header, "model_quantized", precision=precision),)


def _one_file(header: Header) -> tuple[Problem, ...]:
    return (problem(header, "model_sharded", parts=len(header.parts)),) if header.parts else ()


def _encoder_layers(tensors: Tensors, prefix: str = "") -> tuple[Layer, ...]:
    """Those of a text encoder below a prefix that a LoRA is trained on: of its attention and of its MLPs.

    OpenCLIP keeps queries, keys and values as one matrix, which sd-scripts takes apart; T5's table of relative
    positions is none.
    """

    def wanted(name: str) -> bool:
        if not name.startswith(prefix) or "relative_attention" in name:
            return False
        return _ENCODER.match(name, len(prefix)) is not None

    def found() -> tuple[Layer, ...]:
        joined = Counter(
            tensor.shape
            for name, tensor in tensors.items()
            if name.endswith(_JOINED) and len(tensor.shape) == 2 and wanted(name)
        )
        taken_apart = (Layer(inputs, outputs // 3, 3 * count) for (outputs, inputs), count in joined.items())
        return (*lora_layers(tensors, wanted), *taken_apart)

    return tensors.once(f"encoder layers {prefix}", found)


def clip_l(header: Header) -> ModelFile | None:
    """CLIP ViT-L/14, role clip_l: the text encoder of width 768, in the layout of transformers."""
    if header.tensors.shape(_CLIP) != (49408, 768):
        return None
    problems = list(_one_file(header))
    positions = header.tensors.shape(_CLIP_POSITIONS)
    if positions is not None and positions != (77, 768):  # LongCLIP has 248; sd-scripts builds 77
        tokens = positions[0] if positions else 0
        problems.append(problem(header, "model_variant", variant=f"LongCLIP ({tokens} tokens)"))
    return model_file(
        header, "clip_l", layout="transformers", layers=_encoder_layers(header.tensors), problems=problems
    )


def clip_g(header: Header) -> ModelFile | None:
    """OpenCLIP ViT-bigG/14, role clip_g: the text encoder of width 1280, in the layout of transformers."""
    if header.tensors.shape(_CLIP) != (49408, 1280):
        return None
    problems = list(_one_file(header))
    if "text_projection.weight" not in header.tensors:
        problems.append(problem(header, "model_incomplete", missing="text_projection.weight"))
    return model_file(
        header, "clip_g", layout="transformers", layers=_encoder_layers(header.tensors), problems=problems
    )


def t5xxl(header: Header) -> ModelFile | None:
    """The encoder of T5 v1.1 XXL, role t5xxl. UMT5 and other sizes have other shapes."""
    if header.format == "gguf" and header.metadata.get("general.architecture") == "t5encoder":
        return model_file(header, "t5xxl")
    if header.tensors.shape("shared.weight") != (32128, 4096) or header.tensors.shape(_T5) != (4096, 4096):
        return None
    return model_file(
        header, "t5xxl", layout="transformers", layers=_encoder_layers(header.tensors), problems=_one_file(header)
    )


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
    encoder = header.tensors.shape(f"{prefix}encoder.conv_out.weight") or ()
    if shape is None or len(shape) != 4 or shape[1] != channels or encoder[:1] != (2 * channels,):
        return None
    named = _named(header, tuple(ours), tuple(others))
    if named is False:
        return None
    problems = list(_one_file(header))
    layout = "ldm" if f"{prefix}encoder.down.0.block.0.conv1.weight" in header.tensors else "diffusers"
    if layout == "diffusers":
        problems.append(problem(header, "model_layout", layout="diffusers"))
    if named is None:
        problems.append(problem(header, "model_vae_unnamed", severity="warning"))
    return model_file(header, role, layout=layout, prefix=prefix, problems=problems)


def _named(header: Header, ours: tuple[str, ...], others: tuple[str, ...]) -> bool | None:
    """Whether a file is named like ours (True) or another's (False); its folder is asked where its name is silent."""
    for name in (header.path.stem, header.path.parent.name):
        words = {word for word in re.split(r"[^a-z0-9.]+", name.lower()) if word}
        words |= {part for word in words for part in word.split(".")}
        mine, other = bool(words & set(ours)), bool(words & set(others))
        if mine != other:
            return mine
    return None


def _some(tensors: Tensors) -> list[str]:
    """Names from the beginning, the middle and the end: a LoRA's are the same all through."""
    names, middle = list(tensors), len(tensors) // 2
    return names[:12] + names[middle : middle + 12] + names[-12:]


def lora(header: Header) -> ModelFile | None:
    """A LoRA or one of its kin, role lora; `variant` is the architecture its metadata name, if they do."""
    if not header.tensors.once("lora", lambda: any(name.endswith(_LORA) for name in _some(header.tensors))):
        return None
    names = ("modelspec.architecture", "ss_base_model_version")
    variant = next((header.metadata[n] for n in names if n in header.metadata), "")
    first = next(iter(header.tensors))
    layout = "kohya" if first.startswith("lora_") else "peft" if ".lora_A." in first or ".lora_B." in first else ""
    return model_file(header, "lora", variant, layout=layout)
