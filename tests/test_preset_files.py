"""Presets and jobs as TOML: without loss, versioned, checked with their place; preset files; the commands for both."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cinderlora
from cinderlora import ConfigError, Job, Preset, Registry, SdScripts, SettingError, Settings, hookimpl
from cinderlora.cli import main
from cinderlora.folders import config_folder
from cinderlora.preset_files import preset_folders
from cinderlora.serial import migrated, read_job, read_toml
from cinderlora.types import SETTINGS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folders that are nobody's, and an empty working folder."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def preset_file(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ---- without loss ----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats(allow_nan=False)
VALUES = st.booleans() | st.integers() | NUMBERS | TEXT
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers() | st.just(0),
    "float": NUMBERS | st.integers(),
    "bool": st.booleans(),
    "str": TEXT,
    "strs": st.lists(TEXT, max_size=3),
    "table": st.dictionaries(
        TEXT.filter(lambda key: not key.endswith(("token", "key", "secret", "password"))),
        VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(TEXT, VALUES, max_size=2),
        max_size=3,
    ),
}
ANY_SETTINGS = st.fixed_dictionaries({}, optional={name: KINDS[info.kind] for name, info in SETTINGS.items()})
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
PATHS = NAMES.map(lambda name: Path("/") / name)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=ANY_SETTINGS, name=TEXT, title=TEXT, vram=st.none() | NUMBERS, base=st.none() | TEXT)
def test_a_preset_comes_back_as_it_was(home, values, name, title, vram, base):
    preset = Preset(name=name, title=title, vram_gb=vram, base=base, **values)
    preset.save(home / "p.toml")
    again = Preset.load(home / "p.toml")
    assert again == preset
    assert [(k, type(v)) for k, v in again.items()] == [(k, type(v)) for k, v in preset.items()]  # 0 is not False


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=ANY_SETTINGS,
    texts=st.tuples(TEXT, TEXT, TEXT),
    paths=st.tuples(PATHS, PATHS),
    models=st.dictionaries(TEXT, PATHS, max_size=3),
    preset=st.none() | TEXT.filter(bool),
)
def test_a_job_comes_back_as_it_was(home, values, texts, paths, models, preset):
    model_type, name, trigger = texts
    if values.get("copy_to"):  # a relative one is meant from the file's folder
        values |= {"copy_to": [str(output) for output in paths]}
    (dataset, output), own = paths, Settings(**values)
    job = Job(
        model_type=model_type,
        name=name,
        trigger=trigger,
        dataset=dataset,
        output=output,
        settings=own,
        models=models,
        preset=preset,
    )
    job.save(home / "j.toml")
    again = Job.load(home / "j.toml")
    assert again == job
    assert [(k, type(v)) for k, v in again.settings.items()] == [(k, type(v)) for k, v in own.items()]


def test_a_job_that_was_planned_plans_the_same_when_loaded(home, pictures):
    flux = Registry.from_installed()["flux"]
    extra = {"guidance_scale": None, "noise_offset": 0.0}
    job = flux.job(name="elena", trigger="elena", dataset=pictures, output="loras", preset="16gb", extra=extra)
    job.save("elena.toml")
    again = Job.load("elena.toml")
    assert (
        flux.plan(again, SdScripts.rehearsal()).files["elena_kohya_training.toml"]
        == (flux.plan(job, SdScripts.rehearsal()).files["elena_kohya_training.toml"])
    )
    assert again.settings.extra == {"guidance_scale": False, "noise_offset": 0.0}  # left out, by None as by False
    assert not flux.check(again, SdScripts.rehearsal()).errors


def test_relative_paths_of_a_saved_job_are_those_of_the_program(home):
    job = Job(model_type="flux", name="x", trigger="x", dataset="d", output="o", models={"ae": "m/ae.sft"})
    job.save(home / "elsewhere/job.toml")
    again = Job.load(home / "elsewhere/job.toml")
    assert (again.dataset, again.output, again.models["ae"].path) == (home / "d", home / "o", home / "m/ae.sft")


@pytest.mark.parametrize("key", ["wandb_api_key", "huggingface_token", "hf_token", "my_api_key", "password"])
def test_secrets_are_never_written(home, key):
    own = Settings(extra={key: "s3cr3t"})
    job = Job(model_type="flux", name="x", trigger="x", dataset="d", output="o", settings=own)
    for save in (job.save, Preset(name="x", extra=own.extra).save):
        with pytest.raises(SettingError, match=f"{key} is a secret") as caught:
            save(home / "x.toml")
        assert "s3cr3t" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_preset_file_with_a_secret_is_left_out_and_its_value_never_shown(home, capsys):
    from cinderlora.cli import main

    text = 'name = "x"\nmodel_type = "flux"\n[extra]\nwandb_api_key = "s3cr3t"\n'
    (home / "x.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"wandb_api_key is a secret.*x\.toml") as caught:
        Preset.load(home / "x.toml")
    assert caught.value.code == "secret_in_settings"
    registry = Registry.from_installed(presets=[home])
    assert "x" not in registry["flux"].presets and "x.toml" in str(registry.broken[str(home / "x.toml")])
    assert main(["presets", "show", str(home / "x.toml")]) == 2
    said = capsys.readouterr()
    assert "wandb_api_key" in said.err and "s3cr3t" not in said.out + said.err


@pytest.mark.parametrize("key", ["keep_tokens", "max_token_length", "tokenizer_cache_dir", "keep_tokens_separator"])
def test_what_only_sounds_like_a_secret_is_written(home, key):
    Preset(name="x", extra={key: 1}).save(home / "x.toml")
    assert Preset.load(home / "x.toml").extra == {key: 1}


# ---- versions --------------------------------------------------------------------------------------------------------


def test_files_say_their_format_and_older_ones_need_not(home):
    Preset(name="x", steps=3).save(home / "p.toml")
    Job(model_type="t", name="x", trigger="x", dataset="/d", output="/o").save(home / "j.toml")
    for name in ("p.toml", "j.toml"):
        text = (home / name).read_text(encoding="utf-8")
        assert text.startswith("format = 1\n")
        (home / name).write_text(text.removeprefix("format = 1\n"), encoding="utf-8")
    assert Preset.load(home / "p.toml") == Preset(name="x", steps=3)
    assert Job.load(home / "j.toml").name == "x"


@pytest.mark.parametrize("load", [Preset.load, Job.load, read_job])
def test_a_newer_format_is_refused(home, load):
    path = preset_file(home, "x.toml", 'format = 99\nname = "x"\nof_the_future = 1\n')
    with pytest.raises(
        ConfigError, match="is of format 99; this version of cinderlora reads formats up to 1"
    ) as caught:
        load(path)
    assert caught.value.code == "config_newer" and "Update" in caught.value.fix


def test_migrations_run_from_the_files_format_on():
    def renamed(old: str, new: str) -> Any:
        return lambda values: {new if key == old else key: value for key, value in values.items()}

    steps = (renamed("one", "two"), renamed("two", "three"))
    assert migrated(Path("x"), {"one": 1}, steps) == {"three": 1}
    assert migrated(Path("x"), {"format": 2, "two": 1}, steps) == {"three": 1}
    assert migrated(Path("x"), {"format": 3, "three": 1}, steps) == {"three": 1}
    for wrong in (0, -1, "1", True, 1.0, None):
        with pytest.raises(ConfigError) as caught:
            migrated(Path("x"), {"format": wrong}, steps)
        assert (caught.value.code, caught.value.params["where"]) == ("config_value", "format")


@pytest.mark.parametrize(
    ("text", "code", "where", "nearest"),
    [
        ("stpes = 3", "config_key_unknown", "stpes", "steps"),
        ("nmae = 'x'", "config_key_unknown", "nmae", "name"),
        ("[settings]\nnetwork_dmi = 3", "config_key_unknown", "settings.network_dmi", "network_dim"),
        ("[settings]\nsteps = 'many'", "config_value", "settings.steps", None),
        ("steps = 1.5", "config_value", "steps", None),
        ("[models]\nae = 3", "config_value", "models.ae", None),
        ("name = 3", "config_value", "name", None),
        ("type = 'flux'", "config_key_missing", "name", None),
    ],
)
def test_what_is_wrong_with_a_job_file_is_told_with_its_place(home, text, code, where, nearest):
    path = preset_file(home, "job.toml", text)
    with pytest.raises(ConfigError) as caught:
        Job.load(path)
    error = caught.value
    assert (error.code, error.params["where"], error.params.get("nearest")) == (code, where, nearest)
    assert str(path) in str(error)


# ---- preset files ----------------------------------------------------------------------------------------------------


def test_files_of_both_folders_are_presets_where_a_program_asks_for_them(home):
    project, user = preset_folders()
    assert (project, user) == (home / "cinderlora/presets", config_folder() / "presets")
    assert preset_folders(home.parent)[0] == home.parent / "cinderlora/presets"
    preset_file(user, "draft.toml", 'name = "draft"\nmodel_type = "flux"\nbase = "16gb"\nsteps = 800\n')
    preset_file(project, "fine.toml", 'name = "fine"\nmodel_type = "flux"\nbase = "draft"\nnetwork_dim = 64\n')
    preset_file(project, ".hidden.toml", "nonsense")
    preset_file(project, "notes.txt", "nonsense")
    (project / "folder.toml").mkdir()
    assert "draft" not in Registry.from_installed()["flux"].presets
    registry = Registry.from_installed(presets=preset_folders())
    fine = registry["flux"].presets["fine"]
    assert (fine.steps, fine.network_dim, fine.optimizer, fine.vram_gb) == (800, 64, "Prodigy", 16)
    assert "fine" not in registry["sdxl"].presets
    assert registry.broken == {}
    lineage = registry["flux"].preset_lineage("fine")
    assert [preset.name for _, preset in lineage] == ["fine", "draft", "16gb"]
    assert [provider for provider, _ in lineage] == [
        str(project / "fine.toml"),
        str(user / "draft.toml"),
        f"cinderlora {cinderlora.__version__}",
    ]
    job = registry["flux"].job(name="x", trigger="x", dataset="d", output="o", preset="fine")
    assert job.settings.network_dim == 64


def test_a_broken_file_is_named_and_harms_no_other(home):
    folder = home / "presets"
    good = 'name = "good"\nmodel_type = "flux"\nsteps = 1\n'
    preset_file(folder, "good.toml", good)
    broken = {
        "syntax.toml": ("name = ", "file_unreadable", {}),
        "key.toml": ('name = "k"\nmodel_type = "flux"\nstpes = 1', "config_key_unknown", {"nearest": "steps"}),
        "kind.toml": ('name = "k"\nmodel_type = "flux"\nsteps = "1"', "config_value", {"where": "steps"}),
        "nameless.toml": ('model_type = "flux"', "config_key_missing", {"where": "name"}),
        "typeless.toml": ('name = "t"', "config_key_missing", {"where": "model_type"}),
        "type.toml": ('name = "t"\nmodel_type = "flx"', "preset_type_unknown", {"nearest": "flux"}),
        "base.toml": ('name = "b"\nmodel_type = "flux"\nbase = "goood"', "preset_base_unknown", {"nearest": "good"}),
        "twice.toml": (good.replace("steps", "network_dim"), "preset_duplicate", {"first": str(folder / "good.toml")}),
        "shipped.toml": ('name = "16gb"\nmodel_type = "flux"', "preset_duplicate", {"first": "cinderlora 0.1.0"}),
    }
    for name, (text, _, _) in broken.items():
        preset_file(folder, name, text)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.toml")  # opening it would wait for ever
    registry = Registry.from_installed(presets=[folder])
    for name in registry:
        assert set(registry[name].presets) >= {"16gb"}
    assert registry["flux"].presets["good"].steps == 1
    found = {Path(name).name: entry for name, entry in registry.broken.items()}
    assert set(found) == set(broken)
    for name, (_, code, params) in broken.items():
        error = found[name].error
        assert isinstance(error, cinderlora.CinderloraError)
        assert error.code == code and params.items() <= error.params.items()
        assert str(folder / name) in str(found[name]) or code == "preset_base_unknown"


def test_a_file_counts_from_the_next_look_on(home):
    folder = home / "presets"
    registry = Registry.from_installed(presets=[folder])
    assert "mine" not in registry["flux"].presets
    path = preset_file(folder, "mine.toml", 'name = "mine"\nmodel_type = "flux"\nsteps = ')
    assert "mine" not in registry["flux"].presets
    assert list(registry.broken) == [str(path)]
    preset_file(folder, "mine.toml", 'name = "mine"\nmodel_type = "flux"\nsteps = 123')
    assert registry["flux"].presets["mine"].steps == 123
    assert registry.broken == {}
    path.unlink()
    assert "mine" not in registry["flux"].presets


def test_a_file_can_be_the_base_of_a_preset_in_code_and_the_other_way_round(home):
    class Pack:
        @hookimpl
        def presets(self, model_type):
            if model_type.name == "sd3":
                yield Preset(name="pack", base="file", steps=5)

    preset_file(home / "p", "file.toml", 'name = "file"\nmodel_type = "sd3"\nnetwork_dim = 3')
    registry = Registry.from_installed(presets=[home / "p"])
    registry.register(Pack(), name="pack")
    assert registry["sd3"].presets["pack"].network_dim == 3
    handed = Preset(name="handed", base="pack", network_alpha=1.0)
    assert [p.name for _, p in registry["sd3"].preset_lineage(handed)] == ["handed", "pack", "file"]
    with pytest.raises(cinderlora.PluginError, match="does not exist"):
        registry["sd3"].preset_lineage(attrs.evolve(handed, base="pakc"))


# ---- the commands ----------------------------------------------------------------------------------------------------


class Said:
    """What a command printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> None:
        assert main([str(argument) for argument in arguments]) == code
        self.out, self.err = capsys.readouterr()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> dict[str, list[str]]:
        return {line.split()[0]: line.split()[1:] for line in self.out.splitlines() if line.strip()}


