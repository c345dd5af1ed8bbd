"""Whether the hooks are spelt and called as the core calls them, and what importing them costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from cinderlora import hookspecs
from cinderlora.names import nearest
from cinderlora.registry import Registry
from cinderlora.testing.checking import Subject, fail, skip

__all__ = ["goes_with_what_is_installed", "hooks_are_spelt_and_called_right", "importing_it_is_light"]

HEAVY = (
    "PIL", "accelerate", "bitsandbytes", "cv2", "diffusers", "gradio", "huggingface_hub", "imagesize", "matplotlib",
    "numpy", "pandas", "requests", "safetensors", "scipy", "tensorflow", "torch", "torchvision", "transformers",
)  # fmt: skip
"""What takes a front end's start-up from tenths of a second to several."""

_HOOKS: dict[str, Callable[..., Any]] = {
    name: function for name, function in vars(hookspecs).items() if hasattr(function, f"{hookspecs.PROJECT}_spec")
}


def hooks_are_spelt_and_called_right(subject: Subject) -> None:
    plugin = subject.plugin
    found = 0
    for name, function in _members(plugin):
        options = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if options is None:
            _refuse_unmarked(plugin, name, function)
            continue
        hook = options.get("specname") or name
        if hook not in _HOOKS:
            near = nearest(hook, _HOOKS)
            fail(
                f"There is no hook {hook!r}. " + (f"Call it {near!r}." if near else f"There are: {', '.join(_HOOKS)}.")
            )
        _refuse_signature(hook, function)
        found += 1
    if not found:
        fail(f"{subject.name} has no hook: put @cinderlora.hookimpl before its functions ({', '.join(_HOOKS)}).")
    subject.registry()


def _members(plugin: object) -> Iterator[tuple[str, Any]]:
    for name in dir(plugin):
        try:
            yield name, getattr(plugin, name)
        except Exception:  # noqa: S112 — a property of theirs that raises is no hook
            continue


def _refuse_unmarked(plugin: object, name: str, function: Any) -> None:
    if name not in _HOOKS:
        return
    if isinstance(function, ModuleType):
        fail(
            f"{name} is a module of the package, and importing it has replaced the hook {name}. Rename the module, "
            f"e.g. {name}_table."
        )
    if callable(function):
        fail(f"{name} is called like a hook but is none: put @cinderlora.hookimpl before it, or rename it.")


def _refuse_signature(hook: str, function: Any) -> None:
    spec = _HOOKS[hook]
    known = list(inspect.signature(spec).parameters)
    outdated = (getattr(spec, f"{hookspecs.PROJECT}_spec", {}) or {}).get("warn_on_impl_args") or {}
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        fail(f"{hook} is async: hooks are called without await. Make it a plain function.")
    for parameter in inspect.signature(function).parameters.values():
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            fail(f"{hook} takes {parameter}, and nothing is ever passed there. {_can(known)}")
        if name in outdated:
            fail(f"{hook} takes {name!r}, which is outdated: {outdated[name]}")
        if name not in known:
            near = nearest(name, known)
            fail(f"{hook} takes {name!r}, which does not exist. " + (f"Take {near!r}. " if near else "") + _can(known))
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty:
            fail(f"{hook} takes {name!r} as an option, so it is never passed: write `{name}` alone, before any `*`.")


def _can(known: list[str]) -> str:
    return f"It can take: {', '.join(known)}." if known else "It takes nothing."


def goes_with_what_is_installed(subject: Subject) -> None:
    subject.adapters()  # one that cannot be registered at all has been told so
    registry = Registry.from_installed(disable=())
    if subject.registered_as(registry) is None:
        registry.register(subject.plugin, name=subject.name)


def importing_it_is_light(subject: Subject) -> None:
    plugin = subject.plugin
    module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    found = _imported(module)
    if found is None:
        skip(f"{module} is no module that another program could import")
    if found["heavy"]:
        fail(
            f"Importing {module} imports {', '.join(found['heavy'])}. Every program that uses any adapter would pay "
            "for it: import it inside the function that needs it."
        )
    if found["seconds"] > subject.import_seconds:
        fail(
            f"Importing {module} takes {found['seconds']:.2f} s, more than {subject.import_seconds:g} s. See where it "
            f"goes with: python -X importtime -c 'import {module}'"
        )


_IMPORTING = """
import importlib, importlib.util, json, sys, time
sys.path[:] = json.loads(sys.argv[2])
import cinderlora, attrs
from cinderlora import Component, Header, Preset, hookimpl
name, heavy = sys.argv[1], json.loads(sys.argv[3])
top = name.partition(".")[0]
try:
    there = name != "__main__" and importlib.util.find_spec(name) is not None
except (ImportError, ValueError):
    there = False
if not there:
    print(json.dumps(None))
    sys.exit()
before = set(sys.modules)
cpu, wall = time.process_time(), time.perf_counter()
importlib.import_module(name)
# What a busy machine makes of it is no fault of the module's; that it waits for something is.
seconds = max(time.process_time() - cpu, (time.perf_counter() - wall) / 10)
found = {module.partition(".")[0] for module in set(sys.modules) - before} - {top}
print(json.dumps({"seconds": seconds, "heavy": sorted(found & set(heavy))}))
"""


def _imported(module: str) -> dict[str, Any] | None:
    """What importing a module in a new process takes; None for one that is not there to be imported."""
    words = [sys.executable, "-c", _IMPORTING, module, json.dumps(sys.path), json.dumps(HEAVY)]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        fail(f"{module} cannot be imported in a new process: {lines[-1] if lines else done.returncode}")
    found: dict[str, Any] | None = json.loads(done.stdout.strip().splitlines()[-1])
    return found
