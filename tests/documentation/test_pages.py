"""Every example on every page and in every docstring runs: a page is one test, and its examples run in order.

Python runs as it stands. Of a shell block (`sh`: commands; `console`: commands behind "$ " and what they print) each
command of cinderlora runs in this process, in a folder with a data set, models and something that acts as sd-scripts.
TOML and JSON are parsed. Every block says its language. An HTML comment above a block, invisible on the page, adds:

    <!-- file: elena.toml -->    the block is that file's text, for the examples below
    <!-- copy: tests/data/a.json to b.json -->    its commands find that file of ours there
    <!-- adds: --steps 20 -->    options that its commands of cinderlora and pytest have besides, to be quick
    <!-- exit code: 2 -->        what its commands exit with, unless 0
    <!-- not run: REASON -->     it does not run; commands of cinderlora are still held against their options
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import click
import pytest
from attrs import frozen
from sybil import Document, Example, Region
from sybil.document import PythonDocStringDocument
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.lexers import Lexeme
from sybil.parsers.rest import DocTestParser

from cinderlora.cli import main
from cinderlora.cli.app import cinderlora as command_line
from cinderlora.cli.terminal import Terminal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the examples are for a POSIX shell")

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if not {"_build", "tests", "src"} & set(p.parts)),
]
DOCSTRINGS = [path for path in sorted((ROOT / "src").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]

SHOWN = {"text", "html", "ini", "javascript", "powershell", "yaml"}
"""What is shown and not run."""

_BLOCK = re.compile(
    r"(?P<notes>(?:^[ ]*<!--[^\n]*-->\n)*)"
    r"^(?P<indent>[ ]*)(?P<fence>```+|~~~+)(?P<language>[^\n]*)\n(?P<source>.*?)^(?P=indent)(?P=fence)[ ]*$\n?",
    re.MULTILINE | re.DOTALL,
)
_NOTE = re.compile(r"<!-- *(adds|copy|exit code|file|not run): *(.+?) *-->")


@frozen
class Block:
    """A fenced block of a page."""

    language: str
    source: str
    notes: dict[str, str]


def examples(document: Document) -> Iterator[Region]:
    """The fenced blocks of a page: what Sybil calls a parser."""
    for match in _BLOCK.finditer(document.text):
        source = re.sub(rf"^{match['indent']}", "", match["source"], flags=re.MULTILINE)
        notes = dict(_NOTE.findall(match["notes"]))
        block = Block(match["language"].strip(), source, notes)
        parsed = Lexeme(source, 0, match.group(0)[: match.start("source") - match.start()].count("\n") - 1)
        yield Region(match.start(), match.end(), (block, parsed), evaluate)


def evaluate(example: Example) -> str | None:
    block, parsed = example.parsed
    if "file" in block.notes:
        path = Path(block.notes["file"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.source, encoding="utf-8")
    if block.language in {"sh", "console"}:
        return in_shell(block)
    if "not run" in block.notes or "file" in block.notes:
        return None
    if block.language == "python":
        example.parsed = parsed
        return PythonEvaluator()(example)
    if block.language == "toml":
        tomllib.loads(block.source)
    elif block.language == "json":
        json.loads(block.source)
    elif block.language not in SHOWN and not block.language.startswith("{"):
        return f"A block of {block.language or 'no language'}: nothing says how to run it, or that it is only shown."
    return None


# ---- the shell -------------------------------------------------------------------------------------------------------


def in_shell(block: Block) -> str | None:
    """What is wrong with a shell block, run line by line; None where nothing is."""
    if "copy" in block.notes:
        ours, _, here = block.notes["copy"].partition(" to ")
        Path(here).write_bytes((ROOT / ours).read_bytes())
    added = shlex.split(block.notes.get("adds", ""))
    for command, expected in commands(block):
        if "not run" in block.notes:
            for words in parts(command):
                if words[0] == "cinderlora":
                    parse(words[1:])
            continue
        code, printed = run(command, added)
        wanted = int(block.notes.get("exit code", 0))
        if code != wanted:
            return f"{command}\nexits with {code}, not {wanted}, and says:\n{printed}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if expected and not doctest.OutputChecker().check_output(expected, printed, flags):
            return f"{command}\nprints:\n{printed}\nand not:\n{expected}"
    return None


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a block, and what is said to be printed by it."""
    source = block.source.replace("\\\n", " ")
    if block.language == "sh":
        yield from ((line, "") for line in source.splitlines() if line.strip() and not line.startswith("#"))
        return
    assert source.startswith("$ "), "a console block begins with a command: $ cinderlora ..."
    for part in re.split(r"^\$ ", source, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def parts(command: str) -> Iterator[list[str]]:
    """The words of the commands in a line that are joined by &&, as a shell has them."""
    words = [os.path.expanduser(word) for word in shlex.split(command, comments=True)]  # noqa: PTH111
    while words:
        end = words.index("&&") if "&&" in words else len(words)
        part, words = words[:end], words[end + 1 :]
        yield [part[0].removeprefix(".venv/bin/"), *part[1:]]


def run(command: str, added: Sequence[str]) -> tuple[int, str]:
    """Run a line: its exit code, and what it printed on both streams."""
    if command.strip() in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines():
        return 0, ""  # it is what runs this
    out = io.StringIO()
    forget_modules()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for words in parts(command):
            for setting in takewhile(lambda word: re.fullmatch(r"\w+=.*", word), words):
                patch.setenv(*setting.split("=", 1))
            program, *arguments = dropwhile(lambda word: re.fullmatch(r"\w+=.*", word), words)
            code = PROGRAMS[program]([*arguments, *added] if program in {"cinderlora", "pytest"} else arguments)
            if code:
                return code, out.getvalue()
    return 0, out.getvalue()


def forget_modules() -> None:
    """As if each command ran in a process of its own: modules that a page wrote are imported anew."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(Path.home().parent)):
            del sys.modules[name]


def change_folder(arguments: Sequence[str]) -> int:
    os.chdir(*arguments)
    return 0


def make_folders(arguments: Sequence[str]) -> int:
    for name in arguments:
        if name != "-p":
            Path(name).mkdir(parents="-p" in arguments, exist_ok="-p" in arguments)
    return 0


def list_folder(arguments: Sequence[str]) -> int:
    print("\n".join(sorted(path.name for path in Path(*arguments).iterdir())))
    return 0


def install(arguments: Sequence[str]) -> int:
    """`pip install`: of cinderlora it looks whether the extras are there; a package in a folder it makes findable for
    this process and its children, without what that needs; others it takes for granted."""
    assert arguments[0] == "install"
    for wanted in [word for word in arguments[1:] if not word.startswith("-")]:
        name, _, extras = wanted.rstrip("]").partition("[")
        folder = next((f for f in (Path(name), ROOT / "docs/examples" / name) if (f / "pyproject.toml").exists()), None)
        project = tomllib.loads(((folder or ROOT) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if folder is not None:
            make_findable(folder, project)
        if folder is not None or name in {"cinderlora", "."}:
            assert set(filter(None, extras.split(","))) <= set(project.get("optional-dependencies", {})), wanted
    return 0


def make_findable(folder: Path, project: dict[str, Any]) -> None:
    site = Path.home() / "site-packages"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head, encoding="utf-8")
    groups = project.get("entry-points", {})
    points = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    source = folder / "src" if (folder / "src").is_dir() else folder
    sys.path += [str(site), str(source.absolute())]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[-2:])


def python(arguments: Sequence[str]) -> int:
    return 0 if arguments[:2] == ["-m", "venv"] else other_process()(arguments)


def other_process(*program: str) -> Callable[[Sequence[str]], int]:
    def run_it(arguments: Sequence[str]) -> int:
        done = subprocess.run([sys.executable, *program, *arguments], text=True, capture_output=True, check=False)
        print(done.stdout + done.stderr)
        return done.returncode

    return run_it


PROGRAMS = {
    "cinderlora": main,
    "cd": change_folder,
    "ls": list_folder,
    "mkdir": make_folders,
    "pip": install,
    "pytest": other_process("-m", "pytest", "-q", "-p", "no:cacheprovider"),
    "python": python,
    "python3": python,
}


def parse(arguments: list[str]) -> None:
    """Hold a command line against the options and arguments that there are, without running it."""
    command: click.Command = command_line
    context = command.make_context("cinderlora", list(arguments), obj=Terminal(arguments))
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        command, context = found, found.make_context(name, rest, parent=context)


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_says_is_so(page: Path, workshop: Path) -> None:
    try:
        for example in Document.parse(str(page), examples).examples():
            example.evaluate()
    finally:
        forget_modules()


@pytest.mark.parametrize("module", DOCSTRINGS, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_what_a_docstring_says_is_so(module: Path, workshop: Path) -> None:
    for example in PythonDocStringDocument.parse(str(module), DocTestParser()).examples():
        example.evaluate()
