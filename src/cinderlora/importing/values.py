"""Values of another program's, as settings and arguments have them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["as_argument", "coerced", "fits_toml", "items", "plain", "same"]


def coerced(value: Any, kind: str) -> Any:
    """A value as a setting's kind has it, where nothing is lost by it: "16" for 16, 1.0 for 1, one text for a list."""
    try:
        if kind in {"int", "float"} and isinstance(value, str):
            value = float(value) if kind == "float" or not value.strip().lstrip("+-").isdigit() else int(value)
        if kind == "int" and isinstance(value, float) and value.is_integer():
            return int(value)
    except (ValueError, OverflowError):
        return value
    if kind == "bool" and isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if kind == "strs":
        return tuple(str(item) for item in items(value))
    return value


def as_argument(value: Any, argument: Mapping[str, Any] | None) -> Any:
    """A value as an argument of the script takes it, where nothing is lost by it; as it is, where none is known."""
    if argument is None:
        return value
    if argument["is_boolean"]:
        return coerced(value, "bool")
    kind = {"int": "int", "float": "float", "int_or_float": "float"}.get(argument["type"] or "", "str")
    if argument["nargs"] in {"*", "+"}:
        return [coerced(item, kind) for item in items(value)]
    return coerced(value, kind)


def items(value: Any, separator: str | None = None) -> list[Any]:
    """The items of a list, or of a text with a separator; anything else is one item."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return value.split(separator) if isinstance(value, str) and separator else [value]


def same(ours: Any, theirs: Any) -> bool:
    """Whether two values are the same to a script: 1 and 1.0 are, 1 and true are not."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def fits_toml(value: Any) -> bool:
    """Whether it is a value that a training TOML can have: plain, or a list of such."""
    if isinstance(value, (list, tuple)):
        return all(map(fits_toml, value))
    return isinstance(value, (bool, int, float, str))


def plain(value: Any) -> Any:
    """A value for JSON."""
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
