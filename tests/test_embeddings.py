"""The front ends among the examples are what they say: public names alone, and short enough to be copied."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = DOCS / "examples"
FILES = [path for name in ("lora_tab", "qt_window", "sse_server") for path in (EXAMPLES / name).rglob("*.py")]
PROMISED = (DOCS / "stability.md").read_text(encoding="utf-8").partition("Not public")[0]
PUBLIC = {"cinderlora", *re.findall(r"`(cinderlora\.[a-z_.]+)`", PROMISED)}
"""The modules that docs/stability.md promises to keep."""


def imported(path: Path) -> Iterator[tuple[str, str | None]]:
    """Modules of cinderlora, and what is taken of each."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and str(node.module).partition(".")[0] == "cinderlora":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.partition(".")[0] == "cinderlora")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_a_front_end_uses_public_names_alone(path):
    for module, name in imported(path):
        if f"{module}.{name}" in PUBLIC:
            continue  # a module, taken from its package
        assert module in PUBLIC, f"{module} is not public"
        assert name is None or name in import_module(module).__all__, f"{module}.{name} is not public"


def test_the_tab_is_short_enough_to_be_copied():
    files = list((EXAMPLES / "lora_tab").glob("*.py"))
    assert len(files) <= 6
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 900
