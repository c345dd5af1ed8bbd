"""The presets for FLUX, by the card's memory. That they fit is what users of these settings report, not measured here.

The blocks to swap at 8, 10 and 12 GB are those of sd-scripts' documentation (`docs/flux_train_network.md`, section
6.1), which recommends a T5XXL in fp8 for less than 12 GB: that is a matter of the file, no setting. 20 at 16 GB are in
use on such a card; fewer are faster where there is room, and `check` says so. The sample line is `--s 20 --g 3.5
--l 1`.
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
        name="12gb",
        title="12 GB, slower",
        vram_gb=12,
        base="16gb",
        optimizer="AdamW8bit",
        blocks_to_swap=16,
    ),
    Preset(
        name="10gb",
        title="10 GB, slower; T5 in FP8",
        vram_gb=10,
        base="12gb",
        blocks_to_swap=22,
    ),
    Preset(
        name="8gb",
        title="8 GB, slowest; T5 in FP8",
        vram_gb=8,
        base="12gb",
        network_dim=8,
        blocks_to_swap=28,
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
