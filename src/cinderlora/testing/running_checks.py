"""Whether a job becomes a plan without touching anything, and the plan a LoRA."""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Self

from cinderlora.adapter import Adapter
from cinderlora.errors import JobRefused, TrainingFailed
from cinderlora.events import Event, Failed, Progress, SampleSaved, Warned
from cinderlora.testing.checking import Subject, fail, skip
from cinderlora.types import Job, Plan

__all__ = ["a_plan_is_deterministic_and_inert", "a_rehearsal_runs_from_job_to_lora"]

_ACTS = {
    "open": "opens {0} for writing",
    "os.mkdir": "makes the folder {0}",
    "os.remove": "removes {0}",
    "os.rename": "renames {0}",
    "os.rmdir": "removes the folder {0}",
    "os.system": "runs {0}",
    "socket.connect": "connects to the network",
    "subprocess.Popen": "starts {0}",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def a_plan_is_deterministic_and_inert(subject: Subject) -> None:
    watch = _Watch()
    for adapter in subject.adapters():
        trainer = subject.trainer(adapter)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for preset in (None, *adapter.presets):
                job = subject.job(adapter, folder, preset)
                _skip_without_rehearsal(adapter, job)
                first = adapter.plan(job, trainer)
                with watch:
                    again = adapter.plan(job, trainer)
                if watch.acts:
                    fail(f"Making a plan {watch.acts[0]}. A plan is data: what acts belongs into the training.")
                if again != first:
                    fail(f"Two plans of one job differ{_difference(first, again)}: let hooks depend on the job alone.")
                _files(first)


def _skip_without_rehearsal(adapter: Adapter, job: Job) -> None:
    """Skip where the rehearsal itself is not installed."""
    for problem in adapter.rehearsal().problems(adapter.type, job, {}):
        if problem.code == "extra_missing":
            skip("the rehearsal is not installed: pip install 'cinderlora[rehearsal]'")


class _Watch:
    """What is written, started and connected to while it looks, in words; reading is everybody's right."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self._looks = False
        sys.addaudithook(self._hear)  # it cannot be taken away again, only look away

    def __enter__(self) -> Self:
        self._looks = True
        return self

    def __exit__(self, *_: object) -> None:
        self._looks = False

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._looks and event in _ACTS and (event != "open" or _writes(args)):
            self.acts.append(_ACTS[event].format(*map(repr, args)))


def _writes(args: tuple[Any, ...]) -> bool:
    path, mode, flags = (*args, None, None, None)[:3]
    if "__pycache__" in str(path):
        return False  # a module that is imported for the first time
    return bool(isinstance(mode, str) and set(mode) & set("wax+")) or bool(isinstance(flags, int) and flags & _WRITING)


def _difference(first: Plan, again: Plan) -> str:
    for name in ("stages", "files", "links", "output", "lora", "steps"):
        if getattr(first, name) != getattr(again, name):
            return f" in {name}"
    return ""


def _files(plan: Plan) -> None:
    for name, text in plan.files.items():
        if name.endswith(".toml"):
            try:
                tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                fail(f"The plan's {name} is no TOML: {error}")


def a_rehearsal_runs_from_job_to_lora(subject: Subject) -> None:
    from cinderlora.sync import launch

    adapter = subject.adapter()
    trainer = subject.trainer(adapter)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = subject.job(adapter, folder)
        _skip_without_rehearsal(adapter, job)
        try:
            plan = adapter.plan(job, trainer)
        except JobRefused as error:
            fail(f"The job is refused: {error}")
        events: list[Event] = []
        with launch(plan, runs=folder / "runs", registry=adapter.registry) as run:
            for event in run:
                events.append(event)
        try:
            lora = run.result.lora
        except TrainingFailed as error:
            fail(f"The rehearsal failed: {error} {_last(events)}")
        if not lora.exists():
            fail("The rehearsal says that it finished, and left no LoRA.")
        for event in events:
            if isinstance(event, Warned) and event.code == "plugin_failed":
                fail(event.message)
        steps = [event.step for event in events if isinstance(event, Progress)]
        if not steps or steps[-1] != job.settings.steps:
            fail(
                f"The rehearsal trained {job.settings.steps} steps, and Progress tells of {steps[-1] if steps else 0}: "
                "parse_progress has to return None for lines that are not its own."
            )
        if not any(isinstance(event, SampleSaved) for event in events):
            fail(
                "The rehearsal drew samples, and no SampleSaved tells of one: leave the trainer's lines to its parser."
            )


def _last(events: list[Event]) -> str:
    failed = [event for event in events if isinstance(event, Failed)]
    return " ".join(failed[-1].diagnosis.evidence[-3:]) if failed else ""
