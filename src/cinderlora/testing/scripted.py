"""A trainer that plays a recording: what a front end shows of a training, and of its end, without training anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cinderlora.problems import Problem
from cinderlora.sd_scripts.checkout import RehearsalTrainer
from cinderlora.types import Job, ModelType, Plan, Resumption, Stage

if TYPE_CHECKING:
    from cinderlora.dataset import Dataset

__all__ = ["RECORDINGS", "ScriptedTrainer"]

_HERE = Path(__file__).parent
RECORDINGS = ("complete", "out_of_memory")
"""Trainings with sd-scripts that are at hand by name: eight steps of SD3 with samples and checkpoints, and one that ran
out of the card's memory at its fifth step."""

_FILE = "recording.txt"


class ScriptedTrainer(RehearsalTrainer):
    """Prints a recorded `output.log` again and writes the files that it speaks of: a few bytes each, under this job's
    names.

    `recording` is one of `RECORDINGS`, a file or its bytes. `speed` is how many times as fast as it was: 1 takes as
    long as the recorded training bar says, None no time at all. It ends with `exit_code`, by default 0 where the
    recorded training saved its LoRA, and 1 otherwise. Needs nothing but Python.
    """

    def __init__(
        self, recording: str | Path | bytes = "complete", *, speed: float | None = None, exit_code: int | None = None
    ) -> None:
        super().__init__()
        self.recording: bytes
        if isinstance(recording, bytes):
            self.recording = recording
        else:
            known = isinstance(recording, str) and recording in RECORDINGS
            self.recording = (_HERE / f"recordings/{recording}.log" if known else Path(recording)).read_bytes()
        if speed is not None and not speed > 0:
            raise ValueError(f"speed is {speed!r}: how many times as fast as it was, or None for at once")
        self.speed: float | None = speed
        self.exit_code: int = (0 if b"model saved." in self.recording else 1) if exit_code is None else exit_code

    def __repr__(self) -> str:
        return f"<ScriptedTrainer of {len(self.recording)} bytes>"

    def missing(self, *scripts: str) -> Iterator[Problem]:
        return iter(())

    def plan(
        self,
        model_type: ModelType,
        job: Job,
        dataset: Dataset,
        args: Mapping[str, Any],
        resumption: Resumption | None = None,
    ) -> Plan:
        plan = super().plan(model_type, job, dataset, args, resumption)
        options = {"speed": str(self.speed or 0), "exit-code": str(self.exit_code), "output": str(plan.output)}
        argv = [sys.executable, "-I", str(_HERE / "player.py"), _FILE, plan.lora.removesuffix(".safetensors")]
        argv += [f"--{name}={value}" for name, value in options.items()]
        # Each byte as a character of its own, so that a recording comes through as it is.
        files = {**plan.files, _FILE: self.recording.decode("latin-1")}
        return attrs.evolve(plan, stages=[Stage(name="train", argv=argv)], files=files)
