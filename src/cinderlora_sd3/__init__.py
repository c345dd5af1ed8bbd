"""Stable Diffusion 3 for cinderlora: the plugin's hooks. What they know stands in
`preset_table`, `scan`, `args` and `cost`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderlora import Component, ModelType, hookimpl

if TYPE_CHECKING:
    from cinderlora import Header, Job, ModelFile, Preset


@hookimpl
def model_type() -> ModelType:
    from cinderlora_sd3.cost import FOOTPRINTS

    return ModelType(
        name="sd3",
        title="Stable Diffusion 3",
        min_vram_gb=8,
        script="sd3_train_network.py",
        network_module="networks.lora_sd3",
        footprints=FOOTPRINTS,
        components=[
            Component("model", title="SD3 checkpoint"),
            Component("clip_l", bundled=True, title="CLIP-L"),
            Component("clip_g", bundled=True, title="CLIP-G"),
            Component("t5xxl", bundled=True, title="T5XXL"),
            Component("vae", bundled=True, title="VAE"),
        ],
    )


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    from cinderlora_sd3.preset_table import PRESETS

    return PRESETS if model_type.name == "sd3" else ()


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:
    from cinderlora_sd3.scan import scan

    return scan(files)


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    from cinderlora_sd3.args import sd3_args

    return sd3_args(job)
