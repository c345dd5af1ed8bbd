"""A run folder on disk: what was launched, how it stands, whether somebody still looks after it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import field, frozen

from cinderlora.errors import RunNotFound
from cinderlora.frozendict import FrozenDict
from cinderlora.names import is_plain_file_name
from cinderlora.problems import Problem
from cinderlora.running import supervisor
from cinderlora.types import LoraFacts, Settings

if TYPE_CHECKING:
    from cinderlora.running.listing import Listed

__all__ = ["Launch", "RunFolder", "State", "StateName"]

StateName = Literal["running", "finished", "failed", "stopped", "lost"]

# Between the folder's appearance and the first record there are milliseconds; on a machine under load, seconds.
_STARTING = 30.0


@frozen(kw_only=True)
class Launch:
    """What was started, from `launch.json`: the part of a plan that followers and the supervisor need."""

    id: str
    """Chosen at random; every process of the run has it in its environment."""
    name: str
    model_type: str
    output: Path
    """Where the trainer writes. In a record it may be relative to the run folder."""
    lora: str
    """The LoRA's file name."""
    created: float
    """Seconds since the epoch."""
    stages: tuple[dict[str, Any], ...]
    steps: int | None = None
    first_step: int = 0
    publish: Path | None = None
    """Where the files of a resumed training are put in the end."""
    warnings: tuple[Problem, ...] = ()
    zero_at_start: tuple[str, ...] = ()
    rehearsal: bool = False
    assists: bool = False
    """Another machine writes the LoRA."""

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Launch:
        """From JSON; raises KeyError, TypeError or ValueError where it is no such record."""
        known = {a.name: record[a.name] for a in attrs.fields(cls) if a.name in record}
        for name in ("id", "name", "model_type", "lora"):
            # An id that is not there would be that of every process without one, and stopping goes by it.
            if not _expected(known, name, str):
                raise ValueError(name)
        for name in ("name", "model_type", "lora"):
            if not is_plain_file_name(known[name]):
                raise ValueError(name)
        known["output"] = Path(_expected(known, "output", str))
        known["publish"] = Path(_expected(known, "publish", str)) if known.get("publish") else None
        known["created"] = _number(known, "created")
        for name in ("steps", "first_step"):
            if known.get(name) is not None and not 0 <= _expected(known, name, int) < _LARGE:
                raise ValueError(name)
        known["zero_at_start"] = tuple(_texts(known, "zero_at_start"))
        known["rehearsal"] = known.get("rehearsal") is True
        known["assists"] = known.get("assists") is True
        warnings = _expected(known, "warnings", list) if "warnings" in known else ()
        known["warnings"] = tuple(
            Problem(_expected(w, "code", str), dict(_expected(w, "params", dict)), "warning") for w in warnings
        )
        stages = _expected(known, "stages", list)
        if not all(isinstance(stage, dict) for stage in stages):
            raise TypeError("stages")
        return cls(**{**known, "stages": tuple(stages)})


