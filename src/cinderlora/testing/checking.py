"""What a check is: a named callable that says what to change, and the plugin that it looks at."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest import SkipTest

import attrs
from attrs import define, field, frozen

import cinderlora
from cinderlora.adapter import Adapter
from cinderlora.errors import CinderloraError, PluginError
from cinderlora.models.headers import Header
from cinderlora.names import nearest
from cinderlora.registry import Implementation, Registry
from cinderlora.sd_scripts.arguments import Arguments
from cinderlora.testing.pictures import draw_pictures
from cinderlora.trainers import Trainer
from cinderlora.types import SETTINGS, Job, Preset

__all__ = ["Check", "Subject", "calling", "fail", "skip", "told"]


@frozen
class Check:
    """One thing that a plugin has to do right.

    Call it: it raises `AssertionError` that says what to change, and `unittest.SkipTest`, which pytest knows, where
    nothing can be said.
    """

    name: str
    function: Callable[[Subject], None] = field(repr=False)
    subject: Subject = field(repr=False)

    def __call__(self) -> None:
        __tracebackhide__ = True
        try:
            self.function(self.subject)
        except CinderloraError as error:
            teller = _TELLERS.get(error.params.get("hook", ""), self.name)
            if teller != self.name:
                skip(f"{error.params['hook']} raises: see {teller!r}")
            raise AssertionError(told(error)) from (error.__cause__ or error)
        except AssertionError as error:
            # The way through this package says nothing to an author; where the plugin raised is in the cause.
            raise error.with_traceback(None) from error.__cause__

    def __str__(self) -> str:
        return self.name


_TELLERS = {"build_args": "arguments are known to the script"}
"""Hooks that several checks call, and the one check that tells where one raises."""


def fail(message: str) -> NoReturn:
    """What is wrong, and what to change."""
    __tracebackhide__ = True
    raise AssertionError(message)


def skip(why: str) -> NoReturn:
    """Why nothing can be said, and what would help."""
    __tracebackhide__ = True
    raise SkipTest(why)


@contextmanager
def calling(hook: str, what: str = "") -> Iterator[None]:
    """What a plugin raises is a failed check, which names the hook."""
    __tracebackhide__ = True
    try:
        yield
    except (AssertionError, SkipTest, CinderloraError):
        raise
    except Exception as error:
        raise AssertionError(_raised(hook, error, f" for {what}" if what else "")) from error


def told(error: CinderloraError) -> str:
    """What the core says of a plugin, for its author: whom to ask and how to live without it is for others."""
    cause = error.__cause__
    hook = error.params.get("hook")
    if error.code == "plugin_invalid" and cause is not None and _theirs(cause):
        hook = "model_type"  # nothing else of a plugin is called when it is registered
    return _raised(hook, cause) if hook and cause is not None else str(error)


def _raised(hook: str, error: BaseException, what: str = "") -> str:
    cure = _misspelt(error) or "It must not raise."
    return f"{hook} raised {type(error).__name__}{what}{_place(error)}: {error}. {cure}"


def _theirs(error: BaseException) -> list[traceback.FrameSummary]:
    """The plugin's own part of the way that an exception took."""
    own = str(Path(cinderlora.__file__).parent)
    return [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((own, "<attrs"))]


def _place(error: BaseException) -> str:
    """The line of the plugin that an exception came from."""
    frames = _theirs(error)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _misspelt(error: BaseException) -> str:
    """The name that was meant, where one of our classes was given a field, or asked for one, that it has not."""
    if isinstance(error, AttributeError) and attrs.has(type(error.obj)):
        if isinstance(error.obj, Job) and error.name in SETTINGS:
            return f"Did you mean job.settings.{error.name}?"
        public = [name for name in dir(error.obj) if not name.startswith("_")]
        return _nearest(str(error.name), type(error.obj).__name__, public)
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = getattr(cinderlora, found[1], None) if found and found[1] in cinderlora.__all__ else None
    if found is None or not isinstance(kind, type) or not attrs.has(kind):
        return ""
    return _nearest(found[2], found[1], list(attrs.fields_dict(kind)))


def _nearest(name: str, owner: str, known: list[str]) -> str:
    near = nearest(name, known)
    return f"Did you mean {near}?" if near else f"{owner} has: {', '.join(known)}."


