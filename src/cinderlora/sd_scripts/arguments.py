"""What sd-scripts' scripts can take, and whether a value is right for it.

sd-scripts puts the keys of its training TOML on the namespace as they are: unknown ones are ignored, and types and
choices are not looked at, so that a mistake shows after minutes of loading or never. That is why it is looked at here.

What a script takes is read from the checkout that will run it. Where there is none, `arguments.json` serves:
the parsers of sd-scripts 48d368fa (v0.10.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cinderlora.names import nearest
from cinderlora.problems import Problem

__all__ = ["Arguments", "argument_problems", "known_arguments"]

SECRETS = {"wandb_api_key": "WANDB_API_KEY", "huggingface_token": "HF_TOKEN"}
"""Arguments that hold a secret, and the environment variable that hands it over without writing it anywhere."""

RENAMED = {
    "dropout": "network_dropout",  # f8e8df5a, 2023-06-01
    "cache_meta": "cache_info",  # 02534721, 2024-03-24
    "use_cached_meta": "cache_info",
    "validation_ratio": "validation_split",  # a93c524b, 2023-11-05
    "validation_every_n_step": "validate_every_n_steps",  # c64d1a22, 2025-01-06
}
"""What arguments are called now, by what they were called; with the commit of sd-scripts that renamed them. These are
all of the scripts that train LoRAs, up to v0.10.1."""

MOVED = {
    # 969f82ab, 2024-04-29
    "loraplus_lr_ratio": "network_args",
    "loraplus_unet_lr_ratio": "network_args",
    "loraplus_text_encoder_lr_ratio": "network_args",
}
"""Arguments that became an entry, "key=value", of another one."""

_TYPES: dict[str | None, tuple[type, ...]] = {
    None: (str,),
    "str": (str,),
    "Path": (str,),
    "int": (int,),
    "float": (int, float),
    "int_or_float": (int, float),
}


class Arguments(dict[str, Mapping[str, Any]]):
    """The arguments of a script by name, each as `extract` describes it. Where some may have been missed, because the
    source could not be followed, it is not `complete`; `notes` say where."""

    def __init__(
        self, arguments: Mapping[str, Mapping[str, Any]], *, complete: bool = True, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(arguments)
        self.complete = complete
        self.notes = notes


def known_arguments(script: str, checkout: Path | None = None) -> Arguments | None:
    """The arguments of a script, or None for one that nothing is known of.

    With a checkout, those of its own script where it can be read; they are kept in the user's cache folder. Otherwise
    those of the version that cinderlora was made with.
    """
    if checkout is not None:
        from cinderlora.sd_scripts.argument_cache import checkout_arguments

        found = checkout_arguments(checkout, script)
        if found is not None:
            return found
    return _shipped(script)


@cache
def _shipped(script: str) -> Arguments | None:
    return Arguments(dict(sorted(_groups()[script].items()))) if script in _groups() else None


@cache
def _groups() -> dict[str, dict[str, Any]]:
    """The arguments by script. Most are the same in all scripts, and are kept once."""
    from importlib import resources  # 10 ms, and not needed where there is a checkout

    text = (resources.files(__package__) / "arguments.json").read_text(encoding="utf-8")
    scripts: dict[str, dict[str, Any]] = {}
    for group in json.loads(text):
        for script in group["scripts"]:
            scripts.setdefault(script, {}).update(group["arguments"])
    return scripts


def _other_scripts(key: str, script: str) -> list[str]:
    """The scripts besides this one that are known to take an argument."""
    return sorted(name for name, arguments in _groups().items() if name != script and key in arguments)


def argument_problems(script: str, args: Mapping[str, Any], known: Arguments | None = None) -> Iterator[Problem]:
    """What is wrong with keys and values for a script's training TOML. None and False are left out of it.

    `known` are the script's arguments, those that cinderlora has of it where not given; of a script that nothing is
    known of, nothing is said.
    """
    known = _shipped(script) if known is None else known
    for key, value in args.items():
        if key in SECRETS:
            yield Problem("secret_in_settings", {"setting": key, "variable": SECRETS[key]})
        elif known is None:
            continue
        elif key not in known:
            yield _unknown(script, key, known)
        elif value is not None and value is not False:
            yield from _value_problems(key, value, known[key])


def _unknown(script: str, key: str, known: Arguments) -> Problem:
    if RENAMED.get(key) in known:
        return Problem("argument_renamed", {"setting": key, "script": script, "now": RENAMED[key]})
    if MOVED.get(key) in known:
        return Problem("argument_moved", {"setting": key, "script": script, "now": MOVED[key]})
    if not known.complete:
        return Problem("argument_uncertain", {"setting": key, "script": script}, severity="warning")
    if key in (_shipped(script) or ()):
        return Problem("argument_newer", {"setting": key, "script": script})
    # Of another trainer's script, nothing follows from what sd-scripts' take.
    if others := _other_scripts(key, script) if _shipped(script) is not None else []:
        return Problem("argument_of_another_script", {"setting": key, "script": script, "others": others})
    return Problem("argument_unknown", {"setting": key, "script": script, "nearest": nearest(key, known)})


def _value_problems(key: str, value: Any, argument: Mapping[str, Any]) -> Iterator[Problem]:
    untold = argument.get("unknown", ())
    if not {"action", "nargs", "type"} & set(untold):
        expected = _mismatch(argument, value)
        if expected is not None:
            yield Problem("argument_type", {"setting": key, "value": repr(value), "expected": expected})
            return
    choices = argument["choices"]
    if choices and any(item not in choices for item in (value if isinstance(value, (list, tuple)) else [value])):
        yield Problem("argument_choice", {"setting": key, "value": repr(value), "choices": choices})


def _mismatch(argument: Mapping[str, Any], value: Any) -> str | None:
    """What the argument takes instead, where the value is of a wrong type."""
    if argument["is_boolean"]:
        return None if isinstance(value, bool) else "bool"
    kind = argument["type"]
    if argument["action"] != "StoreAction" or kind not in _TYPES:  # something of the script's own
        return None
    if argument["nargs"] not in {None, "?"}:
        right = isinstance(value, (list, tuple)) and all(_is(kind, item) for item in value)
        return None if right else f"[{kind or 'str'}, ...]"
    return None if _is(kind, value) else kind or "str"


def _is(kind: str | None, value: Any) -> bool:
    return isinstance(value, _TYPES[kind]) and not isinstance(value, bool)
