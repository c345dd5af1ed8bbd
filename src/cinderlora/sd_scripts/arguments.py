"""What sd-scripts' scripts can take, and whether a value is right for it.

sd-scripts puts the keys of its training TOML on the namespace as they are: unknown ones are ignored, and types and
choices are not looked at, so that a mistake shows after minutes of loading or never. That is why it is looked at here.

Source of the data in `arguments/`: the parsers of sd-scripts 48d368fa (v0.10.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from cinderlora.names import nearest
from cinderlora.problems import Problem

__all__ = ["argument_problems", "known_arguments"]

SECRETS = {"wandb_api_key": "WANDB_API_KEY", "huggingface_token": "HF_TOKEN"}
"""Arguments that hold a secret, and the environment variable that hands it over without writing it anywhere."""

_TYPES: dict[str | None, tuple[type, ...]] = {
    None: (str,),
    "str": (str,),
    "Path": (str,),
    "int": (int,),
    "float": (int, float),
    "int_or_float": (int, float),
}


@cache
def known_arguments(script: str) -> Mapping[str, Mapping[str, Any]] | None:
    """The arguments of a script by name, or None for a script that nothing is known of."""
    file = resources.files(__package__).joinpath("arguments", script.removesuffix(".py") + ".json")
    if not file.is_file():
        return None
    known: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return known


def argument_problems(script: str, args: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with keys and values for a script's training TOML."""
    for key in args:
        if key in SECRETS:
            yield Problem("secret_in_settings", {"setting": key, "variable": SECRETS[key]})
    known = known_arguments(script)
    if known is None:
        return
    for key, value in args.items():
        if key in SECRETS:
            continue
        if key not in known:
            yield Problem("argument_unknown", {"setting": key, "script": script, "nearest": nearest(key, known)})
        elif (expected := _mismatch(known[key], value)) is not None:
            yield Problem("argument_type", {"setting": key, "value": repr(value), "expected": expected})
        elif known[key]["choices"] and value not in known[key]["choices"]:
            params = {"setting": key, "value": repr(value), "choices": known[key]["choices"]}
            yield Problem("argument_choice", params)


def _mismatch(argument: Mapping[str, Any], value: Any) -> str | None:
    """What the argument takes instead, where the value is of a wrong type."""
    if argument["is_boolean"]:
        return None if isinstance(value, bool) else "bool"
    kind = argument["type"]
    if argument["nargs"] == "*":
        right = isinstance(value, (list, tuple)) and all(_is(kind, item) for item in value)
        return None if right else f"[{kind or 'str'}, ...]"
    return None if _is(kind, value) else kind or "str"


def _is(kind: str | None, value: Any) -> bool:
    return isinstance(value, _TYPES[kind]) and not isinstance(value, bool)