def test_presets_lists_what_is_in_files_and_names_what_is_broken(home, capsys):
    project, _ = preset_folders()
    preset_file(project, "a.toml", 'name = "mine"\nmodel_type = "flux"\nbase = "16gb"\nsteps = 77\n')
    preset_file(project, "b.toml", 'name = "b"\nmodel_type = "flux"\nstpes = 7\n')
    said = Said(capsys, "presets", "flux")
    assert said.rows["flux"] is not None and any("mine" in line and "77" in line for line in said.out.splitlines())
    assert "b.toml: there is no setting stpes. Did you mean steps?" in said.err
    assert said.err.count("b.toml") == 1
    assert "mine" in {record["name"] for record in Said(capsys, "presets", "list", "flux", "--json").records}
    assert "mine" in Said(capsys, "presets", "--json").out
    assert "mine" in Said(capsys, "adapters").out
    assert "COMMAND" in Said(capsys, "presets", "--help").out


@pytest.mark.parametrize("wanted", ["b", "flux/b"])
def test_one_that_is_broken_is_not_said_to_be_unknown(home, capsys, wanted):
    project, _ = preset_folders()
    preset_file(project, "b.toml", 'name = "b"\nmodel_type = "flux"\nstpes = 7\n')
    (record,) = Said(capsys, "presets", "show", wanted, "--json", code=2).records
    assert record["error"]["code"] == "preset_broken" and "Did you mean steps?" in record["error"]["message"]
    preset_file(project, "b.toml", 'name = "b"\nmodel_type = "flux"\nbase = "16bg"\n')
    (record,) = Said(capsys, "presets", "show", wanted, "--json", code=2).records
    assert record["error"]["code"] == "preset_broken" and "Did you mean 16gb?" in record["error"]["message"]


