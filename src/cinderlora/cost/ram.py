"""How much memory of the machine a training takes while sd-scripts loads its models."""

from __future__ import annotations

from collections.abc import Mapping

from cinderlora.cost.data import GB, Estimate
from cinderlora.cost.vram import parameters_of, stored_bytes, weight_bytes
from cinderlora.types import Footprint, ModelFile, Settings

__all__ = ["estimate_ram"]

_PROGRAM = (2.0, 0.3, 4.0)
"""GB of Python, PyTorch and its libraries: likely with CUDA's, at least without them, at most."""


def estimate_ram(footprint: Footprint, settings: Settings, models: Mapping[str, ModelFile] | None = None) -> Estimate:
    """What the trainer needs of the machine's memory at most: all parts are loaded before the first goes to the card.

    A part that is cast is read from its file, mapped into memory, while the copy is made: the system can drop what is
    mapped, so it counts only for the upper bound.
    """
    models = models or {}
    own = weight_bytes(settings)
    kept = mapped = 0.0
    for role in ("model", *footprint.encoders, footprint.vae):
        numbers = parameters_of(role, footprint, models)
        stored = stored_bytes(role, models) or 2
        loaded = own
        if role == "model" and settings.fp8_base:
            loaded = 1
        elif role in footprint.as_stored and settings.fp8_base:
            loaded = stored
        kept += numbers * loaded
        mapped = max(mapped, numbers * stored if stored != loaded else 0)
    likely, low, high = _PROGRAM
    return Estimate(likely + kept / GB, low + kept / GB, high + (kept + mapped) / GB)
