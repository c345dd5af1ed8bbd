"""The presets for SDXL, by the card's memory. That they fit is what users of these settings report, not measured here.

The sample line is `--s 28 --l 7`.
"""

from __future__ import annotations

from cinderlora import Preset

PRESETS = (
    Preset(
        name="8gb",
        title="8 GB",
        vram_gb=8,
        resolution=512,
        batch_size=1,
        network_dim=8,
        optimizer="Prodigy",
        steps=1000,
        sample_steps=28,
        sample_scale=7.0,
    ),
    Preset(
        name="16gb",
        title="16 GB",
        vram_gb=16,
        base="8gb",
        resolution=768,
        network_dim=16,
        optimizer="AdamW8bit",
        steps=1500,
    ),
    Preset(
        name="24gb",
        title="24 GB and more",
        vram_gb=24,
        base="16gb",
        resolution=1024,
        batch_size=2,
        network_dim=32,
        steps=2000,
    ),
)