def test_a_preset_without_a_title_is_for_its_memory(home, capsys):
    project, _ = preset_folders()
    preset_file(project, "a.toml", 'name = "mine"\nmodel_type = "flux"\nbase = "16gb"\n')
    (line,) = [line for line in Said(capsys, "presets", "flux").out.splitlines() if "mine" in line]
    assert line.split()[1:4] == ["mine", "16", "GB"]


def test_show_says_where_each_setting_comes_from(home, capsys):
    project, _ = preset_folders()
    preset_file(project, "a.toml", 'name = "mine"\nmodel_type = "flux"\nbase = "24gb"\n[extra]\nnoise_offset = 0.1\n')
    said = Said(capsys, "presets", "show", "mine")
    assert said.rows["extra.noise_offset"] == ["0.1", "mine"]
    assert said.rows["resolution"] == ["768", "24gb"]
    assert said.rows["fp8_base"] == ["on", "16gb"]
    assert "based on 24gb" in said.out and str(project / "a.toml") in said.out
    (record,) = Said(capsys, "presets", "show", "flux/mine", "--json").records
    assert (record["model_type"], record["base"], record["vram_gb"]) == ("flux", "24gb", 24)
    assert record["settings"]["steps"] == 2000 and record["from"]["steps"] == "24gb"
    assert Said(capsys, "presets", "show", project / "a.toml", "--json").records[0]["settings"] == record["settings"]