@define(eq=False, slots=False)
class Subject:
    """The plugin that is looked at, and what its author told of it."""

    plugin: object
    headers: Mapping[str, tuple[Header, ...]]
    """Headers of its own components, by role."""
    others: tuple[Header, ...]
    """Headers that it has to leave alone, besides those that are known here."""
    checkout: Path | None
    """A checkout of the trainer, whose own script is asked."""
    arguments: Mapping[str, Any] | Path | None
    """The script's arguments where there is no checkout: as `SdScripts.arguments` gives them, or a JSON file."""
    logs: tuple[bytes, ...]
    """Output of its trainer."""
    rehearsal: bool
    """Whether its trainer has a rehearsal."""
    import_seconds: float
    """How long importing it may take."""

    @cached_property
    def name(self) -> str:
        """What the plugin is called in messages, and registered as."""
        plugin = self.plugin
        return plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__name__

    @property
    def is_adapter(self) -> bool:
        """Whether it brings a model type; one that does not is for those of others."""
        return callable(getattr(self.plugin, "model_type", None))

    def registry(self) -> Registry:
        """A new registry with the plugin: an adapter alone, another one beside all installed adapters."""
        if self.is_adapter:
            registry = Registry()
            registry.register(self.plugin, name=self.name)
        else:
            registry = Registry.from_installed(disable=())
            if self.registered_as(registry) is None:
                registry.register(self.plugin, name=self.name)
        return registry

    def registered_as(self, registry: Registry) -> str | None:
        """The plugin's name in a registry."""
        return next((name for name in registry.plugins if registry.plugin(name) is self.plugin), None)

    def adapters(self) -> list[Adapter]:
        """What the plugin has a part in: its own model type, or all that are installed."""
        try:
            registry = self.registry()
        except PluginError:
            skip("it cannot be registered: see 'hooks are spelt and called right'")
        if not registry and self.is_adapter:
            skip("its model_type is no hook: see 'hooks are spelt and called right'")
        if not registry:
            fail(f"{self.name} has no model_type, and no adapter is installed that it could be tried with.")
        return list(registry.values())

    def adapter(self) -> Adapter:
        """The adapter that the plugin is."""
        return self.adapters()[0]

    def implementations(self, adapter: Adapter, hook: str) -> list[Implementation]:
        """The plugin's own functions for a hook."""
        registry = adapter.registry
        name = self.registered_as(registry)
        return [found for found in registry.implementations(hook, adapter.plugin) if found.plugin == name]

    def trainer(self, adapter: Adapter) -> Trainer:
        """The trainer that only pretends."""
        if not self.rehearsal:
            skip("its trainer has no rehearsal (rehearsal=False)")
        return adapter.rehearsal()

    def job(self, adapter: Adapter, folder: Path, preset: str | Preset | None = None, **settings: Any) -> Job:
        """A job of four pictures and four steps, whose names and paths are not the easiest."""
        pictures = folder / "data sets" / "elena ü's"
        if not pictures.exists():
            draw_pictures(pictures)
        small = {"resolution": 64, "steps": 4, "save_every": 2, "sample_every": 2, "sample_steps": 2}
        return adapter.job(
            name="elena",
            trigger="elena",
            dataset=pictures,
            output=folder / "loras ü",
            preset=preset,
            **small | settings,
        )

    def known_arguments(self, adapter: Adapter) -> Arguments | None:
        """What the model type's script takes; None where nobody said."""
        found = None
        if self.checkout is not None:
            found = _told_by(adapter.trainer_type(self.checkout), adapter)
        if found is None and self.arguments is not None:
            given = self.arguments
            found = json.loads(given.read_text(encoding="utf-8")) if isinstance(given, Path) else given
        if found is None and self.rehearsal:
            found = _told_by(adapter.rehearsal(), adapter)
        return found if found is None or isinstance(found, Arguments) else Arguments(found)


def _told_by(trainer: Trainer, adapter: Adapter) -> Mapping[str, Any] | None:
    """What a trainer says of a script's arguments, if it is one that can."""
    tell = getattr(trainer, "arguments", None)
    found: Mapping[str, Any] | None = tell(adapter.type.script) if callable(tell) else None
    return found
