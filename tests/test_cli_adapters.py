"""`cinderlora adapters`: listing, checking, beginning a new one."""

from __future__ import annotations

import json
import keyword
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from unittest import SkipTest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cinderlora
from cinderlora import CinderloraError, ModelType, PluginError, Registry, hookimpl
from cinderlora.cli import main
from cinderlora.new_adapter import adapter_files, write_adapter
from cinderlora.testing import adapter_checks, sample_header


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A person's folders that are nobody's, and a place to stand."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "CINDERLORA_DISABLE", "CINDERLORA_SD_SCRIPTS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def said(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


# ---- new -------------------------------------------------------------------------------------------------------------


def module_of(folder: Path, name: str) -> ModuleType:
    """The package's module, imported from its source."""
    import importlib.util

    path = folder / f"src/cinderlora_{name}/__init__.py"
    spec = importlib.util.spec_from_file_location(f"cinderlora_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("options", [(), ("--script", "tools/train_z.py", "--network-module", "z.lora")], ids=len)
def test_a_new_package_passes_its_own_checks_at_once(options, tmp_path, capsys, monkeypatch):
    code, out, _ = said(capsys, "adapters", "new", "z_image", "--title", "Z-Image (6 B)", "--json", *options)
    assert code == 0
    folder = Path(json.loads(out)["path"])
    assert folder == Path("cinderlora-z-image") and len(json.loads(out)["files"]) == 5
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["name"], project["entry-points"]) == (
        "cinderlora-z-image",
        {"cinderlora": {"z_image": "cinderlora_z_image"}},
    )
    monkeypatch.syspath_prepend(str(folder.absolute() / "src"))
    plugin = module_of(folder, "z_image")
    monkeypatch.setitem(sys.modules, "cinderlora_z_image", plugin)
    tests: dict = {}
    exec((folder / "tests/test_adapter.py").read_text(encoding="utf-8"), tests)  # noqa: S102 - it is ours
    done = []
    for check in tests["CHECKS"]:
        with suppress(SkipTest):
            check()
            done.append(str(check))
    assert {"the presets are valid", "headers of its own are claimed", "a rehearsal runs from job to lora"} < {*done}
    assert Registry().register(plugin, name="z_image") is None


@pytest.mark.parametrize(
    "name",
    ["", "Flux", "2d", "class", "match", "z-image", "a__b", "a_", "../x", "a b", "ä", "os;import os", "x" * 41, "a\n"],
)
def test_a_name_that_could_be_anything_else_in_source_is_refused(name, capsys):
    code, _, err = said(capsys, "adapters", "new", "--", name)
    assert code == 2 and "adapter_name_invalid" in err and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--title", '"""\nimport os'),
        ("--title", 'x", min_vram_gb=__import__("os").getpid(), script="'),
        ("--title", "a\\"),
        ("--title", "a\x1b[31m"),
        ("--script", "../../etc/passwd"),
        ("--script", 'x.py", network_module="y.py'),
        ("--network-module", "os; import shutil"),
        ("--network-module", "networks.class"),
    ],
)
def test_texts_that_would_be_code_are_refused(option, value, capsys):
    code, _, err = said(capsys, "adapters", "new", "novel", option, value)
    assert code == 2 and "adapter_text_invalid" in err and not list(Path().iterdir())


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_written_says_what_was_asked_for(title, script, network_module):
    try:
        files = adapter_files("novel", title=title, script=script, network_module=network_module)
    except PluginError:
        return
    names: dict = {}
    exec(files["src/cinderlora_novel/__init__.py"], names)  # noqa: S102 - that is the question
    kind = names["model_type"]()
    assert isinstance(kind, ModelType) and (kind.title == title or not title)
    assert kind.script == (script or "novel_train_network.py")
    assert kind.network_module == (network_module or "networks.lora_novel")
    assert tomllib.loads(files["pyproject.toml"])["project"]["description"] == f"{kind.title} for cinderlora"


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x", encoding="utf-8")
    code, _, err = said(capsys, "adapters", "new", "novel", "--to", tmp_path / "mine")
    assert code == 2 and "folder_in_the_way" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("x", encoding="utf-8")
    code, _, err = said(capsys, "adapters", "new", "novel", "--to", tmp_path / "file/below")
    assert code == 2 and "file_not_written" in err
    with pytest.raises(CinderloraError):
        write_adapter({"a/b": "x", "a": "y"}, tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_a_package_that_is_installed_is_not_made_again(capsys):
    code, _, err = said(capsys, "adapters", "new", "flux")
    assert code == 2 and "adapter_name_taken" in err and not list(Path().iterdir())


def test_no_name_of_a_package_is_a_keyword():
    assert keyword.iskeyword("class")
    with pytest.raises(PluginError):
        adapter_files("class")


# ---- check -----------------------------------------------------------------------------------------------------------


def test_checking_an_installed_adapter(capsys):
    code, out, _ = said(capsys, "adapters", "check", "sd3", "--json", "--no-rehearsal")
    records = [json.loads(line) for line in out.splitlines()]
    import cinderlora_sd3

    assert code == 0 and [r["check"] for r in records] == [str(check) for check in adapter_checks(cinderlora_sd3)]
    outcomes = {r["check"]: r["outcome"] for r in records}
    assert outcomes["headers of others are left alone"] == "ok"
    assert outcomes["a rehearsal runs from job to lora"] == "skipped" and all(
        r["why"] for r in records if r["outcome"] != "ok"
    )


def test_a_file_on_disk_is_held_against_what_it_claims(tmp_path, capsys):
    from cinderlora.models.hollow import write_hollow

    vae = tmp_path / "sdxl_vae.safetensors"
    write_hollow(vae, dict(sample_header("sdxl_vae").tensors))

    def claimed(*options):
        _, out, err = said(capsys, "adapters", "check", "sdxl", "--json", "--no-rehearsal", *options)
        found = [r for r in map(json.loads, out.splitlines()) if r.get("check") == "headers of its own are claimed"]
        return (found[0]["outcome"], found[0]["why"]) if found else ("", out + err)

    assert claimed() == (
        "skipped",
        "no headers are given: headers={'model': make_header({...}), ...}, or --header model=FILE",
    )
    assert claimed("--header", f"vae={vae}") == ("skipped", "no headers are given for model")
    outcome, why = claimed("--header", f"model={vae}")
    assert outcome == "failed" and "does not claim sdxl_vae.safetensors" in why and "decoder.conv_in.bias (512,)" in why
    assert "is not ROLE=FILE" in claimed("--header", str(vae))[1]
    assert "nowhere" in claimed("--header", f"vae={tmp_path / 'nowhere'}")[1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make a distribution with a plugin, as pip leaves one behind."""

    def make(name: str, source: str) -> None:
        site = tmp_path / "site"
        info = site / f"cinderlora_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: cinderlora-{name}\nVersion: 1.0\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[cinderlora]\n{name} = cinderlora_{name}\n", encoding="utf-8")
        (site / f"cinderlora_{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))

    yield make
    for name in [name for name in sys.modules if name.startswith("cinderlora_broken")]:
        del sys.modules[name]


def test_one_that_the_registry_refuses_is_told_why(installed, capsys):
    installed("broken", "from cinderlora import hookimpl\n@hookimpl\ndef preset(model_type): ...\n")
    code, out, _ = said(capsys, "adapters", "check", "broken", "--no-rehearsal")
    assert code == 1 and "There is no hook 'preset'. Call it 'presets'." in out
    assert out.splitlines()[-1].startswith("To be changed: ")


def test_one_that_cannot_even_be_imported(installed, capsys):
    installed("broken", "import nothing_of_that_name\n")
    code, _, err = said(capsys, "adapters", "check", "broken")
    assert code == 2 and "nothing_of_that_name" in err


def test_one_that_is_not_there(capsys):
    code, out, _ = said(capsys, "adapters", "check", "fluks", "--json")
    error = json.loads(out)["error"]
    assert code == 2 and error["code"] == "adapter_unknown" and error["params"]["nearest"] == "flux"


def test_listing_is_what_happens_where_nothing_else_is_said(capsys):
    assert said(capsys, "adapters") == said(capsys, "adapters", "list")
    code, out, _ = said(capsys, "adapters", "--json")
    assert code == 0 and {json.loads(line)["name"] for line in out.splitlines()} >= {"flux", "sd3", "sdxl"}
    code, out, _ = said(capsys, "adapters", "--help")
    assert code == 0 and "new" in out and "check" in out
    code, _, err = said(capsys, "adapters", "chek")
    assert code == 2 and "chek" in err


def test_hooks_are_marked_with_ours():
    assert hookimpl.project_name == "cinderlora" and cinderlora.hookimpl is hookimpl
