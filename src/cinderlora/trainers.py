"""What the core asks of a trainer: any program that can be started with a plan. `SdScripts` is the one it brings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cinderlora.dataset import Dataset
    from cinderlora.problems import Problem
    from cinderlora.types import Job, ModelType, Plan, Resumption

__all__ = ["Trainer"]


class Trainer(Protocol):
    """A trainer, as `adapter.check` and `adapter.plan` use it."""

    @property
    def kind(self) -> str:
        """What a `ModelType.trainer` calls it, e.g. "sd-scripts"."""

    @property
    def is_rehearsal(self) -> bool:
        """Whether it only pretends: then no model file is needed."""

    def problems(self, model_type: ModelType, job: Job, args: Mapping[str, Any]) -> Iterable[Problem]:
        """What forbids this trainer to run the job: it is not there, it does not know an argument, ..."""

    def machine_problems(self, job: Job) -> Iterable[Problem]:
        """What only `check` asks, since it takes a moment: whether what the job needs is installed."""

    def plan(
        self,
        model_type: ModelType,
        job: Job,
        dataset: Dataset,
        args: Mapping[str, Any],
        resumption: Resumption | None = None,
    ) -> Plan:
        """The plan of a job; pure but for reading what a plan records (commits, file sizes).

        With a `resumption`, what is left of the job is trained, and `settings.steps` are those in all. Only trainers
        of the kind "sd-scripts" are asked for that.
        """
