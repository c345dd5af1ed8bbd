"""The training settings: command line over TOML over sd-scripts' own defaults.

As in sd-scripts, section names of the TOML are ignored (one level), unknown keys too, and nothing is checked until
it is used. Every flag of the scripts is accepted; those without a meaning here are kept for the metadata.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .console import log

#: Defaults that are neither None nor False, from ``train_network.py`` and the scripts built on it.
DEFAULTS: Mapping[str, object] = {
    "caption_dropout_every_n_epochs": 0,
    "caption_dropout_rate": 0.0,
    "caption_tag_dropout_rate": 0.0,
    "discrete_flow_shift": 3.0,
    "gradient_accumulation_steps": 1,
    "guidance_scale": 3.5,
    "huber_c": 0.1,
    "huber_scale": 1.0,
    "huber_schedule": "snr",
    "learning_rate": 2e-06,
    "logit_mean": 0.0,
    "logit_std": 1.0,
    "loss_type": "l2",
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "max_grad_norm": 1.0,
    "max_train_steps": 1600,
    "mixed_precision": "no",
    "mode_scale": 1.29,
    "model_prediction_type": "sigma_scaled",
    "model_type": "flux",
    "multires_noise_discount": 0.3,
    "network_alpha": 1,
    "network_dim": 4,
    "prior_loss_weight": 1.0,
    "sample_sampler": "ddim",
    "save_model_as": "safetensors",
    "sigmoid_scale": 1.0,
    "timestep_sampling": "sigma",
    "validation_split": 0.0,
    "weighting_scheme": "uniform",
}


class UsageError(Exception):
    """The command line cannot be understood (exit code 2)."""


class NotFound(Exception):
    """The configuration file does not exist (exit code 1, one line, no traceback)."""


@dataclass(frozen=True)
class Settings:
    """The trainer's arguments by name; what was not given has the default."""

    values: Mapping[str, object]

    def get(self, key: str) -> object:
        value = self.values.get(key)
        return DEFAULTS.get(key) if value is None else value

    def flag(self, key: str) -> bool:
        return bool(self.get(key))

    def text(self, key: str) -> str | None:
        value = self.get(key)
        return None if value is None else str(value)

    def number(self, key: str) -> float:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{key}: expected a number, but found element of type {type(value).__name__}: {value!r}")
        return value

    def whole(self, key: str) -> int:
        value = self.number(key)
        if not isinstance(value, int):
            raise TypeError(f"{key}: expected int, but found element of type float: {value!r}")
        return value

    def optional_whole(self, key: str) -> int | None:
        return None if self.get(key) is None else self.whole(key)

    def pairs(self, key: str) -> dict[str, str]:
        """``["a=1", "b=2"]`` as a dict, for optimizer_args and network_args."""
        value = self.get(key) or []
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list):
            raise TypeError(f"{key}: expected a list of 'name=value', found {value!r}")
        result = {}
        for text in texts:
            name, separator, setting = str(text).partition("=")
            if not separator:
                raise ValueError("not enough values to unpack (expected 2, got 1)")
            result[name] = setting
        return result


def _literal(text: str) -> object:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text


def _flags(words: Sequence[str]) -> dict[str, object]:
    """``--key value``, ``--key=value``, ``--key`` (true) and ``--key a b`` (a list)."""
    collected: dict[str, list[str]] = {}
    key = ""
    for word in words:
        if word.startswith("--"):
            key, separator, value = word[2:].partition("=")
            collected[key] = [value] if separator else []
        elif key:
            collected[key].append(word)
        else:
            raise UsageError(f"error: unrecognized arguments: {word}")
    listed = ("optimizer_args", "network_args", "lr_scheduler_args")
    return {
        key: values if key in listed or len(values) > 1 else _literal(values[0]) if values else True
        for key, values in collected.items()
    }


def script(argv: Sequence[str]) -> str:
    """The name of the script that the command line begins with: any model type's may be called as it likes."""
    name = Path(argv[0]).name if argv else ""
    if not name.endswith(".py"):
        raise UsageError("usage: python -m cinderlora.rehearsal SCRIPT.py --config_file FILE")
    return name


def read(words: Sequence[str]) -> Settings:
    """The settings of ``[--config_file FILE] [--key value ...]``."""
    flags = _flags(words)
    values: dict[str, object] = {}
    if "config_file" in flags:
        name = str(flags["config_file"])
        path = Path(name if name.endswith(".toml") else name + ".toml")
        if not path.exists():
            raise NotFound(f"{path} not found.")
        log(f"Loading settings from {path}...")
        for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
            values.update(value if isinstance(value, dict) else {key: value})
    return Settings({**values, **flags})
