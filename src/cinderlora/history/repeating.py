"""From the record of a run to the plan that does the same again, and what is no longer as it was. Blocking."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs

from cinderlora.errors import JobRefused
from cinderlora.problems import Problem
from cinderlora.running.folder import RunFolder
from cinderlora.running.resuming import recorded_job, recorded_trainer
from cinderlora.types import Plan, Resumption

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.trainers import Trainer

__all__ = ["plan_to_repeat"]

_NAMED = 5  # files and settings that are named, of any number
_RECORD = "run.toml"
_SAYS_THE_VERSION = "training_comment"


def plan_to_repeat(
    folder: RunFolder, adapter: Adapter, *, name: str | None = None, trainer: Trainer | None = None
) -> tuple[Plan, tuple[Problem, ...]]:
    """The plan that does again what a run did, and what has changed since, as warnings: each says what was and is.

    `name` is the new LoRA's, where it is not to replace the earlier one; `trainer` the one on record unless given.
    Raises `ConfigError`; `JobRefused` where the job could not be launched, or what it went on from is gone.
    """
    from cinderlora.serial import read_toml

    record = read_toml(folder.path / _RECORD)
    job = recorded_job(folder)
    trainer = trainer or recorded_trainer(folder.path, adapter)
    resumption = _resumption(record)
    adapter.check(job, trainer).raise_for_errors()
    plan = adapter.plan(job, trainer, resumption)
    changes = tuple(_changes(folder, record, plan))
    if name is not None and name != job.name:
        plan = adapter.plan(job.evolve(name=name), trainer, resumption)
    return attrs.evolve(plan, warnings=(*changes, *plan.warnings)), changes


def _resumption(record: Mapping[str, Any]) -> Resumption | None:
    """What the run went on from, if it did; raises `JobRefused` where that is gone."""
    was = record.get("resumed_from")
    if not isinstance(was, Mapping):
        return None
    path, step = Path(str(was.get("path", ""))), was.get("step")
    if not path.exists() or not isinstance(step, int):
        raise JobRefused((Problem("repeat_origin_missing", {"path": str(path)}),))
    kind: Literal["state", "weights"] = "weights" if was.get("kind") == "weights" else "state"
    return Resumption(run=Path(str(was.get("run", ""))), path=path, kind=kind, step=step)


# ---- what has changed ------------------------------------------------------------------------------------------------


def _changes(folder: RunFolder, record: Mapping[str, Any], plan: Plan) -> Iterator[Problem]:
    """Each change as a warning."""
    now = tomllib.loads(plan.files.get(_RECORD, ""))
    was_version, version = record.get("cinderlora"), now.get("cinderlora")
    if was_version and version and was_version != version:
        yield _changed("changed_cinderlora", was=was_version, now=version)
    yield from _trainer(_table(record, "trainer"), _table(now, "trainer"))
    yield from _models(_table(record, "files"), _table(now, "files"))
    yield from _dataset(folder, _table(record, "dataset"), _table(now, "dataset"), plan)
    yield from _settings(folder, plan)


def _changed(code: str, **params: Any) -> Problem:
    return Problem(code, params, severity="warning")


def _table(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _trainer(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Problem]:
    for key, length in (("kind", 80), ("commit", 8), ("version", 80)):
        if was.get(key) and now.get(key) and was[key] != now[key]:
            yield _changed("changed_trainer", was=str(was[key])[:length], now=str(now[key])[:length])
            return


def _models(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Problem]:
    for role, file in now.items():
        before = _table(was, role)
        if before.get("size") and before != file:
            yield _changed("changed_model", role=role, path=file["path"], was=_file(before), now=_file(file))


def _file(identity: Mapping[str, Any]) -> str:
    """A model file by what tells it from another: bytes and time of change."""
    size, changed = identity.get("size"), identity.get("mtime_ns")
    if not isinstance(size, int) or not isinstance(changed, int) or not 0 <= changed < 1 << 62:
        return "?"
    return f"{size:,} bytes of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(changed / 1e9))}"


def _settings(folder: RunFolder, plan: Plan) -> Iterator[Problem]:
    """What the trainer would be told otherwise: another version of cinderlora or of an adapter may see to that."""
    for name in plan.configs:
        if not name.endswith(".toml"):
            continue
        try:
            was = _flat(tomllib.loads((folder.path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
        now = _flat(tomllib.loads(plan.files[name]))
        keys = [key for key in dict.fromkeys([*was, *now]) if was.get(key) != now.get(key)]
        keys = [key for key in keys if key.rpartition(".")[2] != _SAYS_THE_VERSION]
        told = [f"{key} ({_say(was.get(key))} -> {_say(now.get(key))})" for key in keys]
        if told:
            yield _changed("changed_settings", file=name, settings=_some(told))


def _flat(table: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """A TOML table with one name for each value; the table that the training's values are in is not named."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{under}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, "" if key == "training" and not under else f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                flat |= _flat(item, f"{name}.{number}.")
        else:
            flat[name] = value
    return flat


