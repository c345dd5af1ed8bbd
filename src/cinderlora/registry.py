"""The plugins of a program: loaded one by one, asked one by one, and kept as data where they are broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy
from attrs import frozen

from cinderlora import hookspecs
from cinderlora.errors import PluginError, UnknownName
from cinderlora.names import nearest
from cinderlora.types import ModelType

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from cinderlora.adapter import Adapter
    from cinderlora.models import HeaderCache, ModelLibrary
    from cinderlora.trainers import TrainerType

__all__ = ["BrokenPlugin", "Registry"]

ENTRY_POINTS = "cinderlora"

# Asked one by one, so that the one that fails can be named: a wrapper would have no place there.
_NO_WRAPPERS = ("model_type", "trainer", "presets", "scan_models", "parse_progress", "diagnose", "run_finished")


@frozen
class BrokenPlugin:
    """A plugin, a part of one, or a preset file, that is not used because it failed."""

    name: str
    provider: str
    """The distribution it came from, with its version, where it came from one; a preset file's path."""
    error: BaseException

    def __str__(self) -> str:
        if self.provider == self.name:  # a preset file: its errors say where they are
            return str(self.error)
        return f"{self.provider}: {type(self.error).__name__}: {self.error}"


class Implementation(NamedTuple):
    """One plugin's function for a hook."""

    plugin: str
    call: Callable[..., Any]


