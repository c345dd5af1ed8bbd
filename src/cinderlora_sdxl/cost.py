"""What a training of SDXL takes. Parameters are those of the published file's header; bytes of activations were counted
on sd-scripts' own modules without a card, see `docs/cost.md`."""

from __future__ import annotations

from cinderlora import Activations, Footprint

_MB = 2**20
# max_token_length = 225: three chunks of 75 tokens, with one to begin and one to end.
_TOKENS = 227

FOOTPRINTS = {
    "base": Footprint(
        parameters={"model": 2_567_463_684, "clip_l": 123_060_480, "clip_g": 694_659_841, "vae": 83_653_863},
        encoders=("clip_l", "clip_g"),
        vae_bytes=4,  # no_half_vae
        loaded_as_floats=True,  # `load_models_from_sdxl_checkpoint` is given no dtype but by full_fp16 and full_bf16
        lora_parameters=2_659_840,
        latent_channels=4,
        caption_bytes=4 * (_TOKENS * (768 + 1280) + 1280),
        checkpointed=Activations(picture=0, pixel=720, casts=60 * _MB),
        plain=Activations(picture=150 * _MB, pixel=8_050, casts=4_180 * _MB),
        denoising=Activations(picture=0, pixel=500),
        encoding=Activations(picture=0, pixel=2_570),
        decoding=Activations(picture=0, pixel=3_070),
        captioning=100 * _MB,
    )
}
