"""A checkout of sd-scripts on this machine, as a trainer: where it is, its Python, and the plans it can run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cinderlora.checkouts import Checkout
from cinderlora.names import nearest
from cinderlora.problems import Problem

if TYPE_CHECKING:
    from cinderlora.cost.problems import Cost
    from cinderlora.dataset import BucketPlan, Dataset
    from cinderlora.sd_scripts.arguments import Arguments
    from cinderlora.sd_scripts.verify import Verification
    from cinderlora.trainers import Saved
    from cinderlora.types import Job, ModelType, Plan, Resumption, Settings

__all__ = ["SdScripts"]

# Prompt output, nothing wrapped, no noise in the log: what each does was seen on 48d368fa (v0.10.1).
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    # PyTorch's builds for Windows cannot do without, where several processes train (kohya_ss#2763). From reports.
    **({"USE_LIBUV": "0"} if os.name == "nt" else {}),
}


INSTALLING = ".cinderlora-installing"
"""The folder in a checkout that `install` is at work on; it goes when all is verified."""

_OTHER_ENVIRONMENTS = {"kohya_gui.py": ("venv", ".venv"), "app.py": ("env",)}
"""Front ends that carry sd-scripts as a folder of theirs, and keep the environment for it beside: kohya_ss by its
`kohya_gui.py`, fluxgym by its `app.py`."""


class SdScripts(Checkout):
    """Kohya's sd-scripts in a folder. Making one looks at nothing; `check` says what is wrong with it.

    `python` is the interpreter that has what sd-scripts needs; where it is not given, the checkout's own `venv` or
    `.venv`, that of the kohya_ss or fluxgym which it is a part of, then the `python` on the path.

    `SdScripts.find()` looks into the folder given, then `CINDERLORA_SD_SCRIPTS` (with `CINDERLORA_SD_SCRIPTS_PYTHON`),
    `tools/sd-scripts`, the user's data folder, `~/sd-scripts`, kohya_ss's and fluxgym's own, `/opt/sd-scripts`.
    """

    kind: ClassVar[str] = "sd-scripts"
    sign: ClassVar[str] = "train_network.py"

    @staticmethod
    def rehearsal() -> RehearsalTrainer:
        """The built-in miniature trainer: no GPU, no downloads, the same files and the same output."""
        return RehearsalTrainer()

    @classmethod
    def places(cls) -> Iterable[Path]:
        """The folders it usually lies in."""
        *usual, last = super().places()
        yield from usual
        yield Path.home() / "kohya_ss/sd-scripts"
        yield Path.home() / "fluxgym/sd-scripts"
        yield last

    def is_there(self) -> bool:
        """Whether the folder looks like a checkout of sd-scripts, and no installation was left unfinished in it."""
        return super().is_there() and not self.is_unfinished()

    def is_unfinished(self) -> bool:
        """Whether `install` is at work in the folder, or was ended by force there. Calling it again cleans up."""
        return (self.path / INSTALLING).exists()

    def environments(self) -> Iterator[Path]:
        """The virtual environments that may go with the checkout."""
        yield from super().environments()
        for sign, names in _OTHER_ENVIRONMENTS.items():
            if (self.path.parent / sign).is_file():
                for name in names:
                    yield self.path.parent / name

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

        missing = list(self.missing(model_type.script))
        yield from missing or self._no_network_module(model_type, job)
        known = self.arguments(model_type.script)
        yield from argument_problems(model_type.script, {**args, **job.settings.extra}, known)
        yield from setting_problems(model_type, job, args, known)

    def _no_network_module(self, model_type: ModelType, job: Job) -> Iterator[Problem]:
        """A module of its own that this version does not have. Those of other packages are not looked for."""
        settings = job.settings
        module = settings.extra.get("network_module") or settings.network_module or model_type.network_module
        folder = self.path / "networks"
        name = str(module).removeprefix("networks.")
        if name != module and name.isidentifier() and folder.is_dir() and not (folder / f"{name}.py").is_file():
            close = nearest(name, (path.stem for path in folder.glob("*.py")))
            params = {"module": module, "nearest": f"networks.{close}" if close else None}
            yield Problem("network_module_missing", params)

    def machine_problems(self, job: Job) -> Iterator[Problem]:
        """What its Python or the cards lack for the job: packages, bf16. Some 0.2 seconds."""
        from cinderlora.gpu import without_bf16

        if self.is_rehearsal:
            return  # it needs neither
        precision = job.settings.extra.get("mixed_precision", job.settings.mixed_precision)
        cards = without_bf16() if precision == "bf16" else ()
        if cards:
            yield Problem("bf16_missing", {"cards": cards}, severity="warning")
        optimizer = str(job.settings.extra.get("optimizer_type") or job.settings.optimizer or "")
        package = optimizer_package(optimizer)
        if package is not None and self.has_package(package) is False:
            ours = package == "bitsandbytes" and "optimizer_type" not in job.settings.extra
            changes = {"optimizer": "AdamW"} if ours else {}
            yield Problem("optimizer_package", {"optimizer": optimizer, "package": package}, changes=changes)
        # accelerate leaves out a tracker that it cannot import, and says nothing of it.
        if job.settings.extra.get("log_with") == "tensorboard" and self.has_package("tensorboard") is False:
            yield Problem("tracker_package", {"tracker": "tensorboard"}, severity="warning")

    def completed(self, settings: Settings) -> Settings:
        """The settings with what follows from others filled in where unset: alpha from dim, rate from optimizer."""
        from cinderlora.sd_scripts.config import derived

        return derived(settings)

    def buckets(self, model_type: ModelType, job: Job, dataset: Dataset) -> BucketPlan:
        """The buckets that the pictures will be sorted into; raises `SettingError` where sd-scripts could not."""
        from cinderlora.sd_scripts.config import job_buckets

        return job_buckets(job, dataset)

    def cost(
        self, model_type: ModelType, job: Job, buckets: BucketPlan | None, *, checkpoints: int, samples: int
    ) -> Cost:
        """What a job takes of disk and memory, as far as that can be told: see `docs/cost.md`."""
        from cinderlora.cost.problems import cost_of

        return cost_of(model_type, job, buckets, checkpoints, samples)

    def saved_in(self, folder: Path, lora: str, names: Iterable[str], since: float, until: float) -> list[Saved]:
        """The states and checkpoints that a run wrote into its output folder."""
        from cinderlora.sd_scripts.resuming import saved_in

        return saved_in(folder, lora, names, since, until)

    def arguments(self, script: str, *, root: str | None = None) -> Arguments | None:
        """What a script takes, as the checkout's own source has it; where it cannot be read, as v0.10.1 has it.

        None for a script that nothing is known of. Kept in the user's cache folder: 0.2 seconds the first time.
        """
        from cinderlora.sd_scripts.arguments import known_arguments

        return known_arguments(script, self.path)

    def _not_there(self) -> Problem:
        code = "trainer_unfinished" if self.is_unfinished() else "trainer_not_found"
        return Problem(code, {"path": str(self.path)})

    def _no_script(self, script: str) -> Problem:
        return Problem("script_not_found", {"script": script, "path": str(self.path)})

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


class RehearsalTrainer(SdScripts):
    """The built-in miniature: a real diffusion-LoRA training in NumPy, behind the same contract as sd-scripts."""

    is_rehearsal: ClassVar[bool] = True

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

    def arguments(self, script: str, *, root: str | None = None) -> Arguments | None:
        from cinderlora.sd_scripts.arguments import known_arguments

        return known_arguments(script)

    def missing(self, *scripts: str) -> Iterator[Problem]:
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


def optimizer_package(optimizer: str) -> str | None:
    """The package that an optimizer is in, where PyTorch does not bring it. As sd-scripts 0.10.1 imports them."""
    name = optimizer.lower()
    if name.endswith("8bit") or name.startswith("paged"):
        return "bitsandbytes"
    if name.startswith("dadapt"):
        return "dadaptation"
    if name.endswith("schedulefree"):
        return "schedulefree"
    return {"prodigy": "prodigyopt", "lion": "lion-pytorch"}.get(name)
