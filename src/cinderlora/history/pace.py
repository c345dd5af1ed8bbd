"""How fast a training will be, by an earlier one that was asked for the same. Blocking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cinderlora.errors import CinderloraError
from cinderlora.running.run import Run, runs
from cinderlora.types import Job

if TYPE_CHECKING:
    from cinderlora.registry import Registry

__all__ = ["Pace", "earlier_pace"]

DECISIVE = (
    *("resolution", "batch_size", "gradient_accumulation", "gradient_checkpointing", "mixed_precision", "fp8_base"),
    *("blocks_to_swap", "optimizer", "network_dim", "network_module", "train_text_encoder", "cache_latents"),
    "cache_text_encoders",
)
"""Settings that a step's time hangs on."""
LOOKED_AT = 20
"""Finished runs, the newest first."""


class Pace(NamedTuple):
    """A rate, and where it was seen."""

    seconds_per_step: float
    run: Run


def earlier_pace(
    job: Job, folder: Path | str | None = None, *, rehearsal: bool = False, registry: Registry | None = None
) -> Pace | None:
    """The rate of the newest finished run in a folder of runs (by default the user's) whose model and settings let a
    step take as long; None where there is none. Of that run, the whole log is read."""
    for run in runs(folder, state="finished", model_type=job.model_type, limit=LOOKED_AT, registry=registry):
        try:
            # The record first: it is quickly read, and a log may be long.
            if _alike(job, run.job) and run.result.rehearsal == rehearsal and (rate := run.status.seconds_per_step):
                return Pace(rate, run)
        except (CinderloraError, OSError):  # without a record, or removed meanwhile
            continue
    return None


def _alike(job: Job, earlier: Job) -> bool:
    mine, its = (model and model.path for model in (job.models.get("model"), earlier.models.get("model")))
    return mine == its and all(getattr(job.settings, name) == getattr(earlier.settings, name) for name in DECISIVE)
