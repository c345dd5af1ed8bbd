"""From a wish to a job: presets, settings, derived values, and what is refused."""

from __future__ import annotations

import pickle
from copy import deepcopy

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import (
    CinderloraError,
    ConfigError,
    Failure,
    Preset,
    Registry,
    SdScripts,
    SettingError,
    Settings,
    UnknownName,
    hookimpl,
    to_json,
)
from cinderlora.sd_scripts.config import derived
from cinderlora.types import SETTINGS

PRESETS = {
    ("flux", "8gb"): (512, 1, 8, "adamw8bit", 1500, 28),
    ("flux", "10gb"): (512, 1, 16, "adamw8bit", 1500, 22),
    ("flux", "12gb"): (512, 1, 16, "adamw8bit", 1500, 16),
    ("flux", "16gb"): (512, 1, 16, "prodigy", 1500, 20),
    ("flux", "24gb"): (768, 2, 32, "adamw8bit", 2000, 0),
    ("sdxl", "8gb"): (512, 1, 8, "prodigy", 1000, None),
    ("sdxl", "16gb"): (768, 1, 16, "adamw8bit", 1500, None),
    ("sdxl", "24gb"): (1024, 2, 32, "adamw8bit", 2000, None),
    ("sd3", "8gb"): (512, 1, 12, "prodigy", 1000, 18),
    ("sd3", "16gb"): (768, 1, 24, "adamw8bit", 1500, 10),
    ("sd3", "24gb"): (1024, 2, 32, "adamw8bit", 2000, 0),
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


@pytest.fixture
def wish(tmp_path):
    return {"name": "elena", "trigger": "elena", "dataset": tmp_path / "data", "output": tmp_path / "out"}


@pytest.mark.parametrize(("model_type", "preset"), PRESETS)
def test_presets(registry, model_type, preset):
    p = registry[model_type].presets[preset]
    figures = (p.resolution, p.batch_size, p.network_dim, p.optimizer.lower(), p.steps, p.blocks_to_swap)
    assert figures == PRESETS[model_type, preset]
    assert p.model_type == model_type and p.base is None and p.vram_gb == float(preset.removesuffix("gb"))


def test_presets_come_smallest_card_first(registry):
    assert list(registry["sdxl"].presets) == ["8gb", "16gb", "24gb"]
    assert list(registry["flux"].presets) == ["8gb", "10gb", "12gb", "16gb", "24gb"]


def test_alpha_and_learning_rate_follow_what_they_depend_on(registry, wish):
    sdxl = registry["sdxl"]
    s = derived(sdxl.job(**wish, preset="8gb").settings)
    assert (s.network_alpha, s.learning_rate) == (4, 1.0) and "decouple=True" in s.optimizer_args
    s = derived(sdxl.job(**wish, preset="8gb", network_dim=32, optimizer="AdamW8bit").settings)
    assert (s.network_alpha, s.learning_rate, s.optimizer_args) == (16, 1e-4, None)
    s = derived(sdxl.job(**wish, preset="8gb").evolve(network_dim=6, learning_rate=0.5).settings)
    assert (s.network_alpha, s.learning_rate) == (3, 0.5)
    s = derived(sdxl.job(**wish, optimizer="Adafactor").settings)
    assert (s.lr_scheduler, s.max_grad_norm) == ("constant_with_warmup", 0)


def test_defaults_go_below_presets_and_those_below_the_job(registry, wish):
    s = registry["sdxl"].job(**wish, preset="8gb", save_every=0, steps=700).settings
    assert (s.repeats, s.save_every, s.sample_every, s.seed, s.output_prefix) == (10, 0, 250, 42, "cg_")
    assert (s.steps, s.network_dim, s.sample_steps) == (700, 8, 28)


def test_the_form_knows_every_setting(registry):
    infos = {info.name: info for info in registry["flux"].settings()}
    assert set(infos) == set(SETTINGS)
    steps, dim, sample = infos["steps"], infos["network_dim"], infos["sample_every"]
    assert (steps.low, steps.high, steps.advanced) == (500, 5000, False)
    assert (dim.low, dim.high, dim.default, dim.advanced) == (4, 64, 16, True)
    assert (sample.low, sample.high, sample.default) == (0, 1000, 250)
    assert (infos["repeats"].low, infos["repeats"].high) == (1, 30)
    assert (infos["save_every"].low, infos["save_every"].high) == (100, 1000)
    assert infos["network_module"].default == "networks.lora_flux"
    assert all(info.label["en"] and info.label["de"] for info in infos.values())


def test_a_preset_pack_as_in_the_documentation(wish, tmp_path):
    class StudioPresets:
        @hookimpl
        def presets(self, model_type):
            if model_type.name == "flux":
                yield Preset(name="studio-draft", base="16gb", steps=800, network_dim=8)

    registry = Registry.from_installed()
    registry.register(StudioPresets(), name="studio")
    final = registry["flux"].presets["studio-draft"].evolve(name="studio-final", steps=2400)
    final.save(tmp_path / "studio-final.toml")
    again = Preset.load(tmp_path / "studio-final.toml")
    assert again == final
    job = registry["flux"].job(**wish, preset=again)
    assert (job.preset, job.settings.steps, job.settings.network_dim, job.settings.blocks_to_swap) == (
        "studio-final", 2400, 8, 20,
    )  # fmt: skip
    with pytest.raises(UnknownName) as caught:
        registry["sdxl"].job(**wish, preset=again)
    assert caught.value.code == "preset_of_another_type"


def test_a_preset_made_on_the_spot_has_its_base(registry, wish):
    job = registry["flux"].job(**wish, preset=Preset(name="mine", base="24gb", steps=10))
    assert (job.settings.steps, job.settings.network_dim) == (10, 32)


def test_extra_is_merged_key_by_key(registry, wish):
    preset = Preset(name="mine", extra={"noise_offset": 0.1, "clip_skip": 2})
    job = registry["sdxl"].job(**wish, preset=preset, extra={"clip_skip": 1})
    assert job.settings.extra == {"noise_offset": 0.1, "clip_skip": 1}


def test_auto_takes_the_largest_that_fits():
    from cinderlora.gpu import largest_fitting

    presets = [Preset(name=f"{gb}gb", vram_gb=gb) for gb in (24, 8, 16)]
    assert largest_fitting(presets, 23.6).name == "24gb"  # a 24 GB card's own word
    assert largest_fitting(presets, 15.5).name == "16gb"
    assert largest_fitting(presets, 4).name == "8gb"
    assert largest_fitting(presets, None).name == "8gb"
    assert largest_fitting([Preset(name="x")], 24) is None


@pytest.mark.parametrize(
    ("bad", "error", "code", "word"),
    [
        ({"preset": "99gb"}, UnknownName, "preset_unknown", "24gb"),
        ({"preset": "16g"}, UnknownName, "preset_unknown", "16gb"),
        ({"step": 3}, SettingError, "setting_unknown", "steps"),
        ({"steps": "many"}, SettingError, "setting_type", "int"),
        ({"steps": True}, SettingError, "setting_type", "int"),
        ({"resolution": 513.7}, SettingError, "setting_type", "int"),
        ({"fp8_base": 1}, SettingError, "setting_type", "bool"),
        ({"optimizer_args": "a=1"}, SettingError, "setting_type", "strs"),
        ({"optimizer_args": ["a=1", 2]}, SettingError, "setting_type", "strs"),
        ({"models": {"t5": "x"}}, UnknownName, "role_unknown", "vae"),
        ({"name": None}, SettingError, "setting_type", "name"),
    ],
    ids=str,
)
def test_what_a_job_refuses_at_once(registry, wish, bad, error, code, word):
    with pytest.raises(error) as caught:
        registry["sdxl"].job(**wish | bad)
    assert caught.value.code == code and word in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"name": ""}, "name_missing"),
        ({"name": "../../x"}, "name_unsafe"),
        ({"name": "a/b"}, "name_unsafe"),
        ({"name": "nul\0"}, "name_unsafe"),
        ({"name": "CON"}, "name_unsafe"),
        ({"name": "-rf"}, "name_unsafe"),
        ({"name": "x" * 200}, "name_unsafe"),
        ({"output_prefix": "../"}, "name_unsafe"),
        ({"trigger": ""}, "trigger_missing"),
        ({"trigger": " "}, "trigger_missing"),
        ({"trigger": "a\nb"}, "trigger_unprintable"),
        ({"trigger": '"""x'}, "text_misread"),
        ({"network_args": [",x=1"]}, "text_misread"),
        ({"steps": -1}, "setting_range"),
        ({"network_dim": 0}, "setting_range"),
        ({"learning_rate": float("nan")}, "setting_range"),
        ({"learning_rate": float("inf")}, "setting_unusual"),
        ({"mixed_precision": "float16"}, "setting_choice"),
        ({"sample_prompt": "two\nlines"}, "prompt_form"),
        ({"sample_prompt": "# a comment"}, "prompt_form"),
        ({"sample_prompt": " "}, "sample_prompts_missing"),
        ({"shuffle_caption": True}, "captions_cached"),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, "warmup_without_effect"),
        ({"bucket_step": 48}, "bucket_step"),
        ({"extra": {"wandb_api_key": "x"}}, "secret_in_settings"),
        ({"extra": {"no_such": 1}}, "argument_unknown"),
        ({"extra": {"guidance_scale": 1.0}}, "argument_of_another_script"),  # FLUX's
        ({"blocks_to_swap": 8}, "argument_of_another_script"),
        ({"extra": {"noise_offset": "0.1"}}, "argument_type"),
        ({"extra": {"loss_type": "l3"}}, "argument_choice"),
        ({"dataset": "nowhere"}, "dataset_not_found"),
    ],
    ids=str,
)
def test_what_check_and_plan_refuse(registry, wish, pictures, bad, code):
    sdxl, trainer = registry["sdxl"], SdScripts.rehearsal()
    job = sdxl.job(**wish | {"dataset": pictures} | bad)
    report = sdxl.check(job, trainer)
    found = next(p for p in report.problems if p.code == code)
    assert found.message and found.text("de").message and found.text("de") != found.text("en")
    if found.severity == "error":
        for refuse in (report.raise_for_errors, lambda: sdxl.plan(job, trainer)):
            with pytest.raises(CinderloraError) as caught:
                refuse()
            assert code in [p.code for p in caught.value.problems]
    assert not job.output.exists()
    to_json(report)


