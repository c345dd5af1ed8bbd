"""TOML and JSON in and out, with errors that say which file, where in it, and what was expected."""

from __future__ import annotations

import math
import os
import tempfile
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinderlora.errors import ConfigError, SettingError
from cinderlora.types import PRESET_FIELDS, SETTINGS, Job, ModelFile, Preset, Settings, checked_names

if TYPE_CHECKING:
    import cattrs

__all__ = ["load_preset", "read_toml", "save_preset", "to_json", "write_toml"]


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


def save_preset(preset: Preset, path: Path) -> None:
    """Write a preset as TOML; `load_preset` reads it back equal."""
    own = {name: getattr(preset, name) for name in PRESET_FIELDS if getattr(preset, name)}
    write_toml(path, {**own, **dict(preset.items())})


def load_preset(path: Path) -> Preset:
    """Read a preset; raises `ConfigError` that says what is wrong where."""
    values = read_toml(path)
    _check_kinds(path, values, {"name": str, "title": str, "vram_gb": (int, float), "base": str, "model_type": str})
    if "name" not in values:
        raise ConfigError("config_key_missing", path=str(path), where="name")
    try:
        checked_names(values, (*SETTINGS, *PRESET_FIELDS))
        return Preset(**values)
    except SettingError as error:
        raise _located(error, path) from error


def settings_values(settings: Settings) -> dict[str, Any]:
    """The settings that are set, plain."""
    return {name: _plain(value) for name, value in settings.items()}


def job_values(job: Job) -> dict[str, Any]:
    """A job as a plain table, complete: `read_job` and `adapter.job` make the same job of it again."""
    return {
        "type": job.model_type,
        "name": job.name,
        "trigger": job.trigger,
        "dataset": str(job.dataset),
        "output": str(job.output),
        "preset": job.preset,
        "settings": settings_values(job.settings),
        "models": {role: str(file.path) for role, file in job.models.items()},
    }


JOB_FIELDS = ("type", "name", "trigger", "dataset", "output", "preset", "settings", "models")


def read_job(path: Path) -> dict[str, Any]:
    """A job file's values by the names of `JOB_FIELDS`, checked for form; settings may stand in `[settings]` or beside.

    Relative paths are relative to the file. Raises `ConfigError` that says what is wrong where.
    """
    values = read_toml(path)
    values = values.get("job", values) if isinstance(values.get("job"), dict) else values
    settings = values.get("settings", {})
    _check_kinds(path, values, {**dict.fromkeys(JOB_FIELDS[:6], str), "settings": dict, "models": dict})
    try:
        beside = {key: value for key, value in values.items() if key not in JOB_FIELDS}
        checked_names(beside, (*SETTINGS, *JOB_FIELDS))
        checked_names(settings)
        Settings(**beside, **{key: value for key, value in settings.items() if key not in beside})
    except SettingError as error:
        raise _located(error, path) from error
    read = {key: value for key, value in values.items() if key in JOB_FIELDS}
    read["settings"] = {**beside, **settings}
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


def _located(error: SettingError, path: Path) -> ConfigError:
    where = error.params["setting"]
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


def _unstructure_dict(value: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _converter().unstructure(item) for key, item in value.items()}


def _unstructure_any(value: Any) -> Any:
    return _converter().unstructure(value, unstructure_as=type(value))


def identity(file: ModelFile | Path) -> dict[str, Any]:
    """What tells later whether a file is still the same: path, bytes, time of the last change (ns)."""
    path = file.path if isinstance(file, ModelFile) else file
    try:
        stat = path.stat()
    except OSError:
        return {"path": str(path)}
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
