"""A checkout of sd-scripts: where it is found, what it is, and whether its Python can run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import SdScripts, TrainerNotFound, to_json
from cinderlora.cli import main
from cinderlora.folders import data_folder
from cinderlora.sd_scripts.checkout import INSTALLING
from cinderlora.sd_scripts.git_folder import commit_of, tags_at, version_of
from cinderlora.sd_scripts.verify import REQUIRED, findings_in

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and signals are POSIX's")


def checkout(folder: Path) -> Path:
    """What `find` takes for sd-scripts."""
    folder.mkdir(parents=True)
    (folder / "train_network.py").touch()
    return folder


# ---- where it is -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, a data folder in it, and a working folder."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LC_ALL", "C")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_it_is_found_in_each_place_and_the_first_one_counts(home, tmp_path):
    places = [
        tmp_path / "given",
        tmp_path / "named by the environment",
        tmp_path / "work/tools/sd-scripts",
        data_folder() / "sd-scripts",
        home / "sd-scripts",
        home / "kohya_ss/sd-scripts",
        home / "fluxgym/sd-scripts",
    ]
    environ = {"CINDERLORA_SD_SCRIPTS": str(places[1])}
    for place in reversed(places):
        checkout(place)
        assert SdScripts.find(places[0], environ=environ).path == place


def test_not_found_it_says_where_it_looked_and_how_to_install_it(home, tmp_path):
    if Path("/opt/sd-scripts").exists():
        pytest.skip("there is one in /opt")
    with pytest.raises(TrainerNotFound) as missing:
        SdScripts.find(tmp_path / "given", environ={})
    german = missing.value.text("de")
    assert german.message.startswith("Kohya sd-scripts nicht gefunden")
    for told in (str(tmp_path / "given"), "tools/sd-scripts", "kohya_ss", "fluxgym", "/opt/sd-scripts"):
        assert told in german.message
    assert "cinderlora sd-scripts install" in german.fix and "cinderlora sd-scripts install" in missing.value.fix


def test_one_that_is_not_complete_is_passed_over(home, tmp_path):
    (checkout(tmp_path / "given") / INSTALLING).mkdir()
    complete = checkout(home / "sd-scripts")
    assert SdScripts.find(tmp_path / "given", environ={}).path == complete


def test_the_environment_names_its_python(home, tmp_path):
    checkout(tmp_path / "sd")
    environ = {"CINDERLORA_SD_SCRIPTS": str(tmp_path / "sd"), "CINDERLORA_SD_SCRIPTS_PYTHON": "/my/python"}
    assert SdScripts.find(environ=environ).python == Path("/my/python")


# ---- its Python ------------------------------------------------------------------------------------------------------


def environment(folder: Path) -> Path:
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def test_which_python(tmp_path, monkeypatch):
    path = checkout(tmp_path / "kohya_ss/sd-scripts")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert SdScripts(path).python is None
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    assert SdScripts(path).python == tmp_path / "bin/python3"
    beside = environment(path.parent / "venv")
    assert SdScripts(path).python == tmp_path / "bin/python3"  # just any folder's environment
    (path.parent / "kohya_gui.py").touch()
    assert SdScripts(path).python == beside
    hidden = environment(path / ".venv")
    assert SdScripts(path).python == hidden
    own = environment(path / "venv")
    assert SdScripts(path).python == own
    assert SdScripts(path, python="/given").python == Path("/given")


def test_fluxgyms_environment(tmp_path):
    path = checkout(tmp_path / "fluxgym/sd-scripts")
    (path.parent / "app.py").touch()
    assert SdScripts(path).python != (python := environment(path.parent / "env")).with_name("x")
    assert SdScripts(path).python == python


def test_its_scripts(tmp_path):
    path = checkout(tmp_path / "sd")
    for name in ("sd3_train_network.py", "flux_train_network.py", "flux_train.py", "train_network_helper.py"):
        (path / name).touch()
    assert SdScripts(path).scripts == ("flux_train_network.py", "sd3_train_network.py", "train_network.py")
    assert SdScripts(tmp_path / "nowhere").scripts == ()


# ---- its commit and version ------------------------------------------------------------------------------------------


def git(folder: Path, *argv: str) -> str:
    options = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    options += ["-c", "protocol.file.allow=always"]
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *options, *argv], cwd=folder, capture_output=True, text=True, check=True, env=environ)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = checkout(tmp_path / "repository")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    return folder


def test_the_commit_is_gits_own(repository, tmp_path):
    def right(folder: Path) -> bool:
        return commit_of(folder) == git(folder, "rev-parse", "HEAD")

    first = commit_of(repository)
    assert right(repository)
    git(repository, "pack-refs", "--all")
    assert right(repository)
    git(repository, "commit", "--allow-empty", "-m", "two")  # a loose branch goes over the packed one
    assert right(repository) and commit_of(repository) != first
    git(repository, "checkout", "--detach", "HEAD~1")
    assert right(repository)
    git(repository, "worktree", "add", "-b", "feature/x", str(tmp_path / "worktree"), "main")
    assert right(tmp_path / "worktree")
    kohya = tmp_path / "kohya_ss"
    kohya.mkdir()
    git(kohya, "init")
    git(kohya, "submodule", "add", str(repository), "sd-scripts")
    assert (kohya / "sd-scripts/.git").is_file() and right(kohya / "sd-scripts")


@pytest.mark.parametrize(
    "head",
    ["", "ref: refs/heads/../../../secret", "ref: ../secret", "ref: refs/heads/none", "\0", "0123", "ref: " + "a" * 40],
)
def test_a_head_that_leads_nowhere(tmp_path, head):
    folder = tmp_path / "a/b/sd"
    (folder / ".git/refs/heads").mkdir(parents=True)
    (folder / ".git/HEAD").write_text(head)
    for secret in (folder / ".git/secret", folder / "secret", folder / ".git/refs/secret", folder.parent / "secret"):
        secret.write_text("0" * 40)
    assert commit_of(folder) is None and version_of(folder) is None
    assert commit_of(tmp_path / "nowhere") is None


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_git_folder_can_be_looked_at(tmp_path_factory, head, packed):
    folder = tmp_path_factory.mktemp("git")
    (folder / ".git").mkdir()
    (folder / ".git/HEAD").write_bytes(head)
    (folder / ".git/packed-refs").write_bytes(packed)
    commit = commit_of(folder)
    assert commit is None or len(commit) in {40, 64}
    assert isinstance(tags_at(folder, commit or ""), list)


def test_versions(repository):
    assert version_of(repository) is None
    (repository / "README.md").write_text("Python 3.10\n- **Version 0.10.1 (2026-02-13):**\n- **Version 0.10.0:**\n")
    assert version_of(repository) == SdScripts(repository).version == "0.10.1"
    git(repository, "tag", "nightly")
    assert version_of(repository) == "0.10.1"
    git(repository, "tag", "v0.9.1")
    assert version_of(repository) == "0.9.1"
    git(repository, "commit", "--allow-empty", "-m", "two")
    assert version_of(repository) == "0.10.1"
    git(repository, "tag", "-a", "0.11.0", "-m", "annotated")
    assert version_of(repository) == "0.11.0"  # told by the loose object
    git(repository, "pack-refs", "--all")
    git(repository, "gc")
    assert version_of(repository) == "0.11.0"  # told by packed-refs
    assert tags_at(repository, git(repository, "rev-parse", "HEAD~1")) == ["nightly", "v0.9.1"]


# ---- whether it can run ----------------------------------------------------------------------------------------------

TORCH = """
print("a word from torch")
__version__ = "2.8.0+cu128"
class version:
    cuda = "12.8"
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda i: "NVIDIA RTX 0")
"""


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SdScripts:
    """A checkout whose Python is this one, with stand-ins for all packages where a PYTHONPATH leads to."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for module in REQUIRED:
        (packages / f"{module}.py").write_text(TORCH if module == "torch" else "")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    path = checkout(tmp_path / "sd ü")
    (path / "library").mkdir()
    (path / "library/__init__.py").write_text(f"import {', '.join(REQUIRED)}")
    (path / "train_network.py").write_text("import library")
    (path / "sd3_train_network.py").write_text("import library, json, config_beside\n")
    (path / "config_beside.py").touch()
    return SdScripts(path, python=sys.executable)


