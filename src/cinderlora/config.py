"""This machine's configuration: where things lie here. For programs that want it; nothing else reads it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from cinderlora.errors import ConfigError
from cinderlora.names import nearest

__all__ = ["Config"]


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None or str(value) == "" else Path(value).expanduser()


def default_language() -> str:
    """ "de" on a German system, else "en"."""
    if sys.platform == "win32":
        import locale

        spoken = locale.getlocale()[0] or ""
    else:
        spoken = next((os.environ[v] for v in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(v)), "")
    return "de" if spoken.lower().startswith(("de", "german")) else "en"


@frozen(kw_only=True)
class Config:
    """Where things lie on this machine.

    `Config.load()` reads the user's `config.toml` and then the environment (`CINDERLORA_COMFYUI`,
    `CINDERLORA_SD_SCRIPTS`, `CINDERLORA_SD_SCRIPTS_PYTHON`, `CINDERLORA_RUNS`, `CINDERLORA_DATASETS`,
    `CINDERLORA_OUTPUT`, `CINDERLORA_OUTPUT_PREFIX`, `CINDERLORA_LANGUAGE`), which goes over the file. A program that
    has settings of its own makes a `Config` of those instead.
    """

    comfyui: Path | None = field(default=None, converter=_path)
    """A ComfyUI folder: models are looked for in its `models` and where its `extra_model_paths.yaml` says; LoRAs go to
    its `models/loras`."""
    sd_scripts: Path | None = field(default=None, converter=_path)
    """The checkout of sd-scripts."""
    sd_scripts_python: Path | None = field(default=None, converter=_path)
    """The Python that has what sd-scripts needs, where that is not the checkout's own environment."""
    runs: Path | None = field(default=None, converter=_path)
    """The folder that runs are kept in."""
    datasets: Path | None = field(default=None, converter=_path)
    """The folder that has data sets in it, each a folder."""
    output: Path | None = field(default=None, converter=_path)
    """Where LoRAs go; ComfyUI's `models/loras` where that is known and this is not set."""
    output_prefix: str = "cg_"
    language: str = field(factory=default_language)
    """ "en" or "de": what the command line speaks; the system's where unset."""

    @property
    def loras(self) -> Path | None:
        """The folder that LoRAs go to, if one is known."""
        return self.output or (self.comfyui / "models/loras" if self.comfyui else None)

    @property
    def models(self) -> Path | None:
        """The folder that models are looked for in, if one is known: ComfyUI's `models`, or the ComfyUI folder itself
        where its `extra_model_paths.yaml` names more of them, which a search in that folder follows."""
        if self.comfyui is None:
            return None
        models = self.comfyui / "models"
        return self.comfyui if models.is_dir() and (self.comfyui / "extra_model_paths.yaml").is_file() else models

    @staticmethod
    def file() -> Path:
        """The user's `config.toml`; it need not exist."""
        from cinderlora.folders import config_folder

        return config_folder() / "config.toml"

    @classmethod
    def load(cls, path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
        """The file's values with the environment's over them; raises `ConfigError` that says what is wrong where."""
        path = path or cls.file()
        environ = os.environ if environ is None else environ
        values = read_config(path)
        for name in CONFIG_NAMES:
            value = environ.get(f"CINDERLORA_{name.upper()}", "")
            if value:
                values[name] = value
        return cls(**values)

    def save(self, path: Path | None = None) -> Path:
        """Write the values that are not the defaults, and say where."""
        from cinderlora.serial import write_toml

        path = path or self.file()
        values = {
            a.name: str(value)
            for a in attrs.fields(Config)
            if (value := getattr(self, a.name)) is not None and value != a.default
        }
        write_toml(path, values)
        return path


CONFIG_NAMES = tuple(a.name for a in attrs.fields(Config))


def read_config(path: Path) -> dict[str, Any]:
    """The values of a configuration file, checked; an empty dictionary where there is no file."""
    from cinderlora.serial import read_toml

    if not path.exists():
        return {}
    values = read_toml(path)
    for name, value in values.items():
        if name not in CONFIG_NAMES:
            raise ConfigError(
                "config_key_unknown",
                path=str(path),
                where=name,
                nearest=nearest(name, CONFIG_NAMES),
                known=CONFIG_NAMES,
            )
        if not isinstance(value, str):
            raise ConfigError("config_value", path=str(path), where=name, value=repr(value), expected="str")
    return values
