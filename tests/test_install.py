"""Installing sd-scripts: with real git, real pip, and a tiny stand-in for the repository and its packages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import anyio
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import InstallFailed, SdScripts
from cinderlora.errors import SettingError
from cinderlora.sd_scripts.checkout import INSTALLING
from cinderlora.sd_scripts.installing import STEPS, InstallStep, install
from cinderlora.sd_scripts.processes import Commands
from cinderlora.sd_scripts.torch_builds import BUILDS, Card, TorchBuild, build_for, card_in, nvidia_cards
from cinderlora.sd_scripts.verify import REQUIRED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins for programs are scripts")

TORCH = """
__version__ = "0.1+fake"
class version:
    cuda = None
class cuda:
    is_available = staticmethod(lambda: False)
"""


def wheel(folder: Path, name: str, module: str, text: str = "") -> None:
    """A package with one module, as a file that pip can install."""
    info = f"{name.replace('-', '_')}-0.1.dist-info"
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-0.1-py3-none-any.whl", "w") as file:
        file.writestr(f"{module}.py", text)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for module, name in REQUIRED.items():
        wheel(folder, name, module, TORCH if module == "torch" else "")
    wheel(folder, "prodigyopt", "prodigyopt")
    return folder


def git(folder: Path, *argv: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *argv], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """Three commits: v1.0.0 (an annotated tag), v2.0.0 (a plain one), and one on the branch "broken"."""
    folder = tmp_path_factory.mktemp("source ü") / "sd scripts"
    (folder / "library").mkdir(parents=True)
    packages = [name for name in REQUIRED.values() if not name.startswith("torch")]
    (folder / "requirements.txt").write_text(
        "\n".join(["--no-index", f"--find-links {wheels}", *packages, "prodigyopt"])
    )
    (folder / "library/__init__.py").write_text(f"import {', '.join(REQUIRED)}")
    (folder / "train_network.py").write_text("import torch, library\n")
    (folder / "flux_train_network.py").write_text("import train_network\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    git(folder, "tag", "-a", "v1.0.0", "-m", "one")
    (folder / "README.md").write_text("- **Version 2.0.0 (2026-01-01):**\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "two")
    git(folder, "tag", "v2.0.0")
    git(folder, "checkout", "-b", "broken")
    (folder / "requirements.txt").write_text("--no-index\nno-such-package\n")
    git(folder, "commit", "-am", "broken")
    git(folder, "checkout", "-b", "bare", "main")
    git(folder, "rm", "requirements.txt")
    git(folder, "commit", "-m", "no requirements")
    git(folder, "checkout", "-b", "other", "main")
    git(folder, "rm", "train_network.py")
    git(folder, "commit", "-m", "something else")
    git(folder, "checkout", "main")
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Nothing of this machine's configuration, and of its programs only git."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "git").symlink_to(shutil.which("git") or "")
    return {
        "PATH": str(bin),
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PYTHONPATH": "/nonexistent",
    }


@pytest.fixture
def build(wheels: Path) -> TorchBuild:
    return TorchBuild("fake", packages=("torch", "torchvision"), index=str(wheels))


class Enough(Exception):
    """Raised where a test has seen what it wanted to see."""


def stop_at(name: str, look=lambda: None):
    """For `on_event`: look at something when a step begins, and end the installation there."""

    def hear(step: InstallStep) -> None:
        if step.name == name:
            look()
            raise Enough

    return hear


def in_folder(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


# ---- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.anyio
async def test_it_installs_and_is_found(tmp_path, repository, environ, build):
    steps: list[InstallStep] = []
    path = tmp_path / "my tools/sd-scripts"
    done = await install(path, source=repository, torch=build, environ=environ, on_event=steps.append)

    assert list(dict.fromkeys(step.name for step in steps)) == list(STEPS)
    assert all(step.number == STEPS.index(step.name) + 1 for step in steps)
    assert any(step.total and step.done == step.total for step in steps if step.name == "cloning")
    assert in_folder(path.parent) == ["sd-scripts"]
    assert not [name for name in in_folder(path) if "cinderlora" in name]

    trainer = SdScripts.find(path, environ={})
    assert trainer == done.trainer and trainer.python == path / "venv/bin/python"
    assert trainer.commit == git(repository, "rev-parse", "main") and trainer.version == "2.0.0"
    found = done.verification
    assert found.ok and not done.was_there and found.torch == "0.1+fake" and not found.missing
    assert found.scripts == ("flux_train_network.py", "train_network.py")
    assert [p.code for p in found.problems] == ["trainer_torch_cpu", "trainer_optimizer_missing"]
    assert found.has_package("Prodigyopt") and not found.has_package("bitsandbytes")
    assert trainer.has_package("huggingface_hub") is True and trainer.has_package("bitsandbytes") is False

    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if "__pycache__" not in file.parts}
    again = await install(path, source=repository, torch=build, environ=environ)
    assert again.was_there and again.verification.ok
    assert (await install(path, ref="v2.0.0", environ=environ)).was_there
    with pytest.raises(InstallFailed) as other:
        await install(path, ref="v1.0.0", environ=environ)
    assert other.value.code == "install_other_version"
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*") if "__pycache__" not in file.parts}


@pytest.mark.slow
def test_what_cannot_be_used_is_removed_again(tmp_path, repository, environ, build):
    async def work():
        # No packages but PyTorch: nothing that the scripts need.
        await install(tmp_path / "sd", source=repository, ref="bare", torch=build, environ=environ)

    with pytest.raises(InstallFailed) as failed:
        anyio.run(work)
    assert failed.value.code == "install_unverified" and "accelerate" in failed.value.message
    assert in_folder(tmp_path) == ["bin"]


@pytest.mark.slow
def test_a_package_that_there_is_not(tmp_path, repository, environ, wheels):
    async def work():
        build = TorchBuild("fake", packages=("no-such-torch",), index=str(wheels))
        await install(tmp_path / "sd", source=repository, torch=build, environ=environ)

    with pytest.raises(InstallFailed) as failed:
        anyio.run(work)
    assert failed.value.code == "install_step_failed" and failed.value.params["step"] == "torch"
    assert "no-such-torch" in failed.value.params["why"] and failed.value.params["output"]
    assert in_folder(tmp_path) == ["bin"]


# ---- what is fetched -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("ref", ["v1.0.0", "v2.0.0", "broken", "the first commit", "shortened", None])
async def test_versions(tmp_path, repository, environ, build, ref):
    named = {"the first commit": git(repository, "rev-parse", "v1.0.0^{commit}"), None: "main"}
    named["shortened"] = named["the first commit"][:10]
    wanted = named.get(ref, ref)
    seen = []

    def look():
        trainer = SdScripts(tmp_path / "sd")
        seen.append((trainer.commit, trainer.version))
        assert not trainer.is_there() and trainer.is_unfinished()

    with pytest.raises(Enough):
        await install(
            tmp_path / "sd",
            source=repository,
            ref=None if ref is None else wanted,
            torch=build,
            environ=environ,
            on_event=stop_at("environment", look),
        )
    version = {"v1.0.0": "1.0.0", "shortened": "1.0.0", "the first commit": None}.get(ref, "2.0.0")
    assert seen == [(git(repository, "rev-parse", f"{wanted}^{{commit}}"), version)]
    assert in_folder(tmp_path) == ["bin"]


@pytest.mark.anyio
@pytest.mark.parametrize(("ref", "code"), [("v9", "install_step_failed"), ("other", "install_not_sd_scripts")])
async def test_what_is_not_there(tmp_path, repository, environ, build, ref, code):
    with pytest.raises(InstallFailed) as failed:
        await install(tmp_path / "a/b/sd", source=repository, ref=ref, torch=build, environ=environ)
    assert failed.value.code == code
    assert in_folder(tmp_path) == ["bin"]


BAD_SOURCES = [
    "",
    "-u./x",
    "--upload-pack=touch x",
    "ext::sh -c touch% x",
    "fd::17",
    "~no-such-user/x",
    "\0",
    "no/such/folder",
    "https://github.com/a/b c",
    "https://github.com/a\nb",
    "git@host:-x y",
    "ssh://-oProxyCommand=x/y",
    "ssh://git@-oProxyCommand=x/y",
    "git@-oProxyCommand=x:y",
]


@pytest.mark.anyio
@pytest.mark.parametrize("source", BAD_SOURCES)
async def test_sources_that_git_must_not_see(tmp_path, environ, source):
    with pytest.raises(SettingError) as refused:
        await install(tmp_path / "sd", source=source, environ=environ)
    assert refused.value.code == "install_source"
    assert in_folder(tmp_path) == ["bin"]


@pytest.mark.anyio
async def test_secrets_are_not_written_down(tmp_path, environ):
    for source in ("https://me:secret@example.org/x", "https://secret@example.org/x"):
        with pytest.raises(SettingError) as refused:
            await install(tmp_path / "sd", source=source, environ=environ)
        assert refused.value.code == "install_source_secret" and "secret@" not in str(refused.value)


@pytest.mark.anyio
@pytest.mark.parametrize("ref", ["", "-x", "--all", "a b", "a:b", "+main", "../x", "a..b", "x\n", "^main", "*", "@{1}"])
async def test_refs_that_mean_something_else(tmp_path, repository, environ, ref):
    with pytest.raises(SettingError) as refused:
        await install(tmp_path / "sd", source=repository, ref=ref, environ=environ)
    assert refused.value.code == "install_ref"
    assert in_folder(tmp_path) == ["bin"]


# ---- what is in the way ----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_nothing_else_is_ever_touched(tmp_path, repository, environ, build):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(InstallFailed) as refused:
            await install(tmp_path / name, source=repository, torch=build, environ=environ)
        assert refused.value.code == "install_in_the_way"
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/notes.txt").read_text() == "mine"


@pytest.mark.anyio
async def test_an_empty_folder_will_do_and_is_empty_again(tmp_path, repository, environ, build):
    (tmp_path / "sd").mkdir()
    with pytest.raises(Enough):
        await install(tmp_path / "sd", source=repository, torch=build, environ=environ, on_event=stop_at("environment"))
    assert in_folder(tmp_path / "sd") == [] and in_folder(tmp_path) == ["bin", "sd"]


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_written(tmp_path, repository, environ, build):
    (tmp_path / "file").touch()
    with pytest.raises(InstallFailed) as refused:
        await install(tmp_path / "file/sd", source=repository, torch=build, environ=environ)
    assert refused.value.code == "install_folder"


# ---- interrupted -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(tmp_path: Path, environ: dict[str, str]) -> dict[str, str]:
    """An environment in which cloning by ssh never gets anywhere: git waits for a program that waits for another."""
    script = tmp_path / "bin/hang"
    script.write_text(
        textwrap.dedent(f"""\
            #!{sys.executable}
            import subprocess, sys
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
            child.wait()
            """)
    )
    script.chmod(0o755)
    return {**environ, "GIT_SSH": str(script), "GIT_SSH_VARIANT": "ssh"}


async def child_pid(tmp_path: Path) -> int:
    """The pid of the program at the end of the chain, once it runs."""
    with anyio.fail_after(20):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
            await anyio.sleep(0.01)
    return int((tmp_path / "pid").read_text())


async def is_gone(pid: int) -> bool:
    with anyio.move_on_after(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        return True
    return False


@pytest.mark.anyio
async def test_cancelled_it_leaves_no_process_and_no_folder(tmp_path, hanging, build):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: install(tmp_path / "sd", source="ssh://host/x", torch=build, environ=hanging))
        pid = await child_pid(tmp_path)
        assert SdScripts(tmp_path / "sd").is_unfinished()
        tasks.cancel_scope.cancel()
    assert in_folder(tmp_path) == ["bin", "pid"]
    assert await is_gone(pid)


def test_cancelled_twice_by_asyncio_itself_it_still_cleans_up(tmp_path, hanging, build):
    import asyncio

    async def work():
        task = asyncio.create_task(install(tmp_path / "sd", source="ssh://host/x", torch=build, environ=hanging))
        pid = await child_pid(tmp_path)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert in_folder(tmp_path) == ["bin", "pid"]
        assert await is_gone(pid)

    asyncio.run(work())


@pytest.mark.anyio
async def test_killed_it_leaves_a_mark_that_counts_until_the_next_time(tmp_path, hanging, environ, repository, build):
    path = tmp_path / "sd"
    code = f"""
