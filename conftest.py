"""Every Python example in the README, in docs/ and in the docstrings of the public modules runs in the suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser


@pytest.fixture(scope="module")
def in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Examples write their files where nobody minds."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("examples"))
    yield
    os.chdir(before)


pytest_collect_file = (
    Sybil(
        parsers=[PythonCodeBlockParser()],
        patterns=["README.md", "docs/*.md"],
        fixtures=["in_an_empty_folder"],
    )
    + Sybil(
        parsers=[DocTestParser()],
        patterns=["src/cinderlora/hookspecs.py", "src/cinderlora/serial.py"],
        fixtures=["in_an_empty_folder"],
    )
).pytest()