def test_diff_compares_what_would_be_trained(home, capsys):
    preset_file(
        home, "x.toml", 'name = "x"\nmodel_type = "flux"\nbase = "16gb"\nsteps = 9\nbatch_size = 1\nseed = 42\n'
    )
    said = Said(capsys, "presets", "diff", "flux/16gb", "x.toml")
    assert said.out.splitlines()[1:] == ["steps    1500       9"]  # 42 is the default, 1 the base's
    (record,) = Said(capsys, "presets", "diff", "x.toml", "16gb", "--type", "flux", "--json").records
    assert record == {"a": "x.toml", "b": "16gb", "differences": {"steps": [9, 1500]}}
    assert "do not differ" in Said(capsys, "presets", "diff", "sd3/8gb", "sd3/8gb").out


def test_save_writes_what_another_machine_can_use(home, capsys):
    Said(capsys, "presets", "save", "flux/24gb", "whole.toml")
    whole = Preset.load("whole.toml")
    assert whole == Registry.from_installed()["flux"].presets["24gb"]
    Said(capsys, "presets", "save", "flux/24gb", "part.toml", "--with-base", "--as", "mine")
    part = Preset.load("part.toml")
    assert (part.name, part.base, part.optimizer, part.fp8_base) == ("mine", "16gb", "AdamW8bit", None)
    (record,) = Said(capsys, "presets", "save", "flux/24gb", "--user", "--as", "mine", "--json").records
    assert Path(record["path"]) == preset_folders()[1] / "mine.toml"
    Said(capsys, "presets", "save", "mine", "--project", "--as", "mine2")
    assert "mine2" in Said(capsys, "presets", "flux").out
    Said(capsys, "presets", "save", "mine", "--user", "--force")  # its own file


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "16gb"], "preset_ambiguous"),
        (["show", "17gb"], "preset_nowhere"),
        (["show", "flux/17gb"], "preset_unknown"),
        (["show", "flx/16gb"], "model_type_unknown"),
        (["show", "none.toml"], "file_not_found"),
        (["show", "typeless.toml"], "model_type_missing"),
        (["show", "flux.toml", "--type", "sd3"], "preset_of_another_type"),
        (["diff", "flux/16gb", "flux/17gb"], "preset_unknown"),
        (["save", "flux/16gb"], "usage"),
        (["save", "flux/16gb", "x.toml", "--user"], "usage"),
        (["save", "flux/16gb", "flux.toml"], "file_in_the_way"),
        (["save", "flux/16gb", "--user"], "preset_taken"),
        (["save", "flux/16gb", "--user", "--as", "../x"], "name_unsafe"),
        (["save", "flux/16gb", "flux.toml/x.toml"], "file_not_written"),
        (["shwo"], "model_type_unknown"),
    ],
)
def test_presets_refuses(home, capsys, arguments, code):
    preset_file(home, "typeless.toml", 'name = "x"\n')
    before = preset_file(home, "flux.toml", 'name = "x"\nmodel_type = "flux"\n').read_bytes()
    (record,) = Said(capsys, "presets", *arguments, "--json", code=2).records
    assert record["error"]["code"] == code
    assert (home / "flux.toml").read_bytes() == before


