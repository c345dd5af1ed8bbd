"""The presets for FLUX, by the card's memory. That they fit is what users of these settings report, not measured here.

blocks_to_swap 20 at 16 GB is in use on such a card; fewer are faster where there is room. The sample line is
`--s 20 --g 3.5 --l 1`.
"""

from __future__ import annotations

from cinderlora import Preset

PRESETS = (
    Preset(
        name="16gb",
        title="16 GB",
        vram_gb=16,
        resolution=512,
        batch_size=1,
        network_dim=16,
        optimizer="Prodigy",
        steps=1500,
        fp8_base=True,
        blocks_to_swap=20,
        sample_steps=20,
        sample_guidance=3.5,
        sample_scale=1.0,
    ),
    Preset(
        name="24gb",
        title="24 GB and more",
        vram_gb=24,
        base="16gb",
        resolution=768,
        batch_size=2,
        network_dim=32,
        optimizer="AdamW8bit",
        steps=2000,
        blocks_to_swap=0,
    ),
)
