"""A checkout of musubi-tuner on this machine, as a trainer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cinderlora import Job, ModelType, Plan, Problem, Settings
from cinderlora.checkouts import Checkout
from cinderlora.sd_scripts.arguments import Arguments
from cinderlora_musubi.planning import Scripts, completed, make_plan, problems

if TYPE_CHECKING:
    from cinderlora import Resumption
    from cinderlora.cost.problems import Cost
    from cinderlora.dataset import BucketPlan, Dataset
    from cinderlora.trainers import Saved

__all__ = ["Miniature", "MusubiTuner"]

_SCRIPTS = "src/musubi_tuner"


class MusubiTuner(Checkout):
    """kohya-ss/musubi-tuner in a folder. `MusubiTuner.find()` looks where checkouts lie; `CINDERLORA_MUSUBI_TUNER` and
    `CINDERLORA_MUSUBI_TUNER_PYTHON` name the folder and the interpreter."""

    kind: ClassVar[str] = "musubi-tuner"
    sign: ClassVar[str] = f"{_SCRIPTS}/hv_train_network.py"

    @staticmethod
    def rehearsal() -> Miniature:
        """The miniature: the same three steps, files and lines, without GPU and models."""
        return Miniature()

    @property
    def environment(self) -> dict[str, str]:
        """So that this checkout's modules are used, whatever else is installed."""
        return {"PYTHONPATH": str(self.path / "src")}

    def command(self, script: str) -> tuple[str, ...]:
        """The command line that starts a script."""
        return (str(self.python), str(self.path / _SCRIPTS / script))

    def arguments(self, script: str, *, root: str | None = "src") -> Arguments:
        """What a script takes, as the checkout's own source has it; where it cannot be read, as v0.3.4 has it."""
        return super().arguments(f"{_SCRIPTS}/{script}", root=root) or _shipped(script)

    def problems(self, model_type: ModelType, job: Job, args: Mapping[str, Any]) -> Iterator[Problem]:
        """What forbids this checkout to run the job."""
        yield from self.missing(*(f"{_SCRIPTS}/{script}" for script in Scripts.of(model_type)))
        yield from problems(self, model_type, job, args)

    def machine_problems(self, job: Job) -> Iterator[Problem]:
        """Whether the cards can do bf16."""
        from cinderlora.gpu import without_bf16

        precision = job.settings.extra.get("mixed_precision", job.settings.mixed_precision)
        cards = without_bf16() if precision == "bf16" and not self.is_rehearsal else ()
        if cards:
            yield Problem("bf16_missing", {"cards": cards}, severity="warning")

    def completed(self, settings: Settings) -> Settings:
        """The settings with what follows from others filled in where unset."""
        return completed(settings)

    def buckets(self, model_type: ModelType, job: Job, dataset: Dataset) -> BucketPlan:
        """The buckets that musubi-tuner will sort the pictures into."""
        from cinderlora_musubi.buckets import plan

        s = completed(job.settings)
        return plan(
            dataset.sizes,
            resolution=s.resolution or 512,
            repeats=dataset.repeats(s.repeats or 1),
            batch_size=s.batch_size or 1,
            enable=bool(s.enable_bucket),
            no_upscale=bool(s.bucket_no_upscale),
        )

    def cost(
        self, model_type: ModelType, job: Job, buckets: BucketPlan | None, *, checkpoints: int, samples: int
    ) -> Cost:
        """What goes to the disk. Memory is not told: nothing was measured."""
        from cinderlora_musubi.cost import disk

        return disk(model_type, job, buckets, checkpoints)

    def saved_in(self, folder: Path, lora: str, names: Iterable[str], since: float, until: float) -> list[Saved]:
        """The checkpoints of a run. Its saved states do not say which step they are of, and are left alone."""
        from cinderlora.sd_scripts.resuming import saved_in

        return [saved for saved in saved_in(folder, lora, names, since, until) if saved.kind == "weights"]

    def plan(
        self,
        model_type: ModelType,
        job: Job,
        dataset: Dataset,
        args: Mapping[str, Any],
        resumption: Resumption | None = None,
    ) -> Plan:
        """The plan of a job: caching latents, caching text encoder outputs, training."""
        return make_plan(self, model_type, job, dataset, args, resumption)


class Miniature(MusubiTuner):
    """The rehearsal: cinderlora's miniature training behind musubi-tuner's command lines, files and output."""

    is_rehearsal: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(Path(__file__).parent / "miniature", python=sys.executable)

    def __repr__(self) -> str:
        return "MusubiTuner.rehearsal()"

    def is_there(self) -> bool:
        return True

    @property
    def environment(self) -> dict[str, str]:
        return {}

    def command(self, script: str) -> tuple[str, ...]:
        # -P: nothing in the run folder, where it is started, can stand in for a module.
        return (str(self.python), "-P", "-m", "cinderlora_musubi.miniature", script)

    def arguments(self, script: str, *, root: str | None = None) -> Arguments:
        return _shipped(script)

    def missing(self, *scripts: str) -> Iterator[Problem]:
        from importlib.util import find_spec

        packages = {"numpy": "numpy", "PIL": "pillow"}
        lacking = [name for module, name in packages.items() if find_spec(module) is None]
        if lacking:
            yield Problem("extra_missing", {"what": repr(self), "packages": lacking, "extra": "rehearsal"})

    def record(self) -> dict[str, str | None]:
        from cinderlora import __version__

        return {"kind": "rehearsal", "python": str(self.python), "version": __version__}


@cache
def _shipped(script: str) -> Arguments:
    """A script's arguments in v0.3.4 (30c658c4); of one that is not known, none, and so nothing is said of it."""
    file = resources.files(__package__) / "arguments" / script.replace(".py", ".json")
    if not file.is_file():
        return Arguments({}, complete=False)
    found: Mapping[str, Sequence[Any]] = json.loads(file.read_text(encoding="utf-8"))
    return Arguments({name: _argument(name, *parts) for name, parts in found.items()})


def _argument(name: str, action: str, kind: str | None, nargs: str | None, choices: list[str] | None) -> dict[str, Any]:
    return {
        "action": action,
        "choices": choices,
        "flags": [f"--{name}"],
        "is_boolean": action in {"StoreTrueAction", "StoreFalseAction", "BooleanOptionalAction"},
        "nargs": nargs,
        "type": kind,
    }