def codes(verification) -> list[tuple[str, str]]:
    return [(p.severity, p.code) for p in verification.problems]


def package(trainer: SdScripts, name: str, text: str | None) -> None:
    path = trainer.path.parent / f"packages/{name}.py"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


OPTIMIZERS = ("warning", "trainer_optimizer_missing")


def test_all_is_well(trainer):
    found = trainer.verify()
    assert found.ok and codes(found) == [OPTIMIZERS]
    assert found.python == Path(sys.executable) and found.python_version == ".".join(map(str, sys.version_info[:3]))
    assert (found.torch, found.cuda, found.gpus) == ("2.8.0+cu128", "12.8", ("NVIDIA RTX 0",))
    assert found.scripts == ("sd3_train_network.py", "train_network.py") and found.missing == ()
    assert found.has_package("PyTest") and not found.has_package("bitsandbytes")
    assert json.loads(json.dumps(to_json(found)))["packages"]["pytest"] == found.packages["pytest"]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.torch = None
    assert "torch" not in sys.modules


def test_only_the_packages(trainer):
    package(trainer, "torch", "raise SystemExit")
    found = trainer.verify(imports=False)
    assert found.ok and not found.problems and found.torch is None and found.has_package("pytest")
    assert trainer.has_package("pytest") is True and trainer.has_package("no-such-thing") is False


