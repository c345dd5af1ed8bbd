"""What each code says, in English and German: `en.toml` and `de.toml` beside this file.

A text has a `message` and a `fix`; each is one sentence or a list of them, with the code's parameters in braces. A
sentence with a parameter that is missing, None or empty is left out ("Did you mean {nearest}?").
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

__all__ = ["LANGUAGES", "Text", "text_of"]

LANGUAGES = ("en", "de")


class Text(NamedTuple):
    """What failed, and what to do."""

    message: str
    fix: str


def text_of(code: str, params: Mapping[str, Any], language: str) -> Text | None:
    """The text of a code in a language (English for languages there are no texts in), or None for an unknown code."""
    entry = catalogue(language if language in LANGUAGES else "en").get(code)
    if entry is None:
        return None
    return Text(_say(entry["message"], params), _say(entry.get("fix", ()), params))


@cache
def catalogue(language: str) -> dict[str, dict[str, Any]]:
    """All texts of a language, by code."""
    import tomllib  # with resources 15 ms, for an error only
    from importlib import resources

    return tomllib.loads(resources.files(__package__).joinpath(f"{language}.toml").read_text(encoding="utf-8"))


def _say(sentences: str | list[str], params: Mapping[str, Any]) -> str:
    from string import Formatter

    said = []
    for sentence in [sentences] if isinstance(sentences, str) else sentences:
        names = [name for _, name, _, _ in Formatter().parse(sentence) if name]
        values = {name: _show(params.get(name)) for name in names}
        if all(values.values()):
            said.append(sentence.format(**values))
    return " ".join(said).replace("….", "…")  # a list that was cut short ends a sentence by itself


def _show(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(_show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
