"""TOML and JSON in and out, with errors that say which file, where in it, and what was expected."""

from __future__ import annotations

import math
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinderlora.errors import ConfigError, SettingError
from cinderlora.frozendict import FrozenDict
from cinderlora.types import PRESET_FIELDS, SETTINGS, Job, ModelFile, Plan, Preset, Settings, checked_names, meant_from

if TYPE_CHECKING:
    import cattrs

    from cinderlora.dataset import Dataset

__all__ = ["load_preset", "read_plan", "read_toml", "save_preset", "to_json", "write_toml"]


# ---- TOML ----


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content; raises `ConfigError` that names the file, and the line where it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("file_not_found", path=str(path)) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("file_unreadable", path=str(path), why=str(error)) from error


def write_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write a TOML file whole or not at all."""
    write_whole(path, toml_text(values))


def toml_text(values: Mapping[str, Any]) -> str:
    """Values as TOML; None is left out, paths are strings."""
    import tomli_w

    return tomli_w.dumps(_plain(values))


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


# ---- presets and jobs ----

Migration = Callable[[dict[str, Any]], dict[str, Any]]
PRESET_MIGRATIONS: tuple[Migration, ...] = ()
JOB_MIGRATIONS: tuple[Migration, ...] = ()
"""What makes a file's values of format n those of format n + 1, by n, beginning with 1. A file that does not say its
`format` is of format 1."""

_SECRET = re.compile(r"(^|_)(api_?key|token|passwd|password|secret)$", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Whether a trainer's argument holds a secret, by its name: `wandb_api_key`, `huggingface_token`."""
    return _SECRET.search(key) is not None


