"""Plugins: loaded one by one, refused by name, asked for their own model type only."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest

import cinderlora
from cinderlora import Component, Diagnosis, ModelType, Preset, Registry, hookimpl, hookspecs
from cinderlora.errors import PluginError, UnknownName
from cinderlora.models import Tensor
from cinderlora.models.hollow import write_hollow


def a_type(name: str) -> ModelType:
    return ModelType(
        name=name,
        title=name.title(),
        script=f"{name}_train_network.py",
        network_module=f"networks.lora_{name}",
        components=[Component("model")],
    )


class Adapter:
    """A small adapter, for tests of what the registry does with it."""

    def __init__(self, name: str) -> None:
        self.kind = a_type(name)

    @hookimpl
    def model_type(self) -> ModelType:
        return self.kind

    @hookimpl
    def presets(self, model_type: ModelType):
        yield Preset(name="small", vram_gb=8, steps=100, network_dim=4, title=f"{self.kind.name}'s own")

    @hookimpl
    def build_args(self, job):
        return {"from": self.kind.name}


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(Adapter("lumina"), name="lumina")
    registry.register(Adapter("chroma"), name="chroma")
    return registry


def a_job(registry: Registry, name: str, tmp_path: Path, **settings):
    return registry[name].job(name="elena", trigger="elena", dataset=tmp_path, output=tmp_path, **settings)


def test_the_three_model_types_are_installed():
    registry = Registry.from_installed()
    assert {"flux", "sdxl", "sd3"} <= set(registry) and not registry.broken
    assert registry["flux"].type.min_vram_gb == 16
    assert registry["flux"].provider.startswith("cinderlora ")


def test_each_model_type_is_answered_by_its_own_adapter(registry, tmp_path):
    assert registry["lumina"].presets["small"].title == "lumina's own"
    assert registry["chroma"].build_args(a_job(registry, "chroma", tmp_path)) == {"from": "chroma"}
    assert registry["lumina"].build_args(a_job(registry, "lumina", tmp_path)) == {"from": "lumina"}


def test_an_adapter_registered_later_does_not_answer_for_an_earlier_type(registry, tmp_path):
    job = a_job(registry, "lumina", tmp_path)
    assert registry["lumina"].build_args(job) == {"from": "lumina"}
    registry.register(Adapter("anima"), name="anima")
    assert registry["lumina"].build_args(job) == {"from": "lumina"}
    assert list(registry) == ["lumina", "chroma", "anima"]


def test_a_cross_cutting_plugin_is_asked_for_every_type_and_may_wrap(registry, tmp_path):
    class Policy:
        @hookimpl(wrapper=True)
        def build_args(self, job):
            args = yield
            return {**args, "max_grad_norm": 0.5}

        @hookimpl
        def presets(self, model_type):
            if model_type.name == "chroma":
                yield Preset(name="house", base="small", steps=200)

    registry.register(Policy(), name="policy")
    assert registry["lumina"].build_args(a_job(registry, "lumina", tmp_path)) == {
        "from": "lumina",
        "max_grad_norm": 0.5,
    }
    assert list(registry["lumina"].presets) == ["small"]
    house = registry["chroma"].presets["house"]
    assert (house.steps, house.network_dim, house.vram_gb, house.base, house.model_type) == (200, 4, 8, None, "chroma")


def test_a_plugin_can_be_removed(registry):
    registry.unregister("chroma")
    assert list(registry) == ["lumina"]
    with pytest.raises(UnknownName):
        registry["chroma"]
    with pytest.raises(PluginError):
        registry.unregister("chroma")


def test_a_taken_name_names_both_providers(registry):
    with pytest.raises(PluginError) as caught:
        registry.register(Adapter("other"), name="lumina")
    assert caught.value.code == "plugin_duplicate" and "lumina" in str(caught.value)
    with pytest.raises(PluginError) as caught:
        registry.register(Adapter("lumina"), name="lumina2")
    assert caught.value.code == "model_type_duplicate"
    assert "lumina2" in str(caught.value)
    assert list(registry) == ["lumina", "chroma"]


class Misspelt:
    @hookimpl
    def build_arg(self, job):
        return {}


class WrongArguments:
    @hookimpl
    def build_args(self, jobs):
        return {}


class Wrapping:
    @hookimpl(wrapper=True)
    def presets(self, model_type):
        return (yield)


class NoType:
    @hookimpl
    def model_type(self):
        return "lumina"


class MemoryAsText:
    @hookimpl
    def model_type(self):
        return attrs.evolve(a_type("anima"), min_vram_gb="10")


class RoleAsComponent:
    @hookimpl
    def model_type(self):
        return attrs.evolve(a_type("anima"), components=["model"])


@attrs.frozen
class Unhashable:
    values: list[int] = attrs.field(factory=list)

    @hookimpl
    def build_args(self, job):
        return {}


BAD = [Misspelt(), WrongArguments(), Wrapping(), NoType(), MemoryAsText(), RoleAsComponent()]


@pytest.mark.parametrize("plugin", BAD, ids=lambda p: type(p).__name__)
def test_an_invalid_plugin_is_refused_whole(registry, plugin, tmp_path):
    with pytest.raises(PluginError) as caught:
        registry.register(plugin, name="bad")
    assert "bad" in str(caught.value)
    assert registry.plugins == ("lumina", "chroma")
    assert registry["lumina"].build_args(a_job(registry, "lumina", tmp_path)) == {"from": "lumina"}
    registry.register(Adapter("bad"), name="bad")
    assert "bad" in registry


def test_an_outdated_argument_of_a_hook_is_warned_of_where_it_is_written(monkeypatch):
    """What docs/stability.md promises; nothing is outdated yet."""
    outdated = {"job": DeprecationWarning("take `request`: `job` goes with 2.0")}
    monkeypatch.setitem(hookspecs.build_args.cinderlora_spec, "warn_on_impl_args", outdated)
    registry = Registry()
    with pytest.warns(DeprecationWarning, match="take `request`") as warned:
        registry.register(Adapter("lumina"), name="lumina")
    assert warned[0].filename == __file__ and warned[0].lineno == Adapter.build_args.__code__.co_firstlineno
    assert "lumina" in registry  # it works on


def test_one_object_cannot_be_two_plugins(registry):
    plugin = Adapter("anima")
    registry.register(plugin, name="anima")
    with pytest.raises(PluginError):
        registry.register(plugin, name="anima2")
    assert "anima" in registry


def test_an_unknown_type_names_the_nearest(registry):
    with pytest.raises(UnknownName) as caught:
        registry["lumnia"]
    assert caught.value.params["nearest"] == "lumina" and "lumina" in str(caught.value)
    assert registry.get("lumnia") is None and "lumnia" not in registry


def test_a_failing_preset_pack_is_left_out_and_named(registry):
    class Pack:
        @hookimpl
        def presets(self, model_type):
            yield Preset(name="good", base="small")
            raise RuntimeError("the licence server is down")

    registry.register(Pack(), name="pack")
    assert set(registry["lumina"].presets) == {"small", "good"}
    assert "licence server" in str(registry.broken["pack"])


@pytest.mark.parametrize(
    ("preset", "code"),
    [
        (Preset(name="small"), "preset_duplicate"),
        (Preset(name="x", base="nothing"), "preset_base_unknown"),
        (Preset(name="x", base="x"), "preset_base_cycle"),
    ],
    ids=["duplicate", "unknown base", "cycle"],
)
def test_a_bad_preset_is_left_out_and_its_plugin_named(registry, preset, code):
    class Pack:
        @hookimpl
        def presets(self, model_type):
            yield preset

    registry.register(Pack(), name="pack")
    assert set(registry["lumina"].presets) == {"small"}
    assert registry["lumina"].presets["small"].title == "lumina's own"
    error = registry.broken["pack"].error
    assert isinstance(error, PluginError) and error.code == code


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vram_gb": "16"}, "The setting vram_gb is '16'; it takes a value of type float"),
        ({"title": 16}, "title is 16; it takes a value of type str"),
        ({"base": 16}, "base is 16; it takes a value of type str"),
    ],
    ids=["memory", "title", "base"],
)
def test_a_preset_of_the_wrong_type_takes_nobody_down(registry, values, said):
    class Pack:
        @hookimpl
        def presets(self, model_type):
            yield Preset(name="x", **values)

    registry.register(Pack(), name="pack")
    assert set(registry["lumina"].presets) == {"small"}
    assert said in str(registry.broken["pack"])


def test_a_scan_that_gives_no_model_files_takes_nobody_down(registry, tmp_path):
    class Pack:
        @hookimpl
        def scan_models(self, files):
            return files

    registry.register(Pack(), name="pack")
    write_hollow(tmp_path / "a.safetensors", {"weight": Tensor("F16", (4, 4))})
    assert [file.path.name for file in registry["lumina"].scan_models(tmp_path).files] == ["a.safetensors"]
    assert "scan_models() gave Header(" in str(registry.broken["pack"])


def test_a_text_where_several_are_wanted_is_refused():
    with pytest.raises(TypeError, match=r"'lora_up' is one text.*\['lora_up'\]"):
        attrs.evolve(a_type("anima"), zero_at_start="lora_up")
    with pytest.raises(TypeError, match="one text"):
        Diagnosis("x", evidence="the line")


def test_a_failing_diagnosis_hides_no_other(registry):
    class Broken:
        @hookimpl
        def diagnose(self, failure):
            raise RuntimeError("boom")

    class Studio:
        @hookimpl
        def diagnose(self, failure):
            if any("licence" in line for line in failure.lines):
                return Diagnosis(code="studio_licence", cause="No licence.", fix="Ask Kim.")
            return None

    registry.register(Studio(), name="studio")
    registry.register(Broken(), name="broken")
    found = registry["lumina"].diagnose([b"Traceback\nRuntimeError: no licence\n"], 1)
    assert found is not None and found.code == "studio_licence"
    assert "boom" in str(registry.broken["broken"])


# ---- what is installed -----------------------------------------------------------------------------------------------


def install(folder: Path, name: str, module: str, *entries: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(module))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cinderlora]\n" + "\n".join(entries) + "\n")


def in_new_python(code: str, folder: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ADAPTER = """
    from cinderlora import Component, ModelType, hookimpl
    @hookimpl
    def model_type():
        return ModelType(name="lumina", title="Lumina", script="lumina_train_network.py",
                         network_module="networks.lora_lumina", components=[Component("model")])
