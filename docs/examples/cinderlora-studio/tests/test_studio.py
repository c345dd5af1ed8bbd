"""The presets over the adapters' own, and the house's arguments around theirs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import cinderlora_studio
import pytest
from cinderlora_studio import DRAFT, FINAL, LICENCE, STUDIO

from cinderlora import ModelType, Registry, hookimpl
from cinderlora.sync import launch
from cinderlora.testing import adapter_checks, draw_pictures


@pytest.mark.parametrize("check", adapter_checks(cinderlora_studio), ids=str)
def test_plugin(check):
    check()


@pytest.fixture(scope="module")
def registry() -> Registry:
    """All that is installed, ours among them or added."""
    registry = Registry.from_installed()
    if "studio" not in registry.plugins:
        registry.register(cinderlora_studio, name="studio")
    assert not registry.broken
    return registry


def job_of(adapter, folder: Path, **settings):
    pictures = draw_pictures(folder / "elena")
    given = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": folder / "out", "resolution": 64}
    return adapter.job(**{**given, **settings})


@pytest.mark.parametrize("model_type", ["flux", "sdxl", "sd3"])
def test_the_presets_go_over_the_adapters_own(registry, model_type):
    presets = registry[model_type].presets
    assert not registry.broken
    assert presets[DRAFT].network_dim == 8 and presets[FINAL].steps == 2400
    assert presets[DRAFT].vram_gb == presets["16gb"].vram_gb
    assert presets[DRAFT].optimizer == presets["16gb"].optimizer


def test_the_house_stands_in_every_plan_and_the_adapters_arguments_stay(registry, tmp_path):
    flux = registry["flux"]
    job = job_of(flux, tmp_path, preset=DRAFT)
    plan = flux.plan(job, flux.rehearsal())
    training = tomllib.loads(plan.files["elena_kohya_training.toml"])["training"]
    assert (training["metadata_author"], training["metadata_license"]) == (STUDIO, LICENCE)
    assert "draft" in training["metadata_description"] and training["save_last_n_steps"] == 200
    assert training["timestep_sampling"] == "flux_shift"  # the adapter's


def test_a_delivery_keeps_all_its_checkpoints(registry, tmp_path):
    args = registry["sdxl"].build_args(job_of(registry["sdxl"], tmp_path, preset=FINAL))
    assert "save_last_n_steps" not in args and args["metadata_description"] == "elena"


def test_what_a_job_says_itself_goes_over_the_house(registry, tmp_path):
    flux = registry["flux"]
    job = job_of(flux, tmp_path, extra={"metadata_license": "CC-BY-4.0"})
    training = tomllib.loads(flux.plan(job, flux.rehearsal()).files["elena_kohya_training.toml"])["training"]
    assert training["metadata_license"] == "CC-BY-4.0" and training["metadata_author"] == STUDIO


def test_a_type_whose_adapter_has_no_arguments_gets_the_houses(tmp_path):
    class Bare:
        @hookimpl
        def model_type(self):
            script = "flux_train_network.py"
            return ModelType(
                name="bare", title="Bare", script=script, network_module="networks.lora_flux", components=()
            )

    registry = Registry()
    registry.register(Bare(), name="bare")
    registry.register(cinderlora_studio, name="studio")
    assert registry["bare"].build_args(job_of(registry["bare"], tmp_path))["metadata_author"] == STUDIO
    assert DRAFT not in registry["bare"].presets


def test_it_reaches_the_lora(registry, tmp_path):
    flux = registry["flux"]
    job = job_of(flux, tmp_path, preset=DRAFT, steps=6, save_every=2, sample_every=0)
    with launch(flux.plan(job, flux.rehearsal()), runs=tmp_path / "runs", registry=registry) as run:
        for _ in run:
            pass
    with run.result.lora.open("rb") as file:
        metadata = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    assert metadata["modelspec.author"] == STUDIO and metadata["modelspec.license"] == LICENCE
    left = sorted(path.name for path in job.output.glob("*-step*.safetensors"))
    assert left == ["cg_elena-step00000004.safetensors", "cg_elena-step00000006.safetensors"]
