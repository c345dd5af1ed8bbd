"""For authors of adapters: checks that a plugin keeps its side of the contract, to be run by pytest.

import cinderlora_lumina
import pytest
from cinderlora.testing import adapter_checks

@pytest.mark.parametrize("check", adapter_checks(cinderlora_lumina), ids=str)
def test_adapter(check):
    check()
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from cinderlora.adapter import Adapter
from cinderlora.problems import Problem
from cinderlora.registry import Registry
from cinderlora.sd_scripts import SdScripts
from cinderlora.sd_scripts.arguments import argument_problems, known_arguments
from cinderlora.serial import toml_text
from cinderlora.types import Job, ModelFile

__all__ = ["Check", "adapter_checks", "draw_pictures"]

_LINES = (
    "",
    "steps:  50%|█████     | 4/8 [00:00<00:00,  7.92it/s, avr_loss=0.807]",
    " 17%|█▋        | 1/6 [00:00<00:02,  1.84it/s]",
    "saving checkpoint: /x/cg_elena.safetensors",
    "Traceback (most recent call last):",
    "\ufffd\ufffd 100% | [ ] / \\ {} \x1b[A",
    "x" * 5000,
)


@frozen
class Check:
    """One thing that an adapter has to do right. Call it; it raises `AssertionError` that says what to change."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def adapter_checks(plugin: object) -> list[Check]:
    """The checks for a plugin that has `model_type`: a module, or an object with hook implementations.

    The one that trains needs `cinderlora[rehearsal]`.
    """
    checks = _Checks(plugin)
    return [
        Check("its hooks are spelt and called right", checks.registers),
        Check("its model type is complete", checks.model_type),
        Check("its presets are valid", checks.presets),
        Check("its scan survives anything", checks.scan_models),
        Check("its arguments are the script's", checks.build_args),
        Check("its parser never raises", checks.parse_progress),
        Check("its plans are comparable and inert", checks.plan),
        Check("a rehearsal runs from pictures to a LoRA", checks.rehearsal),
    ]


def draw_pictures(folder: Path, trigger: str = "elena", count: int = 4) -> Path:
    """Draw a small data set: `count` pictures of 64 x 64 px with captions. Needs `cinderlora[pictures]`."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for i, colour in enumerate(["red", "green", "blue", "yellow", "purple", "orange"] * (count // 6 + 1)):
        if i == count:
            break
        picture = Image.new("RGB", (64, 64), (235, 235, 230 - 10 * i))
        ImageDraw.Draw(picture).ellipse([10 + 2 * i, 12, 40 + 2 * i, 50], fill=colour)
        picture.save(folder / f"{trigger}_{i:02d}.png")
        (folder / f"{trigger}_{i:02d}.txt").write_text(f"{trigger}, a {colour} ball", encoding="utf-8")
    return folder


class _Checks:
    def __init__(self, plugin: object) -> None:
        self._plugin = plugin

    def _adapter(self) -> Adapter:
        registry = Registry()
        registry.register(self._plugin, name="plugin")
        names = list(registry)
        assert names, "the plugin has no model_type: add that hook, or use it as a cross-cutting plugin"
        return registry[names[0]]

    def _job(self, folder: Path, preset: str | None = None) -> Job:
        return self._adapter().job(
            name="elena",
            trigger="elena",
            dataset=draw_pictures(folder / "elena"),
            output=folder / "out",
            preset=preset,
            resolution=64,
            steps=4,
            save_every=2,
            sample_every=2,
        )

    def registers(self) -> None:
        self._adapter()

    def model_type(self) -> None:
        kind = self._adapter().type
        assert kind.name.isidentifier() and kind.name == kind.name.lower(), (
            f"the model type's name {kind.name!r} should be a lower-case identifier, as programs write it"
        )
        assert kind.title, "give the model type a title for people"
        assert kind.script.endswith(".py"), f"script {kind.script!r} should be a Python script of the trainer"
        assert kind.network_module, "name the trainer's network module"
        roles = [c.role for c in kind.components]
        assert "model" in roles, "among the components there must be the model itself: Component('model')"
        assert len(set(roles)) == len(roles), f"a role comes twice: {roles}"
        keys = [c.key for c in kind.components]
        assert len(set(keys)) == len(keys), f"two components have one key: {keys}"

    def presets(self) -> None:
        adapter = self._adapter()
        presets = adapter.presets
        broken = adapter._registry.broken
        assert not broken, "; ".join(map(str, broken.values()))
        with tempfile.TemporaryDirectory() as folder:
            for preset in presets.values():
                job = self._job(Path(folder), preset.name)
                problems = [p for p in _errors(adapter, job) if p.code.startswith("setting_")]
                assert not problems, f"preset {preset.name}: {'; '.join(map(str, problems))}"

    def scan_models(self) -> None:
        adapter = self._adapter()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "empty.safetensors").write_bytes(b"")
            (folder / "short.safetensors").write_bytes(b"\xff" * 8)
            (folder / "nothing.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
            (folder / "text.safetensors").write_text("a web page, as failed downloads leave it")
            for file in adapter.scan_models(folder).files:
                assert isinstance(file, ModelFile), f"scan_models gave {file!r}, not a ModelFile"
                assert not file.usable, f"scan_models took {file.path.name} for a model"

    def build_args(self) -> None:
        adapter = self._adapter()
        script = adapter.type.script
        known = known_arguments(script)
        with tempfile.TemporaryDirectory() as folder:
            for preset in (None, *adapter.presets):
                args = adapter.build_args(self._job(Path(folder), preset))
                assert tomllib.loads(toml_text(args)) == dict(args), f"not all of these can be written as TOML: {args}"
                problems = list(argument_problems(script, args)) if known else []
                assert not problems, f"build_args for preset {preset}: {'; '.join(map(str, problems))}"

    def parse_progress(self) -> None:
        adapter = self._adapter()
        own = [i for i in adapter._registry.implementations("parse_progress", "plugin") if i.plugin == "plugin"]
        for implementation in own:
            for line in _LINES:
                for phase in (None, "loading", "training", "sampling"):
                    events = implementation.call(line=line, phase=phase)
                    assert events is None or isinstance(events, (list, tuple)), (
                        f"parse_progress gave {events!r} for {line[:60]!r}; return a list of events, or None"
                    )

    def plan(self) -> None:
        adapter, trainer = self._adapter(), SdScripts.rehearsal()
        with tempfile.TemporaryDirectory() as name:
            job = self._job(Path(name))
            before = sorted(Path(name).rglob("*"))
            assert adapter.plan(job, trainer) == adapter.plan(job, trainer), "two plans of one job differ"
            assert sorted(Path(name).rglob("*")) == before, "making a plan wrote files"

    def rehearsal(self) -> None:
        from cinderlora.sync import launch

        adapter, trainer = self._adapter(), SdScripts.rehearsal()
        with tempfile.TemporaryDirectory() as name:
            job = self._job(Path(name))
            adapter.check(job, trainer).raise_for_errors()
            with launch(adapter.plan(job, trainer), runs=Path(name) / "runs", registry=adapter._registry) as run:
                for _ in run:
                    pass
            assert run.result.lora.exists(), "the rehearsal left no LoRA"


def _errors(adapter: Adapter, job: Job) -> tuple[Problem, ...]:
    return adapter.check(job, SdScripts.rehearsal()).errors
