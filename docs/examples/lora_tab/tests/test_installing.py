"""Installing sd-scripts from the browser: everybody sees its progress, its failure, and that it is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cinderlora.sd_scripts.installing import PINNED, SOURCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name == "nt", reason="what stands in for git is a script"),
]


PACKAGES = {
    "torch": "torch==2.8.0",
    "torchvision": "torchvision==0.23.0",
    "huggingface_hub": "huggingface-hub",
    "PIL": "pillow",
    "cv2": "opencv-python",
} | {
    name: name
    for name in ("numpy", "safetensors", "accelerate", "transformers", "diffusers", "einops", "imagesize", "toml",
                 "tqdm", "packaging", "voluptuous")
}  # fmt: skip
"""What an installation is verified by, as PyTorch's guide and sd-scripts 0.10.1 want it: module and package."""


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_installing_is_shown_to_everybody_and_its_failure_explained(serve, look, tmp_path):
    """Git waits until both have seen that it is at work, and then finds no network."""
    go_on = tmp_path / "go-on"
    waits = f"while [ ! -e '{go_on}' ]; do sleep 0.1; done"
    asks = f'case "$*" in *clone*|*fetch*|*init*) {waits};; *) exec \'{shutil.which("git")}\' "$@";; esac'
    program(tmp_path / "bin", "git", f"{asks}\necho 'fatal: unable to access it' >&2\nexit 128")
    paths = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    server = serve("--no-browser", PATH=paths, CINDERLORA_SD_SCRIPTS=str(tmp_path / "sd-scripts"))
    screen, other = look(server), look(server, locale="de-DE")
    screen.expect("#rehearsal input").not_to_be_checked()
    screen.choose("dataset", "elena (14 pictures)")
    screen("#install").click()
    screen.expect("#installation").to_contain_text(re.compile(r"sd-scripts is being installed\.Step \d of \d+: "))
    other.expect("#installation").to_contain_text(re.compile(r"sd-scripts wird installiert\.Schritt \d von \d+: "))
    screen.shot("43-installing")
    go_on.touch()
    screen.expect('#installation [data-code^="install_"]').to_contain_text("unable to access it")
    other.expect('#installation [data-code^="install_"]').to_be_visible()
    screen.shot("44-not-installed")
    assert not (tmp_path / "sd-scripts").exists()
    assert "Traceback" not in server.log, server.log


def wheel(folder: Path, name: str, version: str, module: str) -> None:
    """A package with a module that has nothing in it but what says that it is PyTorch without a GPU."""
    base = f"{name.replace('-', '_')}-{version}"
    text = "class version: cuda = None\nclass cuda: is_available = staticmethod(lambda: False)\n"
    with zipfile.ZipFile(folder / f"{base}-py3-none-any.whl", "w") as file:
        file.writestr(f"{module}.py", f"__version__ = {version!r}\n{text}")
        file.writestr(f"{base}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{base}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{base}.dist-info/RECORD", "")


@pytest.fixture
def internet(tmp_path: Path) -> dict[str, str]:
    """What is there instead of it: packages for pip, and a git that takes a folder for GitHub's sd-scripts."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for module, package in PACKAGES.items():
        name, _, version = package.partition("==")
        wheel(wheels, name, version or "1.0", module)
    source = tmp_path / "source"
    (source / "library").mkdir(parents=True)
    (source / "library/__init__.py").touch()
    (source / "requirements.txt").write_text("\n".join(PACKAGES.values()), encoding="utf-8")
    for script in ("train_network.py", "flux_train_network.py"):
        (source / script).write_text("import torch\n", encoding="utf-8")
    git = [shutil.which("git") or "git", "-C", str(source)]
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for argv in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run([*git, *argv], check=True)
    address = SOURCE.replace("/", "\\/")
    words = f'words=("${{@/#{PINNED}/HEAD}}"); words=("${{words[@]/#{address}/{source}}}")'
    program(tmp_path / "programs", "git", f"{words}\nexec '{git[0]}' \"${{words[@]}}\"")
    (tmp_path / "programs/python3").symlink_to(sys.executable)
    return {
        "PATH": str(tmp_path / "programs"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }


def test_what_is_installed_is_used_at_once(serve, look, internet, tmp_path):
    server = serve("--no-browser", CINDERLORA_SD_SCRIPTS=str(tmp_path / "sd-scripts"), **internet)
    screen = look(server)
    screen.choose("dataset", "elena (14 pictures)")
    screen.expect('#problems [data-code="trainer_not_found"]').to_be_visible()
    screen("#install").click()
    screen.expect("#installation").to_contain_text("sd-scripts is installed.")
    screen.expect('#problems [data-code="trainer_not_found"]').to_have_count(0)
    screen.expect('#problems [data-code="component_missing"]').to_have_count(4)
    screen.shot("45-installed")
    assert (tmp_path / "sd-scripts/flux_train_network.py").is_file()
    assert "Traceback" not in server.log, server.log
