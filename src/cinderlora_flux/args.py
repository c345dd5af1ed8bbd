"""What FLUX needs of sd-scripts beyond the common settings."""

from __future__ import annotations

from typing import Any

from cinderlora import Job


def flux_args(job: Job) -> dict[str, Any]:
    """FLUX's own keys, by sd-scripts' documentation of LoRA training for FLUX.1 (section 4.1); the script's own
    defaults (sigma, sigma_scaled, 3.5) are not meant for this.

    flux_shift follows the resolution (1.88 at 512 px, 2.33 at 768, 3.16 at 1024), so there is no
    discrete_flow_shift. t5xxl_max_token_length is left to the script: 512 for dev, 256 for schnell.
    """
    return {"timestep_sampling": "flux_shift", "model_prediction_type": "raw", "guidance_scale": 1.0}
