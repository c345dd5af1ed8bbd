"""Configurations of other programs: what is taken, what is kept, what is dropped and said; and the way back of ours."""

from __future__ import annotations

import json
import re
import string
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import cinderlora
from cinderlora import (
    CinderloraError,
    ConfigError,
    Imported,
    JobRefused,
    Registry,
    SdScripts,
    UnknownName,
    hookimpl,
    import_config,
)
from cinderlora.cli.request import Options, make_request
from cinderlora.config import Config
from cinderlora.importing import FORMATS
from cinderlora.importing.command_line import arguments
from cinderlora.sd_scripts.arguments import known_arguments
from cinderlora.serial import read_job, toml_text
from cinderlora.sync import launch
from cinderlora.texts import catalogue

TYPES = ["flux", "sdxl", "sd3"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


@pytest.fixture(scope="module")
def samples() -> Path:
    return Path(__file__).parent / "data/importing"


def taken(imported: Imported) -> dict[str, Any]:
    return {entry.key: (entry.setting, entry.now) for entry in imported.taken}


def dropped(imported: Imported) -> dict[str, str]:
    return {entry.key: entry.why.code for entry in imported.dropped}


def problems(imported: Imported) -> set[str]:
    return {problem.code for problem in imported.problems}


def written(folder: Path, name: str, content: str | dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# ---- kohya_ss ----


def test_a_saved_configuration_of_kohya_ss_becomes_a_job(registry, samples):
    imported = import_config(samples / "kohya_flux.json", registry=registry)
    assert (imported.format, imported.model_type, imported.name) == ("kohya_gui", "flux", "elena")
    assert imported.output == samples / "loras"
    assert imported.models["ae"] == samples / "models/ae.safetensors"
    s = imported.settings
    assert (s.network_dim, s.network_alpha, s.learning_rate, s.optimizer) == (16, 8, 0.0003, "AdamW8bit")
    assert (s.steps, s.resolution, s.batch_size, s.seed) == (1000, 768, 2, 1234)
    assert (s.train_text_encoder, s.cache_text_encoders, s.fp8_base, s.blocks_to_swap) == (False, True, True, 12)
    assert (s.sample_prompt, s.sample_steps, s.sample_every) == ("elena, portrait --w 832 --h 1216", 20, 250)
    assert s.network_args == ("train_blocks=single", "loraplus_lr_ratio=4")
    assert s.lr_warmup_steps == 50  # 5 % of the steps
    assert s.extra["timestep_sampling"] == "sigmoid" and s.extra["discrete_flow_shift"] == 3.1582
    assert "guidance_scale" not in s.extra and taken(imported)["guidance_scale"] == ("", 1)  # so it is anyway
    assert dropped(imported) == {
        "huggingface_token": "import_secret",
        "xformers": "import_attention",
        "multi_gpu": "import_launcher",
        "a_field_of_next_year": "import_no_counterpart",
    }
    assert problems(imported) == {"import_several_prompts"}
    assert "hf_never" not in json.dumps(cinderlora.to_json(imported))


def test_an_old_preset_with_numbers_as_texts(registry, samples):
    imported = import_config(samples / "kohya_sdxl_old.json", registry=registry)
    assert imported.model_type == "sdxl"
    s = imported.settings
    assert (s.learning_rate, s.gradient_accumulation, s.seed, s.workers) == (0.0001, 1, 1337, 0)
    assert (s.train_text_encoder, s.extra["text_encoder_lr"]) == (True, [5e-05, 5e-05])
    assert s.network_module == "lycoris.kohya"
    assert {"algo=locon", "conv_dim=8", "conv_alpha=4.0", "preset=full"} <= set(s.network_args or ())
    assert s.optimizer_args == ("weight_decay=0.05", "betas=0.9,0.99")
    assert s.extra["max_train_epochs"] == 12 and s.steps is None
    assert s.extra["lr_warmup_steps"] == 0.1
    # 75 tokens are what the script takes without being told; here it would be 225
    assert s.extra["max_token_length"] is False and "extra.max_token_length" in imported.implied
    assert problems(imported) == {"import_epochs"}
    assert imported.models == {} and dropped(imported) == {"pretrained_model_name_or_path": "import_not_a_file"}


def test_epochs_are_steps_where_the_pictures_are(registry, pictures, tmp_path):
    (tmp_path / "img").mkdir()
    pictures.rename(tmp_path / "img/10_elena woman")
    config = {"LoRA_type": "Standard", "sdxl": True, "train_data_dir": "img", "epoch": 3, "max_train_steps": 0}
    config |= {"save_every_n_epochs": 1, "unet_lr": 1e-4, "caption_extension": ".txt", "enable_bucket": True}
    config |= {"max_resolution": "128,128", "train_batch_size": "2", "sample_every_n_epochs": 2}
    imported = import_config(written(tmp_path, "c.json", config), registry=registry)
    assert imported.dataset == tmp_path / "img"
    s = imported.settings
    assert (s.steps, s.save_every, s.sample_every) == (3 * 30, 30, 60)  # 6 pictures, 10 times, 2 at once
    assert problems(imported) == set() and "max_train_epochs" not in s.extra


@pytest.mark.parametrize(
    ("captions", "trigger"),
    [
        (["elena woman, red hat", "a photo of elena woman"], "elena woman"),
        (["elena, red hat", "a photo of Elena"], "elena"),
        (["somebody, red hat", "a photo"], None),
        ([], "elena woman"),  # then the folder's words are the caption
    ],
)
def test_the_folder_of_the_pictures_names_the_trigger_word(registry, pictures, tmp_path, captions, trigger):
    folder = tmp_path / "img/10_elena woman"
    folder.parent.mkdir()
    pictures.rename(folder)
    for caption in folder.glob("*.txt"):
        caption.unlink()
    for picture, text in zip(sorted(folder.glob("*.png")), captions, strict=False):
        picture.with_suffix(".txt").write_text(text, encoding="utf-8")
    table = {"LoRA_type": "Standard", "sdxl": True, "train_data_dir": str(folder.parent), "output_name": "elena_v2"}
    imported = import_config(written(tmp_path, "theirs.json", table), registry=registry)
    assert (imported.name, imported.trigger) == ("elena_v2", trigger)
    of_a_text = import_config("theirs.json", text=json.dumps(table), registry=registry)
    assert of_a_text.trigger is None


@pytest.mark.parametrize("key", ["logging_dir", "log_tracker_config", "network_weights", "vae"])
def test_paths_of_another_computer_are_not_kept_for_the_trainer(registry, tmp_path, key):
    table = {"LoRA_type": "Flux1", "flux1_checkbox": True, key: "\\\\server\\share\\x"}
    imported = import_config(written(tmp_path, "theirs.json", table), registry=registry)
    assert dropped(imported)[key] == "import_path_elsewhere" and not imported.settings.extra.get(key)


def test_no_preset_goes_under_what_was_imported(registry, samples, tmp_path):
    imported = import_config(samples / "kohya_flux.json", registry=registry)
    imported.save_job(tmp_path / "job.toml")
    options = Options(job_file=tmp_path / "job.toml", dataset=tmp_path, rehearsal=True)
    job = make_request(options, Config(), registry).job
    assert (job.preset, job.settings.network_dim) == (None, 16)
    job.save(tmp_path / "whole.toml")
    assert make_request(attrs.evolve(options, job_file=tmp_path / "whole.toml"), Config(), registry).job == job
    (tmp_path / "mine.toml").write_text('type = "flux"\nname = "x"\n', encoding="utf-8")
    assert (
        make_request(attrs.evolve(options, job_file=tmp_path / "mine.toml"), Config(), registry).job.preset is not None
    )


def test_the_script_follows_from_what_is_ticked(registry, tmp_path):
    sd15 = import_config(written(tmp_path, "c.json", {"LoRA_type": "Standard", "unet_lr": 1e-4}), registry=registry)
    assert sd15.model_type is None and problems(sd15) == {"import_script_unknown"}
    config = {"LoRA_type": "Standard", "sd3_checkbox": True, "sd3_clip_l": "a.safetensors", "clip_l": "b.safetensors"}
    config |= {"flux1_cache_text_encoder_outputs": True, "unet_lr": 1e-4, "sd3_cache_text_encoder_outputs": True}
    sd3 = import_config(written(tmp_path, "c.json", config), registry=registry)
    assert sd3.model_type == "sd3" and sd3.models == {"clip_l": tmp_path / "a.safetensors"}
    assert sd3.settings.cache_text_encoders is True and sd3.settings.network_module is None
    dreambooth = import_config(written(tmp_path, "c.json", {"pretrained_model_name_or_path": "x"}), registry=registry)
    assert "import_not_lora" in problems(dreambooth)


@pytest.mark.parametrize("ticked", [{}, {"flux1_checkbox": False, "sdxl": False}], ids=["no boxes", "none ticked"])
def test_where_nothing_is_ticked_the_lora_tells_the_model(registry, tmp_path, ticked):
    config = {"LoRA_type": "Flux1", "ae": "ae.safetensors", "clip_l": "l.safetensors", "unet_lr": 1e-4, **ticked}
    config |= {"timestep_sampling": "sigmoid", "flux1_cache_text_encoder_outputs": True}
    flux = import_config(written(tmp_path, "c.json", config), registry=registry)
    assert flux.model_type == "flux" and set(flux.models) == {"ae", "clip_l"}
    assert flux.settings.extra["timestep_sampling"] == "sigmoid" and flux.settings.cache_text_encoders


def test_a_policy_of_this_machine_holds_for_what_is_imported(pictures, tmp_path):
    class Policy:
        @hookimpl(wrapper=True)
        def build_args(self, job):
            args = yield
            return {**args, "metadata_license": "Studio", "max_grad_norm": 0.5}

    registry = Registry.from_installed()
    registry.register(Policy(), name="policy")
    config = {"LoRA_type": "Standard", "sdxl": True, "unet_lr": 1e-4, "network_dim": 8, "max_train_steps": 10}
    imported = import_config(written(tmp_path, "c.json", config), registry=registry)
    assert not {"metadata_license", "max_grad_norm"} & set(imported.settings.extra)
    own = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": tmp_path}
    plan = registry["sdxl"].plan(registry["sdxl"].job(**own | imported.job_arguments()), SdScripts.rehearsal())
    tables = tomllib.loads(plan.files["elena_kohya_training.toml"])
    written_there = {key: value for table in tables.values() for key, value in table.items()}
    assert (written_there["metadata_license"], written_there["max_grad_norm"]) == ("Studio", 0.5)


def test_what_was_typed_into_the_field_for_more_goes_over_the_rest(registry, tmp_path):
    config = {"LoRA_type": "Standard", "sdxl": True, "unet_lr": 1.0, "text_encoder_lr": 1.0, "network_dim": 8}
    config["additional_parameters"] = (
        "--network_train_unet_only --network_dim 64 --wandb_api_key=s3cr3t --zero_terminal_snr"
    )
    imported = import_config(written(tmp_path, "c.json", config), registry=registry)
    s = imported.settings
    assert (s.train_text_encoder, s.network_dim, s.extra["zero_terminal_snr"]) == (False, 64, True)
    assert dropped(imported)["--wandb_api_key"] == "import_secret"
    assert "s3cr3t" not in str(imported)


def test_an_imported_kohya_ss_configuration_runs_a_rehearsal(registry, pictures, samples, tmp_path):
    """Through the public face, from their file to a LoRA."""
    config = json.loads((samples / "kohya_flux.json").read_text(encoding="utf-8"))
    config |= {"train_data_dir": str(pictures), "output_dir": str(tmp_path / "loras"), "max_train_steps": 6}
    config |= {"max_resolution": "64,64", "sample_every_n_steps": 3, "save_every_n_steps": 0, "optimizer": "AdamW"}
    imported = import_config(written(tmp_path, "theirs.json", config), registry=registry)
    imported.save_job(tmp_path / "job.toml")
    flux = registry["flux"]
    job = flux.job(**{"trigger": "elena", **imported.job_arguments()})
    flux.check(job, SdScripts.rehearsal()).raise_for_errors()
    with launch(flux.plan(job, SdScripts.rehearsal()), runs=tmp_path / "runs", registry=registry) as run:
        for _ in run:
            pass
    assert run.result.lora == tmp_path / "loras/elena.safetensors" and run.result.steps == 6
    again = read_job(tmp_path / "job.toml")
    assert again["settings"] == dict(imported.settings.items()) | {
        "network_args": list(imported.settings.network_args or ()),
        "extra": dict(imported.settings.extra),
    }


# ---- sd-scripts ----


def test_a_training_toml_with_its_data_set_and_prompts(registry, samples):
    imported = import_config(samples / "training.toml", registry=registry)
    assert (imported.format, imported.model_type, imported.name) == ("sd_scripts", "sdxl", "elena")
    assert imported.files == tuple(samples / name for name in ("training.toml", "dataset.toml", "prompts.txt"))
    assert (imported.dataset, imported.trigger) == (samples / "img/elena", "elena woman")
    s = imported.settings
    assert (s.resolution, s.batch_size, s.repeats, s.flip_aug) == (1024, 3, 12, True)
    assert (s.sample_prompt, s.sample_steps, s.sample_scale) == ("elena woman, smiling --n blurry", 24, 7.0)
    # what the file does not say is as the script has it
    assert (s.gradient_checkpointing, s.mixed_precision, s.network_alpha) == (False, "no", 1)
    assert {"gradient_checkpointing", "mixed_precision"} <= set(imported.implied)
    assert s.extra["network_dropout"] == 0.1 and taken(imported)["dropout"] == ("extra.network_dropout", 0.1)
    assert "loraplus_unet_lr_ratio=16.0" in (s.network_args or ())
    assert s.extra["keep_tokens"] == 1 and s.extra["min_snr_gamma"] is False
    assert dropped(imported) == {
        "additional.nested": "import_nested",
        "wandb_api_key": "import_secret",
        "lerning_rate": "argument_unknown",
        "max_data_loader_n_workers": "setting_type",
        "guidance_scale": "argument_of_another_script",
        "image_dir": "import_regularization",
        "resume": "import_resume",
        "save_model_as": "import_safetensors",
    }


def test_what_a_run_depends_on_is_not_taken_over(registry, tmp_path):
    text = 'network_module = "networks.lora"\ndebug_dataset = true\ninitial_step = 5\n'
    imported = import_config(written(tmp_path, "t.toml", text), registry=registry, model_type="sdxl")
    assert dropped(imported) == {"debug_dataset": "argument_ours", "initial_step": "argument_ours"}


@pytest.mark.parametrize(
    ("table", "model_type", "codes"),
    [
        ({"network_module": "networks.lora_sd3"}, "sd3", {"import_type_guessed"}),
        ({"network_module": "lycoris.kohya", "ae": "a.sft", "clip_l": "b.sft", "t5xxl": "c.sft"}, "flux", set()),
        ({"network_module": "lycoris.kohya", "clip_g": "a.sft", "clip_l": "b.sft", "t5xxl": "c.sft"}, "sd3", set()),
        ({"network_module": "networks.lora"}, "sdxl", {"import_type_guessed"}),
        ({"network_module": "lycoris.kohya"}, None, {"import_type_unclear"}),
        ({}, None, {"import_type_unclear"}),
    ],
)
def test_the_model_type_follows_from_the_arguments(registry, tmp_path, table, model_type, codes):
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    imported = import_config(written(tmp_path, "t.toml", text), registry=registry)
    assert (imported.model_type, problems(imported)) == (model_type, codes)
    assert import_config(tmp_path / "t.toml", registry=registry, model_type="flux").model_type == "flux"


def test_subsets_that_are_kohyas_folders_are_one_data_set(registry, tmp_path):
    text = "[[datasets]]\nresolution = 512\n"
    for folder, repeats in (("img/10_elena", 10), ("img/3_elena hat", 3)):
        text += f'[[datasets.subsets]]\nimage_dir = "{folder}"\nnum_repeats = {repeats}\n'
    imported = import_config(written(tmp_path, "dataset.toml", text), registry=registry, model_type="flux")
    assert imported.dataset == tmp_path / "img" and imported.settings.repeats is None and not imported.dropped


def test_several_folders_are_one_data_set_by_their_file(registry, pictures, tmp_path):
    folders = {"close": 2, "far": 4}
    text = '[[datasets]]\nresolution = 128\nenable_bucket = true\ncaption_extension = ".txt"\n'
    for folder, repeats in folders.items():
        (tmp_path / folder).mkdir()
        for file in pictures.iterdir():
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
        text += f'[[datasets.subsets]]\nimage_dir = "{folder}"\nnum_repeats = {repeats}\n'
    written(tmp_path, "dataset.toml", text)
    config = 'dataset_config = "dataset.toml"\nmax_train_epochs = 2\nnetwork_module = "networks.lora"\n'
    imported = import_config(written(tmp_path, "t.toml", config), registry=registry, model_type="sdxl")
    assert imported.dataset == tmp_path / "dataset.toml" and not imported.dropped
    assert (imported.settings.repeats, imported.settings.steps) == (None, 2 * 6 * (2 + 4))
    alone = import_config(tmp_path / "dataset.toml", text=text, registry=registry, model_type="sdxl")
    assert (alone.dataset, alone.settings.repeats) == (Path("close"), 2)
    assert dropped(alone) == {"image_dir": "import_other_folder"}


SWITCHES = [name for name, info in cinderlora.types.SETTINGS.items() if info.kind == "bool"]
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "resolution": st.sampled_from([64, 128, 512, 768, 1024, 1536]),
        "batch_size": st.integers(1, 8),
        "steps": st.integers(1, 5000),
        "repeats": st.integers(1, 30),
        "network_dim": st.integers(1, 128),
        "network_alpha": st.floats(0.125, 128) | st.integers(1, 64),
        "network_module": st.sampled_from(["lycoris.kohya", "networks.elsewhere"]),
        "network_args": st.lists(st.sampled_from(["algo=lokr", "conv_dim=4", "a=b, c"]), max_size=2),
        "optimizer": st.sampled_from(["AdamW", "AdamW8bit", "Prodigy", "adafactor", "Lion", "my.Own"]),
        "optimizer_args": st.lists(st.sampled_from(["weight_decay=0.1", "betas=0.9,0.99"]), max_size=2),
        "learning_rate": st.floats(1e-6, 1),
        "lr_scheduler": st.sampled_from(["constant", "cosine", "constant_with_warmup"]),
        "lr_warmup_steps": st.integers(0, 100),
        "max_grad_norm": st.floats(0, 2),
        "gradient_accumulation": st.integers(1, 8),
        "mixed_precision": st.sampled_from(["no", "fp16", "bf16"]),
        "save_precision": st.sampled_from(["float", "fp16", "bf16"]),
        "blocks_to_swap": st.integers(0, 18),
        "bucket_step": st.sampled_from([64, 128]),
        "workers": st.integers(0, 8),
        "seed": st.integers(0, 2**32 - 1),
        "save_every": st.integers(0, 500),
        "sample_every": st.integers(0, 500),
        "sample_prompt": st.sampled_from(["elena", "{trigger}, a 'hat' --n ugly, bad", 'über "x" --d 7 --w 640']),
        "sample_sampler": st.sampled_from(["euler", "ddim"]),
        "sample_steps": st.integers(1, 50),
        "sample_scale": st.sampled_from([0.0, 1.0, 7.5]),
        "sample_guidance": st.sampled_from([1.0, 3.5]),
        "output_prefix": st.sampled_from(["", "cg_", "lora-"]),
        "author": st.sampled_from(["Kim ü"]),
        "comment": st.sampled_from(["for the book"]),
        **dict.fromkeys(SWITCHES, st.booleans()),
    },
)
EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "apply_t5_attn_mask": st.just(True),
        "clip_skip": st.integers(1, 2),
        "full_bf16": st.just(True),
        "guidance_scale": st.sampled_from([1.0, 3.5, False]),
        "max_grad_norm": st.floats(0.5, 3),
        "max_timestep": st.integers(1, 1000),
        "max_token_length": st.sampled_from([150, 225, False]),
        "min_snr_gamma": st.sampled_from([1.0, 5.0, False]),
        "network_dropout": st.floats(0, 1),
        "no_half_vae": st.booleans(),
        "noise_offset": st.floats(0, 1),
        "scale_weight_norms": st.floats(0.1, 2),
        "timestep_sampling": st.sampled_from(["sigma", "shift", "flux_shift", False]),
        "training_shift": st.floats(0.5, 4),
        "t5xxl_max_token_length": st.sampled_from([256, 512]),
        "vae_batch_size": st.integers(1, 4),
        "weighting_scheme": st.sampled_from(["uniform", "logit_normal", False]),
    },
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(model_type=st.sampled_from(TYPES), wanted=SETTINGS, extra=EXTRA)
def test_the_files_of_a_plan_make_the_same_plan_again(registry, pictures, tmp_path, model_type, wanted, extra):
    adapter, trainer = registry[model_type], SdScripts.rehearsal()
    known = known_arguments(adapter.type.script) or {}
    extra = {key: value for key, value in extra.items() if key in known}
    models = {c.role: tmp_path / f"{c.role} ü.safetensors" for c in adapter.type.components}
    job = adapter.job(
        name="elena", trigger="elena k", dataset=pictures, output=tmp_path / "out", models=models, **wanted, extra=extra
    )
    try:
        plan = adapter.plan(job, trainer)
    except JobRefused:
        assume(False)
    for name in plan.configs:
        (tmp_path / name).write_text(plan.files[name], encoding="utf-8")
    imported = import_config(tmp_path / plan.configs[0], registry=registry, model_type=model_type)
    assert problems(imported) == set() and dropped(imported) == {}
    again = adapter.plan(adapter.job(**{**imported.job_arguments(), "dataset": pictures}), trainer)
    assert again.configs == plan.configs
    first, second = ([tomllib.loads(p.files[name]) for name in p.configs[:2]] for p in (plan, again))
    said = {key: argument["default"] for key, argument in known.items() if argument["default"] is not None}
    assert said | second[0]["training"] == said | first[0]["training"]  # the same to the script
    assert second[1] == first[1]
    assert [again.files[name] for name in plan.configs[2:]] == [plan.files[name] for name in plan.configs[2:]]