def test_packages_that_are_missing_are_told_once(trainer):
    package(trainer, "cv2", None)
    package(trainer, "transformers", "import no_such_thing.deep")
    found = trainer.verify()
    assert not found.ok and found.missing == ("no_such_thing", "opencv-python")
    assert codes(found)[0] == ("error", "trainer_package_missing") and len(found.problems) == 2
    assert "opencv-python" in found.problems[0].text("de").message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "libGL.so.1"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; print('last words', flush=True); os._exit(7)", "exit code 7: last words"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "signal 4"),
        ("print('\\x1e{\"failed\": 1')\nprint('\\x1e[]', end='')\nraise ValueError('\\x1e' * 9000)", "ValueError"),
    ],
)
def test_a_package_that_cannot_be_imported(trainer, text, why):
    package(trainer, "cv2", text)
    found = trainer.verify()
    assert not found.ok and found.torch == "2.8.0+cu128"
    problem = found.problems[0]
    assert problem.code == "trainer_import_failed" and problem.params["module"] == "cv2"
    assert why in problem.params["why"]


def test_one_that_hangs(trainer):
    package(trainer, "torch", "import time; time.sleep(600)")
    found = trainer.verify(timeout=1.0)
    problem = found.problems[0]
    assert problem.code == "trainer_import_failed" and problem.params == {"module": "torch", "why": "no answer"}


def test_one_script_may_be_broken(trainer):
    (trainer.path / "flux_train_network.py").write_text("import library.nothing")
    (trainer.path / "lumina_train_network.py").write_text("1 / 0")
    found = trainer.verify()
    assert found.ok and found.scripts == ("sd3_train_network.py", "train_network.py")
    broken = [p.params["module"] for p in found.problems if p.code == "trainer_import_failed"]
    assert broken == ["flux_train_network", "lumina_train_network"]


def test_one_reason_is_told_once(trainer):
    package(trainer, "torch", TORCH)
    (trainer.path / "library/__init__.py").write_text("from torch import nothing")
    found = trainer.verify()
    problem = found.problems[0]
    assert problem.params["module"] == "sd3_train_network, train_network" and "'nothing'" in problem.params["why"]
    assert len(found.problems) == 2


def test_all_scripts_may_be_broken(trainer):
    (trainer.path / "library/__init__.py").write_text("import no_such_thing")
    (trainer.path / "train_network.py").write_text("import library.nothing")
    found = trainer.verify()
    assert not found.ok and found.scripts == () and found.missing == ("no_such_thing",)


@pytest.mark.parametrize(
    ("torch", "code"),
    [
        (TORCH.replace('cuda = "12.8"', "cuda = None").replace("True", "False"), "trainer_torch_cpu"),
        (TORCH.replace("lambda: True", "lambda: __import__('warnings').warn('driver too old')"), "trainer_gpu_unseen"),
        (TORCH.replace("lambda: True", "lambda: 1 / 0"), "trainer_gpu_unseen"),
    ],
)
def test_no_gpu_is_a_warning(trainer, torch, code):
    package(trainer, "torch", torch)
    found = trainer.verify()
    assert found.ok and found.gpus == () and codes(found) == [("warning", code), OPTIMIZERS]
    if code == "trainer_gpu_unseen":
        assert found.problems[0].params["why"] in {"driver too old", "division by zero"}


def test_a_package_that_the_scripts_do_without(trainer):
    package(trainer, "einops", None)
    (trainer.path / "library/__init__.py").write_text("import torch")
    found = trainer.verify()
    assert found.ok and found.missing == () and codes(found) == [("warning", "trainer_package_missing"), OPTIMIZERS]


