"""What SD3 needs of sd-scripts beyond the common settings."""

from __future__ import annotations

from typing import Any

from cinderlora import Job


def sd3_args(job: Job) -> dict[str, Any]:
    """SD3's own keys, by sd-scripts' documentation of LoRA training for SD3. FLUX's timestep keys do not exist here."""
    return {"training_shift": 1.0, "weighting_scheme": "uniform", "t5xxl_max_token_length": 256}