class Registry(Mapping[str, "Adapter"]):
    """The adapters and other plugins that a program uses, by model type.

    `registry["flux"]` is the adapter for FLUX; iterating gives the names of the model types; `broken` holds the
    plugins that could not be used, by name. A new `Registry()` has no plugin but the core's own.

    `presets` are folders with presets as TOML files; `cinderlora.preset_folders()` gives the user's and the project's.
    """

    def __init__(self, *, presets: Iterable[str | os.PathLike[str]] = ()) -> None:
        from cinderlora.sd_scripts import plugin as core

        self.preset_folders: tuple[Path, ...] = tuple(Path(folder) for folder in presets)
        """Looked into whenever presets are asked for: a file that was added or mended meanwhile counts."""
        self.broken: dict[str, BrokenPlugin] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(core, name="cinderlora")
        self._providers: dict[str, str] = {"cinderlora": "cinderlora"}
        self._types: dict[str, ModelType] = {}  # by plugin name
        self._adapters: dict[str, Adapter] = {}
        self._headers: HeaderCache | None = None
        self._implementations: dict[tuple[str, str], list[Implementation]] = {}

    @classmethod
    def from_installed(
        cls, *, disable: Iterable[str] | None = None, presets: Iterable[str | os.PathLike[str]] = ()
    ) -> Registry:
        """A registry of all installed plugins, but for those named in `disable` or in `CINDERLORA_DISABLE=a,b`, with
        the preset files in the folders `presets`.

        One that cannot be loaded is found in `broken` and harms no other.
        """
        from importlib.metadata import entry_points

        if disable is None:
            disable = os.environ.get("CINDERLORA_DISABLE", "").split(",")
        disabled = {name.strip() for name in disable}
        registry = cls(presets=presets)

        found = [(*_distribution(entry), entry) for entry in entry_points(group=ENTRY_POINTS)]
        own_first = sorted(found, key=lambda one: (one[0] != "cinderlora", one[2].name))
        for _, provider, entry in own_first:
            if entry.name in disabled:
                continue
            try:
                registry._add(entry.load(), entry.name, provider)
            except (Exception, SystemExit) as error:
                taken = entry.name in registry._providers or entry.name in registry.broken
                name = f"{entry.name} ({provider})" if taken else entry.name
                registry.broken[name] = BrokenPlugin(entry.name, provider, error)
        return registry

    def register(self, plugin: object, *, name: str) -> None:
        """Add a plugin that the program itself has: a module, or an object with hook implementations.

        Raises `PluginError` where the name or its model type is taken, or where a hook is misspelt or its arguments
        are.
        """
        self._add(plugin, name, f"registered as {name!r}")

    def unregister(self, name: str) -> None:
        """Remove a plugin; raises `PluginError` where there is none of that name."""
        if name not in self.plugins:
            raise PluginError("plugin_unknown", plugin=name, known=self.plugins)
        self._manager.unregister(name=name)
        self._types.pop(name, None)
        del self._providers[name]
        self._adapters.clear()
        self._implementations.clear()

    @property
    def plugins(self) -> tuple[str, ...]:
        """The names of the plugins in use, without the core's own."""
        return tuple(name for name in self._providers if name != "cinderlora")

    def plugin(self, name: str) -> object:
        """A plugin in use: the module, or the object with the hook implementations. Raises `PluginError` where there is
        none of that name."""
        if name not in self.plugins:
            raise PluginError("plugin_unknown", plugin=name, known=self.plugins)
        found: object = self._manager.get_plugin(name)
        return found

    def provider(self, plugin: str) -> str:
        """Where a plugin came from: its distribution and version, the name it was registered by, or a file's path."""
        return self._providers.get(plugin, plugin)  # a preset file's name is its path

    def __getitem__(self, name: str) -> Adapter:
        if name in self._adapters:
            return self._adapters[name]
        for plugin, kind in self._types.items():
            if kind.name == name:
                from cinderlora.adapter import Adapter

                return self._adapters.setdefault(name, Adapter(self, kind, plugin))
        broken = self.broken.get(name)
        if broken is not None:
            raise UnknownName("model_type_broken", name=name, why=str(broken))
        raise UnknownName("model_type_unknown", name=name, nearest=nearest(str(name), self), known=sorted(self))

    def __iter__(self) -> Iterator[str]:
        return iter([kind.name for kind in self._types.values()])

    def __len__(self) -> int:
        return len(self._types)

    def trainer(self, kind: str) -> TrainerType:
        """Where trainers of a kind come from, e.g. `registry.trainer("sd-scripts").find()`.

        Raises `UnknownName` where no plugin brings one. A plugin whose kind is taken, or that raises, is left out and
        found in `broken`.
        """
        types: dict[str, TrainerType] = {}
        providers: dict[str, str] = {}
        for implementation in self._manager.hook.trainer.get_hookimpls():  # in the order of registration
            plugin = implementation.plugin_name
            try:
                found: Any = implementation.function()
                if found.kind in types:
                    raise PluginError(
                        "trainer_duplicate",
                        trainer=found.kind,
                        first=self.provider(providers[found.kind]),
                        second=self.provider(plugin),
                    )
                types[found.kind], providers[found.kind] = found, plugin
            except Exception as error:
                self.broken.setdefault(plugin, BrokenPlugin(plugin, self.provider(plugin), error))
        if kind not in types:
            raise UnknownName("trainer_unknown", name=kind, nearest=nearest(kind, types), known=sorted(types))
        return types[kind]

    def __repr__(self) -> str:
        return f"<Registry {', '.join(sorted(self)) or 'empty'}{f', {len(self.broken)} broken' if self.broken else ''}>"

    # An adapter is a live facade and not data: two registries are equal if they are the same one.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    # ---- for the adapter facade ----

    def caller(self, hook: str, adapter_plugin: str) -> pluggy.HookCaller:
        """The hook as one model type sees it: its own adapter and all cross-cutting plugins."""
        others = [self._manager.get_plugin(name) for name in self._types if name != adapter_plugin]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)

    def implementations(self, hook: str, adapter_plugin: str) -> list[Implementation]:
        """The functions for a hook as one model type sees it, in calling order, to be called one by one."""
        key = (hook, adapter_plugin)
        if key not in self._implementations:
            found = reversed(self.caller(hook, adapter_plugin).get_hookimpls())
            self._implementations[key] = [Implementation(i.plugin_name, _taking(i)) for i in found]
        return self._implementations[key]

    def parsers(self, adapter_plugin: str) -> list[Implementation]:
        """The functions that read a line of output for one model type, in calling order, the core's own last."""
        return self.implementations("parse_progress", adapter_plugin)

    @property
    def headers(self) -> HeaderCache:
        """The headers of model files read so far, shared by all adapters."""
        if self._headers is None:
            from cinderlora.models import HeaderCache

            self._headers = HeaderCache()
        return self._headers

    def scan_models(self, folder: str | Path | Iterable[str | Path]) -> dict[str, ModelLibrary]:
        """What `adapter.scan_models` gives, for all model types at once: each header is read once, however many types
        there are. A type whose plugin fails is left out, and the plugin found in `broken`."""
        from cinderlora.adapter import claimant
        from cinderlora.models.library import scan_for

        libraries, _ = scan_for(folder, {name: claimant(self[name]) for name in self}, cache=self.headers)
        return libraries

    # ---- adding ----

    def _add(self, plugin: object, name: str, provider: str) -> None:
        if name in self._providers:
            raise PluginError("plugin_duplicate", plugin=name, first=self._providers[name], second=provider)
        try:
            self._manager.register(plugin, name=name)
            self._manager.check_pending()
            self._refuse_wrappers(name)
            kind = self._model_type(plugin, name)
        except BaseException as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            if isinstance(error, (PluginError, KeyboardInterrupt)):
                raise
            raise PluginError(
                "plugin_invalid", plugin=name, provider=provider, why=f"{type(error).__name__}: {error}"
            ) from error
        self._providers[name] = provider
        if kind is not None:
            self._types[name] = kind
        # A plugin more changes what every model type sees.
        self._implementations.clear()

    def _refuse_wrappers(self, name: str) -> None:
        plugin = self._manager.get_plugin(name)
        for hook in self._manager.get_hookcallers(plugin) or ():
            for implementation in hook.get_hookimpls():
                wraps = implementation.wrapper or implementation.hookwrapper
                if implementation.plugin is plugin and wraps and hook.name in _NO_WRAPPERS:
                    raise TypeError(f"{hook.name} cannot be a wrapper; only build_args can")

    def _model_type(self, plugin: object, name: str) -> ModelType | None:
        own = [i for i in self._manager.hook.model_type.get_hookimpls() if i.plugin is plugin]
        if not own:
            return None
        kind = own[0].function()
        if not isinstance(kind, ModelType):
            raise TypeError(f"model_type() gave {kind!r}, not a ModelType")
        for other, taken in self._types.items():
            if taken.name == kind.name:
                raise PluginError("model_type_duplicate", model_type=kind.name, first=other, second=name)
        return kind


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    """The name of the distribution that an entry point is of, and what it is called with its version."""
    try:
        text = (entry.dist.read_text("METADATA") or entry.dist.read_text("PKG-INFO") or "") if entry.dist else ""
    except Exception:  # what others left behind in the environment harms nobody here
        text = ""
    # `dist.metadata` reads all of it, a page of description as a rule: 0.65 ms for each plugin, six times as much.
    head = takewhile(str.strip, text.splitlines())
    said = {key: value.strip() for key, _, value in (line.partition(":") for line in head)}
    name = said.get("Name", "")
    return (name, f"{name} {said.get('Version', '')}".rstrip()) if name else ("", entry.value)


def _taking(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    """A hook implementation, called with all of the hook's arguments by name; it takes those it wants."""
    wanted = implementation.argnames
    function = implementation.function

    def call(**arguments: Any) -> Any:
        return function(*[arguments[name] for name in wanted])

    return call
