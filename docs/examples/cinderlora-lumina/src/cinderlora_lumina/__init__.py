"""Lumina Image 2 for cinderlora: what sd-scripts' `lumina_train_network.py` trains, Neta Lumina among it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderlora import Component, ModelType, Preset, hookimpl

if TYPE_CHECKING:
    from cinderlora import Header, Job, ModelFile

SYSTEM_PROMPT = "You are an assistant designed to generate high-quality images based on user prompts."
"""What the model was trained with before every caption; by sd-scripts' `docs/lumina_train_network.md`."""


@hookimpl
def model_type() -> ModelType:
    return ModelType(
        name="lumina",
        title="Lumina Image 2",
        min_vram_gb=12,
        script="lumina_train_network.py",
        network_module="networks.lora_lumina",
        components=[
            Component("model", title="Lumina transformer"),
            Component("gemma2", bundled=True, title="Gemma 2 (2B)"),
            Component("ae", bundled=True, title="VAE (ae of FLUX.1)"),
        ],
    )


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    """Reckoned from the sizes of the weights, 5.2 GB in 16 bits and half of that in FP8; not measured on a card."""
    if model_type.name != "lumina":
        return
    yield Preset(
        name="16gb",
        title="16 GB",
        vram_gb=16,
        resolution=1024,
        batch_size=1,
        network_dim=16,
        optimizer="AdamW8bit",
        steps=1500,
        sample_steps=36,
        sample_scale=3.5,
    )
    yield Preset(name="12gb", title="12 GB", vram_gb=12, base="16gb", resolution=768)
    yield Preset(
        name="8gb",
        title="8 GB, slower",
        vram_gb=8,
        base="12gb",
        resolution=512,
        network_dim=8,
        fp8_base=True,
        blocks_to_swap=12,
    )
    yield Preset(name="24gb", title="24 GB and more", vram_gb=24, base="16gb", batch_size=2, network_dim=32, steps=2000)


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:
    from cinderlora_lumina.scan import scan

    return scan(files)


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    """By sd-scripts' `docs/lumina_train_network.md`, section 6.1. The script wants the path of every part: of an
    all-in-one file it takes each from the same one."""
    model = job.models.get("model")
    inside = {role: str(model.path) for role in ("gemma2", "ae") if model is not None and role in model.bundled}
    return {
        "timestep_sampling": "nextdit_shift",
        "discrete_flow_shift": 6.0,
        "model_prediction_type": "raw",
        "system_prompt": SYSTEM_PROMPT,
        **{role: path for role, path in inside.items() if role not in job.models},
    }