# ---- command lines ----


def test_a_shell_script_is_read_and_never_run(registry, samples):
    imported = import_config(samples / "train.sh", registry=registry)
    assert (imported.format, imported.model_type, imported.name) == ("command_line", "flux", "elena v2")
    assert imported.models["t5xxl"] == samples / "models/t5 xxl.safetensors"
    assert imported.output == Path("/data/my loras")
    s = imported.settings
    assert (s.network_dim, s.learning_rate, s.steps, s.train_text_encoder) == (16, 1e-4, 1600, False)
    assert s.network_args == ("train_double_block_indices=0-3", "split_qkv=True")
    assert s.optimizer_args == ("weight_decay=0.01",)
    assert dropped(imported) == {"--train_data_dir": "import_variable", "accelerate": "import_launcher"}
    assert not Path(samples / "executed").exists()


def test_a_windows_batch_file(registry, samples):
    imported = import_config(samples / "train.bat", registry=registry)
    assert imported.model_type == "sdxl"
    s = imported.settings
    assert (s.network_dim, s.resolution, s.optimizer) == (32, 1024, "Adafactor")
    assert s.optimizer_args == ("relative_step=False", "scale_parameter=False")
    assert dropped(imported)["--output_name"] == "import_variable"
    theirs = {entry.key: entry.value for entry in (*imported.dropped, *imported.taken)}
    assert theirs["--pretrained_model_name_or_path"] == r"D:\my models\sdxl.safetensors"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "--network_dim 8 --gradient_checkpointing --seed=7",
            {"network_dim": "8", "gradient_checkpointing": True, "seed": "7"},
        ),
        ("--network_args a=1 b=2 --sdpa", {"network_args": ["a=1", "b=2"], "sdpa": True}),
        ("--max_train_st 5", {"max_train_steps": "5"}),  # cut short, as argparse has it
        ("--min-timestep -1", {"min_timestep": "-1"}),
        ("--who_knows x --else", {"who_knows": "x", "else": True}),
        ("--network_dim", {"network_dim": True}),
        ("stray --sdpa", {"stray": True, "sdpa": True}),
    ],
)
def test_arguments_are_split_as_argparse_does(line, expected):
    assert dict(arguments(line.split(), "flux_train_network.py")) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("echo hello\n", "import_no_command"),
        ("python setup.py\n", "import_no_command"),
        ("python train_network.py --a 'b\n", "file_unreadable"),
    ],
)
def test_a_script_without_a_training(registry, tmp_path, text, code):
    with pytest.raises(ConfigError) as caught:
        import_config(written(tmp_path, "x.sh", text), registry=registry)
    assert caught.value.code == code