def _say(value: Any) -> str:
    text = "unset" if value is None else "on" if value is True else "off" if value is False else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _some(names: Sequence[str]) -> list[str]:
    """The first of many."""
    return [*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])]


# ---- the data set ----------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A picture of a view: where it comes from (None: a copy does not say), and what it learned."""

    source: Path | None
    path: Path
    caption: str | None


def _dataset(folder: RunFolder, was: Mapping[str, Any], now: Mapping[str, Any], plan: Plan) -> Iterator[Problem]:
    """What is different about pictures and captions, by the view that the run has of them."""
    if was.get("sha256") and was["sha256"] == now.get("sha256"):
        return
    added, gone, replaced, retold = _differences(folder, plan)
    if added or gone or replaced:
        params = {"added": _some(added), "gone": _some(gone), "replaced": _some(replaced)}
        yield _changed("changed_pictures", **params)
    if retold:
        yield _changed("changed_captions", names=_some(retold))
    if was.get("sha256") and now.get("sha256") and not (added or gone or replaced or retold):
        yield _changed("changed_dataset", was=was.get("pictures"), now=now.get("pictures"))


def _differences(folder: RunFolder, plan: Plan) -> tuple[list[str], list[str], list[str], list[str]]:
    """The names of pictures that are new, that are gone, that were replaced, and that have another caption."""
    seen = _view(folder.path, plan)
    by_source = {one.source: one for one in seen if one.source is not None}
    by_name = {_own_name(one.path.name): one for one in seen if one.source is None}
    added, replaced, retold = [], [], []
    for link in plan.links:
        one = by_source.pop(link.source, None) or by_name.pop(_own_name(link.target), None)
        if one is None:
            added.append(link.source.name)
            continue
        if _is_newer(link.source, one, folder.launch.created):
            replaced.append(link.source.name)
        caption = _caption_of(link.target, plan)
        if caption is not None and one.caption is not None and plan.files[caption] != one.caption:
            retold.append(link.source.name)
    gone = [one.source.name if one.source else one.path.name for one in (*by_source.values(), *by_name.values())]
    return added, gone, replaced, retold


def _view(folder: Path, plan: Plan) -> list[Seen]:
    """What the run had, by what lies in its folder."""
    found = []
    suffixes = {PurePosixPath(target).suffix for link in plan.links if (target := _caption_of(link.target, plan))}
    for root in sorted({PurePosixPath(link.target).parts[0] for link in plan.links}):
        for path in sorted((folder / root).rglob("*")):
            if path.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp", ".bmp"}:
                continue
            try:
                source = path.readlink() if path.is_symlink() else None
            except OSError:
                source = None
            captions = [_text(path.with_suffix(suffix)) for suffix in suffixes]
            found.append(Seen(source, path, next((text for text in captions if text is not None), None)))
    return found


def _caption_of(target: str, plan: Plan) -> str | None:
    """The caption's file of a picture in a view, by its name."""
    stem = target.removesuffix(PurePosixPath(target).suffix)
    return next((name for suffix in (".txt", ".caption") if (name := stem + suffix) in plan.files), None)


def _own_name(target: str) -> str:
    """A picture's name in a view without its number there."""
    return PurePosixPath(target).name.partition("-")[2]


def _is_newer(source: Path, one: Seen, created: float) -> bool:
    """Whether a picture is another one than the run had."""
    try:
        there = source.stat()
        if there.st_mtime > created:
            return True
        return one.source is None and there.st_size != one.path.stat().st_size
    except OSError:
        return False


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
