"""Collections that cannot be changed, for use inside frozen data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn


def as_tuple(items: Iterable[Any]) -> tuple[Any, ...]:
    """Items as a tuple; a converter that type checkers understand. Raises `TypeError` for a text, which would fall
    apart into its letters."""
    if isinstance(items, str):
        raise TypeError(f"{items!r} is one text, where several are taken: [{items!r}]")
    return tuple(items)


class FrozenDict(dict[str, Any]):
    """A `dict` with string keys that refuses changes; copies, pickles, prints and compares as a `dict` does."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is frozen; make a dict of it and change that")

    # One by one, with their types: else type checkers know nothing of any class that has such a dict.
    __setitem__: Callable[..., NoReturn] = _refuse
    __delitem__: Callable[..., NoReturn] = _refuse
    __ior__: Callable[..., NoReturn] = _refuse
    clear: Callable[..., NoReturn] = _refuse
    pop: Callable[..., NoReturn] = _refuse
    popitem: Callable[..., NoReturn] = _refuse
    setdefault: Callable[..., NoReturn] = _refuse
    update: Callable[..., NoReturn] = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self
