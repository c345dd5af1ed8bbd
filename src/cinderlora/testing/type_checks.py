"""Whether the model type says all that is needed, and the presets are what people can build on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from cinderlora.adapter import Adapter
from cinderlora.checks import job_problems, plan_problems
from cinderlora.cost.data import Estimate
from cinderlora.errors import CinderloraError
from cinderlora.names import nearest
from cinderlora.problems import Problem
from cinderlora.testing.checking import Subject, calling, fail, skip
from cinderlora.trainers import Trainer
from cinderlora.types import ModelFile, Preset, Settings

__all__ = [
    "its_trainer_is_complete",
    "the_model_type_is_complete",
    "the_presets_are_valid",
    "the_presets_fit_their_memory",
    "the_presets_inherit_well",
]


def the_model_type_is_complete(subject: Subject) -> None:
    adapter = subject.adapter()
    kind = adapter.type
    if subject.adapter().type != kind:
        fail("model_type() gives another ModelType each time: make it depend on nothing.")
    if not (kind.name.isidentifier() and kind.name == kind.name.lower()):
        fail(f"The model type's name {kind.name!r} should be a lower-case identifier, as programs write it.")
    if not kind.title.strip() or not kind.title.isprintable():
        fail(f"The title {kind.title!r} is what people read: one line of text.")
    if not kind.script.endswith(".py"):
        fail(f"The script {kind.script!r} should be a Python script of the trainer, e.g. 'flux_train_network.py'.")
    if not kind.network_module:
        fail("Name the trainer's network_module, e.g. 'networks.lora_flux'.")
    if kind.min_vram_gb is not None and not 0 < kind.min_vram_gb < 1000:
        fail(f"min_vram_gb is {kind.min_vram_gb!r}: GB of GPU memory, or None where nothing is known.")
    if not kind.zero_at_start or not all(kind.zero_at_start):
        fail("zero_at_start names the tensors that tell a trained LoRA from an untrained one, e.g. ('lora_up',).")
    _components(kind.components)
    adapter.trainer_type  # noqa: B018 — raises where no plugin brings one
    _known_to_the_script(subject, adapter)


def _components(components: Iterable[Any]) -> None:
    roles = [component.role for component in components]
    keys = [component.key for component in components]
    if "model" not in roles:
        fail("Among the components there must be the model itself: Component('model').")
    for what, given in (("role", roles), ("key", keys)):
        twice = sorted({value for value in given if given.count(value) > 1})
        if twice:
            fail(f"Two components have the {what} {', '.join(twice)}: give each its own.")


def _known_to_the_script(subject: Subject, adapter: Adapter) -> None:
    kind, known = adapter.type, subject.known_arguments(adapter)
    for component in kind.components if known is not None and known.complete else ():
        if known is not None and component.key not in known:
            near = nearest(component.key, known)
            fail(
                f"{kind.script} has no argument {component.key!r} for the component {component.role!r}. Say which "
                f"takes it: Component({component.role!r}, key={near or '...'!r})."
            )
    checkout = subject.checkout
    if checkout is None:
        return
    if not (checkout / kind.script).is_file():
        fail(f"There is no script {kind.script} in {checkout}: correct `script`.")
    module = Path(*kind.network_module.split("."))
    own = checkout / module.parts[0]
    if own.is_dir() and not (checkout / module).with_suffix(".py").is_file() and not (checkout / module).is_dir():
        fail(f"There is no module {kind.network_module} in {checkout}: correct `network_module`.")


def its_trainer_is_complete(subject: Subject) -> None:
    adapter = subject.adapters()[0]
    for implementation in subject.implementations(adapter, "trainer"):
        with calling("trainer"):
            found: Any = implementation.call()
        lacking = [name for name in ("kind", "find", "rehearsal") if not hasattr(found, name)]
        if lacking or not callable(found) or not isinstance(found.kind, str):
            needed = ", ".join(lacking) or "a kind that is a text"
            fail(
                f"trainer() gave {found!r}: return a class with {needed}, such as one that derives from "
                "cinderlora.checkouts.Checkout. docs/trainers.md has one."
            )
        for name in ("problems", "plan"):
            if getattr(found, name, None) in {None, getattr(Trainer, name)}:
                fail(f"{found.__name__} has no {name} of its own: write it, docs/trainers.md says how.")
        adapter.registry.trainer(found.kind)
    for broken in adapter.registry.broken.values():
        if broken.name == subject.registered_as(adapter.registry):
            fail(str(broken.error))


# ---- presets ---------------------------------------------------------------------------------------------------------


def the_presets_are_valid(subject: Subject) -> None:
    for adapter in subject.adapters():
        own = _own(subject, adapter)
        if own != _own(subject, adapter):
            fail("presets() gives other presets each time: make it depend on nothing but the model type.")
        presets = adapter.presets
        for broken in adapter.registry.broken.values():
            if broken.name == subject.registered_as(adapter.registry):
                fail(str(broken.error))
        for preset in own:
            _valid(subject, adapter, presets[preset.name])
    if subject.is_adapter:
        _for_its_own_type(subject, subject.adapter())


def _own(subject: Subject, adapter: Adapter) -> list[Preset]:
    """The presets that the plugin itself gives, as it wrote them."""
    found: list[Preset] = []
    for implementation in subject.implementations(adapter, "presets"):
        with calling("presets"):
            found += implementation.call(model_type=adapter.type) or ()
    for preset in found:
        if not isinstance(preset, Preset):
            fail(f"presets() gave {preset!r}: yield cinderlora.Preset(...).")
    return found


def _resolved(subject: Subject, adapter: Adapter) -> list[tuple[Preset, Preset]]:
    """The plugin's own presets, as it wrote them and with their bases applied."""
    try:
        return [(preset, adapter.presets[preset.name]) for preset in _own(subject, adapter)]
    except (AssertionError, CinderloraError):
        skip("the presets cannot be had: see 'the presets are valid'")