def test_several_trainings_in_one_script(registry, tmp_path):
    lines = [f"python sdxl_train_network.py --network_dim {dim} --network_module networks.lora" for dim in (4, 8)]
    imported = import_config(written(tmp_path, "x.sh", " && ".join(lines)), registry=registry)
    assert imported.settings.network_dim == 4 and problems(imported) == {"import_several_commands"}


def test_a_config_file_named_on_the_command_line_is_read_and_goes_under_it(registry, tmp_path):
    written(tmp_path, "c.toml", 'network_dim = 4\nnetwork_alpha = 2\nmixed_precision = "bf16"\n')
    text = "accelerate launch sd3_train_network.py --config_file c --network_dim 64\n"
    imported = import_config(written(tmp_path, "x.sh", text), registry=registry)
    s = imported.settings
    assert (s.network_dim, s.network_alpha, s.mixed_precision) == (64, 2, "bf16")
    assert [file.name for file in imported.files] == ["x.sh", "c.toml"]


# ---- OneTrainer and ai-toolkit ----


def test_onetrainer(registry, samples):
    imported = import_config(samples / "onetrainer.json", registry=registry)
    assert (imported.format, imported.model_type, imported.name) == ("onetrainer", "sdxl", "elena_xl")
    s = imported.settings
    assert (s.network_dim, s.network_alpha, s.learning_rate, s.batch_size) == (32, 1.0, 0.0003, 2)
    assert (s.mixed_precision, s.save_precision, s.train_text_encoder) == ("bf16", "fp16", False)
    assert (s.optimizer, s.optimizer_args) == ("Prodigy", ("d_coef=2.0", "betas=0.9,0.99", "weight_decay=0.01"))
    assert (s.repeats, s.flip_aug, s.save_every) == (3, True, 200)
    assert imported.dataset == samples / "img/elena" and s.sample_prompt == "elena, smiling --w 1152 --h 896"
    assert taken(imported)["loss_weight_fn"] == ("", 5.0)  # so it is anyway
    assert s.extra == {"max_train_epochs": 8}
    assert s.gradient_checkpointing is None  # not said: not decided
    assert dropped(imported) == {
        "base_model_name": "import_not_a_file",
        "secrets": "import_secret",
        "ema": "import_no_counterpart",
        "concepts.path": "import_other_folder",
        "concepts.text.enable_tag_shuffling": "import_cached",
        "sample_after": "import_by_the_clock",
    }
    assert "hf_never" not in json.dumps(cinderlora.to_json(imported))


