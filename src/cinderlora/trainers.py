"""What the core asks of a trainer: any program that can be started with a plan. `SdScripts` is the one it brings; a
plugin brings others by the hook `trainer`. `docs/trainers.md` is the guide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from cinderlora.cost.problems import Cost
    from cinderlora.dataset import BucketPlan, Dataset
    from cinderlora.problems import Problem
    from cinderlora.types import Job, ModelType, Plan, Resumption, Settings

__all__ = ["Saved", "Trainer", "TrainerType", "run_record"]


@frozen
class Saved:
    """Something that a training saved on its way."""

    path: Path
    kind: Literal["state", "weights"]
    step: int
    """As the trainer counted: without earlier runs' steps. 0: it does not say."""
    complete: bool
    """All is there, and no number in it is NaN or infinite."""


class Trainer(Protocol):
    """A trainer, as `adapter.check` and `adapter.plan` use it.

    Only `kind`, `problems` and `plan` have to be written. A class that derives from this one inherits the rest, which
    says of everything else that it cannot be told.
    """

    @property
    def kind(self) -> str:
        """What a `ModelType.trainer` calls it, e.g. "sd-scripts"."""

    @property
    def is_rehearsal(self) -> bool:
        """Whether it only pretends: then no model file is needed."""
        return False

    def problems(self, model_type: ModelType, job: Job, args: Mapping[str, Any]) -> Iterable[Problem]:
        """What forbids this trainer to run the job: it is not there, it does not know an argument, ..."""

    def machine_problems(self, job: Job) -> Iterable[Problem]:
        """What only `check` asks, since it takes a moment: whether what the job needs is installed."""
        return ()

    def completed(self, settings: Settings) -> Settings:
        """The settings with what follows from others filled in where unset, the way this trainer will have it."""
        return settings

    def buckets(self, model_type: ModelType, job: Job, dataset: Dataset) -> BucketPlan | None:
        """The buckets that the pictures will be sorted into; None where that cannot be told. Raises `SettingError`
        where the settings leave none."""
        return None

    def cost(
        self, model_type: ModelType, job: Job, buckets: BucketPlan | None, *, checkpoints: int, samples: int
    ) -> Cost | None:
        """What a job, whose model files are looked into, will take of disk and memory; None where that cannot be told.
        `checkpoints` and `samples` are how many there will be."""
        return None

    def saved_in(
        self, folder: Path, lora: str, names: Iterable[str], since: float, until: float
    ) -> Sequence[Saved] | None:
        """What a run left in its output folder to go on from; None for a trainer whose runs cannot be resumed.

        `lora` is the LoRA's file name and `names` are the checkpoints on record. Only what was written between the two
        times, in seconds since the epoch, is the run's.
        """
        return None

    def plan(
        self,
        model_type: ModelType,
        job: Job,
        dataset: Dataset,
        args: Mapping[str, Any],
        resumption: Resumption | None = None,
    ) -> Plan:
        """The plan of a job; pure but for reading what a plan records (commits, file sizes).

        With a `resumption`, what is left of the job is trained, and `settings.steps` are those in all. Only a trainer
        that has `saved_in` is asked for that.
        """


class TrainerType(Protocol):
    """Where trainers of one kind come from: what the hook `trainer` gives. A class such as `SdScripts` is one itself.

    Calling it with a folder, and an interpreter where that is known, gives the trainer there; nothing is looked at.
    """

    @property
    def kind(self) -> str:
        """What a `ModelType.trainer` calls it."""

    def __call__(self, path: str | Path, /, *, python: str | Path | None = None) -> Trainer: ...

    def find(self, path: str | Path | None = None, *, python: str | Path | None = None) -> Trainer:
        """The first one there is: in the folder given, or where such trainers lie. Raises `TrainerNotFound`, whose
        parameter `path` is the folder where it ought to be."""

    def rehearsal(self) -> Trainer:
        """One that pretends: it prints and writes what the real one does, without GPU and models."""


def run_record(
    job: Job,
    trainer: Mapping[str, str | None],
    resumption: Resumption | None = None,
    *,
    dataset: Dataset | None = None,
) -> str:
    """The text of `run.toml` for a plan's `files`: what it takes to repeat the run, and to resume it.

    `trainer` is what is to be known of the trainer; of `kind`, `path` and `python` it is made again ("rehearsal" stands
    for one that pretends). Reads the sizes and times of the model files, and of the `dataset` where it is given.
    """
    from cinderlora import __version__
    from cinderlora.serial import dataset_identity, identity, job_values, toml_text

    record: dict[str, Any] = {
        "cinderlora": __version__,
        "job": job_values(job),
        "trainer": trainer,
        "files": {role: identity(file) for role, file in job.models.items()},
    }
    if dataset is not None:
        record["dataset"] = dataset_identity(dataset)
    if resumption is not None:
        record["resumed_from"] = {name: str(getattr(resumption, name)) for name in ("run", "path", "kind")}
        record["resumed_from"]["step"] = resumption.step
    return toml_text(record)
