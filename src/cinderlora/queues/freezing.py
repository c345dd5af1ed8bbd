"""A plan at rest: as data, with what tells whether the files that it works on are still the same ones."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from cinderlora.errors import ConfigError
from cinderlora.problems import Problem
from cinderlora.types import Job, Plan, Settings

__all__ = ["Frozen", "freeze", "job_of"]


@frozen
class Frozen:
    """A plan, and the files that it names as they were when it was frozen: (path, bytes, time of change in ns)."""

    plan: Plan
    files: tuple[tuple[str, int, int], ...]

    def text(self) -> str:
        """As it is kept."""
        from cinderlora.serial import to_json

        return json.dumps({"plan": to_json(self.plan), "files": self.files})

    @classmethod
    def read(cls, text: str) -> Frozen:
        """What `text` wrote; raises `ConfigError` for anything else."""
        from cinderlora.serial import read_plan

        try:
            record = json.loads(text)
            files = tuple((str(path), int(size), int(mtime)) for path, size, mtime in record["files"])
            return cls(read_plan(record["plan"]), files)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError("plan_unreadable", why=f"{type(error).__name__}: {error}") from error

    def problem(self) -> Problem | None:
        """What is no longer there, or not as it was. Pictures and models are linked when the run starts: other ones
        would make another LoRA than the one that was wanted."""
        now = [(path, _identity(Path(path)), (size, mtime)) for path, size, mtime in self.files]
        missing = [path for path, there, _ in now if there is None]
        changed = [path for path, there, was in now if there is not None and there != was]
        for code, found in (("queue_file_missing", missing), ("queue_file_changed", changed)):
            if found:
                return Problem(code, {"path": found[0], "others": len(found) - 1 or None})
        return None


def freeze(plan: Plan) -> Frozen:
    """A plan with the pictures and models as they are now. Reads their sizes and times."""
    paths = [*(link.source for link in plan.links), *(Path(path) for path in _models(plan))]
    found = [(str(path), _identity(path)) for path in dict.fromkeys(paths)]
    return Frozen(plan, tuple((path, *there) for path, there in found if there is not None))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


# ---- what the plan's own record says ---------------------------------------------------------------------------------


def _record(plan: Plan) -> dict[str, Any]:
    """The run's record as the trainer's plan brings it; empty where it brings none."""
    try:
        return tomllib.loads(plan.files.get("run.toml", ""))
    except tomllib.TOMLDecodeError:
        return {}


def _models(plan: Plan) -> list[str]:
    files = [file for file in _record(plan).get("files", {}).values() if isinstance(file, Mapping)]
    parts = [part for file in files for part in file.get("parts", [file])]
    return [part["path"] for part in parts if "path" in part]


def job_of(plan: Plan) -> Job | None:
    """The job that a plan was made of, from the record in it; None where there is none."""
    values = _record(plan).get("job")
    if not isinstance(values, dict):
        return None
    return Job(
        model_type=plan.model_type,
        name=plan.name,
        trigger=values.get("trigger", ""),
        dataset=values.get("dataset", ""),
        output=plan.publish or plan.output,
        models={role: Path(path) for role, path in values.get("models", {}).items()},
        preset=values.get("preset"),
        settings=Settings(**values.get("settings", {})),
    )
