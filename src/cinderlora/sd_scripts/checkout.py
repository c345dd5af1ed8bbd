"""A checkout of sd-scripts on this machine, as a trainer: where it is, its Python, and the plans it can run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cinderlora.errors import TrainerNotFound
from cinderlora.problems import Problem

if TYPE_CHECKING:
    from cinderlora.dataset import Dataset
    from cinderlora.types import Job, ModelType, Plan

__all__ = ["SdScripts"]

# Prompt output, nothing wrapped, no noise in the log: what each does was seen on 48d368fa (v0.10.1).
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}


class SdScripts:
    """Kohya's sd-scripts in a folder. Making one looks at nothing; `check` says what is wrong with it.

    `python` is the interpreter that has what sd-scripts needs; where it is not given, the checkout's own `venv` or
    `.venv`, then the `python` on the path.
    """

    kind: ClassVar[str] = "sd-scripts"
    is_rehearsal: ClassVar[bool] = False

    def __init__(self, path: str | Path, *, python: str | Path | None = None) -> None:
        self.path = Path(path).expanduser().absolute()
        self._python = None if python is None else Path(python).expanduser()

    def __repr__(self) -> str:
        return f"SdScripts({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SdScripts):
            return NotImplemented
        return (type(self), self.path, self._python) == (type(other), other.path, other._python)

    def __hash__(self) -> int:
        return hash((type(self), self.path, self._python))

    @staticmethod
    def rehearsal() -> RehearsalTrainer:
        """The built-in miniature trainer: no GPU, no downloads, the same files and the same output."""
        return RehearsalTrainer()

    @classmethod
    def find(cls, path: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> SdScripts:
        """The first checkout there is: the path given, `CINDERLORA_SD_SCRIPTS` (with `CINDERLORA_SD_SCRIPTS_PYTHON`),
        `tools/sd-scripts`, the user's data folder, `~/sd-scripts`, kohya_ss's and fluxgym's own, `/opt/sd-scripts`.

        Raises `TrainerNotFound`, which says how to install it.
        """
        environ = os.environ if environ is None else environ
        python = environ.get("CINDERLORA_SD_SCRIPTS_PYTHON") or None
        places = list(_places(path, environ))
        for place in places:
            found = cls(place, python=python)
            if found.is_there():
                return found
        raise TrainerNotFound("trainer_not_found", path=str(places[0]))

    def is_there(self) -> bool:
        """Whether the folder looks like a checkout of sd-scripts."""
        return (self.path / "train_network.py").is_file()

    @property
    def python(self) -> Path | None:
        """The interpreter that runs the scripts, or None where there is none."""
        if self._python is not None:
            return self._python
        inside = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
        for environment in ("venv", ".venv"):
            python = self.path.joinpath(environment, *inside)
            if python.is_file():
                return python
        found = shutil.which("python") or shutil.which("python3")
        return Path(found) if found else None

    @property
    def commit(self) -> str | None:
        """The checkout's commit, read from its `.git` without running anything; None where it has none."""
        git = self.path / ".git"
        try:
            if git.is_file():  # a submodule or a worktree: "gitdir: PATH"
                git = self.path / git.read_text(encoding="utf-8").partition(":")[2].strip()
            head = (git / "HEAD").read_text(encoding="utf-8").strip()
            name = head.removeprefix("ref: ")
            if name == head:
                return head
            if (git / name).is_file():
                return (git / name).read_text(encoding="utf-8").strip()
            packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
            return next((line.partition(" ")[0] for line in packed if line.endswith(f" {name}")), None)
        except (OSError, UnicodeDecodeError):
            return None

    # ---- as a trainer ----

    def problems(self, model_type: ModelType, job: Job, args: Mapping[str, Any]) -> Iterator[Problem]:
        """What forbids this checkout to run the job."""
        from cinderlora.sd_scripts.arguments import argument_problems
        from cinderlora.sd_scripts.config import setting_problems

        yield from self._missing(model_type)
        yield from argument_problems(model_type.script, {**args, **job.settings.extra})
        yield from setting_problems(model_type, job, args)

    def _missing(self, model_type: ModelType) -> Iterator[Problem]:
        if not self.is_there():
            yield Problem("trainer_not_found", {"path": str(self.path)})
        elif not (self.path / model_type.script).is_file():
            yield Problem("script_not_found", {"script": model_type.script, "path": str(self.path)})
        elif self.python is None or shutil.which(self.python) is None:
            yield Problem("trainer_python_not_found", {"path": str(self.python or self.path / "venv")})

    def plan(self, model_type: ModelType, job: Job, dataset: Dataset, args: Mapping[str, Any]) -> Plan:
        """The plan of a job: one stage, its three configuration files, and the view of the data set."""
        from cinderlora.sd_scripts.planning import make_plan

        return make_plan(self, model_type, job, dataset, args)

    def command(self, script: str, config: str) -> tuple[str, ...]:
        """The command line that trains with a configuration file."""
        return (str(self.python), str(self.path / script), "--config_file", config)

    def record(self) -> dict[str, str | None]:
        """What a run's record keeps of its trainer."""
        return {"kind": self.kind, "path": str(self.path), "python": str(self.python), "commit": self.commit}


class RehearsalTrainer(SdScripts):
    """The built-in miniature: a real diffusion-LoRA training in NumPy, behind the same contract as sd-scripts."""

    is_rehearsal = True

    def __init__(self) -> None:
        super().__init__(Path(__file__).parent.parent / "rehearsal", python=sys.executable)

    def __repr__(self) -> str:
        return "SdScripts.rehearsal()"

    def is_there(self) -> bool:
        return True

    def _missing(self, model_type: ModelType) -> Iterator[Problem]:
        from importlib.util import find_spec

        lacking = [name for module, name in {"numpy": "numpy", "PIL": "pillow"}.items() if find_spec(module) is None]
        if lacking:
            yield Problem("extra_missing", {"what": "SdScripts.rehearsal()", "packages": lacking, "extra": "rehearsal"})

    def command(self, script: str, config: str) -> tuple[str, ...]:
        # -P: nothing in the run folder, where it is started, can stand in for a module.
        return (str(self.python), "-P", "-m", "cinderlora.rehearsal", script, "--config_file", config)

    def record(self) -> dict[str, str | None]:
        from cinderlora import __version__

        return {"kind": "rehearsal", "python": str(self.python), "version": __version__}


def _places(path: str | Path | None, environ: Mapping[str, str]) -> Iterable[Path]:
    from cinderlora.folders import data_folder

    home = Path.home()
    if path is not None:
        yield Path(path)
    if environ.get("CINDERLORA_SD_SCRIPTS"):
        yield Path(environ["CINDERLORA_SD_SCRIPTS"])
    yield Path("tools/sd-scripts")
    yield data_folder() / "sd-scripts"
    yield home / "sd-scripts"
    yield home / "kohya_ss/sd-scripts"
    yield home / "fluxgym/sd-scripts"
    yield Path("/opt/sd-scripts")
