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
    from cinderlora.sd_scripts.arguments import Arguments
    from cinderlora.sd_scripts.verify import Verification
    from cinderlora.types import Job, ModelType, Plan, Resumption

__all__ = ["SdScripts"]

# Prompt output, nothing wrapped, no noise in the log: what each does was seen on 48d368fa (v0.10.1).
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}


INSTALLING = ".cinderlora-installing"
"""The folder in a checkout that `install` is at work on; it goes when all is verified."""

_OTHER_ENVIRONMENTS = {"kohya_gui.py": ("venv", ".venv"), "app.py": ("env",)}
"""Front ends that carry sd-scripts as a folder of theirs, and keep the environment for it beside: kohya_ss by its
`kohya_gui.py`, fluxgym by its `app.py`."""


class SdScripts:
    """Kohya's sd-scripts in a folder. Making one looks at nothing; `check` says what is wrong with it.

    `python` is the interpreter that has what sd-scripts needs; where it is not given, the checkout's own `venv` or
    `.venv`, that of the kohya_ss or fluxgym which it is a part of, then the `python` on the path.
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
        looked = [str(place) for place in places[1:]]
        raise TrainerNotFound("trainer_not_found", path=str(places[0]), looked=looked)

    def is_there(self) -> bool:
        """Whether the folder looks like a checkout of sd-scripts, and no installation was left unfinished in it."""
        return (self.path / "train_network.py").is_file() and not self.is_unfinished()

    def is_unfinished(self) -> bool:
        """Whether `install` is at work in the folder, or was ended by force there. Calling it again cleans up."""
        return (self.path / INSTALLING).exists()

    @property
    def python(self) -> Path | None:
        """The interpreter that runs the scripts, or None where there is none."""
        if self._python is not None:
            return self._python
        for environment in self._environments():
            python = python_of(environment)
            if python.is_file():
                return python
        found = shutil.which("python") or shutil.which("python3")
        return Path(found) if found else None

    def _environments(self) -> Iterator[Path]:
        for name in ("venv", ".venv"):
            yield self.path / name
        for sign, names in _OTHER_ENVIRONMENTS.items():
            if (self.path.parent / sign).is_file():
                for name in names:
                    yield self.path.parent / name

    @property
    def commit(self) -> str | None:
        """The checkout's commit, read from its `.git` without running anything; None where it has none."""
        from cinderlora.sd_scripts.git_folder import commit_of

        return commit_of(self.path)

    @property
    def version(self) -> str | None:
        """The version, e.g. "0.10.1": that of a tag on the commit, else the newest that the README speaks of."""
        from cinderlora.sd_scripts.git_folder import version_of

        return version_of(self.path)

    @property
    def scripts(self) -> tuple[str, ...]:
        """The scripts that train LoRAs, e.g. "flux_train_network.py": all that there are in the checkout."""
        return tuple(sorted(path.name for path in self.path.glob("*train_network.py") if path.is_file()))

    def verify(self, *, imports: bool = True, timeout: float = 300.0) -> Verification:
        """Look whether the Python can run the scripts: its packages, PyTorch, the GPUs that it sees, what is missing.

        It is that Python which imports all this, as a training would, in a process of its own: some seconds, and
        `timeout` seconds at the longest. Blocking: call it in a thread (`anyio.to_thread.run_sync(trainer.verify)`).
        Without `imports` only the installed packages are told, in a fraction of a second.
        """
        from cinderlora.sd_scripts.verify import Verification, verify_environment

        if not self.is_there():
            return Verification(python=None, problems=[self._not_there()])
        python = self.python
        if python is None or shutil.which(python) is None:
            return Verification(python=python, problems=[self._no_python()])
        return verify_environment(python, self.path, self.scripts, imports=imports, timeout=timeout)

    def has_package(self, name: str) -> bool | None:
        """Whether the Python has a package, by its name on PyPI; None where it cannot be asked. Some 0.2 seconds."""
        asked = self.verify(imports=False, timeout=30.0)
        return asked.has_package(name) if asked.ok else None

    # ---- as a trainer ----

    def problems(self, model_type: ModelType, job: Job, args: Mapping[str, Any]) -> Iterator[Problem]:
        """What forbids this checkout to run the job."""
        from cinderlora.sd_scripts.arguments import argument_problems
        from cinderlora.sd_scripts.config import setting_problems

        yield from self._missing(model_type)
        known = self.arguments(model_type.script)
        yield from argument_problems(model_type.script, {**args, **job.settings.extra}, known)
        yield from setting_problems(model_type, job, args, known)

    def machine_problems(self, job: Job) -> Iterator[Problem]:
        """What its Python or the cards lack for the job: the optimizer's package, bf16. Some 0.2 seconds."""
        from cinderlora.gpu import without_bf16

        if self.is_rehearsal:
            return  # it needs neither
        precision = job.settings.extra.get("mixed_precision", job.settings.mixed_precision)
        cards = without_bf16() if precision == "bf16" else ()
        if cards:
            yield Problem("bf16_missing", {"cards": cards}, severity="warning")
        optimizer = job.settings.optimizer or ""
        package = optimizer_package(optimizer)
        if package is not None and self.has_package(package) is False:
            changes = {"optimizer": "AdamW"} if package == "bitsandbytes" else {}
            yield Problem("optimizer_package", {"optimizer": optimizer, "package": package}, changes=changes)

    def arguments(self, script: str) -> Arguments | None:
        """What a script takes, as the checkout's own source has it; where it cannot be read, as v0.10.1 has it.

        None for a script that nothing is known of. Kept in the user's cache folder: 0.2 seconds the first time.
        """
        from cinderlora.sd_scripts.arguments import known_arguments

        return known_arguments(script, self.path)

    def _missing(self, model_type: ModelType) -> Iterator[Problem]:
        if not self.is_there():
            yield self._not_there()
        elif not (self.path / model_type.script).is_file():
            yield Problem("script_not_found", {"script": model_type.script, "path": str(self.path)})
        elif self.python is None or shutil.which(self.python) is None:
            yield self._no_python()

    def _not_there(self) -> Problem:
        code = "trainer_unfinished" if self.is_unfinished() else "trainer_not_found"
        return Problem(code, {"path": str(self.path)})

    def _no_python(self) -> Problem:
        return Problem("trainer_python_not_found", {"path": str(self.python or self.path / "venv")})

    def plan(
        self,
        model_type: ModelType,
        job: Job,
        dataset: Dataset,
        args: Mapping[str, Any],
        resumption: Resumption | None = None,
    ) -> Plan:
        """The plan of a job: one stage, its three configuration files, and the view of the data set."""
        from cinderlora.sd_scripts.planning import make_plan

        return make_plan(self, model_type, job, dataset, args, resumption)

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

    def verify(self, *, imports: bool = True, timeout: float = 300.0) -> Verification:
        from cinderlora.sd_scripts.verify import Verification

        return Verification(python=self.python, problems=self._lacking())

    def has_package(self, name: str) -> bool | None:
        return None  # it needs none of sd-scripts'

    def arguments(self, script: str) -> Arguments | None:
        from cinderlora.sd_scripts.arguments import known_arguments

        return known_arguments(script)

    def _missing(self, model_type: ModelType) -> Iterator[Problem]:
        return self._lacking()

    def _lacking(self) -> Iterator[Problem]:
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


def python_of(environment: Path) -> Path:
    """Where the interpreter of a virtual environment is."""
    return environment.joinpath(*(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


def optimizer_package(optimizer: str) -> str | None:
    """The package that an optimizer is in, where PyTorch does not bring it. As sd-scripts 0.10.1 imports them."""
    name = optimizer.lower()
    if name.endswith("8bit") or name.startswith("paged"):
        return "bitsandbytes"
    if name.startswith("dadapt"):
        return "dadaptation"
    return {"prodigy": "prodigyopt", "lion": "lion-pytorch"}.get(name)


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
