"""What SDXL needs of sd-scripts beyond the common settings."""

from __future__ import annotations

from typing import Any

from cinderlora import Job


def sdxl_args(job: Job) -> dict[str, Any]:
    """SDXL's own keys: its VAE overflows in half precision, captions are cut at 75 tokens unless more are asked for,
    and min_snr_gamma 5 is what kohya_ss's SDXL presets use."""
    return {"no_half_vae": True, "max_token_length": 225, "min_snr_gamma": 5.0}
