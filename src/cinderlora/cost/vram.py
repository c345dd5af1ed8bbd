"""How much memory of the card a training takes: an estimate from what sd-scripts keeps there in each of its phases.

`docs/cost.md` has the reasoning, the sources, and what it was compared with. No card was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cinderlora.cost.data import GB, Estimate
from cinderlora.cost.lora import lora_parameters
from cinderlora.cost.optimizers import state_bytes
from cinderlora.types import Footprint, Layer, ModelFile, Settings

__all__ = ["cheaper", "estimate_vram", "parameters_of", "stored_bytes", "swap_limit", "weight_bytes"]

# What the driver and CUDA's libraries take before the first tensor, in GB, and what the allocator of PyTorch holds
# beyond the tensors, as a part of the activations: likely, at least, at most.
_CONTEXT = (0.6, 0.4, 1.0)
_SLACK = (1.1, 0.95, 1.4)

STORED = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8_e4m3fn": 1, "fp8_e5m2": 1, "fp64": 8}
"""Bytes of a number as a file keeps it, by precision."""


def weight_bytes(settings: Settings) -> int:
    """Bytes of a number in the precision of the training."""
    return 4 if settings.mixed_precision == "no" else 2


def stored_bytes(role: str, models: Mapping[str, ModelFile]) -> int | None:
    """Bytes of a number in the file that has this part, its own or the model's; None where that is not known."""
    for file in (models.get(role), models.get("model")):
        precision = file.precisions.get(role, "") if file else ""
        if precision in STORED:
            return STORED[precision]
    return None


def parameters_of(role: str, footprint: Footprint, models: Mapping[str, ModelFile]) -> int:
    """Numbers in a part, by the header of the file that has it, its own or the model's, else those of the usual one."""
    for file in (models.get(role), models.get("model")):
        counted = file.parameters.get(role) if file else None
        if counted:
            return int(counted)
    return footprint.parameters.get(role, 0)


def swap_limit(footprint: Footprint, models: Mapping[str, ModelFile]) -> int:
    """The most blocks that can be swapped."""
    file = models.get("model")
    limit = file.limits.get("blocks_to_swap") if file else None
    return footprint.swappable if limit is None else int(limit)


def estimate_vram(
    footprint: Footprint,
    settings: Settings,
    models: Mapping[str, ModelFile] | None = None,
    *,
    layers: Iterable[Layer] | None = None,
    sample_size: tuple[int, int] | None = None,
) -> Estimate:
    """The peak of a training with these settings. Headers of the files in `models` and the `layers` that the LoRA is
    trained on go over the footprint's figures where they are known.

    A T5 of which there is no file is taken to be in FP8, and in 16 bits for the upper bound."""
    models = models or {}
    own = weight_bytes(settings)
    pixels = (settings.resolution or 512) ** 2
    batch = settings.batch_size or 1
    sampled = pixels if sample_size is None else sample_size[0] * sample_size[1]

    numbers = parameters_of("model", footprint, models)
    of_block = footprint.block_parameters * numbers / max(footprint.parameters.get("model", numbers), 1)
    swapped = min(settings.blocks_to_swap or 0, swap_limit(footprint, models)) * of_block
    model = (1 if settings.fp8_base else own) * max(numbers - swapped, 0)
    vae = footprint.vae_bytes * parameters_of(footprint.vae, footprint, models)
    trained = lora_parameters(layers, footprint, settings)
    # Weights and gradients as 32-bit floats, and the copies in 16 bits that autocast keeps during a step.
    lora = 8 * trained + state_bytes(settings.optimizer, trained)
    copies = 2 * trained if own == 2 else 0
    casts = settings.fp8_base or False

    def phases(encoders: float) -> dict[str, tuple[float, float]]:
        """Bytes that stay on the card, and those that come and go, in each phase."""
        staying = model + lora
        if not settings.cache_text_encoders or settings.train_text_encoder:
            staying += encoders
        if not settings.cache_latents:
            staying += vae
        step = footprint.checkpointed if settings.gradient_checkpointing else footprint.plain
        found = {"training": (staying, step.bytes(batch, pixels) + step.casts * casts + copies)}
        if settings.cache_latents:
            found["caching_latents"] = (vae, footprint.encoding.bytes(1, pixels))
        if settings.cache_text_encoders:
            found["caching_text_encoders"] = (encoders, footprint.captioning)
        if settings.sample_every or settings.sample_at_first:
            # First the steps, then the VAE with everything else still on the card.
            drawing = footprint.denoising.bytes(1, sampled) + footprint.denoising.casts * casts + copies
            found["sampling"] = (staying, max(drawing, vae + footprint.decoding.bytes(1, sampled)))
        return found

    at_least = phases(_encoders(footprint, settings, models, unknown=1))
    at_most = phases(_encoders(footprint, settings, models, unknown=2))
    likely, low, high = (
        {
            name: _CONTEXT[which] + (staying + _SLACK[which] * passing) / GB
            for name, (staying, passing) in (at_most if which == 2 else at_least).items()
        }
        for which in range(3)
    )
    return Estimate(max(likely.values()), max(low.values()), max(high.values()), likely)


def _encoders(footprint: Footprint, settings: Settings, models: Mapping[str, ModelFile], *, unknown: int) -> float:
    """Bytes of the text encoders on the card. One that is left as it is stored is moved there before it is cast;
    `unknown` are the bytes of its numbers where its file is not known."""
    own = weight_bytes(settings)
    size = 0
    for role in footprint.encoders:
        as_stored = settings.fp8_base and role in footprint.as_stored
        size += parameters_of(role, footprint, models) * ((stored_bytes(role, models) or unknown) if as_stored else own)
    return size


def cheaper(
    settings: Settings, limit: int, enough: Callable[[Mapping[str, object]], bool]
) -> Mapping[str, object] | None:
    """The first change, by what it costs in time and quality, that is enough; None where none is. `limit` is the most
    blocks that can be swapped."""
    px = settings.resolution or 512
    ways: list[dict[str, object]] = [{"gradient_checkpointing": True}] * (not settings.gradient_checkpointing)
    ways += [{"blocks_to_swap": n} for n in range((settings.blocks_to_swap or 0) + 1, limit + 1)]
    ways += [{"batch_size": 1}] * ((settings.batch_size or 1) > 1)
    ways += [{"resolution": smaller} for smaller in (1024, 768, 512) if smaller < px]
    return next((change for change in ways if enough(change)), None)
