"""Z-Image for cinderlora, trained by musubi-tuner: the plugin's hooks.

The trainer stands in `tuner`, `planning` and `buckets`, its output in `log` and `failures`, the model in `zimage`, the
miniature that rehearses it in `miniature`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderlora import Component, ModelType, hookimpl

if TYPE_CHECKING:
    from cinderlora import Diagnosis, Event, Failure, Header, Job, ModelFile, Preset
    from cinderlora.trainers import TrainerType


@hookimpl
def model_type() -> ModelType:
    return ModelType(
        name="zimage",
        title="Z-Image",
        min_vram_gb=12,
        trainer="musubi-tuner",
        script="zimage_train_network.py",
        network_module="networks.lora_zimage",
        components=[
            Component("model", "dit", title="Z-Image transformer"),
            Component("qwen3", "text_encoder", title="Qwen3 4B"),
            Component("vae", title="VAE (ae)"),
        ],
    )


@hookimpl
def trainer() -> TrainerType:
    from cinderlora_musubi.tuner import MusubiTuner

    return MusubiTuner


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    from cinderlora_musubi.zimage import PRESETS

    return PRESETS if model_type.name == "zimage" else ()


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:
    from cinderlora_musubi.zimage import scan

    return scan(files)


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    from cinderlora_musubi.zimage import zimage_args

    return zimage_args(job)


@hookimpl
def parse_progress(line: str, phase: str | None) -> Sequence[Event] | None:
    from cinderlora_musubi.log import parse

    return parse(line, phase)


@hookimpl
def diagnose(failure: Failure) -> Diagnosis | None:
    from cinderlora_musubi.failures import find

    return find(failure)