@frozen(kw_only=True)
class State:
    """How a run stands, from `state.json`, which only the supervisor writes."""

    ended: float | None = None
    """Seconds since the epoch; None while it runs. All below is only known from then on."""
    exit_code: int | None = None
    """Negative: the signal's number. None: nobody was there to see it."""
    stopped_by: str | None = None
    log_length: int = 0
    """Bytes of `output.log` that are the run's."""
    lora: LoraFacts = LoraFacts()
    published: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    """What the files of a resumed training are called among those of the earlier runs, by their own names."""
    publish_problem: str = ""
    """Why some of them could not be put there."""
    copies: tuple[str, ...] = ()
    """The copies of the LoRA."""
    copy_problems: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    """Why there is none, or no file with its type, in a folder."""
    partial: tuple[str, ...] = ()
    """What was half-written when it ended, under the names it was given then, relative to the output folder."""
    seconds: float | None = None
    """How long it took, by a clock that nobody sets."""
    max_rss_bytes: int | None = None
    """The most memory that one of its processes had; None where nobody was there to see it."""
    max_vram_bytes: int | None = None
    """The most GPU memory that its processes were seen to hold together; None where NVIDIA's library cannot tell."""
    gpu_others: tuple[str, ...] = ()
    """The programs of others that held GPU memory at the last look."""
    oom_kills: int | None = None
    """Processes that the kernel ended for lack of memory while it ran, of the whole machine; None where it does not
    say."""
    assists: bool = False
    """Another machine writes the LoRA, so its exit code alone tells how it ended."""

    started: float
    trainer: dict[str, Any]
    """pid and start of the running stage, or of the last one."""
    supervisor: dict[str, Any]
    stage: int = 0
    files: frozenset[str] = frozenset()
    """The checkpoints and samples seen so far, relative to the output folder."""
    closing: bool = False
    """The log's length is being taken: nothing that is read now is certain to be counted."""

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> State:
        """From JSON; raises KeyError, TypeError or ValueError where it is no such record."""
        values: dict[str, Any] = {
            "started": _number(record, "started"),
            "trainer": _process(record, "trainer"),
            "supervisor": _process(record, "supervisor"),
            "stage": _expected(record, "stage", int),
            "files": frozenset(_texts(record, "files")),
            "partial": tuple(_texts(record, "partial")),
            "closing": _expected(record, "state", str) == "ending",
        }
        if record["state"] == "ended":
            values["ended"] = _number(record, "ended")
            values["seconds"] = None if record.get("seconds") is None else _number(record, "seconds")
            values["exit_code"] = None if record["exit_code"] is None else _expected(record, "exit_code", int)
            values["stopped_by"] = None if record["stopped_by"] is None else _expected(record, "stopped_by", str)
            values["log_length"] = _expected(record, "log_length", int)
            if not 0 <= values["log_length"] < _LARGE:
                raise ValueError("log_length")
            values["lora"] = _facts(_expected(record, "lora", dict))
            values["assists"] = record.get("assists") is True
            for name in ("max_rss_bytes", "max_vram_bytes", "oom_kills"):
                values[name] = _bytes(record.get(name))
            values["gpu_others"] = tuple(_texts(record, "gpu_others")) if "gpu_others" in record else ()
            published = _expected(record, "published", dict) if "published" in record else {}
            values["published"] = {name: _expected(published, name, str) for name in published}
            values["publish_problem"] = str(record.get("publish_problem", ""))
            values["copies"] = tuple(_texts(record, "copies")) if "copies" in record else ()
            problems = _expected(record, "copy_problems", dict) if "copy_problems" in record else {}
            values["copy_problems"] = {folder: _expected(problems, folder, str) for folder in problems}
        return cls(**values)

    @property
    def name(self) -> StateName:
        """The outcome, from the recorded facts alone, so that it is the same for everybody and for ever.

        Where nobody was there to see the exit code, a LoRA that says it has all steps is as good a proof: sd-scripts
        writes it last.
        """
        if self.ended is None:
            return "running"
        if self.assists and self.exit_code == 0:
            return "finished"
        if self.lora.good and (self.exit_code == 0 or (self.exit_code is None and self.lora.all_steps)):
            return "finished"
        if self.stopped_by is not None:
            return "stopped"
        return "lost" if self.exit_code is None else "failed"


# ---- what a record says, if it says it -------------------------------------------------------------------------------

_LARGE = 1 << 53  # no step, no second and no byte of a run has a higher number


def _expected(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record[name]
    if type(value) is not kind:
        raise TypeError(name)
    return value


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record[name]
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) >= _LARGE:
        raise ValueError(name)
    return float(value)


def _texts(record: Mapping[str, Any], name: str) -> list[str]:
    texts: list[str] = _expected(record, name, list) if name in record else []
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(name)
    return texts