def test_the_cure_of_a_problem_cures_it(registry, wish, pictures):
    sdxl, trainer = registry["sdxl"], SdScripts.rehearsal()
    job = sdxl.job(**wish | {"dataset": pictures}, lr_warmup_steps=10, lr_scheduler="constant", shuffle_caption=True)
    for problem in sdxl.check(job, trainer).errors:
        job = job.evolve(**problem.changes)
    assert not sdxl.check(job, trainer).errors


def test_the_numbers_of_a_job(registry, wish, pictures):
    sdxl = registry["sdxl"]
    job = sdxl.job(**wish | {"dataset": pictures}, preset="16gb", steps=1500, save_every=500, sample_every=250)
    report = sdxl.check(job, SdScripts.rehearsal())
    assert (report.images, report.steps_per_epoch, report.epochs) == (6, 60, 25)
    assert (report.checkpoints, report.samples, report.vram_gb) == (3, 6, 16)


def test_what_a_real_training_lacks(registry, wish, pictures, tmp_path):
    flux = registry["flux"]
    models = {"clip_l": tmp_path / "nowhere.safetensors"}
    report = flux.check(flux.job(**wish | {"dataset": pictures}, models=models), SdScripts(tmp_path))
    codes = [p.code for p in report.errors]
    assert codes.count("component_missing") == 3 and "model_file_missing" in codes and "trainer_not_found" in codes
    german = next(p for p in report.errors if p.code == "trainer_not_found").text("de").message
    assert german.startswith("Kohya sd-scripts nicht gefunden")


