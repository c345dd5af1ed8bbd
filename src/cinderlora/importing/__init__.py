"""Configurations of other programs, as jobs and presets: kohya_ss, sd-scripts, OneTrainer, ai-toolkit.

Each format is read into arguments of sd-scripts; from there one way leads to settings. A configuration is anybody's
file: nothing of it is run, and of the files that it names only TOML files and a prompt file beside it are opened.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cinderlora.errors import ConfigError, UnknownName
from cinderlora.importing.data import FORMATS, Dropped, Format, Imported, Reading, Taken
from cinderlora.importing.source import Source
from cinderlora.names import nearest

if TYPE_CHECKING:
    from cinderlora.registry import Registry

__all__ = ["FORMATS", "Dropped", "Format", "Imported", "Taken", "import_config"]


def import_config(
    path: str | os.PathLike[str],
    *,
    text: str | None = None,
    format: str | None = None,
    model_type: str | None = None,
    registry: Registry | None = None,
) -> Imported:
    """Read somebody's configuration: a kohya_ss preset or saved configuration (JSON), a training or data-set TOML of
    sd-scripts, a `.sh` or `.bat` that starts a training, a configuration of OneTrainer (JSON) or ai-toolkit (YAML).

    `text` is the file's content where it is not on this disk (an upload): then `path` only names it, and no file at all
    is opened. `format` (one of `cinderlora.importing.FORMATS`) and `model_type`
    are told from the file unless given; `registry` has the model types, the
    installed ones unless given.

    Raises `ConfigError` for a file that cannot be read or is none of these, `UnknownName` for a format or model type
    that does not exist, and `CinderloraError` (`extra_missing`) for YAML without the extra `yaml`. What cannot be taken
    over is no error: the result says it.
    """
    from cinderlora.importing.model_types import model_type_of
    from cinderlora.importing.result import imported
    from cinderlora.importing.sd_scripts import add_referred
    from cinderlora.registry import Registry

    if format is not None and format not in FORMATS:
        raise UnknownName("import_format", name=format, nearest=nearest(format, FORMATS), known=FORMATS)
    registry = Registry.from_installed() if registry is None else registry
    wanted = None if model_type is None else registry[model_type]
    source = Source.of(Path(path), text)
    module = import_module(f"{__name__}.{format or _format(source)}")
    reading: Reading = module.read(source)
    add_referred(reading, source)
    return imported(reading, source, wanted or model_type_of(reading, registry))


def _format(source: Source) -> Format:
    """Told from the file's ending and, for JSON, from what is in it; raises `ConfigError`."""
    suffix = source.path.suffix.lower()
    if suffix in {".yaml", ".yml"}:
        return "ai_toolkit"
    if suffix == ".toml":
        return "sd_scripts"
    if source.text.lstrip().startswith("{"):
        try:
            data = json.loads(source.text)
        except (ValueError, RecursionError) as error:
            raise ConfigError("file_unreadable", path=str(source.path), why=str(error)) from error
        if "training_method" in data or ("base_model_name" in data and "model_type" in data):
            return "onetrainer"
        if isinstance(data.get("config"), dict):
            return "ai_toolkit"
        if {"LoRA_type", "pretrained_model_name_or_path", "network_dim", "train_data_dir"} & set(data):
            return "kohya_gui"
    elif suffix in {".sh", ".bash", ".bat", ".cmd", ".txt"} or ".py" in source.text:
        return "command_line"
    raise ConfigError("import_format_unknown", path=str(source.path))
