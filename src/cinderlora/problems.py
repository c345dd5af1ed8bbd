"""What is wrong with a request, and why a run failed: data with a stable code, a text and a cure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import field, frozen
from attrs.converters import optional

from cinderlora.cost.data import Disk, Estimate
from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.texts import Text, text_of

__all__ = ["Diagnosis", "Problem", "Report"]

Severity = Literal["error", "warning"]


@frozen
class Problem:
    """One thing that is wrong, or looks wrong, before anything has started.

    `code` is stable and `params` are the values in its text, so that a front end can say it in its own words or in
    another language (`text("de")`). `changes` are the settings that would cure it, where a program can apply them:
    `adapter.job(..., **problem.changes)`.
    """

    code: str
    params: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    severity: Severity = "error"
    message: str = ""
    fix: str = ""
    changes: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)

    def __attrs_post_init__(self) -> None:
        if not self.message:
            text = self.text("en")
            object.__setattr__(self, "message", text.message)
            object.__setattr__(self, "fix", self.fix or text.fix)

    def text(self, language: str) -> Text:
        """The message and the fix in a language ("en" or "de"); a plugin's own codes keep their own words."""
        return text_of(self.code, self.params, language) or Text(self.message or self.code, self.fix)

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


@frozen
class Diagnosis:
    """Why a run failed: the cause, the lines that show it, and what to do.

    `changes` are settings that are likely to cure it: `job.evolve(**diagnosis.changes)`. `params` are the values in
    the texts. Codes: `docs/reference/errors.md`.
    """

    code: str
    params: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    evidence: tuple[str, ...] = field(default=(), converter=as_tuple)
    cause: str = ""
    fix: str = ""
    changes: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)

    def __attrs_post_init__(self) -> None:
        if not self.cause:
            text = self.text("en")
            object.__setattr__(self, "cause", text.message)
            object.__setattr__(self, "fix", self.fix or text.fix)

    def text(self, language: str) -> Text:
        """The cause and the fix in a language ("en" or "de"); a plugin's own codes keep their own words."""
        return text_of(self.code, self.params, language) or Text(self.cause or self.code, self.fix)

    def __str__(self) -> str:
        return f"{self.cause} {self.fix}".strip()


@frozen
class Report:
    """What `adapter.check` found: problems, and the numbers worth knowing before an hour of GPU time.

    Numbers are None where they cannot be known (the data set is unreadable, there is no GPU to ask).
    """

    problems: tuple[Problem, ...] = field(default=(), converter=as_tuple)
    images: int | None = None
    """Pictures in the data set, without repeats."""
    steps_per_epoch: int | None = None
    """Optimizer steps per pass over the data set, repeats and buckets counted as sd-scripts counts them."""
    steps: int | None = None
    epochs: int | None = None
    """Passes over the data set for the wanted steps, the last one perhaps partial."""
    processes: int = 1
    """Processes that train at once, one on each GPU: a step takes so many batches, times the gradient accumulation."""
    checkpoints: int | None = None
    """LoRA files that will be written on the way, without the final one."""
    samples: int | None = None
    """Sample pictures that will be drawn."""
    disk_bytes: int | None = None
    """Bytes that the LoRA files, states, samples and caches will take in all."""
    vram_gb: float | None = None
    """GPU memory the settings are meant for in GB, the preset's or the model type's figure."""
    disk: Disk | None = None
    """The parts of `disk_bytes`."""
    vram: Estimate | None = None
    """GPU memory the training will take, as far as that can be told beforehand."""
    ram: Estimate | None = None
    """The same for the machine's memory."""
    buckets: Mapping[str, int] | None = field(default=None, converter=optional(FrozenDict))
    """How many pictures, repeats included, are trained at which size: {"512x512": 220}, in pixels, width first."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that forbid the start."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems worth a look that forbid nothing."""
        return tuple(p for p in self.problems if p.severity == "warning")

    def seconds_at(self, seconds_per_step: float) -> float | None:
        """Wall time of all steps at a known rate in seconds per step, `Progress.seconds_per_step` of an earlier run;
        without loading, caching, samples and saving. None where the steps are not known."""
        return None if self.steps is None else self.steps * seconds_per_step

    def raise_for_errors(self) -> None:
        """Raise `JobRefused` with all errors where there are any."""
        raise_for(self.errors)


def raise_for(problems: Iterable[Problem]) -> None:
    """Raise `JobRefused` where one of the problems is an error."""
    from cinderlora.errors import JobRefused

    errors = tuple(p for p in problems if p.severity == "error")
    if errors:
        raise JobRefused(errors)