def test_ai_toolkit(registry, samples):
    imported = import_config(samples / "ai_toolkit.yaml", registry=registry)
    assert (imported.format, imported.model_type, imported.name) == ("ai_toolkit", "flux", "elena_flux")
    assert (imported.trigger, imported.dataset) == ("el3na", samples / "img/elena")
    s = imported.settings
    assert (s.network_dim, s.network_alpha, s.steps, s.learning_rate) == (16, 16, 2000, 1e-4)
    assert (s.fp8_base, s.mixed_precision, s.save_precision, s.caption_extension) == (True, "bf16", "fp16", ".txt")
    assert (s.sample_prompt, s.sample_guidance, s.resolution) == ("{trigger} at the beach --w 1024 --h 1024", 4.0, 512)
    assert problems(imported) == {"import_several_resolutions", "import_several_prompts"}
    assert dropped(imported) == {
        "train.ema_config": "import_no_counterpart",
        "datasets.caption_dropout_rate": "import_cached",
        "model.name_or_path": "import_not_a_file",
    }


@pytest.mark.parametrize(
    "name", ["onetrainer.json", "ai_toolkit.yaml", "kohya_sdxl_old.json", "training.toml", "train.sh"]
)
def test_what_was_imported_can_be_planned(registry, samples, pictures, tmp_path, name):
    imported = import_config(samples / name, registry=registry)
    adapter = registry[imported.model_type or ""]
    given = {"name": "elena", "trigger": "elena", **imported.job_arguments()}
    job = adapter.job(**{**given, "dataset": pictures, "output": tmp_path})
    adapter.plan(job, SdScripts.rehearsal())
    preset = imported.preset("theirs", "From a friend")
    preset.save(tmp_path / "theirs.toml")
    assert cinderlora.Preset.load(tmp_path / "theirs.toml") == preset
    assert adapter.job(**{**given, "dataset": pictures, "output": tmp_path}, preset=preset)


