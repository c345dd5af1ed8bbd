"""What a training of Chroma takes. Parameters are those of the published file's header.

Activations are FLUX' (`cinderlora`'s `docs/cost.md`), which are an upper bound: the blocks are the same, without the
layers that make modulations, and text beyond the caption's last token is cut off. Not measured on a card.
"""

from __future__ import annotations

from cinderlora import Activations, Footprint

_MB = 2**20
_TOKENS = 512
_CHECKPOINTED, _PLAIN = 0.516 * _MB, 8.87 * _MB

FOOTPRINT = Footprint(
    parameters={"model": 8_899_983_424, "t5xxl": 4_762_310_656, "ae": 83_819_683},
    encoders=("t5xxl",),
    as_stored=("t5xxl",),
    vae="ae",
    lora_parameters=3_502_080,
    block_parameters=226_545_152,
    swappable=35,
    latent_channels=16,
    # 1,264,701 bytes for 77 tokens in a run of the real script.
    caption_bytes=_TOKENS * (4 * 4096 + 4 * 3 + 8) + 4 * 77,
    checkpointed=Activations(picture=_CHECKPOINTED * _TOKENS, pixel=_CHECKPOINTED / 256, casts=200 * _MB),
    plain=Activations(picture=_PLAIN * _TOKENS, pixel=_PLAIN / 256, casts=16_400 * _MB),
    denoising=Activations(picture=100 * _MB, pixel=750),
    encoding=Activations(picture=0, pixel=1_400),
    decoding=Activations(picture=0, pixel=3_580),
    captioning=320 * _MB,
)
