"""Read a data-set folder: pictures, their sizes and captions, and what else lies there. Nothing is ever written.

Layouts: a flat folder, or Kohya's `<repeats>_<words>` subfolders, each a subset with repeats of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from attrs import frozen

from cinderlora.dataset.data import (
    OTHER_PICTURES,
    PICTURES,
    Dataset,
    DatasetEntry,
    Picture,
    State,
    Subset,
    caption_suffix,
    printable,
)
from cinderlora.dataset.headers import read_header

__all__ = ["list_datasets", "read_dataset"]

CAPTION_LIMIT = 1 << 20
"""Bytes: what is longer is no caption."""


def read_dataset(path: str | os.PathLike[str], caption_extension: str = ".txt") -> Dataset:
    """What lies in the folder: headers of pictures and captions are read, nothing else is opened.

    Raises `OSError` where it cannot be listed, and `SettingError` for an impossible caption extension.
    """
    suffix = caption_suffix(caption_extension)
    folder = Path(path).absolute()
    here, parts = _layout(folder)
    subsets = [_subset(part, suffix, repeats, words) for part, repeats, words in parts] or [_subset(here, suffix)]
    return Dataset(
        path=folder,
        caption_extension=suffix,
        subsets=tuple(subset for subset in subsets if subset.pictures or len(subsets) == 1),
        loose=tuple(here.pictures) if parts else (),
    )


def list_datasets(folder: str | os.PathLike[str], *, caption_extension: str = ".txt") -> tuple[DatasetEntry, ...]:
    """The data sets in a folder, one per subfolder, by name; () where there is no such folder.

    Cheap: only names are read. Raises `SettingError` for an impossible caption extension.
    """
    suffix = caption_suffix(caption_extension)
    try:
        entries = _entries(Path(folder).absolute())
    except (OSError, ValueError):
        return ()
    return tuple(_entry(path, suffix) for path, kind in entries if kind == "folder")


def _entry(folder: Path, suffix: str) -> DatasetEntry:
    try:
        here, parts = _layout(folder)
    except OSError:
        pictures = captions = 0
    else:
        files = [part for part, _, _ in parts] or [here]
        pictures = sum(len(part.pictures) for part in files)
        captions = sum(len(part.captions_of(suffix)) for part in files)
    state: State = "partly_captioned"
    if not pictures:
        state = "empty"
    elif not captions:
        state = "uncaptioned"
    elif captions == pictures:
        state = "ready"
    return DatasetEntry(name=printable(folder.name), path=folder, pictures=pictures, captions=captions, state=state)


Kind = Literal["file", "folder", "neither"]
""" "neither" is a link that leads nowhere, a pipe, a socket: nothing to be opened."""


@frozen
class _Files:
    """The names in one folder, sorted by what they are to a training."""

    folder: Path
    pictures: list[Path]
    others: list[Path]
    folders: list[Path]

    def captions_of(self, suffix: str) -> dict[Path, Path]:
        """The caption file of each picture that has one: of the picture's stem; upper and lower case count where both
        are there."""
        exact = {file.name: file for file in self.others}
        any_case = {file.name.casefold(): file for file in self.others}
        found = {
            picture: exact.get(picture.stem + suffix) or any_case.get((picture.stem + suffix).casefold())
            for picture in self.pictures
        }
        return {picture: file for picture, file in found.items() if file}


def _layout(folder: Path) -> tuple[_Files, list[tuple[_Files, int, str]]]:
    """What lies in the folder itself, and its `<repeats>_<words>` subfolders where one of them has pictures."""
    here = _files(folder)
    parts = []
    for sub in here.folders:
        match = re.fullmatch(r"([0-9]{1,5})_(.*)", sub.name, re.DOTALL)
        if match and int(match[1]) > 0:
            try:
                parts.append((_files(sub), int(match[1]), printable(match[2]).strip()))
            except OSError:
                continue  # a folder that may not be listed cannot be trained on either
    return here, parts if any(part.pictures for part, _, _ in parts) else []


def _files(folder: Path) -> _Files:
    files = _Files(folder, [], [], [])
    for path, kind in _entries(folder):
        if kind == "folder":
            files.folders.append(path)
        elif path.suffix.lower() in PICTURES:
            files.pictures.append(path)
        elif kind == "file":
            files.others.append(path)
    return files


def _entries(folder: Path) -> list[tuple[Path, Kind]]:
    """What lies in a folder, by name, without hidden entries (sd-scripts' pattern leaves them out, too)."""
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    return [(folder / entry.name, _kind(entry)) for entry in entries]


def _kind(entry: os.DirEntry[str]) -> Kind:
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "neither"
    except OSError:  # links in a circle
        return "neither"


def _subset(files: _Files, suffix: str, repeats: int | None = None, class_tokens: str = "") -> Subset:
    captions = files.captions_of(suffix)
    used = set(captions.values())
    return Subset(
        folder=files.folder,
        repeats=repeats,
        class_tokens=class_tokens,
        pictures=tuple(_picture(path, captions.get(path)) for path in files.pictures),
        stray_captions=tuple(p for p in files.others if p.suffix.lower() == suffix.lower() and p not in used),
        caches=_of(files.others, {".npz"}),
        ignored=_of(files.others, OTHER_PICTURES),
    )


def _of(files: Iterable[Path], endings: Collection[str]) -> tuple[Path, ...]:
    return tuple(file for file in files if file.suffix.lower() in endings)


def _picture(path: Path, caption_path: Path | None) -> Picture:
    header = None
    try:
        if path.is_file():  # opening a pipe would wait for ever
            with path.open("rb") as file:
                header = read_header(file)
    except OSError:
        pass  # no header: it cannot be read
    caption = _caption(caption_path) if caption_path else None
    if header is None:
        return Picture(path=path, caption_path=caption_path, caption=caption)
    return Picture(
        path=path,
        format=header.format,
        width=header.width,
        height=header.height,
        seen=header.seen,
        rotated=header.rotated,
        caption_path=caption_path,
        caption=caption,
    )


def _caption(path: Path) -> str | None:
    """A caption's text with plain line ends and without byte order mark; None where it is no UTF-8 text."""
    try:
        with path.open("rb") as file:
            content = file.read(CAPTION_LIMIT + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if len(content) > CAPTION_LIMIT or "\0" in text:  # zero bytes: UTF-16
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")
