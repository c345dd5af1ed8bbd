"""The page of the hooks, from their specifications."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from typing import Any

from cinderlora import hookspecs

HEAD = """# Hooks

Everything that a plugin can tell cinderlora. A plugin is a module or an object with some of these functions, each
marked with `@cinderlora.hookimpl`; it takes those of the arguments it wants. [Adapters](../adapters.md) explains them,
and [Your own model type](../tutorials/adapter.md) builds one. Made from `cinderlora.hookspecs` by
`python docs/make_pages.py`.
"""


def page() -> str:
    hooks = [getattr(hookspecs, name) for name in hookspecs.__all__ if name != "hookimpl"]
    return "\n".join([HEAD, *map(section, sorted(hooks, key=lambda hook: hook.__code__.co_firstlineno))])


def section(hook: Callable[..., Any]) -> str:
    text = inspect.getdoc(hook) or ""
    words = text[: text.index(">>> ")].strip()
    source = "".join(part.source for part in doctest.DocTestParser().get_examples(text))
    example = source.replace("\nclass", "\n\n\nclass")
    options: dict[str, Any] = hook.cinderlora_spec  # type: ignore[attr-defined]
    answers = "The first answer that is not None counts." if options["firstresult"] else "All answers count."
    called = f"{hook.__name__}{inspect.signature(hook)}".replace("'", "")
    return f"## {hook.__name__}\n\n```text\n{called}\n```\n\n{words}\n\n{answers}\n\n```python\n{example}```\n"
