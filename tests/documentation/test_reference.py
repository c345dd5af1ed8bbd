"""Nothing is left out of the reference: no hook, code, event, setting or command, and nothing in it is outdated."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import attrs
import click
import pytest

from cinderlora import Event, events, hookspecs
from cinderlora.cli.app import cinderlora
from cinderlora.cli.job_options import JobCommand
from cinderlora.config import CONFIG_NAMES
from cinderlora.texts import catalogue
from cinderlora.types import SETTINGS, Plan

DOCS = Path(__file__).parent.parent.parent / "docs"


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    attrs.resolve_types(Plan)  # as cattrs does with each class that it first meets: no page may hang on that
    return importlib.import_module("make_pages").PAGES


@pytest.mark.parametrize("name", ["api.md", "commands.md", "errors.md", "events.md", "hooks.md", "settings.md"])
def test_a_page_made_from_the_code_is_up_to_date(name: str, pages) -> None:
    assert read(f"reference/{name}") == pages[name](), "run: python docs/make_pages.py"


def test_all_made_pages_are_looked_at(pages) -> None:
    assert set(pages) == {page.name for page in (DOCS / "reference").glob("*.md")}


def section(page: str, title: str) -> str:
    """What a page says under a heading."""
    found = re.search(rf"^## {re.escape(title)}$\n(.*?)(?=^## |\Z)", read(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has nothing of {title}"
    return found[1]


@pytest.mark.parametrize("hook", [name for name in hookspecs.__all__ if name != "hookimpl"])
def test_every_hook_is_described_and_has_an_example(hook: str) -> None:
    text = section("reference/hooks.md", hook)
    assert "```python" in text and "@hookimpl" in text and f"def {hook}(" in text
    assert f"`{hook}(" in read("adapters.md"), "its table of hooks lacks it"


@pytest.mark.parametrize("event", [name for name in events.__all__ if name != "Event"])
def test_every_event_is_described_and_has_its_json(event: str) -> None:
    text = section("reference/events.md", event)
    kind = getattr(events, event)
    assert issubclass(kind, Event) and len(inspect.getdoc(kind) or "") > 20
    shown = set(re.findall(r'^  "(\w+)":', text, re.MULTILINE))
    assert shown == {"event", *(field.name for field in attrs.fields(kind))}
    assert f"`{event}`" in read("embedding.md"), "its table of events lacks it"


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_every_setting_is_described(setting: str) -> None:
    description, facts = section("reference/settings.md", setting).strip().split("\n\n")
    assert len(description) > 10, "it lacks a docstring in cinderlora.types"
    assert re.fullmatch(r"\w.* → \S.*", facts)


PUBLIC = re.findall(r"`(cinderlora[\w.]*?)(?:\.__all__)?`", read("stability.md").partition("the hooks")[0])
"""The modules whose names are public."""


def test_every_public_name_is_described() -> None:
    described = set(re.findall(r"^### (\w+)$", read("reference/api.md"), re.MULTILINE))
    described |= set(re.findall(r"^## (\w+)$", read("reference/events.md"), re.MULTILINE))
    described |= {"Settings", "hookimpl"}  # which have pages of their own
    assert len(PUBLIC) > 10
    for module in map(importlib.import_module, PUBLIC):
        names = [name for name in module.__all__ if callable(getattr(module, name))]
        assert [name for name in names if name not in described] == [], module.__name__


def test_every_code_is_described() -> None:
    text = read("reference/errors.md")
    assert [code for code in catalogue("en") if f"| `{code}` |" not in text] == []


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it."""
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += commands(below, (*path, name))
    return found


def test_every_command_is_described_with_its_options() -> None:
    for path, command in commands(cinderlora):
        text = section("reference/commands.md", " ".join(("cinderlora", *path)))
        assert command.help, path
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert param.help, f"{path}: {param.name} has no help"
                is_setting = isinstance(command, JobCommand) and param.name in {*SETTINGS} - {"extra"}
                assert is_setting or param.opts[0] in text, f"{path}: {param.name}"


def test_every_command_is_in_the_guide() -> None:
    text = read("command-line.md")
    assert [name for name in cinderlora.list_commands(click.Context(cinderlora)) if f"| `{name}` |" not in text] == []


def test_every_key_of_the_configuration_is_in_the_guide() -> None:
    text = read("command-line.md")
    assert [name for name in CONFIG_NAMES if f"| `{name}` | `CINDERLORA_{name.upper()}` |" not in text] == []
