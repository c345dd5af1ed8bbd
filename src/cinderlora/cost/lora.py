"""How large a LoRA is: of sd-scripts' own LoRA modules, whose files are two matrices and a scale for each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from cinderlora.types import Footprint, Layer, ModelFile, ModelType, Settings

__all__ = ["file_bytes", "layer_parameters", "lora_layers", "lora_parameters"]

BYTES = {"fp16": 2, "bf16": 2, "float": 4}
"""Bytes of each number in the file, by `save_precision`; a float is what sd-scripts writes where it is unset."""

_ENTRY = 120
"""Bytes of header that a tensor takes: 120 in SD3's files."""
_METADATA = 5_000
"""Bytes of the training's metadata, some 80 entries: 4.4 kB for six pictures, and more for longer captions."""


def layer_parameters(layers: Iterable[Layer]) -> int:
    """Numbers in a LoRA of dim 1 on these layers: from a layer's inputs down to the dim, and up to its outputs."""
    return sum(layer.count * (layer.inputs * layer.kernel**2 + layer.outputs) for layer in layers)


def lora_layers(kind: ModelType, models: Mapping[str, ModelFile], settings: Settings) -> tuple[Layer, ...] | None:
    """The layers that a LoRA will be trained on; None where that cannot be told: another network module or arguments
    of its own decide, or the header of a file is not known."""
    if settings.network_module not in {None, kind.network_module} or settings.network_args:
        return None
    roles = ["model"]
    if settings.train_text_encoder:
        footprint = kind.footprint(models["model"].variant if "model" in models else "")
        roles += [role for role in footprint.encoders if role not in footprint.as_stored] if footprint else []
    parts = [_layers_of(role, models) for role in roles]
    return tuple(chain.from_iterable(parts)) if all(parts) else None


def _layers_of(role: str, models: Mapping[str, ModelFile]) -> tuple[Layer, ...]:
    """Those of a part, by the header of the file that has it, its own or the model's."""
    files = (models.get(role), models.get("model"))
    return next((file.layers[role] for file in files if file is not None and role in file.layers), ())


def lora_parameters(layers: Iterable[Layer] | None, footprint: Footprint, settings: Settings) -> int:
    """Numbers that are trained: of the layers, or of the usual model's where those are not known."""
    of_dim_1 = footprint.lora_parameters if layers is None else layer_parameters(layers)
    return (settings.network_dim or 1) * of_dim_1


def file_bytes(layers: Iterable[Layer], dim: int, precision: str | None) -> int:
    """The size of the LoRA's file, within a few thousand bytes."""
    layers = tuple(layers)
    modules = sum(layer.count for layer in layers)
    numbers = dim * layer_parameters(layers) + modules  # each module's alpha
    return BYTES.get(precision or "float", 4) * numbers + 3 * modules * _ENTRY + _METADATA
