"""This machine's configuration: the file, the environment over it, and what the command line does with both."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import platformdirs
import pytest

from cinderlora import Config, ConfigError
from cinderlora.cli import main
from cinderlora.config import CONFIG_NAMES, default_language
from cinderlora.folders import config_folder, data_folder
from cinderlora.models.folders import find_model_files

LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folders that are nobody's, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in LOCALE:
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    return tmp_path


# ---- the data --------------------------------------------------------------------------------------------------------


def test_the_folders_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ({"XDG_CONFIG_HOME", "XDG_DATA_HOME"}, set()):
        assert config_folder() == Path(platformdirs.user_config_dir("cinderlora", appauthor=False))
        assert data_folder() == Path(platformdirs.user_data_dir("cinderlora", appauthor=False))
        for name in variables:
            monkeypatch.delenv(name)


def test_without_a_file_there_are_the_defaults() -> None:
    assert Config.load() == Config()
    assert not Config.file().exists()
    assert (Config().loras, Config().models) == (None, None)


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('comfyui = "/in/file"\nruns = "/runs"\n', encoding="utf-8")
    config = Config.load(file, {"CINDERLORA_COMFYUI": "/in/environment", "CINDERLORA_RUNS": ""})
    assert config.comfyui == Path("/in/environment")
    assert config.runs == Path("/runs")
    assert config.loras == Path("/in/environment/models/loras")
    assert config.models == Path("/in/environment/models")


def test_models_are_also_looked_for_where_comfyui_is_told_to(tmp_path: Path) -> None:
    comfyui, elsewhere = tmp_path / "ComfyUI", tmp_path / "elsewhere"
    for file in (comfyui / "models/vae/ae.safetensors", elsewhere / "clip/t5xxl.safetensors"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
    config = Config(comfyui=comfyui)
    assert config.models == comfyui / "models"
    (comfyui / "extra_model_paths.yaml").write_text(
        f"mine:\n  base_path: {elsewhere}\n  clip: clip\n", encoding="utf-8"
    )
    assert config.models is not None
    found, problems = find_model_files(config.models)
    assert [Path(file.path).name for file in found] == ["ae.safetensors", "t5xxl.safetensors"]
    assert not problems


def test_an_output_folder_goes_over_comfyui() -> None:
    assert Config(comfyui="/c", output="/o").loras == Path("/o")


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    config = Config(comfyui='/a "b" ü\\c', output_prefix="lora_", language="de", datasets="~/sets")
    file = config.save(tmp_path / "new" / "config.toml")
    assert Config.load(file, {}) == config


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("comfy_ui = 'x'", "config_key_unknown", "comfy_ui"),
        ("comfyui = 3", "config_value", "comfyui"),
        ("comfyui = ", "file_unreadable", None),
    ],
)
def test_a_wrong_file_says_where_it_is_wrong(tmp_path: Path, text: str, code: str, where: str | None) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Config.load(file, {})
    assert caught.value.code == code
    assert caught.value.params["path"] == str(file)
    assert caught.value.params.get("where") == where


def test_a_mistyped_key_is_told_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("comfy_ui = 'x'", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Config.load(file, {})
    assert caught.value.params["nearest"] == "comfyui"


@pytest.mark.skipif(sys.platform == "win32", reason="the variables are POSIX's")
@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "de_DE.UTF-8"}, "de"),
        ({"LANG": "de_AT"}, "de"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_MESSAGES": "de_CH.UTF-8", "LANG": "fr_CH.UTF-8"}, "de"),
        ({}, "en"),
    ],
)
def test_the_language_is_the_systems(
    environment: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_language() == language


# ---- the command -----------------------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, str | None]:
    assert main(["config", "--json"]) == 0
    values: dict[str, str | None] = json.loads(capsys.readouterr().out)
    return values


def test_config_sets_shows_and_unsets(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert main(["config", "set", "comfyui", "ComfyUI ü"]) == 0
    assert "no folder" in capsys.readouterr().err  # said, and no reason to refuse: it may be installed tomorrow
    assert Config.load().comfyui == home / "ComfyUI ü"
    assert shown(capsys) == {
        **dict.fromkeys(CONFIG_NAMES),
        "path": str(Config.file()),
        "comfyui": str(home / "ComfyUI ü"),
        "output_prefix": "cg_",
        "language": "en",
    }
    assert main(["config", "unset", "comfyui"]) == 0
    assert Config.load() == Config()


def test_config_says_where_each_value_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Config(output_prefix="lora_", runs="/runs").save()
    monkeypatch.setenv("CINDERLORA_RUNS", "/elsewhere")
    assert main(["config"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["output_prefix"] == ["lora_", "config.toml"]
    assert rows["runs"] == ["/elsewhere", "environment"]
    assert rows["comfyui"] == ["-", "default"]


def test_config_path_and_a_shadowed_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(Config.file())
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "en")
    assert main(["config", "set", "language", "de"]) == 0
    assert "CINDERLORA_LANGUAGE" in capsys.readouterr().err


def test_the_command_line_speaks_the_configured_language(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "set", "language", "de"]) == 0
    assert main(["presets", "flx"]) == 2
    assert "Fehler [model_type_unknown]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["set", "comfy", "x"], "config_key_unknown"),
        (["unset", "comfy"], "config_key_unknown"),
        (["set", "language", "fr"], "setting_choice"),
        (["set", "output_prefix", "../x"], "name_unsafe"),
        (["set", "comfyui", "a\nb"], "setting_type"),
        (["set", "comfyui", " "], "setting_type"),
        (["set", "comfyui"], "usage"),
    ],
)
def test_config_refuses(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert not Config.file().exists()


def test_a_broken_file_is_an_error_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    Config.file().parent.mkdir(parents=True)
    Config.file().write_text("language = ", encoding="utf-8")
    assert main(["config"]) == 2
    assert str(Config.file()) in capsys.readouterr().err
