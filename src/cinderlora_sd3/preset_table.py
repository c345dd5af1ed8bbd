"""The presets for SD3 medium, by the card's memory. That they fit is what users report, not measured here.

SD3 medium can swap 22 blocks at most; 3.5 large has more (36), and wants 28 swapped on 8 GB. The sample line is
`--s 28 --l 5`.
"""

from __future__ import annotations

from cinderlora import Preset

PRESETS = (
    Preset(
        name="8gb",
        title="8 GB; T5 in FP8",
        vram_gb=8,
        resolution=512,
        batch_size=1,
        network_dim=12,
        optimizer="Prodigy",
        steps=1000,
        fp8_base=True,
        blocks_to_swap=18,
        sample_steps=28,
        sample_scale=5.0,
    ),
    Preset(
        name="16gb",
        title="16 GB",
        vram_gb=16,
        base="8gb",
        resolution=768,
        network_dim=24,
        optimizer="AdamW8bit",
        steps=1500,
        blocks_to_swap=10,
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
        blocks_to_swap=0,
    ),
)