def migrated(path: Path, values: dict[str, Any], migrations: Sequence[Migration]) -> dict[str, Any]:
    """A file's values in today's form; raises `ConfigError` for a format that this version does not know."""
    known = 1 + len(migrations)
    found = values.get("format", 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ConfigError("config_value", path=str(path), where="format", value=repr(found), expected="int")
    if found > known:
        raise ConfigError("config_newer", path=str(path), format=found, known=known)
    for migrate in migrations[found - 1 :]:
        values = migrate(values)
    return {key: value for key, value in values.items() if key != "format"}


def save_preset(preset: Preset, path: Path) -> None:
    """Write a preset as TOML; `load_preset` reads it back equal. Raises `SettingError` for a secret in `extra`."""
    own = {name: getattr(preset, name) for name in PRESET_FIELDS if getattr(preset, name) is not None}
    write_toml(path, {"format": 1 + len(PRESET_MIGRATIONS), **own, **_written(preset)})


def load_preset(path: Path) -> Preset:
    """Read a preset; raises `ConfigError` that says what is wrong where."""
    values = migrated(path, read_toml(path), PRESET_MIGRATIONS)
    if "name" not in values:
        raise ConfigError("config_key_missing", path=str(path), where="name")
    try:
        checked_names(values, (*SETTINGS, *PRESET_FIELDS))
        preset = Preset(**values)
    except SettingError as error:
        raise _located(error, path) from error
    for key in preset.extra:
        if is_secret(key):
            raise ConfigError("secret_in_settings", path=str(path), setting=key)
    return preset


def settings_values(settings: Settings) -> dict[str, Any]:
    """The settings that are set, plain."""
    return {name: _plain(value) for name, value in settings.items()}


def _written(settings: Settings) -> dict[str, Any]:
    """The settings for a file. A key of `extra` that is None is written as false, which says the same: left out."""
    for key in settings.extra:
        if is_secret(key):
            raise SettingError("secret_in_settings", setting=key)
    extra = {key: False if value is None else value for key, value in settings.extra.items()}
    return settings_values(settings) | ({"extra": _plain(extra)} if extra else {})


def job_values(job: Job) -> dict[str, Any]:
    """A job as a plain table, complete: `read_job` and `adapter.job` make the same job of it again. Raises
    `SettingError` for a secret in `extra`."""
    return {
        "format": 1 + len(JOB_MIGRATIONS),
        "type": job.model_type,
        "name": job.name,
        "trigger": job.trigger,
        "dataset": str(job.dataset),
        "output": str(job.output),
        "preset": job.preset,
        "settings": _written(job.settings),
        "models": {role: str(file.path) for role, file in job.models.items()},
    }


JOB_FIELDS = ("type", "name", "trigger", "dataset", "output", "preset", "settings", "models")


def save_job(job: Job, path: Path) -> None:
    """Write a job as TOML; `load_job` reads it back. Relative paths are made absolute. A preset of "" stands for none:
    where a file does not speak of one, `cinderlora train` chooses."""
    values = job_values(job)
    models = {role: str(file.path.absolute()) for role, file in job.models.items()}
    absolute = {"dataset": str(job.dataset.absolute()), "output": str(job.output.absolute()), "models": models}
    write_toml(path, values | absolute | {"preset": job.preset or ""})


def save_job_part(model_type: str | None, arguments: Mapping[str, Any], path: Path) -> None:
    """Write as much of a job as there is: arguments for `adapter.job`. `cinderlora train` takes it, and the rest as
    options. Raises `SettingError` for a secret in `extra`."""
    settings = Settings(**{key: value for key, value in arguments.items() if key in SETTINGS})
    own = {key: arguments[key] for key in ("name", "trigger", "dataset", "output") if key in arguments}
    paths = {key: str(value.absolute()) if isinstance(value, Path) else value for key, value in own.items()}
    models = {role: str(file.absolute()) for role, file in arguments.get("models", {}).items()}
    head = {"format": 1 + len(JOB_MIGRATIONS), "type": model_type, **paths, "preset": ""}
    values = head | {"settings": _written(settings)}
    write_toml(path, values | ({"models": models} if models else {}))


def load_job(path: Path) -> Job:
    """Read a job that is complete; raises `ConfigError` that says what is wrong where."""
    values = read_job(path)
    for key in ("type", "name", "dataset", "output"):
        if key not in values:
            raise ConfigError("config_key_missing", path=str(path), where=key)
    return Job(
        model_type=values["type"],
        name=values["name"],
        trigger=values.get("trigger", values["name"]),
        dataset=values["dataset"],
        output=values["output"],
        preset=values.get("preset") or None,
        settings=Settings(**values["settings"]),
        models=values["models"],
    )


def read_job(path: Path) -> dict[str, Any]:
    """A job file's values by the names of `JOB_FIELDS`, checked for form; settings may stand in `[settings]` or beside.

    Relative paths are relative to the file. Raises `ConfigError` that says what is wrong where.
    """
    values = read_toml(path)
    values = values.get("job", values) if isinstance(values.get("job"), dict) else values
    values = migrated(path, values, JOB_MIGRATIONS)
    _check_kinds(path, values, {**dict.fromkeys(JOB_FIELDS[:6], str), "settings": dict, "models": dict})
    settings = values.get("settings", {})
    beside = {key: value for key, value in values.items() if key not in JOB_FIELDS}
    for table, known, prefix in ((beside, (*SETTINGS, *JOB_FIELDS), ""), (settings, SETTINGS, "settings.")):
        try:
            checked_names(table, known)
            Settings(**table)
        except SettingError as error:
            raise _located(error, path, prefix) from error
    read = {key: value for key, value in values.items() if key in JOB_FIELDS}
    read["settings"] = {**beside, **settings}
    if read["settings"].get("copy_to"):
        read["settings"]["copy_to"] = meant_from(path.parent, Settings(copy_to=read["settings"]["copy_to"])).copy_to
    for key in ("dataset", "output"):
        if key in read:
            read[key] = path.parent / Path(read[key]).expanduser()
    for role, file in values.get("models", {}).items():
        if not isinstance(file, str):
            raise ConfigError("config_value", path=str(path), where=f"models.{role}", value=repr(file), expected="str")
    read["models"] = {role: path.parent / Path(f).expanduser() for role, f in values.get("models", {}).items()}
    return read


def _check_kinds(path: Path, values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool)):
            expected = kind.__name__ if isinstance(kind, type) else "float"
            raise ConfigError("config_value", path=str(path), where=key, value=repr(values[key]), expected=expected)


def _located(error: SettingError, path: Path, prefix: str = "") -> ConfigError:
    where = f"{prefix}{error.params['setting']}"
    if error.code == "setting_unknown":
        return ConfigError("config_key_unknown", path=str(path), where=where, nearest=error.params["nearest"])
    return ConfigError(
        "config_value", path=str(path), where=where, **{k: error.params[k] for k in ("value", "expected")}
    )


