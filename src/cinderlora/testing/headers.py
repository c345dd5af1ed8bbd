"""Headers of real model files, for trying out what an adapter says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path

from cinderlora.models.headers import BITS, Header, Tensor, Tensors

__all__ = ["FAMILIES", "MODELS", "PARTS", "make_header", "sample_header", "sample_headers"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "FLUX.1": ("flux_dev", "flux_schnell"),
    "Chroma": ("chroma",),
    "Lumina Image 2": ("lumina2",),
    "SDXL": ("sdxl_base",),
    "SD3": ("sd3_medium", "sd35_medium"),
}
MODELS: tuple[str, ...] = tuple(kind for kinds in FAMILIES.values() for kind in kinds)
"""The samples that are models; `PARTS` are text encoders and autoencoders."""
PARTS = ("clip_l", "clip_g", "t5xxl", "gemma2_2b", "flux_ae", "sdxl_vae")

# Where people have such a file: an autoencoder is told by its name.
_NAMES = {"flux_ae": "ae", "sdxl_vae": "sdxl_vae"}


def make_header(
    tensors: Mapping[str, Tensor | Sequence[int]],
    path: str | Path = "models/model.safetensors",
    *,
    dtype: str = "BF16",
    metadata: Mapping[str, str] | None = None,
) -> Header:
    """The header of a file with these tensors, each with its shape: of `dtype`, as safetensors names it, where it is
    no `Tensor` that says so itself. No file is read or written."""
    named = {name: t if isinstance(t, Tensor) else Tensor(dtype, tuple(t)) for name, t in tensors.items()}
    size = sum(tensor.parameters * BITS.get(tensor.dtype, 16) // 8 for tensor in named.values())
    return Header(path=Path(path), size=size, tensors=Tensors(named), metadata=metadata or {})


def sample_header(kind: str, *, dtype: str = "BF16", prefix: str = "", path: str | Path | None = None) -> Header:
    """The header of a published model: one of `MODELS` and `PARTS`, with the names and shapes of the real file.

    `prefix` goes before all names, as other programs keep them. Raises `KeyError` for a kind that is not there.
    """
    if kind not in _shapes():
        raise KeyError(f"there is no sample header {kind!r}; there are {', '.join(_shapes())}")
    path = f"models/{_NAMES.get(kind, kind)}.safetensors" if path is None else path
    return make_header({prefix + name: shape for name, shape in _shapes()[kind].items()}, path, dtype=dtype)


def sample_headers() -> dict[str, Header]:
    """All of them, by kind."""
    return {kind: sample_header(kind) for kind in (*MODELS, *PARTS)}


@cache
def _shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    tensors: dict[str, tuple[int, ...]] = {}
    for line in (resources.files(__package__) / "sample_headers.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            tensors = found[line.strip("[]")] = {}
        elif line:
            name, *shape = line.split()
            tensors |= dict.fromkeys(_names(name), tuple(map(int, shape)))
    return found


def _names(pattern: str) -> Iterator[str]:
    """The names that "blocks.{0-18}.{key,query}.weight" stands for."""
    plain, *sets = pattern.split("{")
    choices = [entry.partition("}") for entry in sets]
    for chosen in product(*(_choices(inner) for inner, _, _ in choices)):
        yield plain + "".join(value + rest for value, (_, _, rest) in zip(chosen, choices, strict=True))


def _choices(inner: str) -> list[str]:
    first, dash, last = inner.partition("-")
    return [str(n) for n in range(int(first), int(last) + 1)] if dash else inner.split(",")