def test_out_of_memory_the_next_smaller_preset_is_named(registry, wish):
    sdxl = registry["sdxl"]
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 MiB."

    def diagnosis(preset: str):
        settings = sdxl.job(**wish, preset=preset).settings
        lines = ["Traceback (most recent call last):", line]
        return sdxl.diagnosis(Failure(model_type="sdxl", exit_code=1, lines=lines, settings=settings))

    assert diagnosis("24gb").params["preset"] == "16gb" and "16gb" in diagnosis("24gb").fix
    assert diagnosis("16gb").params["preset"] == "8gb"
    assert "preset" not in diagnosis("8gb").params and diagnosis("8gb").changes == {"resolution": 384}


def test_jobs_and_settings_are_frozen_and_can_be_copied(registry, wish):
    job = registry["flux"].job(**wish, extra={"noise_offset": 0.1}, models={"ae": "ae.safetensors"})
    assert pickle.loads(pickle.dumps(job)) == job == deepcopy(job)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job.name = "x"
    with pytest.raises(TypeError):
        job.settings.extra["noise_offset"] = 1


def test_evolve_knows_settings_and_refuses_others(registry, wish):
    job = registry["flux"].job(**wish)
    assert job.evolve(name="mia", steps=7).settings.steps == 7
    with pytest.raises(SettingError):
        job.evolve(stepz=7)


# ---- TOML ----

values = {
    "int": st.integers(-(2**40), 2**40),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "str": st.text(),
    "strs": st.lists(st.text()).map(tuple),
    "table": st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()),
}
some_settings = st.fixed_dictionaries({}, optional={n: values[i.kind] for n, i in SETTINGS.items()})


@given(some_settings, st.text(min_size=1))
def test_a_preset_survives_its_file(tmp_path_factory, settings, name):
    path = tmp_path_factory.mktemp("preset") / "p.toml"
    preset = Preset(name=name, **settings)
    preset.save(path)
    assert Preset.load(path) == preset


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("steps = 3", "config_key_missing", "name"),
        ("name = 'x'\nstps = 3", "config_key_unknown", "steps"),
        ("name = 'x'\nsteps = '3'", "config_value", "steps"),
        ("name = 3", "config_value", "name"),
        ("name = 'x'\nvram_gb = true", "config_value", "vram_gb"),
        ("name = ]", "file_unreadable", "line 1"),
        (None, "file_not_found", "p.toml"),
    ],
)
def test_a_bad_preset_file_says_where(tmp_path, text, code, word):
    path = tmp_path / "p.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Preset.load(path)
    assert caught.value.code == code and word in str(caught.value) and str(path) in str(caught.value)


def test_settings_over_a_base():
    top = Settings(steps=1, sample_every=0, fp8_base=False, extra={"a": 1})
    base = Settings(steps=2, sample_every=250, fp8_base=True, seed=3, extra={"a": 0, "b": 2})
    whole = top.over(base)
    assert (whole.steps, whole.sample_every, whole.fp8_base, whole.seed) == (1, 0, False, 3)
    assert whole.extra == {"a": 1, "b": 2}