def test_yaml_needs_its_extra(registry, samples, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(CinderloraError) as caught:
        import_config(samples / "ai_toolkit.yaml", registry=registry)
    assert (caught.value.code, caught.value.params["extra"]) == ("extra_missing", "yaml")


# ---- files are anybody's ----


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.json", "{", "file_unreadable"),
        ("a.json", "[" * 100_000, "import_format_unknown"),
        ("a.json", '{"a":' * 50_000, "file_unreadable"),
        ("a.json", "{}", "import_format_unknown"),
        ("a.toml", "a = ", "file_unreadable"),
        ("a.toml", "a = " + "[" * 5000, "file_unreadable"),
        ("a.yaml", "a: [", "file_unreadable"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "file_unreadable"),
        ("a.yaml", "a: &a [x, x]\nb: [*a, *a]", "file_unreadable"),
        ("a.yaml", "config: {process: 3}", "import_format_unknown"),
        ("a.png", "\x89PNG", "import_format_unknown"),
        ("a.json", " " * ((1 << 20) + 1), "import_too_large"),
    ],
)
def test_hostile_files_are_errors_with_a_code(registry, tmp_path, name, content, code):
    path = written(tmp_path, name, content)
    for how in ({}, {"text": content}):
        with pytest.raises(ConfigError) as caught:
            import_config(path, registry=registry, **how)
        assert caught.value.code == code
        assert caught.value.text("de").message != caught.value.code


