"""The page of the public names: what each is, its fields and methods, from the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import attrs

from cinderlora import Event, Settings

HEAD = """# Public names

The classes and functions that programs and plugins use, by the module that they are imported from: what each is, its
fields, its methods. [What is public](../stability.md) says what may change. The [events](events.md), the
[hooks](hooks.md) and the [settings](settings.md) have pages of their own. Made from the code by
`python docs/make_pages.py`.
"""

MODULES = {
    "cinderlora": "",
    "cinderlora.sync": "The same for blocking code: what differs from the names above is that nothing is awaited.",
    "cinderlora.testing": "For authors of plugins; [Its checks](../adapters.md#its-checks) is the guide.",
    "cinderlora.models": "Headers of model files.",
    "cinderlora.models.components": "The parts that model types share, for `scan_models`.",
    "cinderlora.models.zoo": "Kinds of model files that no adapter claims.",
    "cinderlora.models.hollow": "Files with a true header and nothing behind it, for tests.",
    "cinderlora.dataset": "A data set as it is read, and the view of it that a run trains on.",
    "cinderlora.trainers": "For those who bring another trainer; [Another trainer](../trainers.md) is the guide.",
    "cinderlora.checkouts": "A trainer that is a folder with scripts.",
    "cinderlora.launchers": "How a stage is run on several GPUs.",
    "cinderlora.sd_scripts.installing": "Getting sd-scripts; [Get sd-scripts](../sd-scripts.md) is the guide.",
    "cinderlora.demo": "The character of the demonstration.",
}


def page() -> str:
    told: set[int] = set()
    return "\n".join([HEAD, *(part for module in MODULES for part in sections(module, told))])


def sections(name: str, told: set[int]) -> Iterator[str]:
    """A module's names; one that another module before has as well is described there."""
    module = importlib.import_module(name)
    named = {each: getattr(module, each) for each in module.__all__}
    yield f"## {name}\n\n{MODULES[name]}\n" if MODULES[name] else f"## {name}\n"
    for each, value in sorted(named.items()):
        if has_its_own_page(value) or id(value) in told or not callable(value) or each == "hookimpl":
            continue
        told.add(id(value))
        yield f"### {each}\n\n{klass(value) if inspect.isclass(value) else function(value)}"


def has_its_own_page(value: Any) -> bool:
    return value is Settings or (inspect.isclass(value) and issubclass(value, Event) and value is not Event)


def function(value: Any) -> str:
    return f"```text\n{signature(value)}\n```\n\n{docstring(value)}"


def klass(kind: type) -> str:
    parts = [docstring(kind)]
    if attrs.has(kind) and (rows := list(fields(kind))):
        parts.append("\n".join(["| field | type, default | |", "|---|---|---|", *rows]) + "\n")
        if issubclass(kind, Settings):
            parts.append("Beside these it has all [settings](settings.md) as fields.\n")
    elif "__init__" in vars(kind) and not issubclass(kind, Exception):
        parts.insert(0, f"```text\n{signature(kind)}\n```\n")
    if own := members(kind):
        parts.append("".join(own))
    return "\n".join(filter(None, parts))


def fields(kind: type) -> Iterator[str]:
    described = field_docstrings(kind)
    written = inspect.get_annotations(kind)  # as in the source; attrs' own copy cattrs replaces when it meets a class
    for field in attrs.fields(kind):
        if field.name.startswith("_") or not field.init or field.inherited:
            continue
        default = "" if field.default is attrs.NOTHING else f"= {value_of(field.default)}"
        said = cell(described.get(field.name, ""))
        yield f"| `{field.name}` | `{cell(f'{annotation(written[field.name])} {default}')}` | {said} |"


def value_of(default: Any) -> str:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        made = default.factory if isinstance(default.factory, type) else None
        return f"{made.__name__}()" if made else "..."
    return repr(default)


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstrings under the fields of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found = {}
    for field, text in pairwise(definition.body):  # type: ignore[attr-defined]
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = words
    return found


def members(kind: type) -> list[str]:
    """The public methods and properties that the class itself, or one that is not public below it, defines."""
    found = []
    for name in sorted(dir(kind)):
        if name.startswith("_"):
            continue
        owner = next(base for base in kind.__mro__ if name in vars(base))
        member = vars(owner)[name]
        if not owner.__module__.startswith("cinderlora") or (owner is Settings and kind is not Settings):
            continue
        plain = getattr(member, "__func__", member)
        if isinstance(member, property):
            found.append(f"- **`{name}`**: {indented(docstring(member))}")
        elif inspect.isfunction(plain) and inspect.getdoc(plain):
            found.append(f"- **`{signature(plain, name)}`**: {indented(docstring(plain))}")
    return found


def indented(text: str) -> str:
    return textwrap.indent(text, "  ").strip() + "\n"


def signature(value: Any, name: str = "") -> str:
    said = inspect.signature(value)
    plain = [p.replace(annotation=annotation(p.annotation)) for p in said.parameters.values() if p.name != "self"]
    back = "" if said.return_annotation in (said.empty, None) else f" -> {annotation(said.return_annotation)}"
    words = ", ".join(parameters(plain))
    waits = "await " if inspect.iscoroutinefunction(value) else ""
    return f"{waits}{name or value.__name__}({words}){'' if inspect.isclass(value) else back}"


def parameters(given: list[inspect.Parameter]) -> Iterator[str]:
    """As they are written in a call's definition."""
    starred = False
    for parameter in given:
        if parameter.name == "cls":
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = "" if parameter.annotation in ("", None) else f": {parameter.annotation}"
        default = "" if parameter.default is parameter.empty else f"{' = ' if kind else '='}{parameter.default!r}"
        yield f"{stars}{parameter.name}{kind}{default}"


def annotation(given: Any) -> str:
    if given is inspect.Parameter.empty:
        return ""
    said = given if isinstance(given, str) else getattr(given, "__name__", str(given))
    return re.sub(r"\b(?:typing|collections\.abc)\.", "", said)


def docstring(value: Any) -> str:
    """Its words; examples, which run as they stand there, as text."""
    parts = re.split(r"(?m)^(?=>>> )", inspect.getdoc(value) or "", maxsplit=1)
    if len(parts) == 1:
        return f"{parts[0].strip()}\n"
    example, _, rest = parts[1].partition("\n\n")
    return "\n".join(filter(None, [parts[0], f"```text\n{example.strip()}\n```\n", rest and f"{rest.strip()}\n"]))


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