def test_a_preset_file_trains(home, pictures, capsys):
    preset_file(preset_folders()[0], "a.toml", 'name = "tiny"\nmodel_type = "sdxl"\nresolution = 64\nsteps = 5\n')
    arguments = ["--type", "sdxl", "--name", "elena", "-d", pictures, "--preset", "tiny", "--rehearsal"]
    said = Said(capsys, "train", *arguments, "--output", home / "out", "--dry-run")
    assert "max_train_steps = 5" in said.out


SAMPLES = Path(__file__).parent / "data/importing"


def test_import_says_what_became_of_everything(home, capsys):
    said = Said(capsys, "import", SAMPLES / "kohya_flux.json", "--save", "job.toml")
    assert "a configuration of kohya_ss, for FLUX.1" in said.out
    assert said.rows["network_dim"] == ["16", "16"] and said.rows["max_resolution"] == ["768,768", "resolution", "768"]
    assert said.rows["timestep_sampling"] == ["sigmoid", "extra.timestep_sampling", "sigmoid"]
    assert said.rows["huggingface_token"][:2] == ["A", "secret:"]
    assert "So it is anyway: LoRA_type, guidance_scale" in said.out
    assert "import_several_prompts" in said.err
    assert "Next: cinderlora check job.toml --dataset FOLDER" in said.out
    assert read_toml(Path("job.toml"))["settings"]["network_dim"] == 16


