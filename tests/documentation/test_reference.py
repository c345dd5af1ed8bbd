"""Nothing is left out of the reference: no hook, code, event, setting or command, and nothing in it is outdated."""

from __future__ import annotations

import importlib
import inspect
import re
from itertools import takewhile
from pathlib import Path

import attrs
import click
import pytest

from cinderlora import Event, Registry, events, hookspecs, testing
from cinderlora.cli.app import cinderlora
from cinderlora.cli.job_options import JobCommand
from cinderlora.config import CONFIG_NAMES
from cinderlora.importing import FORMATS
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


def first_column(page: str, head: str) -> list[str]:
    """The first cells of the table with this head, without the marks of code."""
    _, _, behind = read(page).partition(f"\n| {head} |")
    assert behind, f"{page} has no table with the head {head}"
    rows = takewhile(lambda line: line.startswith("|"), behind.splitlines()[2:])
    return [row.split("|")[1].strip().replace("`", "") for row in rows]


def test_every_check_for_adapters_is_in_the_guide_with_what_it_can_be_told() -> None:
    class Adapter:
        def model_type(self) -> None: ...
        def trainer(self) -> None: ...

    assert first_column("adapters.md", "check") == [str(check) for check in testing.adapter_checks(Adapter())]
    told = [name.partition("=")[0] for name in first_column("adapters.md", "keyword")]
    assert {*told} == {*inspect.signature(testing.adapter_checks).parameters} - {"plugin"}
    from cinderlora.testing import fixtures  # not before pytest rewrites it, as the plugin that it is

    assert sorted(first_column("adapters.md", "fixture")) == fixtures.__all__
    (samples,) = re.findall(r"The samples, .*?: (.*?)\.\n\n", read("adapters.md"), re.DOTALL)
    assert re.findall(r"`(\w+)`", samples) == list(testing.sample_headers())


def test_every_format_that_can_be_imported_is_in_the_guide() -> None:
    assert first_column("importing.md", "format") == list(FORMATS)


def test_the_readme_tells_the_presets_of_all_model_types() -> None:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for adapter in Registry.from_installed().values():
        if adapter.provider.startswith("cinderlora "):
            (row,) = re.findall(rf"^\| `{adapter.name}` \| (.*?) \|", text, re.MULTILINE)
            assert re.findall(r"\b\d+gb\b", row) == list(adapter.presets), adapter.name


def test_every_page_is_on_the_way_from_the_start() -> None:
    """A page that no page leads to is read by nobody."""
    pages = {page for page in DOCS.rglob("*.md") if not {"_build", "tests", "src", "reference"} & {*page.parts}}
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in [*pages, DOCS.parent / "README.md"]
        for link in re.findall(r"\]\((?!https?:)([^)]+\.md[^)]*)\)", page.read_text(encoding="utf-8"))
    }
    assert sorted(str(page.relative_to(DOCS)) for page in pages - linked) == [
        "changelog.md"
    ]  # README has the file itself


def test_every_command_is_in_the_guide() -> None:
    text = read("command-line.md")
    assert [name for name in cinderlora.list_commands(click.Context(cinderlora)) if f"| `{name}` |" not in text] == []


def test_every_key_of_the_configuration_is_in_the_guide() -> None:
    text = read("command-line.md")
    assert [name for name in CONFIG_NAMES if f"| `{name}` | `CINDERLORA_{name.upper()}` |" not in text] == []