def test_files_that_are_not_there(registry, tmp_path):
    with pytest.raises(ConfigError, match="There is no file"):
        import_config(tmp_path / "x.json", registry=registry)
    with pytest.raises(ConfigError, match="not a file"):
        import_config(tmp_path, registry=registry)
    with pytest.raises(UnknownName, match="kohya_gui"):
        import_config(tmp_path, registry=registry, format="kohya")


def test_only_toml_files_and_prompts_beside_are_opened(registry, tmp_path):
    (tmp_path / "here").mkdir()
    secret = written(tmp_path, "secret.txt", "a secret")
    written(tmp_path, "secret.cfg", 'caption_extension = ".secret"')
    for dataset in (
        "../secret.cfg",
        r"\\\\evil\\share\\d.toml",
        "//evil/share/d.toml",
        "/dev/zero",
        ".",
        "a\\u0000.toml",
    ):
        text = f'dataset_config = "{dataset}"\nsample_prompts = "../secret.txt"\nsample_at_first = true\n'
        imported = import_config(written(tmp_path / "here", "t.toml", text), registry=registry, model_type="sdxl")
        assert imported.files == (tmp_path / "here/t.toml",)
        assert problems(imported) == {"import_file_missing"}
        assert dropped(imported) == {"sample_prompts": "import_prompts_elsewhere"}
        assert "a secret" not in str(imported)
    (tmp_path / "here/link.txt").symlink_to(secret)
    text = 'sample_prompts = "link.txt"\n'
    imported = import_config(written(tmp_path / "here", "t.toml", text), registry=registry, model_type="sdxl")
    assert "a secret" not in str(imported)


