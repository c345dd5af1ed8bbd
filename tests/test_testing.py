"""The checks for authors of adapters: good adapters pass them, and each fault is found by the check that is for it."""

from __future__ import annotations

import pytest

import cinderlora_flux
import cinderlora_sd3
import cinderlora_sdxl
from cinderlora import Component, ModelFile, ModelType, PluginError, Preset, hookimpl
from cinderlora.testing import adapter_checks

OWN = [cinderlora_flux, cinderlora_sdxl, cinderlora_sd3]


@pytest.mark.parametrize(
    ("plugin", "check"), [(p, c) for p in OWN for c in adapter_checks(p)], ids=lambda x: getattr(x, "__name__", str(x))
)
def test_our_own_adapters(plugin, check):
    check()


class Lumina:
    """The smallest adapter there is: hooks that say nothing yet."""

    @hookimpl
    def model_type(self):
        return ModelType(
            name="lumina",
            title="Lumina Image 2",
            min_vram_gb=12,
            script="lumina_train_network.py",
            network_module="networks.lora_lumina",
            components=[Component("model"), Component("gemma2"), Component("ae")],
        )

    @hookimpl
    def scan_models(self, files): ...

    @hookimpl
    def presets(self, model_type): ...

    @hookimpl
    def build_args(self, job): ...


@pytest.mark.parametrize("check", adapter_checks(Lumina()), ids=str)
def test_a_new_adapter(check):
    check()


class Misspelt(Lumina):
    @hookimpl
    def build_argz(self, job): ...


class NoModel(Lumina):
    @hookimpl
    def model_type(self):
        return ModelType(name="x", title="X", script="x.py", network_module="x", components=[Component("ae")])


class BadPreset(Lumina):
    @hookimpl
    def presets(self, model_type):
        yield Preset(name="x", base="nothing")


class WildPreset(Lumina):
    @hookimpl
    def presets(self, model_type):
        yield Preset(name="x", network_dim=-4)


class TakesEverything(Lumina):
    @hookimpl
    def scan_models(self, files):
        return [ModelFile(path=header.path, role="model") for header in files]


class WrongArguments(Lumina):
    @hookimpl
    def model_type(self):
        return ModelType(
            name="x", title="X", script="flux_train_network.py", network_module="x", components=[Component("model")]
        )

    @hookimpl
    def build_args(self, job):
        return {"guidance_skale": 1.0}


class Shy(Lumina):
    @hookimpl
    def parse_progress(self, line, phase):
        return line.index("steps")


@pytest.mark.parametrize(
    ("plugin", "check"),
    [
        (Misspelt(), "its hooks are spelt and called right"),
        (NoModel(), "its model type is complete"),
        (BadPreset(), "its presets are valid"),
        (WildPreset(), "its presets are valid"),
        (TakesEverything(), "its scan survives anything"),
        (WrongArguments(), "its arguments are the script's"),
        (Shy(), "its parser never raises"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Lumina) else "",
)
def test_a_fault_is_found(plugin, check):
    (found,) = [c for c in adapter_checks(plugin) if str(c) == check]
    with pytest.raises((AssertionError, PluginError, ValueError)) as caught:
        found()
    assert str(caught.value)
