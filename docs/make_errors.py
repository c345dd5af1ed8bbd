"""Write docs/errors.md, the reference of all codes, from the texts: python docs/make_errors.py"""

from __future__ import annotations

from pathlib import Path

from cinderlora.texts import catalogue

HEAD = """# Codes

Every error, problem, warning and diagnosis has a stable code; `text("de")` says it in German. Parameters are in
braces; a sentence whose parameter is empty is left out. Made from the texts by `python docs/make_errors.py`.

| code | says | what to do |
|---|---|---|
"""


def said(text: str | list[str]) -> str:
    whole = text if isinstance(text, str) else " ".join(text)
    return whole.replace("|", "\\|").replace("\n", " ")


def page() -> str:
    texts = catalogue("en")
    rows = [
        f"| `{code}` | {said(texts[code]['message'])} | {said(texts[code].get('fix', ''))} |" for code in sorted(texts)
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "errors.md").write_text(page(), encoding="utf-8")