def _bytes(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _LARGE else None


def _process(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    process = _expected(record, name, dict)
    return {"pid": _expected(process, "pid", int), "start": process["start"]}


def _facts(record: Mapping[str, Any]) -> LoraFacts:
    flags: dict[str, Any] = {
        name: record[name]
        for name in ("exists", "fresh", "complete", "finite", "trained", "all_steps")
        if isinstance(record.get(name), bool)
    }
    size = record.get("size")
    return LoraFacts(**flags, size=size if type(size) is int else 0, problem=str(record.get("problem", "")))


class RunFolder:
    """The records of one run. Reading them again costs a `stat` where nothing has changed."""

    def __init__(self, path: Path | str, *, listed: Listed | None = None) -> None:
        """Raises `RunNotFound`. `listed` is what an index of runs knows: then nothing is read before it is needed, and
        nothing made, since there may be ten thousand of them."""
        self._given = path
        self.listed = listed
        self._state: State | None = None
        self._signature: list[int] | None = None
        if listed is None:
            self.launch  # noqa: B018 - reads it, or raises

    @cached_property
    def path(self) -> Path:
        """The run folder, absolute."""
        return Path(self._given).absolute()

    @cached_property
    def launch(self) -> Launch:
        """What was started. Raises `RunNotFound`."""
        record = supervisor.read_record(str(self.path), supervisor.LAUNCH)
        try:
            if record is None:
                raise RunNotFound("run_not_found", folder=str(self.path))
            launch = Launch.from_record(record)
            return attrs.evolve(launch, output=self.path / launch.output)
        except (KeyError, TypeError, ValueError) as error:
            raise RunNotFound("run_not_found", folder=str(self.path)) from error

    @cached_property
    def log(self) -> Path:
        """What the trainer printed."""
        return self.path / supervisor.LOG

    @cached_property
    def _state_path(self) -> str:
        return str(self.path / supervisor.STATE)

    @property
    def folder_name(self) -> str:
        """The run folder's own name."""
        return os.path.basename(self._given)  # noqa: PTH119 - a list is sorted by it

    @property
    def heading(self) -> Listed | Launch:
        """Its name, model type and time of launch, from wherever they are known already."""
        return self.launch if self.listed is None else self.listed

    @property
    def signature(self) -> list[int] | None:
        """Which state file `state` last read."""
        return self._signature

    def state(self) -> State | None:
        """How the run stands; None in the moment before the trainer's start is recorded. Raises `RunNotFound` where
        the folder is no longer there."""
        signature = supervisor.signature(self._state_path)
        if signature is None and not self.path.is_dir():
            pid = None if self._state is None else self._state.trainer["pid"]
            raise RunNotFound("run_removed", folder=str(self.path), pid=pid)
        if signature != self._signature:
            record = supervisor.read_record(str(self.path), supervisor.STATE)
            try:
                self._state = State.from_record(record) if record is not None else None
            except (KeyError, TypeError, ValueError):
                self._state = None
            self._signature = signature
        return self._state

    @cached_property
    def before(self) -> Mapping[str, list[int]]:
        """What lay in the output folder when the run began. To be asked once it has."""
        return supervisor.read_before(str(self.path))

    def has_trainer(self) -> bool:
        """Whether the recorded trainer lives, and is the run's as far as can be seen."""
        state = self.state()
        return state is not None and supervisor.is_of_run(state.trainer, self.launch.id)

    def settings(self) -> Settings | None:
        """The settings it was launched with, from its record; None where that cannot be read."""
        from cinderlora.errors import CinderloraError
        from cinderlora.serial import read_toml

        try:
            return Settings(**read_toml(self.path / "run.toml")["job"]["settings"])
        except (CinderloraError, KeyError, TypeError):
            return None

    def is_orphaned(self) -> bool:
        """Whether the run has not ended on record, and nobody is there to record it."""
        state = self.state()
        if state is not None and state.ended is not None:
            return False
        if supervisor.is_supervised(str(self.path)):
            return False
        if state is None and 0 <= time.time() - self.launch.created < _STARTING:
            return False
        # The supervisor writes before it goes: what it wrote last counts.
        state = self.state()
        return state is None or state.ended is None

    @property
    def state_name(self) -> StateName:
        """How the run stands, in a word."""
        if self.listed is not None:
            return self.listed.state
        state = self.state()
        if state is not None and state.ended is not None:
            return state.name
        return "lost" if self.is_orphaned() and not self.has_trainer() else "running"

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since the epoch; None where that is not on record."""
        if self.listed is not None:
            return self.listed.ended
        state = self.state()
        return None if state is None else state.ended

    @property
    def seconds(self) -> float | None:
        """How long it took, or has been running so far; None where nobody recorded its end."""
        if self.listed is not None:
            return self.listed.seconds
        state = self.state()
        if state is not None and state.ended is not None:
            return state.seconds if state.seconds is not None else max(0.0, state.ended - state.started)
        return max(0.0, time.time() - self.launch.created) if self.state_name == "running" else None