def test_an_imported_job_file_is_one_for_train(home, pictures, capsys):
    Said(capsys, "import", SAMPLES / "onetrainer.json", "--save", "job.toml", "--save-preset", "theirs.toml")
    (record,) = Said(capsys, "check", "job.toml", "-d", pictures, "--rehearsal", "--json").records
    assert record["report"]["images"] == 6
    assert "network_dim = 32" in Said(capsys, "train", "job.toml", "-d", pictures, "--rehearsal", "--dry-run").out
    assert Preset.load("theirs.toml").model_type == "sdxl"
    error = Said(capsys, "import", SAMPLES / "onetrainer.json", "--save", "job.toml", "--json", code=2).records[0]
    assert error["error"]["code"] == "file_in_the_way"
    Said(capsys, "import", SAMPLES / "onetrainer.json", "--save", "job.toml", "--force")


def test_import_for_programs_and_in_german(home, capsys, monkeypatch):
    records = Said(capsys, "import", SAMPLES / "training.toml", "--json", "--save", "job.toml").records
    imported = records[0]["imported"]
    assert (
        imported["model_type"] == "sdxl"
        and {"key": "dropout", "value": "0.1"}.items()
        <= next(entry for entry in imported["taken"] if entry["key"] == "dropout").items()
    )
    assert records[1] == {"job": "job.toml"}
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    said = Said(capsys, "import", SAMPLES / "train.sh")
    assert "eine Befehlszeile von sd-scripts, für FLUX.1" in said.out and "Nicht übernommen" in said.out


def test_what_no_model_type_trains_is_told_and_not_saved(home, capsys):
    path = preset_file(home, "c.json", '{"LoRA_type": "Standard", "network_dim": 8, "unet_lr": 0.1, "clip_skip": 2}')
    said = Said(capsys, "import", path, "--save", "job.toml", code=2)
    assert "import_script_unknown" in said.err and "clip_skip" not in said.out and not Path("job.toml").exists()
    Said(capsys, "import", path, "--save", "job.toml", "--type", "sdxl")
    assert read_toml(Path("job.toml"))["settings"]["extra"]["clip_skip"] == 2
    (record,) = Said(capsys, "import", path, "--format", "kohya", "--json", code=2).records
    assert record["error"]["code"] == "import_format"
