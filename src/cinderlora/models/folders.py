"""Where people keep model files: a ComfyUI folder, its `models`, any other folder, single files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cinderlora.models.headers import MODEL_SUFFIXES, PICKLES, UNFINISHED, file_problem
from cinderlora.problems import Problem

__all__ = ["INDEX", "SHARD", "FoundFile", "Place", "extra_model_paths", "find_model_files"]

Place = str | os.PathLike[str]

# ComfyUI's folders (folder_paths.py) that hold what a training can use, and loras.
CATEGORIES = ("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "vae", "loras", "diffusers")
EXTRA_PATHS = "extra_model_paths.yaml"
INDEX = "model_index.json"
_ENDINGS = (*MODEL_SUFFIXES, *(m + u for m in MODEL_SUFFIXES if m not in PICKLES for u in UNFINISHED))

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.[a-z]+)")
MAX_SHARDS = 1000


class FoundFile(NamedTuple):
    """A file that may be a model, and what tells whether it has changed since it was last looked at."""

    path: str
    size: int
    mtime_ns: int


def find_model_files(where: Place | Iterable[Place]) -> tuple[list[FoundFile], list[Problem]]:
    """All files with a model's ending in the given folders and below, and the given files, in a lasting order.

    A `model_index.json`, which makes a folder one model, is among them, and so are downloads that have not ended. To a
    given shard its siblings are added.

    Links are followed, a folder that is reached twice (a loop, two links) is looked through once. Of a ComfyUI folder
    its `models` and the folders in its `extra_model_paths.yaml` count. Files and folders that cannot be looked at are
    reported, and the rest goes on.
    """
    places = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    problems: list[Problem] = []
    found: dict[str, FoundFile] = {}
    visited: set[tuple[int, int]] = set()
    for place in places:
        path = Path(os.path.expanduser(place)).absolute()  # noqa: PTH111 - which leaves an unknown ~user as it is
        if os.path.isdir(path):  # noqa: PTH112
            for folder in _comfyui(path) or [path]:
                for file in _walk(str(folder), visited, problems):
                    found.setdefault(file.path, file)
        else:
            for name in _shards(path):
                given = _look(name, problems)
                if given is not None:
                    found.setdefault(given.path, given)
    return list(found.values()), problems


def _walk(top: str, visited: set[tuple[int, int]], problems: list[Problem]) -> Iterator[FoundFile]:
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - a thousand Path objects take longer than all the rest
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(_unreadable(folder, error))
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):  # caches of downloads, ".git", what macOS leaves ("._model.safetensors")
                continue
            if _is_folder(entry):
                folders.append(entry.path)
            elif entry.name.lower().endswith(_ENDINGS) or entry.name == INDEX:
                file = _look(entry.path, problems)
                if file is not None:
                    yield file
        waiting += reversed(folders)


def _shards(path: Path) -> list[str]:
    """A file, or all of the set that it is a shard of."""
    shard = SHARD.fullmatch(path.name)
    if shard is None:
        return [str(path)]
    total = shard["total"]
    numbers = range(1, min(int(total), MAX_SHARDS) + 1)
    names = [path.with_name(f"{shard['stem']}-{n:05d}-of-{total}{shard['suffix']}") for n in numbers]
    return [str(name) for name in names if name.exists() or name == path]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _look(path: str, problems: list[Problem]) -> FoundFile | None:
    """A file as it is now; None for what is no file or cannot be looked at."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        problems.append(_unreadable(path, error))
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return FoundFile(path, status.st_size, status.st_mtime_ns)


def _unreadable(path: str, error: OSError) -> Problem:
    return file_problem(Path(path), "model_unreadable", "warning", why=error.strerror or str(error))


# ---- ComfyUI --------------------------------------------------------------------------------------------------------


def _comfyui(folder: Path) -> list[Path]:
    """The folders where a ComfyUI keeps its models; none where this is no ComfyUI."""
    models = folder / "models"
    if not models.is_dir() or not any((folder / name).exists() for name in ("comfy", "custom_nodes", EXTRA_PATHS)):
        return []
    try:
        text = (folder / EXTRA_PATHS).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""
    # os.path.isdir, since this says False of what can be no path at all.
    return [models, *(path for path in extra_model_paths(text, folder) if os.path.isdir(path))]  # noqa: PTH112


def extra_model_paths(text: str, folder: Path) -> list[Path]:
    """The folders of models that an `extra_model_paths.yaml` names, as ComfyUI reads it (utils/extra_config.py).

    Sections have a `base_path` (relative to the file's own folder, with ~ and variables) and a folder for each kind of
    model, or several: one a line, or as a list. Only this form of YAML is understood; other lines are passed over.
    """
    paths: list[Path] = []
    for section in _sections(text):
        bases = [value for key, value in section if key == "base_path" and value not in _NULL]
        base = folder / os.path.expanduser(os.path.expandvars(bases[-1])) if bases else folder  # noqa: PTH111
        default = any(key == "is_default" and value.lower() in {"true", "yes", "on"} for key, value in section)
        named = [value for key, value in section if key in CATEGORIES and value not in _NULL]
        own = [Path(os.path.normpath(base / value)) for value in named]
        # Those of a default section come before all others.
        paths = own + paths if default else paths + own
    return paths


_NULL = ("", "~", "null")
_BLOCK = re.compile(r"[|>][0-9+-]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'')


def _sections(text: str) -> Iterator[list[tuple[str, str]]]:
    """The keys and values of each section, in order; a key with several values stands there several times."""
    section: list[tuple[str, str]] = []
    key, key_indent = "", 0
    for line in text.splitlines():
        content = _without_comment(line.strip())
        indent = len(line.expandtabs()) - len(line.expandtabs().lstrip(" "))
        if not content:
            continue
        item = content.startswith("- ") and indent >= key_indent
        if key and (indent > key_indent or item):  # one of several values, or the only one in a line of its own
            section += [(key, value) for value in _values(content.removeprefix("- ") if item else content)]
            continue
        key = ""
        name, colon, value = content.partition(":")
        if not colon:
            continue
        name, value = _unquoted(name), value.strip()
        if indent == 0:
            yield section
            section = []
        elif not value or _BLOCK.fullmatch(value):
            key, key_indent = name, indent
        else:
            section += [(name, one) for one in _values(value)]
    yield section


def _without_comment(line: str) -> str:
    """A line without what stands behind a # that is at its beginning or behind a blank, and not in quotes."""
    bare = _QUOTED.sub(lambda quoted: "x" * len(quoted[0]), line)
    return line[: comment.start()].rstrip() if (comment := re.search(r"(?:^|\s)#", bare)) else line


def _values(text: str) -> list[str]:
    """One value, or those of a list in brackets."""
    if not (text.startswith("[") and text.endswith("]")):
        return [_unquoted(text)]
    found = re.finditer(rf"(?:{_QUOTED.pattern}|[^,])+", text[1:-1])
    return [value for one in found if (value := _unquoted(one[0]))]


def _unquoted(text: str) -> str:
    text = text.strip()
    if not _QUOTED.fullmatch(text):
        return text
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    return re.sub(r"\\(.)", lambda escape: escape[1] if escape[1] in '"\\/' else escape[0], text[1:-1])
