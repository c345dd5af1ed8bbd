"""From options, a job file and this machine's configuration to a job and its trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from cinderlora.cli.job_options import toml_value
from cinderlora.types import SETTINGS

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.config import Config
    from cinderlora.models import ModelLibrary
    from cinderlora.registry import Registry
    from cinderlora.trainers import Trainer
    from cinderlora.types import Job, ModelFile, Preset

__all__ = ["Options", "Request", "find_trainer", "make_request"]


@frozen(kw_only=True)
class Options:
    """What was said on the command line; None where nothing was."""

    job_file: Path | None = None
    model_type: str | None = None
    name: str | None = None
    trigger: str | None = None
    dataset: Path | None = None
    output: Path | None = None
    preset: str | None = None
    models: Sequence[tuple[str, str]] = ()
    models_folder: Path | None = None
    extra: Sequence[tuple[str, str]] = ()
    checkout: Path | None = None
    python: Path | None = None
    rehearsal: bool = False
    settings: Mapping[str, Any] = field(factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """From a command's parameters."""
        # An option that may be given several times is an empty tuple where it was not.
        settings = {k: v for k, v in given.items() if k in SETTINGS and k != "extra" and v not in (None, ())}
        return cls(**{k: v for k, v in given.items() if k not in SETTINGS or k == "extra"}, settings=settings)


@frozen(kw_only=True)
class Request:
    """A job, and who is to train it."""

    adapter: Adapter
    job: Job
    trainer: Trainer
    models_folder: Path | None
    """Where models were looked for."""


def make_request(options: Options, config: Config, registry: Registry) -> Request:
    """Put together what is wanted: options over the job file over the configuration. Raises `CinderloraError` where
    that makes no job; what is wrong with a job is for `adapter.check`."""
    from cinderlora.errors import ConfigError, UnknownName
    from cinderlora.serial import read_job

    wanted = read_job(options.job_file) if options.job_file else {}
    given = {"type": options.model_type, "name": options.name, "trigger": options.trigger, "output": options.output}
    wanted |= {key: value for key, value in given.items() if value is not None}
    if not wanted.get("type"):
        raise UnknownName("model_type_missing", known=sorted(registry))
    adapter = registry[wanted["type"]]
    trainer = find_trainer(options, config, adapter)
    name = wanted.get("name", "")
    folder = options.models_folder or config.models
    models = wanted.get("models", {}) | {role: Path(path).expanduser() for role, path in options.models}
    if options.models_folder is not None and not options.models_folder.expanduser().is_dir():
        raise ConfigError("folder_not_found", path=str(folder))
    if not trainer.is_rehearsal:
        models = _with_found(adapter, models, folder)
    job = adapter.job(
        name=name,
        trigger=wanted.get("trigger", name),
        dataset=_dataset(options.dataset, wanted.get("dataset"), name, config),
        output=wanted.get("output") or config.loras or Path("loras"),
        preset=_preset(options.preset or wanted.get("preset", "auto")),
        models=models,
        **_settings(options, wanted.get("settings", {}), config),
    )
    return Request(adapter=adapter, job=job, trainer=trainer, models_folder=folder)


def find_trainer(options: Options, config: Config, adapter: Adapter) -> Trainer:
    """The trainer of a model type: that of the options, of the configuration, or the first one found. One that is not
    there is an error of `check`, beside all others."""
    from cinderlora.errors import TrainerNotFound

    trainer_type = adapter.trainer_type
    if options.rehearsal:
        return trainer_type.rehearsal()
    path, python = options.checkout, options.python
    if trainer_type.kind == "sd-scripts":
        path, python = path or config.sd_scripts, python or config.sd_scripts_python
    if path is not None:
        return trainer_type(path, python=python)
    try:
        return trainer_type.find(python=python)
    except TrainerNotFound as error:
        return trainer_type(error.params["path"], python=python)


def _preset(preset: str) -> str | Preset | None:
    if not preset.endswith(".toml"):
        return preset or None
    from cinderlora.types import Preset

    return Preset.load(Path(preset).expanduser())


def _dataset(given: Path | None, in_file: Path | None, name: str, config: Config) -> Path:
    """The data-set folder; a bare name may be that of a folder in the configured folder of data sets, and where none
    is given, the character's name is."""
    from cinderlora.errors import JobRefused
    from cinderlora.problems import Problem

    path = given or in_file
    if path is None:
        inside = config.datasets / name if config.datasets and name else None
        if inside is None or not inside.is_dir():
            raise JobRefused((*_missing_name(name), Problem("dataset_missing", {"tried": str(inside or "")})))
        return inside
    if given is not None and len(path.parts) == 1 and not path.expanduser().exists() and config.datasets:
        inside = config.datasets / path
        return inside if inside.is_dir() else path
    return path


def _missing_name(name: str) -> tuple[Any, ...]:
    from cinderlora.problems import Problem

    return () if name else (Problem("name_missing"),)


def _settings(options: Options, in_file: Mapping[str, Any], config: Config) -> dict[str, Any]:
    settings = {**in_file, **options.settings}
    extra = {key: toml_value(text) for key, text in options.extra}
    if extra:
        settings["extra"] = {**settings.get("extra", {}), **extra}
    if config.output_prefix != "cg_":  # another default for this machine; cg_ is everybody's
        settings.setdefault("output_prefix", config.output_prefix)
    return settings


def _with_found(adapter: Adapter, given: Mapping[str, Path], folder: Path | None) -> dict[str, ModelFile | Path]:
    """The models given, and for what they leave open those found in a folder that go with them."""
    from cinderlora.models import ModelLibrary

    if folder is None:
        return dict(given)
    roles = {c.role for c in adapter.type.components}
    # What the given ones have inside need not be found.
    known = [file for role in roles & set(given) for file in adapter.seen(given[role]) if file.role == role]
    library: ModelLibrary = adapter.scan_models(folder.expanduser())
    others = [file for file in library.files if file.role not in given]
    return {**ModelLibrary((*known, *others), library.components).defaults(), **given}
