"""A run folder on disk: what was launched, how it stands, whether somebody still looks after it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import field, frozen

from cinderlora.errors import RunNotFound
from cinderlora.frozendict import FrozenDict
from cinderlora.problems import Problem
from cinderlora.running import supervisor
from cinderlora.types import LoraFacts, Settings

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

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Launch:
        """From JSON; raises KeyError, TypeError or AttributeError where it is no such record."""
        known = {a.name: record[a.name] for a in attrs.fields(cls) if a.name in record}
        for name in ("id", "name", "model_type", "lora"):
            # An id that is not there would be that of every process without one, and stopping goes by it.
            if not isinstance(known[name], str) or not known[name]:
                raise TypeError(name)
        known["output"] = Path(known["output"])
        known["publish"] = Path(known["publish"]) if known.get("publish") else None
        known["warnings"] = tuple(Problem(w["code"], w["params"], "warning") for w in known.get("warnings", ()))
        return cls(**{**known, "stages": tuple(known["stages"])})


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
        """From JSON; raises KeyError, TypeError or AttributeError where it is no such record."""
        own = {a.name for a in attrs.fields(cls)}
        values = {name: value for name, value in record.items() if name in own}
        values["closing"] = record["state"] == "ending"
        values["files"] = frozenset(record["files"])
        if "lora" in record:
            facts = {a.name for a in attrs.fields(LoraFacts)}
            values["lora"] = LoraFacts(**{name: value for name, value in record["lora"].items() if name in facts})
        return cls(**values)

    @property
    def name(self) -> StateName:
        """The outcome, from the recorded facts alone, so that it is the same for everybody and for ever."""
        if self.ended is None:
            return "running"
        if self.exit_code == 0 and self.lora.good:
            return "finished"
        if self.stopped_by is not None:
            return "stopped"
        return "lost" if self.exit_code is None else "failed"


class RunFolder:
    """The records of one run. Reading them again costs a `stat` where nothing has changed."""

    def __init__(self, path: Path) -> None:
        record = supervisor.read_record(str(path), supervisor.LAUNCH)
        try:
            if record is None:
                raise RunNotFound("run_not_found", folder=str(path))
            self.path = path.absolute()
            launch = Launch.from_record(record)
            self.launch = attrs.evolve(launch, output=self.path / launch.output)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunNotFound("run_not_found", folder=str(path)) from error
        self.log = self.path / supervisor.LOG
        self._state: State | None = None
        self._signature: list[int] | None = None

    def state(self) -> State | None:
        """How the run stands; None in the moment before the trainer's start is recorded."""
        path = self.path / supervisor.STATE
        signature = supervisor.signature(str(path))
        if signature != self._signature:
            record = supervisor.read_record(str(self.path), supervisor.STATE)
            try:
                self._state = State.from_record(record) if record is not None else None
            except (AttributeError, KeyError, TypeError, ValueError):
                self._state = None
            self._signature = signature
        return self._state

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
        if state is None and time.time() - self.launch.created < _STARTING:
            return False
        # The supervisor writes before it goes: what it wrote last counts.
        state = self.state()
        return state is None or state.ended is None

    @property
    def state_name(self) -> StateName:
        """How the run stands, in a word."""
        state = self.state()
        if state is not None and state.ended is not None:
            return state.name
        if self.is_orphaned() and (state is None or not supervisor.is_running(state.trainer)):
            return "lost"
        return "running"
