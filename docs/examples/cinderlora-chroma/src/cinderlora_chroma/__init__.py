"""Chroma for cinderlora: what sd-scripts' `flux_train_network.py` trains with `model_type = "chroma"`.

Chroma is a FLUX whose modulations come from one small network, the distilled guidance layer, instead of a layer in each
block. It has no CLIP-L, and its text is read through T5's attention mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderlora import Component, ModelType, Preset, hookimpl

if TYPE_CHECKING:
    from cinderlora import Header, Job, ModelFile


@hookimpl
def model_type() -> ModelType:
    from cinderlora_chroma.cost import FOOTPRINT

    return ModelType(
        name="chroma",
        title="Chroma",
        min_vram_gb=12,
        script="flux_train_network.py",
        network_module="networks.lora_flux",
        footprints={"": FOOTPRINT},
        components=[
            Component("model", title="Chroma transformer"),
            Component("t5xxl", title="T5XXL"),
            Component("ae", title="VAE (ae of FLUX.1)"),
        ],
    )


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    """FLUX's, which are sd-scripts' documented ones: Chroma is a quarter smaller, so what holds FLUX holds Chroma.

    It is not distilled: samples are drawn with a CFG scale (`--l 4`) and no embedded guidance (`--g 0`).
    """
    if model_type.name != "chroma":
        return
    yield Preset(
        name="16gb",
        title="16 GB",
        vram_gb=16,
        resolution=512,
        batch_size=1,
        network_dim=16,
        optimizer="AdamW8bit",
        steps=1500,
        fp8_base=True,
        sample_steps=20,
        sample_scale=4.0,
        sample_guidance=0.0,
    )
    yield Preset(name="12gb", title="12 GB, slower", vram_gb=12, base="16gb", blocks_to_swap=16)
    yield Preset(name="8gb", title="8 GB, slowest; T5 in FP8", vram_gb=8, base="16gb", network_dim=8, blocks_to_swap=28)
    yield Preset(
        name="24gb", title="24 GB and more", vram_gb=24, base="16gb", resolution=768, batch_size=2, network_dim=32
    )


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:
    from cinderlora_chroma.scan import scan

    return scan(files)


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    """By sd-scripts' `docs/flux_train_network.md`: without a mask for T5 the script refuses to start, and a guidance
    other than 0 is one that the model never learned. There is no CLIP-L to be trained, and T5 is not."""
    return {
        "model_type": "chroma",
        "apply_t5_attn_mask": True,
        "guidance_scale": 0.0,
        "timestep_sampling": "sigmoid",
        "model_prediction_type": "raw",
        "network_train_unet_only": True,
    }