def test_of_a_text_alone_nothing_on_disk_is_opened(registry, samples):
    path = samples / "training.toml"
    imported = import_config(path, text=path.read_text(encoding="utf-8"), registry=registry)
    assert imported.files == () and "import_file_missing" in problems(imported)
    assert imported.settings.resolution is None  # the data set's file was not read, so nothing is said of it


def test_what_is_shown_is_printable(registry, tmp_path):
    text = 'output_name = "a\\u001b[31mb"\nstr\\u0061nge = 1\n"x\\u0007" = "y\\u0007"\n'.replace("\\u0061", "a")
    imported = import_config(written(tmp_path, "t.toml", text), registry=registry, model_type="sdxl")
    shown = [text for entry in (*imported.taken, *imported.dropped) for text in (entry.key, entry.value)]
    assert len(shown) >= 6 and all(text.isprintable() for text in shown)


SAMPLES = Path(__file__).parent / "data/importing"
TEXT = st.text(max_size=8)
SCALARS = st.booleans() | st.integers() | st.floats() | TEXT
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXT, SCALARS, max_size=2)
TYPE = st.sampled_from([*TYPES, None])
WORDS = st.sampled_from(
    ["--", "--network_dim", "--network_args", "a=1", "-1", "'", '"', "$X", "\\", "^", "|", ";", "x.py"]
)


