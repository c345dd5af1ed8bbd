"""Collections that cannot be changed, for use inside frozen data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn


def as_tuple(items: Iterable[Any]) -> tuple[Any, ...]:
    """Items as a tuple; a converter that type checkers understand."""
    return tuple(items)


class FrozenDict(dict[str, Any]):
    """A `dict` with string keys that refuses changes; copies, pickles, prints and compares as a `dict` does."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is frozen; make a dict of it and change that")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self
