"""What a queue is made of: its entries, its settings, and both as records. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
from attrs import field, frozen

from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.gpu import Gpu
from cinderlora.problems import Problem
from cinderlora.running.folding import Status

__all__ = ["ENDED", "Entry", "EntryState", "Gpu", "QueueSettings", "QueueStatus", "in_order"]

EntryState = Literal["waiting", "held", "starting", "running", "finished", "failed", "stopped", "lost", "removed"]

UNDER_WAY = frozenset({"starting", "running"})
ENDED = frozenset({"finished", "failed", "stopped", "lost"})


@frozen(kw_only=True)
class Entry:
    """One job in a queue, as it stood when it was asked for."""

    id: int
    """Its number, which no other entry of the queue ever gets."""
    name: str
    """The character's name."""
    model_type: str
    state: EntryState = "waiting"
    """waiting, held, starting, running; then as its run ended: finished, failed, stopped or lost. "failed" without a
    `run` is one that could not be started. "removed" is only said by `watch`."""
    added: float
    """Seconds since the epoch, as are `started` and `ended`."""
    lora: Path
    """Where its LoRA will lie."""
    steps: int | None = None
    runs: Path
    """The folder that its run folder is made in."""
    configs: Path | None = None
    run: Path | None = None
    """The run folder, once there is one: `cinderlora.attach(entry.run)`."""
    run_id: str | None = None
    """The id that its run has or will have. On record before the start, so that no crash can start it twice."""
    gpus: tuple[Gpu, ...] = field(default=(), converter=as_tuple)
    """The GPUs that it was given. None where the machine has none that can be asked for."""
    started: float | None = None
    ended: float | None = None
    retry_of: int | None = None
    """The entry that it is another try of."""
    changes: Mapping[str, Any] = field(factory=FrozenDict, converter=FrozenDict)
    """The settings that are others than in that one: what the diagnosis of its failure advised."""
    problem: Problem | None = None
    """Why it could not be started, or why it was not tried again."""
    status: Status | None = None
    """How its run stands: only of entries that `Queue.status` gives, and only while it runs."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED

    @property
    def is_under_way(self) -> bool:
        """Whether it has a GPU."""
        return self.state in UNDER_WAY


@frozen(kw_only=True)
class QueueSettings:
    """What goes for the whole queue, and is on record with it."""

    gpus: tuple[Gpu, ...] | Literal["all"] = "all"
    gpus_per_job: int = 1
    stop_on_failure: bool = False
    retry_out_of_memory: bool = False
    paused: bool = False
    problem: Problem | None = None
    """Why the queue paused by itself."""
    order: tuple[int, ...] = field(default=(), converter=as_tuple)
    """The ids of those that were moved, and of those they were moved past; others follow by their ids."""
    next_id: int = 1


@frozen(kw_only=True)
class QueueStatus:
    """How a queue stands, for front ends that poll."""

    folder: Path
    is_running: bool
    """Whether its supervisor is there: it starts what waits."""
    paused: bool
    problem: Problem | None
    """Why it paused by itself."""
    entries: tuple[Entry, ...]
    """In the order of `Queue.entries`, with the `status` of those that run."""
    put_aside: tuple[Path, ...] = ()
    """Files that were no entries of a queue; they lie where nobody minds them."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing will be started."""
        return not self.is_running and not any(entry.is_under_way for entry in self.entries)


def in_order(entries: Iterable[Entry], order: Iterable[int]) -> list[Entry]:
    """Entries as people read them: those that have ended by their end, those under way, then those to come in the
    order they will be started in."""
    places = {number: place for place, number in enumerate(order)}

    def place(entry: Entry) -> tuple[int, float, int]:
        if entry.is_ended:
            return 0, entry.ended or entry.added, entry.id
        if entry.is_under_way:
            return 1, entry.started or math.inf, entry.id
        return 2, places.get(entry.id, math.inf), entry.id

    return sorted(entries, key=place)


# ---- as records ------------------------------------------------------------------------------------------------------

_STATES = frozenset(get_args(EntryState)) - {"removed"}
_NOT_ON_RECORD = {"status"}


def entry_record(entry: Entry) -> dict[str, Any]:
    """An entry as plain data."""
    return {a.name: _plain(getattr(entry, a.name)) for a in attrs.fields(Entry) if a.name not in _NOT_ON_RECORD}


def read_entry(record: Any) -> Entry:
    """The entry of a record; raises ValueError, TypeError or KeyError where it is none."""
    text, number = _one_of(str), _one_of(float, int)
    values = {
        "id": _one_of(int)(record["id"]),
        "name": text(record["name"]),
        "model_type": text(record["model_type"]),
        "state": text(record["state"]),
        "added": number(record["added"]),
        "lora": Path(text(record["lora"])),
        "steps": _maybe(_one_of(int), record.get("steps")),
        "runs": Path(text(record["runs"])),
        "configs": _maybe(_path, record.get("configs")),
        "run": _maybe(_path, record.get("run")),
        "run_id": _maybe(text, record.get("run_id")),
        "gpus": _gpus(record.get("gpus", ())),
        "started": _maybe(number, record.get("started")),
        "ended": _maybe(number, record.get("ended")),
        "retry_of": _maybe(_one_of(int), record.get("retry_of")),
        "changes": _one_of(dict)(record.get("changes", {})),
        "problem": _maybe(_read_problem, record.get("problem")),
    }
    entry = Entry(**values)
    if entry.state not in _STATES or not math.isfinite(entry.added):
        raise ValueError(entry.state)
    if entry.state == "starting" and entry.run_id is None:
        raise ValueError("starting without an id")
    return entry


def settings_record(settings: QueueSettings) -> dict[str, Any]:
    """A queue's settings as plain data."""
    return {a.name: _plain(getattr(settings, a.name)) for a in attrs.fields(QueueSettings)}


def read_settings(record: Any) -> QueueSettings:
    """The settings of a record; raises ValueError, TypeError or KeyError where they are none."""
    flag, count = _one_of(bool), _one_of(int)
    return QueueSettings(
        gpus="all" if record["gpus"] == "all" else _gpus(record["gpus"]),
        gpus_per_job=_at_least_one(count(record["gpus_per_job"])),
        stop_on_failure=flag(record["stop_on_failure"]),
        retry_out_of_memory=flag(record["retry_out_of_memory"]),
        paused=flag(record["paused"]),
        problem=_maybe(_read_problem, record.get("problem")),
        order=[count(number) for number in _one_of(list)(record["order"])],
        next_id=_at_least_one(count(record["next_id"])),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Problem):
        from cinderlora.serial import to_json

        return {"code": value.code, "params": to_json(value.params)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _one_of(*kinds: type) -> Any:
    def checked(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"{value!r} is no {kinds[0].__name__}")
        return value

    return checked


def _maybe(read: Any, value: Any) -> Any:
    return None if value is None else read(value)


def _path(value: Any) -> Path:
    return Path(_one_of(str)(value))


def _gpus(value: Any) -> tuple[Gpu, ...]:
    return tuple(_one_of(int, str)(gpu) for gpu in _one_of(list, tuple)(value))


def _at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError(value)
    return value


def _read_problem(record: Any) -> Problem:
    return Problem(_one_of(str)(record["code"]), _one_of(dict)(record["params"]))
