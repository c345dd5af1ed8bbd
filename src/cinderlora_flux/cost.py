"""What a training of FLUX takes. Parameters are those of the published files' headers; bytes of activations were
counted on sd-scripts' own modules without a card, see `docs/cost.md`."""

from __future__ import annotations

import attrs

from cinderlora import Activations, Footprint

_MB = 2**20
# Tokens of the captions, which a step has beside one for every 16 x 16 pixels; a step takes so much for each of them.
_DEV_TOKENS, _SCHNELL_TOKENS = 512, 256
_CHECKPOINTED, _PLAIN = 0.516 * _MB, 8.87 * _MB


def _dev() -> Footprint:
    return Footprint(
        parameters={"model": 11_901_408_320, "clip_l": 123_060_480, "t5xxl": 4_762_310_656, "ae": 83_819_683},
        encoders=("clip_l", "t5xxl"),
        as_stored=("t5xxl",),
        vae="ae",
        lora_parameters=4_786_176,
        # Of n swapped blocks n // 2 are double ones, and each of the rest is two single ones.
        block_parameters=311_500_000,
        swappable=35,
        latent_channels=16,
        caption_bytes=4 * 768 + _DEV_TOKENS * (4 * 4096 + 4 * 3 + 8),
        checkpointed=Activations(picture=_CHECKPOINTED * _DEV_TOKENS, pixel=_CHECKPOINTED / 256, casts=200 * _MB),
        plain=Activations(picture=_PLAIN * _DEV_TOKENS, pixel=_PLAIN / 256, casts=16_400 * _MB),
        denoising=Activations(picture=100 * _MB, pixel=750),
        encoding=Activations(picture=0, pixel=1_400),
        decoding=Activations(picture=0, pixel=3_580),  # under autocast: its norms are calculated as 32-bit floats
        captioning=320 * _MB,
    )


def _schnell(dev: Footprint) -> Footprint:
    """The same with half the tokens for a caption."""
    tokens = _SCHNELL_TOKENS
    return attrs.evolve(
        dev,
        parameters={**dev.parameters, "model": 11_891_178_560},
        caption_bytes=4 * 768 + tokens * (4 * 4096 + 4 * 3 + 8),
        checkpointed=attrs.evolve(dev.checkpointed, picture=_CHECKPOINTED * tokens),
        plain=attrs.evolve(dev.plain, picture=_PLAIN * tokens),
    )


DEV = _dev()
FOOTPRINTS = {"dev": DEV, "schnell": _schnell(DEV)}
