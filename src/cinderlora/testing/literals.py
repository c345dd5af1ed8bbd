"""The texts that a function looks for: what a line has to begin with to get any further in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

__all__ = ["patterns_of", "texts_of"]


def texts_of(function: Callable[..., Any]) -> list[str]:
    """The texts of a line's length that stand in a function, in what it wraps, and in functions that it names."""
    return sorted({value for value in _values(function, set()) if isinstance(value, str) and 0 < len(value) <= 200})


def patterns_of(function: Callable[..., Any]) -> list[re.Pattern[str]]:
    """The regular expressions for texts that it names."""
    found = {value for value in _values(function, set()) if isinstance(value, re.Pattern)}
    return sorted((p for p in found if isinstance(p.pattern, str)), key=lambda pattern: pattern.pattern)


def _values(function: Any, seen: set[int]) -> Iterator[object]:
    function = getattr(function, "__func__", function)  # of a method
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    for cell in function.__closure__ or ():  # what it wraps
        yield from _values(cell.cell_contents, seen)
    for code in _codes(function.__code__):
        for constant in code.co_consts:
            yield from constant if isinstance(constant, (tuple, frozenset)) else (constant,)
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and value.__module__ == function.__module__:
                yield from _values(value, seen)
            yield from value if isinstance(value, (tuple, frozenset, dict)) else (value,)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
