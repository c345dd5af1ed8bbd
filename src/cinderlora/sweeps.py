"""One job in many: all combinations of some settings' values, each a job with a name that tells them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cinderlora.errors import SettingError
from cinderlora.names import is_plain_file_name
from cinderlora.types import Job, checked_names

__all__ = ["sweep"]

_SHORT = {
    "resolution": "px",
    "batch_size": "batch",
    "network_dim": "dim",
    "network_alpha": "alpha",
    "network_module": "module",
    "network_args": "args",
    "learning_rate": "lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_steps": "warmup",
    "max_grad_norm": "clip",
    "gradient_accumulation": "accumulation",
    "mixed_precision": "precision",
    "blocks_to_swap": "swap",
    "bucket_step": "bucket",
}
"""What people call some settings in a file's name; the others go by their own names."""


def sweep(job: Job, values: Mapping[str, Iterable[Any]]) -> tuple[Job, ...]:
    """The jobs of all combinations, the last setting changing fastest; see `Job.sweep`."""
    checked_names(values)
    varied = {name: _values(name, given) for name, given in values.items()}
    if not varied:
        return (job,)
    combinations = [dict(zip(varied, combination, strict=True)) for combination in itertools.product(*varied.values())]
    names = _distinct([f"{job.name}-{_described(settings)}" for settings in combinations], job)
    return tuple(job.evolve(name=name, **settings) for name, settings in zip(names, combinations, strict=True))


def _values(name: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise SettingError("sweep_values", setting=name, value=repr(given))
    values = list(given)
    if not values:
        raise SettingError("sweep_empty", setting=name)
    for place, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:place]):
            raise SettingError("sweep_twice", setting=name, value=repr(value))
    return values


def _described(settings: Mapping[str, Any]) -> str:
    return "-".join(part for name, value in settings.items() for part in _parts(name, value))


def _parts(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(str(key), item)
        if not value:
            yield f"no-{name}"
        return
    text = _safe(_text(value))
    # dim8, but optimizer-AdamW8bit
    yield f"{_safe(_SHORT.get(name, name))}{'' if text[:1].isdecimal() else '-'}{text}"


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return "+".join(map(_text, value)) or "none"
    return str(value)


def _number(value: float) -> str:
    """A number as short as it can be said: 1e-4, 0.5, 16."""
    plain = f"{value:.15f}".rstrip("0").rstrip(".")
    digits, _, power = f"{value:e}".partition("e")
    short = f"{digits.rstrip('0').rstrip('.')}e{int(power)}" if power else plain
    exact = [text for text in (repr(value).removesuffix(".0"), plain, short) if float(text) == value]
    return min(exact, key=len, default=repr(value))


def _safe(text: str) -> str:
    """Text with nothing in it that a file's name had better not have."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "_" for c in text)


def _distinct(names: list[str], job: Job) -> list[str]:
    """Names that can all be files of one folder, also where large and small letters are the same. One that would be
    too long is numbered instead."""
    taken: set[str] = set()
    distinct = []
    for number, wanted in enumerate(names, 1):
        longest = f"{job.evolve(name=wanted).lora_name}-step00000000.safetensors"
        name = wanted if is_plain_file_name(longest) else f"{job.name}-{number}"
        again = itertools.count(2)
        candidate = name
        while candidate.casefold() in taken:
            candidate = f"{name}.{next(again)}"
        taken.add(candidate.casefold())
        distinct.append(candidate)
    return distinct