# ---- JSON ----


def to_json(value: Any) -> Any:
    """Events, results, reports, jobs and their parts as plain data for `json.dumps`.

    An attrs class becomes an object; an event's has its class name as `event`. Paths become strings, NaN and infinity
    null.

    >>> from cinderlora import Progress, to_json
    >>> to_json(Progress(step=1, total=8, loss=float("nan"), seq=1024))["loss"]
    """
    from cinderlora.events import Event

    plain = _converter().unstructure(value)
    if isinstance(value, Event):
        return {"event": type(value).__name__, **plain}
    return plain


@cache
def _converter() -> cattrs.Converter:
    import cattrs

    converter = cattrs.Converter()
    converter.register_unstructure_hook(float, lambda f: f if math.isfinite(f) else None)
    converter.register_unstructure_hook_func(lambda t: isinstance(t, type) and issubclass(t, os.PathLike), str)
    converter.register_unstructure_hook_func(lambda t: isinstance(t, type) and issubclass(t, dict), _unstructure_dict)
    converter.register_unstructure_hook(Any, _unstructure_any)
    return converter


def read_plan(values: Any) -> Plan:
    """The plan that `to_json` made plain data of, equal to it. Raises `ConfigError` (`plan_unreadable`) for anything
    else; what a plan may name is for `launch` to say.
    """
    try:
        plan = _reader().structure(values, Plan)
        texts = [*plan.files.values(), *(value for stage in plan.stages for value in stage.env.values())]
        if not plan.stages or not all(stage.argv for stage in plan.stages) or not all(map(_is_text, texts)):
            raise ValueError("a stage without a program, or a text that is none")
    except Exception as error:  # attrs, cattrs and converters raise what they like for data that is no plan
        raise ConfigError("plan_unreadable", why=f"{type(error).__name__}: {error}") from error
    return plan


def _is_text(value: object) -> bool:
    return isinstance(value, str)


@cache
def _reader() -> cattrs.Converter:
    """The other way round, and strict: nothing is made to fit."""
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)

    def exactly(kinds: tuple[type, ...]) -> Any:
        def checked(value: Any, _: Any) -> Any:
            if type(value) not in kinds:
                raise TypeError(f"{value!r} is no {kinds[0].__name__}")
            return kinds[0](value)

        return checked

    for kind in (str, int, bool):
        converter.register_structure_hook(kind, exactly((kind,)))
    converter.register_structure_hook(float, exactly((float, int)))
    converter.register_structure_hook(Path, lambda value, _: Path(exactly((str,))(value, str)))
    converter.register_structure_hook(FrozenDict, exactly((FrozenDict, dict)))
    return converter


def _unstructure_dict(value: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _converter().unstructure(item) for key, item in value.items()}


def _unstructure_any(value: Any) -> Any:
    return _converter().unstructure(value, unstructure_as=type(value))


def identity(file: ModelFile | Path) -> dict[str, Any]:
    """What tells later whether a model is still the same: path, bytes, time of the last change (ns), and for a folder
    or a set of shards the same of each file in it, as `parts`. The path alone where there is nothing."""
    from cinderlora.models.folders import find_model_files

    path = file.path if isinstance(file, ModelFile) else file
    parts = [found._asdict() for found in find_model_files(path)[0]]
    if not parts:
        return {"path": str(path)}
    size, changed = sum(part["size"] for part in parts), max(part["mtime_ns"] for part in parts)
    one = {"path": str(path), "size": size, "mtime_ns": changed}
    return one | ({"parts": parts} if len(parts) > 1 else {})


def dataset_identity(dataset: Dataset) -> dict[str, Any]:
    """What tells later whether a data set is still the same: how many pictures and captions, and a checksum of the
    pictures' names, bytes and times of change and of the captions' texts."""
    import hashlib

    digest = hashlib.sha256()
    for picture in dataset.pictures:
        try:
            changed = picture.path.stat().st_mtime_ns
        except OSError:
            changed = 0  # removed since it was read
        for part in (str(picture.path), str(picture.file_size), str(changed), picture.caption or ""):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return {"pictures": len(dataset.pictures), "captions": dataset.captions, "sha256": digest.hexdigest()}
