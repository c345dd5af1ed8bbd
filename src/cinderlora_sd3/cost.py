"""What a training of SD3 takes. Parameters are those of the published files' headers, of 3.5 large those of the model
that sd-scripts builds; bytes of activations were counted on its own modules without a card, see `docs/cost.md`."""

from __future__ import annotations

import attrs

from cinderlora import Activations, Footprint

_MB = 2**20
# t5xxl_max_token_length = 256, and CLIP's 77.
_T5, _CLIP = 256, 77

_MEDIUM = Footprint(
    parameters={
        "model": 2_084_951_104,
        "clip_l": 123_060_480,
        "clip_g": 694_659_840,
        "t5xxl": 4_762_310_656,
        "vae": 83_819_683,
    },
    encoders=("clip_l", "clip_g", "t5xxl"),
    as_stored=("t5xxl",),
    lora_parameters=1_671_168,
    block_parameters=83_700_000,
    swappable=22,
    latent_channels=16,
    caption_bytes=4 * (_CLIP * 2048 + 2048 + _T5 * 4096) + 8 * (2 * _CLIP + _T5),
    checkpointed=Activations(picture=20 * _MB, pixel=735, casts=115 * _MB),
    plain=Activations(picture=554 * _MB, pixel=7_080, casts=2_540 * _MB),
    denoising=Activations(picture=20 * _MB, pixel=520),
    encoding=Activations(picture=0, pixel=1_430),
    decoding=Activations(picture=0, pixel=1_660),
    captioning=200 * _MB,
)
_MEDIUM_35 = attrs.evolve(
    _MEDIUM,
    parameters={**_MEDIUM.parameters, "model": 2_469_663_936},
    lora_parameters=1_850_880,
    block_parameters=92_700_000,
    checkpointed=Activations(picture=40 * _MB, pixel=740, casts=200 * _MB),
    plain=Activations(picture=626 * _MB, pixel=9_210, casts=2_800 * _MB),
)
_LARGE_35 = attrs.evolve(
    _MEDIUM,
    parameters={**_MEDIUM.parameters, "model": 8_056_627_520},
    lora_parameters=4_212_224,
    block_parameters=206_700_000,
    swappable=36,
    checkpointed=Activations(picture=38 * _MB, pixel=1_400, casts=350 * _MB),
    plain=Activations(picture=1_570 * _MB, pixel=19_770, casts=10_400 * _MB),
    denoising=Activations(picture=38 * _MB, pixel=990),
)
FOOTPRINTS = {"sd3-medium": _MEDIUM, "sd3.5-medium": _MEDIUM_35, "sd3.5-large": _LARGE_35}
