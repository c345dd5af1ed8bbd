"""An adapter and a preset pack, with all hooks. Checked, never run."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_type

from cinderlora import (
    Activity,
    Component,
    Diagnosis,
    Event,
    Failure,
    Header,
    Job,
    ModelFile,
    ModelType,
    Preset,
    Registry,
    Settings,
    hookimpl,
)


@hookimpl
def model_type() -> ModelType:
    return ModelType(
        name="lumina",
        title="Lumina Image 2",
        min_vram_gb=12,
        script="lumina_train_network.py",
        network_module="networks.lora_lumina",
        components=[Component("model"), Component("gemma2", required=False), Component("ae", "vae", bundled=True)],
    )


@hookimpl
def scan_models(files: Sequence[Header]) -> Iterator[ModelFile]:
    for header in files:
        if "cap_embedder.0.weight" in header.tensors:
            yield ModelFile(path=header.path, role="model", precision=header.precision, size=header.size)


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    base = Preset(name="16gb", vram_gb=16, resolution=1024, network_dim=16, optimizer="AdamW8bit")
    assert_type(base.evolve(name="24gb", batch_size=2), Preset)
    assert_type(base.settings(), Settings)
    return [base, Preset(name="draft", base="16gb", steps=800)]


@hookimpl
def build_args(job: Job) -> Mapping[str, Any]:
    assert_type(job.settings.network_dim, int | None)
    return {"timestep_sampling": "nextdit_shift"}


@hookimpl
def parse_progress(line: str, phase: str | None) -> Sequence[Event] | None:
    return [Activity(label="quantizing", done=1, total=None)] if phase else None


@hookimpl
def diagnose(failure: Failure) -> Diagnosis | None:
    if failure.nan:
        return Diagnosis("nan_loss", {"step": failure.steps}, changes={"learning_rate": 1e-5})
    return Diagnosis("studio_licence", cause="No licence.", fix="Ask Kim.", evidence=failure.lines[-1:])


class Policy:
    """A cross-cutting plugin: wraps what adapters say."""

    @hookimpl(wrapper=True)
    def build_args(self, job: Job) -> Generator[None, Mapping[str, Any], Mapping[str, Any]]:
        args = yield
        return {**args, "max_grad_norm": 0.5}


registry = Registry()
registry.register(Policy(), name="policy")
assert_type([adapter.presets["16gb"] for adapter in registry.values()], list[Preset])

Component()  # type: ignore[call-arg]
ModelType("lumina", "Lumina")  # type: ignore[call-arg]
Preset("16gb")  # type: ignore[call-arg, arg-type]
