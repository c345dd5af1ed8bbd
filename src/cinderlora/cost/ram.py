"""How much memory of the machine a training takes while sd-scripts loads its models."""

from __future__ import annotations

from collections.abc import Mapping

from cinderlora.cost.data import GB, Estimate
from cinderlora.cost.vram import STORED, parameters_of
from cinderlora.types import Footprint, ModelFile, Settings

__all__ = ["estimate_ram"]

_PROGRAM = (2.0, 0.3, 4.0)
"""GB of Python, PyTorch and its libraries: likely with CUDA's, at least without them, at most."""


def estimate_ram(footprint: Footprint, settings: Settings, models: Mapping[str, ModelFile] | None = None) -> Estimate:
    """What the trainer needs of the machine's memory at most: all parts are loaded before the first goes to the card.

    A part that is cast is read from its file, mapped into memory, while the copy is made: the system can drop what is
    mapped, so it counts only for the upper bound, and of several files only the largest.
    """
    models = models or {}
    kept = 0.0
    mapped: dict[object, float] = {}
    for role in ("model", *footprint.encoders, footprint.vae):
        file = _file_of(role, models)
        numbers = parameters_of(role, footprint, models)
        stored = file.precisions[role] if file else "fp16"
        loaded = _loaded(role, stored, footprint, settings)
        kept += numbers * STORED.get(loaded, 2)
        if stored != loaded:
            key = file.path if file else role
            mapped[key] = mapped.get(key, 0) + numbers * STORED.get(stored, 2)
    likely, low, high = _PROGRAM
    copied = max(mapped.values(), default=0)
    return Estimate(likely + kept / GB, low + kept / GB, high + (kept + copied) / GB)


def _file_of(role: str, models: Mapping[str, ModelFile]) -> ModelFile | None:
    """The file that has a part: its own, or the model's."""
    files = (models.get(role), models.get("model"))
    return next((file for file in files if file is not None and role in file.precisions), None)


def _loaded(role: str, stored: str, footprint: Footprint, settings: Settings) -> str:
    """The precision that a part has in memory before it goes to the card."""
    if settings.fp8_base and role == "model":
        return "fp8_e4m3fn"
    if settings.fp8_base and role in footprint.as_stored:
        return stored
    if footprint.loaded_as_floats or settings.mixed_precision == "no":
        return "fp32"
    return settings.mixed_precision or "bf16"
