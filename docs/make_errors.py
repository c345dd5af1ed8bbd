"""Write reference/errors.md, all codes, from the texts: python docs/make_errors.py"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderlora.texts import catalogue

HEAD = """# Codes

Every error, problem, warning and diagnosis has a stable code; `text("de")` says it in German. Parameters are in
braces; a sentence whose parameter is empty is left out. Made from the texts by `python docs/make_pages.py`.

| code | what it says, and what to do |
|---|---|
"""


def page() -> str:
    texts = catalogue("en")
    return HEAD + "".join(row(code, texts[code]) for code in sorted(texts))


def row(code: str, entry: Mapping[str, Any]) -> str:
    fix = said(entry.get("fix", ""))
    return f"| `{code}` | {said(entry['message'])}{f'<br>→ {fix}' if fix else ''} |\n"


def said(text: str | list[str]) -> str:
    whole = text if isinstance(text, str) else " ".join(text)
    return re.sub(r"([<>|*_`\\])", r"\\\1", whole).replace("\n", " ")


if __name__ == "__main__":
    (Path(__file__).parent / "reference/errors.md").write_text(page(), encoding="utf-8")
