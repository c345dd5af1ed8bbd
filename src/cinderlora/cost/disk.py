"""What a training will write. The sizes are those of files that sd-scripts 0.10.1 wrote; see `docs/cost.md`."""

from __future__ import annotations

from collections.abc import Iterable

from cinderlora.cost.data import Disk
from cinderlora.cost.lora import file_bytes, layer_parameters
from cinderlora.cost.optimizers import state_bytes
from cinderlora.types import Footprint, Layer, Settings

__all__ = ["estimate_disk"]

_STATE_OVERHEAD, _STATE_MODULE = 16_000, 2_000
"""Bytes of a saved state besides the weights and the optimizer's memory: random states and scheduler, and for each
module of the LoRA the frames of its tensors."""
_LATENTS_OVERHEAD, _CAPTION_OVERHEAD = 860, 2_080
"""Bytes of an .npz besides its arrays."""
_PNG_BYTES = 1.6
"""Bytes of a sample for each pixel: between 1 for a smooth picture and 2.2 for a busy one, at most 3."""


def estimate_disk(
    settings: Settings,
    *,
    layers: Iterable[Layer] | None,
    footprint: Footprint | None,
    latents: Iterable[tuple[int, int]],
    checkpoints: int,
    samples: int,
    sample_size: tuple[int, int],
) -> Disk:
    """What a training writes. `latents` are the sizes in pixels that its pictures are trained at, one for each;
    `checkpoints` and `samples` how many there will be."""
    lora = states = None
    if layers is not None:
        layers, dim = tuple(layers), settings.network_dim or 1
        lora = file_bytes(layers, dim, settings.save_precision)
        if settings.save_state:
            numbers = dim * layer_parameters(layers)
            frame = _STATE_OVERHEAD + _STATE_MODULE * sum(layer.count for layer in layers)
            # Whatever save_precision says, a state has the weights as they are trained.
            states = round(4 * numbers + state_bytes(settings.optimizer, numbers) + frame) * (checkpoints + 1)
    return Disk(
        lora=lora,
        checkpoints=None if lora is None else lora * checkpoints,
        states=states if settings.save_state else 0,
        samples=round(samples * sample_size[0] * sample_size[1] * _PNG_BYTES),
        caches=None if footprint is None else _caches(settings, footprint, tuple(latents)),
    )


def _caches(settings: Settings, footprint: Footprint, latents: tuple[tuple[int, int], ...]) -> int:
    size = 0
    if settings.cache_latents:
        copies = 2 if settings.flip_aug else 1
        # One latent for 8 x 8 pixels, kept as 32-bit floats.
        numbers = sum((width // 8) * (height // 8) for width, height in latents) * footprint.latent_channels
        size += 4 * copies * numbers + _LATENTS_OVERHEAD * len(latents)
    if settings.cache_text_encoders:
        size += (footprint.caption_bytes + _CAPTION_OVERHEAD) * len(latents)
    return size
