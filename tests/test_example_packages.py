"""The packages in docs/examples, as somebody else would have them: built as wheels, installed beside cinderlora's own
wheel in a fresh environment, their tests run there. The core is not touched by any of it.

Offline: what they say they need besides is lent to that environment by the one that the tests run in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in (ROOT / "docs/examples").glob("cinderlora-*/pyproject.toml"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="lends packages by symbolic links"),
]


def built(source: Path, folder: Path) -> Path:
    """The wheel of a project, built by hatchling from a copy."""
    copy = folder / "source" / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "dist", "tests"))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=copy, check=True)
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


def needed(project: Path, *extras: str) -> set[str]:
    """What a project says it needs: itself, and for some of its extras."""
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*table["dependencies"], *(text for extra in extras for text in table["optional-dependencies"][extra])]
    return {"".join(text.split(";")[0].split()) for text in wanted}


class Environment:
    """A fresh environment with what the packages say that they need, and nothing else."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = folder / "bin/python"
        self.packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        self.lent: set[str] = set()
        for project, extras in {ROOT: ["cli"], **{package: ["test"] for package in PACKAGES}}.items():
            for text in needed(project, *extras):
                self.lend(text)

    def lend(self, wanted: str) -> None:
        """A package of the environment that the tests run in, with what it needs itself."""
        name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,.-]+)\])?.*", wanted).groups()
        if wanted in self.lent:
            return
        self.lent.add(wanted)
        if name == "cinderlora":
            for text in needed(ROOT, *(extras or "").split(",")) if extras else ():
                self.lend(text)
            return
        try:
            lent = distribution(name)
        except PackageNotFoundError:
            return  # for another version of Python than this one
        for top in {file.parts[0] for file in lent.files or ()} - {"..", "__pycache__", "bin"}:
            place, there = self.packages / top, Path(str(lent.locate_file(top)))
            if not place.exists() and there.exists() and not top.endswith(".pth"):
                place.symlink_to(there)
        for text in lent.requires or ():
            if "extra ==" not in text:
                self.lend("".join(text.split(";")[0].split()))

    def run(self, *arguments: str, **options) -> str:
        argv = [str(self.python), "-X", "utf8", *arguments]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=self.environ(), **options).stdout

    def environ(self) -> dict[str, str]:
        """This one's without what would bring in the checkout."""
        return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "CINDERLORA", "COV"))}

    def install(self, *wheels: Path) -> None:
        options = ["--python", str(self.python), "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
        subprocess.run([sys.executable, "-m", "pip", *options, *map(str, wheels)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """cinderlora's own wheel and those of the packages, by name."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheels")
    return {source.name: built(source, folder / source.name) for source in (ROOT, *PACKAGES)}


@pytest.fixture(scope="module")
def environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("environment") / "venv")
    environment.install(*wheels.values())
    return environment


def core_of(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.startswith("cinderlora/")]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in files}


def test_there_are_such_packages():
    assert {"cinderlora-chroma", "cinderlora-lumina"} <= {path.name for path in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_wheel_has_nothing_but_its_own_package(wheels, package):
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = project["name"].replace("-", "_")
    with zipfile.ZipFile(wheels[package.name]) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {own}
    assert set(project["entry-points"]) == {"cinderlora"}
    assert (package / "README.md").is_file()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_its_own_tests_pass_where_it_is_installed(environment, package, tmp_path):
    for name in ("tests", "pyproject.toml"):
        copy = shutil.copytree if (package / name).is_dir() else shutil.copy
        copy(package / name, tmp_path / name)
    argv = [str(environment.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env=environment.environ(), check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_all_of_them_go_together_and_the_core_is_as_it_was(environment, wheels, tmp_path):
    said = environment.run(
        "-c",
        "import json, cinderlora; r = cinderlora.Registry.from_installed()\n"
        "presets = {name: list(r[name].presets) for name in r}\n"
        "print(json.dumps([presets, {n: str(b) for n, b in r.broken.items()}, cinderlora.__file__]))",
        cwd=tmp_path,
    )
    presets, broken, file = json.loads(said)
    assert {"flux", "sdxl", "sd3", "chroma", "lumina"} <= set(presets) and not broken
    assert Path(file).is_relative_to(environment.packages)
    for name, digest in core_of(wheels[ROOT.name]).items():
        assert hashlib.sha256((environment.packages / name).read_bytes()).hexdigest() == digest, name


def test_the_command_line_checks_one(environment, tmp_path):
    said = environment.run("-m", "cinderlora.cli", "adapters", "check", "chroma", "--json", cwd=tmp_path)
    outcomes = {record["check"]: record["outcome"] for record in map(json.loads, said.splitlines())}
    assert outcomes["a rehearsal runs from job to lora"] == outcomes["importing it is light"] == "ok"
    assert "failed" not in outcomes.values()
