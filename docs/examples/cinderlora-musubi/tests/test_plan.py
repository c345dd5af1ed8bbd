"""From a job to three stages, their command lines and files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import toml
from cinderlora_musubi.tuner import MusubiTuner

from cinderlora import Config, TrainerNotFound
from cinderlora.cli.request import Options, find_trainer


def codes(problems) -> set[str]:
    return {problem.code for problem in problems}


def test_a_plan_has_three_stages_in_this_order(zimage, make_job, tuner, models):
    plan = zimage.plan(make_job(preset="16gb"), tuner)
    assert [stage.name for stage in plan.stages] == ["caching_latents", "caching_text_encoders", "training"]
    latents, captions, training = (stage.argv for stage in plan.stages)
    source = tuner.path / "src/musubi_tuner"
    script = str(source / "zimage_cache_latents.py")
    assert latents[1:] == (script, "--dataset_config", "elena_dataset.toml", "--vae", str(models["vae"]))
    assert captions[1] == str(source / "zimage_cache_text_encoder_outputs.py")
    assert captions[2:] == (
        "--dataset_config", "elena_dataset.toml", "--text_encoder", str(models["qwen3"]), "--fp8_llm",
    )  # fmt: skip
    assert training[1:] == (str(source / "zimage_train_network.py"), "--config_file", "elena_musubi_training.toml")
    assert all(stage.env["PYTHONPATH"] == str(tuner.path / "src") for stage in plan.stages)
    assert plan.argv == training and plan.stages[-1].launcher is not None


def test_the_training_file_has_musubi_tuners_names(zimage, make_job, tuner, models):
    job = make_job(preset="16gb", optimizer="Prodigy", blocks_to_swap=40, extra={"sigmoid_scale": 1.5})
    training = tomllib.loads(zimage.plan(job, tuner).files["elena_musubi_training.toml"])["training"]
    assert training["dit"] == str(models["model"])
    assert training["optimizer_type"] == "prodigyopt.Prodigy" and training["learning_rate"] == 1.0
    assert training["network_dim"] == 16 and training["network_alpha"] == 8
    assert training["fp8_base"] and training["fp8_scaled"] and training["fp8_llm"]
    assert training["timestep_sampling"] == "shift" and training["sigmoid_scale"] == 1.5
    assert not {"cache_latents", "network_train_unet_only"} & set(training)


def test_caches_stay_in_the_run_folder(zimage, make_job, tuner, pictures):
    (pictures.parent / "two").mkdir(exist_ok=True)
    plan = zimage.plan(make_job(trigger="ren'ai"), tuner)
    data = toml.loads(plan.files["elena_dataset.toml"])
    (folder,) = data["datasets"]
    assert folder["cache_directory"] == "cache/1" and folder["num_repeats"] == 2
    assert all(link.target.startswith(folder["image_directory"] + "/") for link in plan.links)
    assert data["general"]["resolution"] == [64, 64] and data["general"]["caption_extension"] == ".txt"


def test_a_prompt_has_its_options(zimage, make_job, tuner):
    plan = zimage.plan(make_job(sample_prompt="{trigger} smiles --w 128", sample_scale=4.0), tuner)
    assert plan.files["elena_sample_prompts.txt"] == "elena smiles --w 128 --h 64 --s 2 --l 4 --d 42\n"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"extra": {"no_such_thing": 1}}, "argument_unknown"),
        ({"extra": {"fp8_scaled": True}}, "musubi_fp8"),
        ({"extra": {"timestep_sampling": "flux"}}, "argument_choice"),
        ({"extra": {"num_workers": "two"}}, "argument_type"),
        ({"extra": {"wandb_api_key": "x"}}, "secret_in_settings"),
        ({"train_text_encoder": True}, "musubi_text_encoder"),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, "warmup_without_effect"),
        ({"comment": '""x'}, "text_misread"),
    ],
)
def test_what_forbids_the_start(zimage, make_job, tuner, settings, code):
    assert code in codes(zimage.check(make_job(**settings), tuner).errors)


def test_what_only_a_caching_script_takes_goes_there_alone(zimage, make_job, tuner):
    job = make_job(extra={"num_workers": 2, "skip_existing": True})
    plan = zimage.plan(job, tuner)
    assert all("--num_workers" in stage.argv and "--skip_existing" in stage.argv for stage in plan.stages[:2])
    assert "num_workers" not in plan.files["elena_musubi_training.toml"]


def test_what_has_no_effect_is_a_warning(zimage, make_job, tuner):
    report = zimage.check(make_job(shuffle_caption=True, bucket_step=64), tuner)
    assert {"musubi_no_effect", "musubi_bucket_step"} <= codes(report.warnings)


def test_the_numbers_are_counted_as_musubi_tuner_counts(zimage, make_job, tuner):
    report = zimage.check(make_job(steps=12), tuner)
    assert (report.images, report.steps_per_epoch, report.epochs) == (4, 8, 2)
    assert (report.checkpoints, report.samples) == (6, 6)
    latents = 16 * 8 * 8 * 4
    assert report.disk.caches == 4 * (latents + 512 * 2560 * 2) and report.vram is None


def test_a_checkout_that_is_not_there_says_what_to_do(zimage, make_job, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CINDERLORA_MUSUBI_TUNER", raising=False)
    with pytest.raises(TrainerNotFound, match="CINDERLORA_MUSUBI_TUNER"):
        zimage.find_trainer(tmp_path / "nowhere")
    (problem,) = [p for p in zimage.check(make_job(), MusubiTuner(tmp_path)).errors if p.code == "checkout_not_found"]
    assert problem.params["trainer"] == "musubi-tuner" and "musubi-tuner" in problem.text("de").message


def test_it_is_found_by_its_variable_and_by_the_command_line(zimage, tuner, monkeypatch):
    monkeypatch.setenv("CINDERLORA_MUSUBI_TUNER", str(tuner.path))
    monkeypatch.setenv("CINDERLORA_MUSUBI_TUNER_PYTHON", "/usr/bin/some-python")
    assert zimage.find_trainer() == MusubiTuner(tuner.path, python="/usr/bin/some-python")
    found = find_trainer(Options(), Config(sd_scripts=Path("elsewhere")), zimage)
    assert found == zimage.find_trainer()
    given = find_trainer(Options(checkout=tuner.path, python=Path("py")), Config(), zimage)
    assert given == MusubiTuner(tuner.path, python="py")
    assert find_trainer(Options(rehearsal=True), Config(), zimage).is_rehearsal