def tables_like(*samples: str) -> st.SearchStrategy[dict[str, Any]]:
    """Tables that have the words of samples for keys, and anything for values."""
    found = {word for name in samples for word in re.findall(r"[A-Za-z_]\w+", (SAMPLES / name).read_text("utf-8"))}
    keys = st.sampled_from(sorted(found)) | TEXT
    inner = st.dictionaries(keys, VALUES, max_size=3)
    return st.dictionaries(keys, VALUES | inner | st.lists(inner, min_size=1, max_size=2), max_size=8)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables_like("kohya_flux.json", "kohya_sdxl_old.json"), model_type=TYPE)
def test_any_kohya_ss_configuration_is_imported_or_refused(registry, tmp_path, table, model_type):
    """Their keys with anybody's values: never another exception than ours, and a job file that can be read."""
    check_any(registry, tmp_path, ("a.json", json.dumps(table), "kohya_gui"), model_type)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables_like("onetrainer.json"), model_type=TYPE)
def test_any_configuration_of_onetrainer_is_imported_or_refused(registry, tmp_path, table, model_type):
    check_any(registry, tmp_path, ("a.json", json.dumps(table), "onetrainer"), model_type)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables_like("ai_toolkit.yaml"), model_type=TYPE)
def test_any_configuration_of_ai_toolkit_is_imported_or_refused(registry, tmp_path, table, model_type):
    text = json.dumps({"config": {"name": "x", "process": [table]}})
    check_any(registry, tmp_path, ("a.json", text, "ai_toolkit"), model_type)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables_like("training.toml", "dataset.toml"), model_type=TYPE)
def test_any_toml_is_imported_or_refused(registry, tmp_path, table, model_type):
    check_any(registry, tmp_path, ("a.toml", toml_text(table), "sd_scripts"), model_type)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORDS | TEXT, max_size=10), suffix=st.sampled_from([".sh", ".bat"]), model_type=TYPE)
def test_any_script_is_imported_or_refused(registry, tmp_path, words, suffix, model_type):
    text = " ".join(["python flux_train_network.py --sdpa", *words])
    check_any(registry, tmp_path, (f"a{suffix}", text, "command_line"), model_type)


def check_any(registry: Registry, folder: Path, given: tuple[str, str, Any], model_type: str | None) -> None:
    name, text, format = given
    try:
        imported = import_config(name, text=text, format=format, model_type=model_type, registry=registry)
    except CinderloraError as refused:
        error = refused
    else:
        check_result(imported, folder)
        return
    assert error.text("de").message != error.code


def check_result(imported: Imported, folder: Path) -> None:
    for problem in (*imported.problems, *(entry.why for entry in imported.dropped)):
        assert problem.text("de").message != problem.code
    try:
        imported.save_job(folder / "job.toml")
    except UnicodeEncodeError:  # half of a surrogate pair: no file can hold it
        return
    read_job(folder / "job.toml")


def test_every_word_of_the_importer_has_a_text():
    codes = {
        code
        for file in Path(cinderlora.importing.__file__).parent.glob("*.py")
        for code in re.findall(r'"(import_[a-z_]+)"', file.read_text(encoding="utf-8"))
    }
    codes -= {"import_config"}
    assert len(codes) > 25
    for language in ("en", "de"):
        assert codes <= set(catalogue(language))
        used = {code for code in catalogue(language) if code.startswith("import_")}
        assert used == codes
    assert all(set(code) <= set(string.ascii_lowercase + "_") for code in FORMATS)
