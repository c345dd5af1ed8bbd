"""A plan is complete, comparable, inert; its files say what was asked for, in the form the trainer reads."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path

import pytest
import toml  # 0.10.2: what sd-scripts reads its configuration with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cinderlora
from cinderlora import JobRefused, Plan, Registry, SdScripts
from cinderlora.sd_scripts.arguments import known_arguments
from cinderlora.sd_scripts.config import derived

TYPES = ["flux", "sdxl", "sd3"]
CHARACTERS = "elena ü'\"\\ 花子 🔥 [x] {y} #1 a=b $HOME `ls` %s ..  ;&|"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


def job_of(registry: Registry, model_type: str, folder: Path, **options):
    options = {"preset": "16gb", "name": "elena", "trigger": "elena", "dataset": folder} | options
    return registry[model_type].job(**{"output": folder / "out"} | options)


def tables(plan: Plan) -> tuple[dict, dict]:
    """The training and the data-set TOML, as sd-scripts' own reader reads them."""
    training, dataset = (plan.files[name] for name in plan.configs[:2])
    assert toml.loads(training) == tomllib.loads(training)
    assert toml.loads(dataset) == tomllib.loads(dataset)
    return toml.loads(training)["training"], toml.loads(dataset)


@pytest.mark.parametrize("model_type", TYPES)
def test_a_plan_is_complete_comparable_and_inert(registry, pictures, model_type):
    before = sorted(pictures.parent.rglob("*"))
    job = job_of(registry, model_type, pictures)
    plan = registry[model_type].plan(job, SdScripts.rehearsal())
    assert plan == registry[model_type].plan(job, SdScripts.rehearsal())
    assert plan == pickle.loads(pickle.dumps(plan))
    assert plan.configs == ("elena_kohya_training.toml", "elena_dataset.toml", "elena_sample_prompts.txt")
    assert plan.lora == "cg_elena.safetensors" and plan.rehearsal and plan.first_step == 0
    assert plan.argv[-3:] == (registry[model_type].type.script, "--config_file", "elena_kohya_training.toml")
    assert sorted(pictures.parent.rglob("*")) == before


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("preset", ["16gb", "24gb"])
def test_every_key_exists_in_the_script_and_every_value_has_its_type(registry, pictures, model_type, preset):
    adapter = registry[model_type]
    models = {c.role: pictures / f"{c.role}.safetensors" for c in adapter.type.components}
    job = job_of(registry, model_type, pictures, preset=preset, models=models, save_state=True, sample_at_first=True)
    training, _ = tables(adapter.plan(job, SdScripts.rehearsal()))
    known = known_arguments(adapter.type.script)
    assert set(training) <= set(known)
    python_types = {"int": int, "float": (int, float), "str": str, "Path": str, None: str, "int_or_float": (int, float)}
    for key, value in training.items():
        if known[key]["is_boolean"]:
            assert value is True, key
        elif known[key]["nargs"] == "*":
            assert all(isinstance(item, str) for item in value), key
        else:
            assert isinstance(value, python_types[known[key]["type"]]), key
            assert not known[key]["choices"] or value in known[key]["choices"], key


def test_what_flux_is_told(registry, pictures):
    training, dataset = tables(registry["flux"].plan(job_of(registry, "flux", pictures), SdScripts.rehearsal()))
    expected = {
        "network_module": "networks.lora_flux",
        "network_dim": 16,
        "network_alpha": 8,
        "optimizer_type": "Prodigy",
        "learning_rate": 1.0,
        "max_train_steps": 1500,
        "gradient_accumulation_steps": 1,
        "blocks_to_swap": 20,
        "fp8_base": True,
        "timestep_sampling": "flux_shift",
        "model_prediction_type": "raw",
        "guidance_scale": 1.0,
        "save_every_n_steps": 500,
        "sample_every_n_steps": 250,
        "output_name": "cg_elena",
        "save_precision": "bf16",
        "metadata_trigger_phrase": "elena",
        "console_log_simple": True,
        "seed": 42,
    }
    assert {key: training[key] for key in expected} == expected
    assert "discrete_flow_shift" not in training and "t5xxl_max_token_length" not in training
    assert dataset["general"]["resolution"] == [512, 512] and dataset["general"]["batch_size"] == 1
    (subset,) = dataset["datasets"][0]["subsets"]
    assert (subset["num_repeats"], subset["class_tokens"]) == (10, "elena")


def test_what_sdxl_and_sd3_are_told(registry, pictures):
    training, _ = tables(registry["sdxl"].plan(job_of(registry, "sdxl", pictures), SdScripts.rehearsal()))
    assert (training["no_half_vae"], training["max_token_length"], training["min_snr_gamma"]) == (True, 225, 5)
    assert training["sample_sampler"] == "euler" and "blocks_to_swap" not in training
    training, _ = tables(registry["sd3"].plan(job_of(registry, "sd3", pictures), SdScripts.rehearsal()))
    assert (training["training_shift"], training["weighting_scheme"]) == (1.0, "uniform")
    assert "timestep_sampling" not in training


def test_what_is_off_is_left_out(registry, pictures):
    job = job_of(registry, "sdxl", pictures, save_every=0, sample_every=0, cache_latents=False, blocks_to_swap=0)
    plan = registry["sdxl"].plan(job, SdScripts.rehearsal())
    training, _ = tables(plan)
    off = {"save_every_n_steps", "sample_every_n_steps", "sample_prompts", "cache_latents", "blocks_to_swap"}
    assert not off & set(training)
    assert plan.configs == ("elena_kohya_training.toml", "elena_dataset.toml")


