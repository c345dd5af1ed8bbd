"""FLUX.1 for cinderlora: the plugin's hooks. What they know stands in
`preset_table`, `scan`, `args` and `cost`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderlora import Component, ModelType, hookimpl

if TYPE_CHECKING:
    from cinderlora import Header, Job, ModelFile, Preset


@hookimpl
def model_type() -> ModelType:
    from cinderlora_flux.cost import FOOTPRINTS

    return ModelType(
        name="flux",
        title="FLUX.1",
        min_vram_gb=16,
        script="flux_train_network.py",
        network_module="networks.lora_flux",
        footprints=FOOTPRINTS,
        components=[
            Component("model", title="FLUX transformer"),
            Component("clip_l", title="CLIP-L"),
            Component("t5xxl", title="T5XXL"),
            Component("ae", title="VAE (ae)"),
        ],
    )


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    from cinderlora_flux.preset_table import PRESETS

    return PRESETS if model_type.name == "flux" else ()


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:
    from cinderlora_flux.scan import scan

    return scan(files)


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    from cinderlora_flux.args import flux_args

    return flux_args(job)