def test_what_is_not_there(trainer, tmp_path):
    assert codes(SdScripts(tmp_path / "none").verify()) == [("error", "trainer_not_found")]
    assert codes(SdScripts(trainer.path, python=tmp_path / "none").verify()) == [("error", "trainer_python_not_found")]
    odd = tmp_path / "odd"
    odd.write_text("#!/nonexistent/interpreter\n")
    odd.chmod(0o755)
    assert codes(SdScripts(trainer.path, python=odd).verify()) == [("error", "trainer_python_unusable")]
    odd.write_text("#!/bin/sh\necho no python today; exit 9\n")
    found = SdScripts(trainer.path, python=odd).verify()
    assert found.problems[0].params["why"] == "exit code 9: no python today"
    assert SdScripts(trainer.path, python=odd).has_package("torch") is None


def test_nothing_beside_the_probe_stands_in_for_a_module(trainer, monkeypatch):
    """There are modules of ours called `config` and `arguments` beside it; a training would not see them."""
    (trainer.path / "sd3_train_network.py").write_text("import arguments")
    assert trainer.verify().scripts == ("train_network.py",)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text() | st.integers(), min_size=1)), st.text('ab{}[]" '))
def test_findings_are_found_in_any_noise(findings, noise):
    lines = [f"{noise}\x1e{json.dumps(finding)}" for finding in findings]
    assert findings_in([noise, *lines, "\x1e", "\x1e{", '\x1e"text"']) == findings


@given(st.lists(st.text()))
def test_any_output_can_be_read(lines):
    assert all(isinstance(finding, dict) for finding in findings_in(lines))


def test_the_rehearsal_has_what_it_needs():
    assert SdScripts.rehearsal().verify().ok and SdScripts.rehearsal().commit is None


@pytest.mark.sd_scripts
@pytest.mark.skipif("CINDERLORA_SD_SCRIPTS" not in os.environ, reason="CINDERLORA_SD_SCRIPTS names no checkout")
def test_the_real_one():
    trainer = SdScripts.find()
    found = trainer.verify()
    assert found.ok, [str(problem) for problem in found.problems]
    assert found.torch and set(found.scripts) <= set(trainer.scripts) and "sdxl_train_network.py" in found.scripts
    assert trainer.commit is None or len(trainer.commit) == 40


# ---- on the command line ---------------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    return (code, *capsys.readouterr())


def test_find_and_show(home, trainer, capsys):
    code, out, err = said(capsys, "sd-scripts", "find")
    assert code == 2 and out == "" and "cinderlora sd-scripts install" in err
    said(capsys, "config", "set", "sd_scripts", trainer.path)
    assert said(capsys, "sd-scripts", "find") == (0, f"{trainer.path}\n", "")
    code, out, err = said(capsys, "sd-scripts", "show", "--python", sys.executable)
    assert code == 0 and "2.8.0+cu128 (CUDA 12.8)" in out and "sd3_train_network.py" in out
    assert "trainer_optimizer_missing" in err
    package(trainer, "diffusers", None)
    code, out, err = said(capsys, "sd-scripts", "show", trainer.path, "--python", sys.executable, "--json")
    record = json.loads(out)
    assert code == 2 and record["missing"] == ["diffusers"] and not record["ok"] and err == ""
    assert (
        record["problems"][0]["code"] == "trainer_package_missing" and "diffusers" in record["problems"][0]["message"]
    )


def test_installing_where_it_is_already(home, trainer, capsys):
    bin = trainer.path / "venv/bin"
    bin.mkdir(parents=True)
    (bin / "python").symlink_to(sys.executable)
    code, out, _ = said(capsys, "sd-scripts", "install", "--path", trainer.path)
    assert code == 0 and "was there already" in out
    assert f"cinderlora config set sd_scripts '{trainer.path}'" in out
    assert said(capsys, "sd-scripts", "find")[0] == 2
    code, out, _ = said(capsys, "sd-scripts", "install", "--path", trainer.path, "--remember", "--json")
    *steps, last = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and steps[0]["step"]["name"] == "verifying"
    assert last["installed"]["was_there"] and last["installed"]["path"] == str(trainer.path)
    assert said(capsys, "sd-scripts", "find")[1].strip() == str(trainer.path)
    code, out, err = said(capsys, "sd-scripts", "install", "--ref", "v0.10.1")  # where it is configured to be
    assert code == 2 and "install_other_version" in err
