"""A place where the examples of a page can be run: nobody's folders, with all that the pages speak of in them."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cinderlora import Config
from cinderlora.demo import write_dataset
from cinderlora.models.hollow import write_hollow
from cinderlora.testing import sample_header
from cinderlora.testing import scripted as scripted_trainer

_MODELS = {
    "diffusion_models/flux1-dev.safetensors": ("flux_dev", "F8_E4M3"),
    "checkpoints/sd_xl_base_1.0.safetensors": ("sdxl_base", "F16"),
    "checkpoints/sd3_medium.safetensors": ("sd3_medium", "F16"),
    "text_encoders/clip_l.safetensors": ("clip_l", "F16"),
    "text_encoders/clip_g.safetensors": ("clip_g", "F16"),
    "text_encoders/t5xxl_fp8_e4m3fn.safetensors": ("t5xxl", "F8_E4M3"),
    "vae/ae.safetensors": ("flux_ae", "BF16"),
}

_JOB = """\
type = "flux"
name = "elena"
dataset = "datasets/elena"
preset = "16gb"
"""

_SCRIPT = '''\
"""Stands in for a script of sd-scripts: prints what the real one once printed, and writes the files named there."""

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, {testing!r})
import player

tables = tomllib.loads(Path(sys.argv[sys.argv.index("--config_file") + 1]).read_text(encoding="utf-8"))
settings = {{key: value for table in tables.values() for key, value in table.items()}}
output, name = Path(settings["output_dir"]), settings["output_name"]
(output / "sample").mkdir(parents=True, exist_ok=True)
player.play(player.renamed(Path({recording!r}).read_bytes(), output, name), output, name, 0)
'''


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is the same for all pages: Elena's pictures, model files with true headers and nothing behind them, and a
    checkout whose scripts print what sd-scripts printed once, with a Python that has the packages it is asked for."""
    folder = tmp_path_factory.mktemp("stage")
    for name, (kind, dtype) in _MODELS.items():
        write_hollow(folder / "models" / name, sample_header(kind, dtype=dtype).tensors)
    write_dataset(folder / "elena")
    testing = Path(scripted_trainer.__file__).parent
    script = _SCRIPT.format(testing=str(testing), recording=str(testing / "recordings/complete.log"))
    checkout = folder / "sd-scripts"
    venv.create(checkout / "venv", symlinks=os.name != "nt")
    (packages,) = (checkout / "venv").glob("[Ll]ib/**/site-packages")
    for package in ("bitsandbytes", "prodigyopt"):
        info = packages / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    for name in ("train_network", "flux_train_network", "sdxl_train_network", "sd3_train_network"):
        (checkout / f"{name}.py").write_text(script, encoding="utf-8")
    return folder


@pytest.fixture
def workshop(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The machine that the pages speak of: a home with ComfyUI, which is configured, and a working folder with a data
    set, a job file, some models and sd-scripts. Gives the working folder, which is the current one."""
    for variable in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(variable)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for variable in ("LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home" / variable.lower()))
    for variable in ("LC_ALL", "LC_MESSAGES", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    models = tmp_path / "home/ComfyUI/models"
    work = tmp_path / "work"
    for file in (stage / "models").rglob("*.safetensors"):
        plain = work / "models" / file.name.replace("_fp8_e4m3fn", "")
        for here in (models / file.relative_to(stage / "models"), plain):
            here.parent.mkdir(parents=True, exist_ok=True)
            here.hardlink_to(file)
    (work / "tools").mkdir()
    (work / "tools/sd-scripts").symlink_to(stage / "sd-scripts", target_is_directory=True)
    shutil.copytree(stage / "elena", work / "datasets/elena")
    (work / "elena.toml").write_text(_JOB, encoding="utf-8")
    Config(comfyui=tmp_path / "home/ComfyUI").save()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield work
    monkeypatch.chdir("/")
    _wait_for_all_in(tmp_path)


def _wait_for_all_in(folder: Path) -> None:
    """Queues and trainings that the examples left to themselves end by themselves; their folder goes only then."""
    left = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) or Path(process.cwd()).is_relative_to(folder):
                left.append(process)
        except (psutil.Error, OSError):
            continue
    assert psutil.wait_procs(left, timeout=30)[1] == [], "an example left something that does not end"