def test_extra_goes_over_the_adapter_and_that_over_the_rest(registry, pictures):
    job = job_of(registry, "flux", pictures, extra={"guidance_scale": 2.5, "max_grad_norm": 0.1})
    training, _ = tables(registry["flux"].plan(job, SdScripts.rehearsal()))
    assert (training["guidance_scale"], training["max_grad_norm"]) == (2.5, 0.1)


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("{trigger}, portrait", "elena, portrait --w 512 --h 512 --s 20 --g 3.5 --l 1 --d 42"),
        ("a {mood} {trigger} --d 7 --w 64", "a {mood} elena --d 7 --w 64 --h 512 --s 20 --g 3.5 --l 1"),
        ("elena --n ugly, bad --s 5", "elena --n ugly, bad --s 5 --w 512 --h 512 --g 3.5 --l 1 --d 42"),
    ],
)
def test_prompts_get_size_steps_and_seed(registry, pictures, prompt, line):
    job = job_of(registry, "flux", pictures, sample_prompt=prompt)
    plan = registry["flux"].plan(job, SdScripts.rehearsal())
    assert plan.files["elena_sample_prompts.txt"] == line + "\n"
    said = [
        p.params["option"] for p in registry["flux"].check(job, SdScripts.rehearsal()).warnings if "prompt" in p.code
    ]
    assert len(said) == prompt.count(" --")


@pytest.mark.parametrize("resolution", [64, 128, 512, 1024, 1536])
def test_buckets_hold_the_resolution(registry, pictures, resolution):
    _, dataset = tables(
        registry["sdxl"].plan(job_of(registry, "sdxl", pictures, resolution=resolution), SdScripts.rehearsal())
    )
    general = dataset["general"]
    assert general.get("min_bucket_reso", 256) <= resolution <= general.get("max_bucket_reso", 1024)


def test_a_picture_without_a_caption_learns_the_trigger_word(registry, pictures):
    plan = registry["sdxl"].plan(job_of(registry, "sdxl", pictures), SdScripts.rehearsal())
    captions = [text for name, text in plan.files.items() if name.startswith("dataset/")]
    assert captions[0] == "elena\n" and captions[1] == "elena, a green ball\n"
    assert [link.source.name for link in plan.links] == [f"elena_{i:02d}.png" for i in range(6)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    folder=st.text(alphabet=st.sampled_from(CHARACTERS), min_size=1, max_size=20),
    trigger=st.text(alphabet=st.sampled_from(CHARACTERS + "…ß漢"), min_size=1, max_size=20),
    prompt=st.text(max_size=30),
)
def test_the_trainers_reader_reads_what_was_meant(registry, pictures, folder, trigger, prompt):
    """Hostile paths, trigger words and prompts come out of toml 0.10.2 as they went in, or are refused."""
    output = pictures.parent / folder / "out"
    job = job_of(registry, "sdxl", pictures, output=output, trigger=trigger, sample_prompt=prompt)
    try:
        plan = registry["sdxl"].plan(job, SdScripts.rehearsal())
    except JobRefused:
        return
    training, dataset = tables(plan)
    assert training["output_dir"] == str(job.output)
    assert training["metadata_trigger_phrase"] == trigger
    assert dataset["datasets"][0]["subsets"][0]["class_tokens"] == trigger
    assert plan.files["elena_sample_prompts.txt"].count("\n") == 1


def test_the_record_makes_the_same_job_again(registry, pictures, tmp_path):
    job = job_of(registry, "flux", pictures, extra={"noise_offset": 0.05}, models={"ae": tmp_path / "ae.safetensors"})
    plan = registry["flux"].plan(job, SdScripts.rehearsal())
    path = tmp_path / "run.toml"
    path.write_text(plan.files["run.toml"], encoding="utf-8")
    from cinderlora.serial import read_job

    values = read_job(path)
    again = registry[values.pop("type")].job(
        **{k: v for k, v in values.items() if k != "settings"}, **values["settings"]
    )
    assert again == job
    assert registry["flux"].plan(again, SdScripts.rehearsal()) == plan


def test_a_printed_plan_shows_everything(registry, pictures):
    plan = registry["flux"].plan(job_of(registry, "flux", pictures), SdScripts.rehearsal())
    text = str(plan)
    for part in (*plan.argv, *plan.files.values(), *(str(link.source) for link in plan.links)):
        assert part.strip() in text


def test_a_network_module_of_its_own(registry, pictures):
    job = job_of(registry, "flux", pictures, network_module="lycoris.kohya", network_args=["algo=lokr"])
    plan = registry["flux"].plan(job, SdScripts.rehearsal())
    training, _ = tables(plan)
    assert training["network_module"] == "lycoris.kohya" and training["network_args"] == ["algo=lokr"]
    assert plan.zero_at_start == ()  # what such a file holds before training is not known


def test_derived_settings_leave_what_is_set():
    s = derived(cinderlora.Settings(network_dim=8, network_alpha=1.0, optimizer="prodigy", learning_rate=0.5))
    assert (s.network_alpha, s.learning_rate) == (1.0, 0.5)


def test_what_reaches_the_loras_metadata(registry, pictures):
    training, _ = tables(registry["flux"].plan(job_of(registry, "flux", pictures), SdScripts.rehearsal()))
    assert training["training_comment"] == f"cinderlora {cinderlora.__version__}, flux, preset 16gb"
    assert "metadata_author" not in training
    job = job_of(registry, "flux", pictures, author="Kim ü", comment="for the book")
    training, _ = tables(registry["flux"].plan(job, SdScripts.rehearsal()))
    assert training["metadata_author"] == "Kim ü"
    assert training["training_comment"] == f"for the book; cinderlora {cinderlora.__version__}, flux, preset 16gb"
