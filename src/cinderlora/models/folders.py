"""Where people keep model files: a ComfyUI folder, its `models`, any other folder, single files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cinderlora.models.headers import MODEL_SUFFIXES, file_problem
from cinderlora.problems import Problem

__all__ = ["FoundFile", "Place", "extra_model_paths", "find_model_files"]

Place = str | os.PathLike[str]

# ComfyUI's folders (folder_paths.py) that hold what a training can use, and loras.
CATEGORIES = ("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "vae", "loras")
EXTRA_PATHS = "extra_model_paths.yaml"


class FoundFile(NamedTuple):
    """A file that may be a model, and what tells whether it has changed since it was last looked at."""

    path: str
    size: int
    mtime_ns: int


def find_model_files(where: Place | Iterable[Place]) -> tuple[list[FoundFile], list[Problem]]:
    """All files with a model's ending in the given folders and below, and the given files, in a lasting order.

    Links are followed, a folder that is reached twice (a loop, two links) is looked through once. Of a ComfyUI folder
    its `models` and the folders in its `extra_model_paths.yaml` count. Files and folders that cannot be looked at are
    reported, and the rest goes on.
    """
    places = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    problems: list[Problem] = []
    found: dict[str, FoundFile] = {}
    visited: set[tuple[int, int]] = set()
    for place in places:
        path = Path(place).expanduser().absolute()
        if path.is_dir():
            for folder in _comfyui(path) or [path]:
                for file in _walk(str(folder), visited, problems):
                    found.setdefault(file.path, file)
        else:
            given = _look(str(path), problems)
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
            elif entry.name.lower().endswith(MODEL_SUFFIXES):
                file = _look(entry.path, problems)
                if file is not None:
                    yield file
        waiting += reversed(folders)


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
        text = (folder / EXTRA_PATHS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return [models, *(path for path in extra_model_paths(text, folder) if path.is_dir())]


def extra_model_paths(text: str, folder: Path) -> list[Path]:
    """The folders of models that an `extra_model_paths.yaml` names, as ComfyUI reads it (utils/extra_config.py).

    Sections have a `base_path` (relative to the file's own folder, with ~ and variables) and a folder for each kind of
    model, or several, one a line. Only this form of YAML is understood; other lines are passed over.
    """
    paths: list[Path] = []
    section: list[tuple[str, str]] = []

    def close_section() -> None:
        bases = [value for key, value in section if key == "base_path"]
        base = folder / Path(os.path.expandvars(bases[-1])).expanduser() if bases else folder
        default = any(key == "is_default" and value.lower() in {"true", "yes", "on"} for key, value in section)
        own = [base / value for key, value in section if key in CATEGORIES]
        # Those of a default section come before all others.
        paths[:] = own + paths if default else paths + own
        section.clear()

    block, block_indent = "", 0
    for line in text.splitlines():
        content = _without_comment(line)
        indent = len(line) - len(line.lstrip(" "))
        if not content:
            continue
        if block and indent > block_indent:
            section.append((block, content))
            continue
        block = ""
        key, colon, value = content.partition(":")
        if not colon:
            continue
        key, value = _unquoted(key), _unquoted(value)
        if indent == 0:
            close_section()
        elif value in {"|", "|-", "|+", ">", ">-", ">+"}:
            block, block_indent = key, indent
        elif value:
            section.append((key, value))
    close_section()
    return paths


def _without_comment(line: str) -> str:
    line = line.strip()
    return "" if line.startswith("#") else line.partition(" #")[0].strip()


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
