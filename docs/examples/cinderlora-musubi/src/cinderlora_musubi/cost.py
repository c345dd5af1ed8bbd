"""What a training with musubi-tuner writes to the disk: the sizes follow from its file formats. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cinderlora.cost.data import Disk
from cinderlora.cost.lora import file_bytes, lora_layers
from cinderlora.cost.problems import Cost

if TYPE_CHECKING:
    from cinderlora import Job, ModelType
    from cinderlora.dataset import BucketPlan

__all__ = ["disk"]

_CHANNELS, _PIXELS, _FLOAT = 16, 8, 4
"""A latent has 16 numbers of 4 bytes for each 8 x 8 pixels."""
_TOKENS, _WIDTH, _HALF = 512, 2560, 2
"""The outputs for a caption are as many rows of 2560 numbers of 2 bytes as it has tokens, at most 512."""


def disk(model_type: ModelType, job: Job, buckets: BucketPlan | None, checkpoints: int) -> Cost:
    """The LoRA files, and the caches at most."""
    layers = lora_layers(model_type, job.models, job.settings)
    lora = None if layers is None else file_bytes(layers, job.settings.network_dim or 1, job.settings.save_precision)
    caches = None
    if buckets is not None:
        sizes = [fit.bucket for fit in buckets.fits if fit is not None]
        latents = sum((width // _PIXELS) * (height // _PIXELS) * _CHANNELS * _FLOAT for width, height in sizes)
        caches = latents + len(sizes) * _TOKENS * _WIDTH * _HALF
    return Cost(disk=Disk(lora=lora, checkpoints=None if lora is None else lora * checkpoints, caches=caches))
