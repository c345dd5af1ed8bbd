"""A package for an adapter, to begin with: it passes its own checks, and its comments say what to fill in."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Mapping
from importlib import resources
from keyword import iskeyword, issoftkeyword
from pathlib import Path
from string import Template

from cinderlora import __version__
from cinderlora.errors import ConfigError, PluginError

__all__ = ["adapter_files", "refuse_taken", "write_adapter"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_SCRIPT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\.py")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/$package/__init__.py": "init.py.txt",
    "src/$package/py.typed": "py.typed.txt",
    "tests/test_adapter.py": "checks.py.txt",
}


def adapter_files(name: str, *, title: str = "", script: str = "", network_module: str = "") -> dict[str, str]:
    """The text of each file of the package, by its path in the package's folder.

    `name` is the model type's, e.g. "lumina"; `title` what people call it. `script` and `network_module` are the
    trainer's, by default those that sd-scripts would have under that name. All of it goes into source code: what could
    be anything else there raises `PluginError`.
    """
    title = title or name.replace("_", " ").title()
    script = script or f"{name}_train_network.py"
    network_module = network_module or f"networks.lora_{name}"
    if not _NAME.fullmatch(name) or len(name) > 40 or iskeyword(name) or issoftkeyword(name):
        raise PluginError("adapter_name_invalid", name=repr(name))
    if not title.isprintable() or len(title) > 80 or set(title) & set('"\\`{}'):
        raise PluginError("adapter_text_invalid", what="title", value=repr(title))
    if not _SCRIPT.fullmatch(script):
        raise PluginError("adapter_text_invalid", what="script", value=repr(script))
    if not _MODULE.fullmatch(network_module) or any(map(iskeyword, network_module.split("."))):
        raise PluginError("adapter_text_invalid", what="network_module", value=repr(network_module))
    values = {
        "name": name,
        "package": f"cinderlora_{name}",
        "distribution": f"cinderlora-{name.replace('_', '-')}",
        "title": title,
        "script": script,
        "network_module": network_module,
        "version": __version__,
    }
    templates = resources.files(__package__) / "files"
    return {
        Template(path).substitute(values): Template((templates / file).read_text(encoding="utf-8")).substitute(values)
        for path, file in _FILES.items()
    }


def write_adapter(files: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the package into a folder that is not there yet; gives the files. Nothing of it is left where that fails.

    Raises `ConfigError` where the folder is there, or cannot be written.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError("folder_in_the_way", path=str(folder)) from error
    except OSError as error:
        raise ConfigError("file_not_written", path=str(folder), why=error.strerror or str(error)) from error
    written = []
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            written.append(path)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError("file_not_written", path=str(folder), why=error.strerror or str(error)) from error
    return written


def refuse_taken(name: str) -> None:
    """Raise `PluginError` where a package of that name is installed already."""
    package = f"cinderlora_{name}"
    if importlib.util.find_spec(package) is not None:
        raise PluginError("adapter_name_taken", name=name, package=package)