def _valid(subject: Subject, adapter: Adapter, preset: Preset) -> None:
    if preset.vram_gb is None:
        fail(
            f"Preset {preset.name!r} has no vram_gb, nor has its base: say for how many GB it is meant, since "
            'preset="auto" chooses by it.'
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = {key: value for key, value in preset.items() if key != "extra"}
        job = subject.job(adapter, folder, preset.name, **own)
        found: Iterable[Problem] = job_problems(job, adapter.type)
        if subject.rehearsal:
            found = plan_problems(adapter, job, adapter.rehearsal())
        wrong = [p for p in found if p.severity == "error" and p.code != "extra_missing"]
        if wrong:
            fail(f"Preset {preset.name!r}: {' '.join(map(str, wrong))}")
        file = folder / "preset.toml"
        preset.save(file)
        if Preset.load(file) != preset:
            fail(f"Preset {preset.name!r} is not the same when it was saved as TOML and loaded again.")


def _for_its_own_type(subject: Subject, adapter: Adapter) -> None:
    other = attrs.evolve(adapter.type, name="another_type", title="Another type")
    for implementation in subject.implementations(adapter, "presets"):
        with calling("presets", "another model type"):
            given = [preset.name for preset in implementation.call(model_type=other) or ()]
        if given:
            fail(
                f"presets() gives {', '.join(given)} for every model type. Ask first: "
                f"if model_type.name == {adapter.name!r}"
            )


# What follows from other settings. Where a preset writes the same, a job that changes the other one gets it wrong.
_FOLLOWING = {
    "network_alpha": "network_dim",
    "learning_rate": "optimizer",
    "optimizer_args": "optimizer",
    "lr_scheduler": "optimizer",
}


def the_presets_inherit_well(subject: Subject) -> None:
    seen = 0
    for adapter in subject.adapters():
        trainer = subject.trainer(adapter)
        for preset, resolved in _resolved(subject, adapter):
            seen += 1
            for setting, source in _FOLLOWING.items():
                value = getattr(preset, setting)
                without = _without(resolved, setting)
                if value is not None and getattr(trainer.completed(without), setting) == value:
                    fail(
                        f"Preset {preset.name!r} sets {setting} to {value!r}, which follows from its {source} anyway. "
                        f"Leave it out: who builds on the preset with another {source} would keep this one."
                    )
            if preset.network_module == adapter.type.network_module:
                fail(f"Preset {preset.name!r} repeats the model type's network_module: leave it out.")
    if not seen:
        skip("it gives no presets")


def _without(preset: Preset, setting: str) -> Settings:
    return Settings(**{name: value for name, value in preset.items() if name != setting})


def the_presets_fit_their_memory(subject: Subject) -> None:
    seen = 0
    for adapter in subject.adapters():
        for _, preset in _resolved(subject, adapter):
            takes = _estimate(adapter, preset, eight_bits=True)
            if takes is None or preset.vram_gb is None:
                continue
            seen += 1
            if takes.gb > preset.vram_gb:
                fail(
                    f"Preset {preset.name!r} is for {preset.vram_gb:g} GB and takes {_gb(takes)}, most of all for "
                    f"{takes.phase}. Lower resolution, batch_size or network_dim, swap more blocks, or say a larger "
                    "vram_gb; or correct the model type's footprints (docs/cost.md)."
                )
            larger = _estimate(adapter, preset, eight_bits=False)
            if larger is not None and larger.gb > preset.vram_gb and "fp8" not in preset.title.lower():
                fail(
                    f"Preset {preset.name!r} is for {preset.vram_gb:g} GB, takes {_gb(takes)} with a text encoder in "
                    f"FP8, and {_gb(larger)} with one in 16 bits. Say so in its title, e.g. "
                    f"'{preset.vram_gb:g} GB; T5 in FP8'."
                )
    if not seen:
        skip("there are no estimates: ModelType(footprints=...) has what they follow from, see docs/cost.md")


def _gb(takes: Estimate) -> str:
    return f"{takes.gb:.1f} GB"


def _estimate(adapter: Adapter, preset: Preset, *, eight_bits: bool) -> Estimate | None:
    """What a preset takes with text encoders that are left as they are kept, in 8 bits or in 16."""
    footprint = adapter.type.footprint()
    if footprint is None:
        return None
    precision = "fp8_e4m3fn" if eight_bits else "bf16"
    encoders = {
        role: ModelFile(path=role, role=role, precision=precision, precisions={role: precision})
        for role in footprint.as_stored
    }
    return adapter.vram(preset.settings(), encoders)