import anyio, json, sys
from cinderlora.sd_scripts.installing import install
environ = json.loads(sys.argv[1])
async def main():
    await install({str(path)!r}, source="ssh://host/x", torch="cpu", environ=environ)
anyio.run(main)
"""
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(hanging)])  # noqa: ASYNC220
    try:
        await child_pid(tmp_path)
        with pytest.raises(InstallFailed) as refused:
            await install(path, source=repository, torch=build, environ=environ)
        assert refused.value.code == "install_under_way"
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for child in family:
            child.kill()

    # As if it had come further: now only the mark tells that it is not complete.
    (path / "train_network.py").touch()
    assert not SdScripts(path).is_there() and SdScripts(path).is_unfinished()
    assert [p.code for p in SdScripts(path).verify().problems] == ["trainer_unfinished"]
    seen = []
    with pytest.raises(Enough):
        await install(
            path,
            source=repository,
            torch=build,
            environ=environ,
            on_event=stop_at("cloning", lambda: seen.append(in_folder(path))),
        )
    assert seen == [[INSTALLING]]
    assert in_folder(tmp_path) == ["bin", "pid"]


# ---- programs and PyTorch --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_without_git(tmp_path, repository, environ, build):
    (tmp_path / "bin/git").unlink()
    with pytest.raises(InstallFailed) as failed:
        await install(tmp_path / "sd", source=repository, torch=build, environ=environ)
    assert failed.value.code == "install_git_missing" and in_folder(tmp_path) == ["bin"]


@pytest.mark.parametrize(
    ("cards", "build"),
    [
        ([], "cpu"),
        ([Card("RTX 4090", 570, 8.9)], "cu128"),
        ([Card("RTX 4090", 560, 8.9)], "cu126"),
        ([Card("RTX 3060", 525, 8.6)], "cu126"),
        ([Card("GTX 1080", 580, 6.1)], "cu126"),
        ([Card("RTX 5090", 575, 12.0)], "cu128"),
        ([Card("RTX 5090", 575, 12.0), Card("GTX 1080", 575, 6.1)], "cu128"),
        ([Card("RTX 3060", 571, None)], "cu128"),
    ],
)
def test_the_build_for_a_machine(cards, build):
    assert build_for(cards) == BUILDS[build]


def nvidia_smi(folder: Path, *lines: str) -> None:
    """A stand-in that, as drivers before 510, knows no compute_cap unless a line has one."""
    script = folder / "nvidia-smi"
    cases = "\n".join(f"echo '{line}'" for line in lines)
    refuse = "" if any(line.count(",") == 2 for line in lines) else "case $1 in *compute_cap*) exit 2;; esac"
    script.write_text(f"#!/bin/sh\n{refuse}\n{cases}\n")
    script.chmod(0o755)


def test_cards_are_what_the_driver_says(tmp_path):
    nvidia_smi(tmp_path, "570.124.06, 8.9, NVIDIA GeForce RTX 4090", "570.124.06, [N/A], GRID, T4")
    cards = nvidia_cards(Commands(), {"PATH": str(tmp_path)})
    assert cards == [Card("NVIDIA GeForce RTX 4090", 570, 8.9), Card("GRID, T4", 570, None)]
    nvidia_smi(tmp_path, "470.82.01, Tesla T4")
    assert nvidia_cards(Commands(), {"PATH": str(tmp_path)}) == [Card("Tesla T4", 470, None)]
    nvidia_smi(tmp_path, "NVIDIA-SMI has failed because it could not communicate with the driver.")
    assert nvidia_cards(Commands(), {"PATH": str(tmp_path)}) == []


@pytest.mark.anyio
async def test_a_driver_that_is_too_old(tmp_path, repository, environ):
    nvidia_smi(tmp_path / "bin", "470.82.01, Tesla T4")
    with pytest.raises(InstallFailed) as failed:
        await install(tmp_path / "sd", source=repository, environ=environ)
    assert failed.value.code == "install_driver_old" and "Tesla T4" in str(failed.value)
    assert in_folder(tmp_path) == ["bin"]


@given(
    st.integers(0, 999), st.none() | st.decimals(1, 99, places=1), st.from_regex(r"[A-Z][\w (),-]*\w", fullmatch=True)
)
def test_any_card(driver, capability, name):
    given_capability = "" if capability is None else f"{capability}, "
    assert card_in(f"{driver}.12, {given_capability}{name}") == Card(
        name, driver, None if capability is None else float(capability)
    )


@given(st.text())
def test_any_line_is_a_card_or_none(line):
    assert card_in(line) is None or card_in(line).name.strip()


@pytest.mark.anyio
async def test_torch_is_one_of_those_there_are(tmp_path, environ):
    with pytest.raises(SettingError) as refused:
        await install(tmp_path / "sd", torch="cu999", environ=environ)
    assert refused.value.code == "setting_choice" and "cu128" in str(refused.value)


# ---- on the command line ---------------------------------------------------------------------------------------------


def command(environ: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    environ = {**environ, "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-m", "cinderlora.cli", "sd-scripts", "install", *map(str, arguments)]
    return subprocess.Popen(argv, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.anyio
async def test_interrupted_the_command_cleans_up(tmp_path, hanging):
    process = command(hanging, "--path", tmp_path / "sd", "--from", "ssh://host/x", "--torch", "cpu")
    pid = await child_pid(tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "[2/6] Fetching sd-scripts" in out and "Aborted" in err
    assert in_folder(tmp_path) == ["bin", "pid"]
    assert await is_gone(pid)


def test_what_the_command_says_when_it_fails(tmp_path, environ, repository):
    where = ["--path", tmp_path / "sd", "--from", repository, "--torch", "cpu"]
    process = command(environ, *where, "--ref", "v9")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith("Error [install_step_failed]")
    assert "  | fatal: couldn't find remote ref" in err
    process = command(environ, *where, "--ref", "v9", "--json")
    out, err = process.communicate(timeout=60)
    *steps, last = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 1 and err == "" and steps[-1]["step"]["name"] == "cloning"
    assert last["error"]["code"] == "install_step_failed" and last["error"]["params"]["step"] == "cloning"
    process = command(environ, "--from", "ext::sh -c true")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "[install_source]" in err
