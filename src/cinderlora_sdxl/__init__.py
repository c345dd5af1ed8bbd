"""SDXL for cinderlora: the plugin's hooks. What they know stands in
`preset_table`, `scan`, `args` and `cost`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderlora import Component, ModelType, hookimpl

if TYPE_CHECKING:
    from cinderlora import Header, Job, ModelFile, Preset


@hookimpl
def model_type() -> ModelType:
    from cinderlora_sdxl.cost import FOOTPRINTS

    return ModelType(
        name="sdxl",
        title="Stable Diffusion XL",
        min_vram_gb=8,
        script="sdxl_train_network.py",
        network_module="networks.lora",
        footprints=FOOTPRINTS,
        components=[
            Component("model", title="SDXL checkpoint"),
            Component("vae", required=False, bundled=True, title="VAE"),
        ],
    )


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    from cinderlora_sdxl.preset_table import PRESETS

    return PRESETS if model_type.name == "sdxl" else ()


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:
    from cinderlora_sdxl.scan import scan

    return scan(files)


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    from cinderlora_sdxl.args import sdxl_args

    return sdxl_args(job)