"""


def test_broken_packages_harm_no_other(tmp_path):
    install(tmp_path, "good_pack", ADAPTER, "lumina = good_pack")
    install(tmp_path, "raising", "raise RuntimeError('boom')", "raising = raising")
    install(tmp_path, "leaving", "raise SystemExit(3)", "leaving = leaving")
    install(tmp_path, "typo", "", "typo = tpyo:plugin")
    install(tmp_path, "taking", ADAPTER, "lumina2 = taking")
    install(tmp_path, "same_name", "x = 1", "flux = same_name")
    code = """
        import cinderlora
        registry = cinderlora.Registry.from_installed()
        print(sorted(registry))
        for name, broken in sorted(registry.broken.items()):
            print(name, "|", broken)
        try:
            registry["raising"]
        except cinderlora.UnknownName as error:
            print(error)
    """
    lines = in_new_python(code, tmp_path).splitlines()
    assert lines[0] == "['flux', 'lumina', 'sd3', 'sdxl']"
    assert [line.partition(" |")[0] for line in lines[1:-1]] == [
        "flux (same_name 1.0)",
        "leaving",
        "lumina2",
        "raising",
        "typo",
    ]
    assert "raising 1.0: RuntimeError: boom" in lines[-1]


def test_plugins_are_disabled_by_name(tmp_path):
    install(tmp_path, "good_pack", ADAPTER, "lumina = good_pack")
    code = "import cinderlora; print(sorted(cinderlora.Registry.from_installed()))"
    assert in_new_python(code, tmp_path, CINDERLORA_DISABLE="lumina, sd3") == "['flux', 'sdxl']"
    code = "import cinderlora; print(sorted(cinderlora.Registry.from_installed(disable=['flux'])))"
    assert in_new_python(code, tmp_path) == "['lumina', 'sd3', 'sdxl']"


def test_importing_loads_no_plugin_and_nothing_heavy(tmp_path):
    code = """
        import sys, cinderlora
        cinderlora.Registry
        loaded = {m.partition(".")[0] for m in sys.modules}
        print(sorted(loaded & {"cinderlora_flux", "torch", "numpy", "PIL", "click", "rich", "cattrs", "trio"}))
    """
    assert in_new_python(code, tmp_path) == "[]"


def test_every_public_name_is_there_and_listed():
    assert set(cinderlora.__all__) <= set(dir(cinderlora))
    for name in cinderlora.__all__:
        assert getattr(cinderlora, name) is not None
    with pytest.raises(AttributeError):
        cinderlora.no_such_name  # noqa: B018
