"""Read a data set: pictures, their sizes and captions, and what else lies there. Nothing is ever written.

Layouts: a flat folder; Kohya's `<repeats>_<words>` subfolders, each a subset with repeats of its own; or a TOML file in
sd-scripts' form that tells the folders.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import attrs
from attrs import frozen

from cinderlora.dataset.data import (
    OTHER_PICTURES,
    OWN_FILE,
    PICTURES,
    Dataset,
    DatasetEntry,
    Picture,
    State,
    Subset,
    caption_suffix,
    printable,
)
from cinderlora.dataset.headers import foreign_format, read_header
from cinderlora.dataset.own_file import read_own_file
from cinderlora.problems import Problem

__all__ = ["list_datasets", "read_dataset"]

TEXT_LIMIT = 1 << 20
"""Bytes: what is longer is no caption."""
CAPTIONS = (".txt", ".caption", ".captions", ".cap", ".tags", ".text")
"""What caption files are called by the programs that write them."""


def read_dataset(path: str | os.PathLike[str], caption_extension: str = ".txt") -> Dataset:
    """What lies there: headers of pictures and captions are read, nothing else is opened. `problems` of the result are
    those of a data set's own file.

    Raises `OSError` where it cannot be listed, and `SettingError` for an impossible caption extension.
    """
    suffix = caption_suffix(caption_extension)
    place = Path(path).absolute()
    if place.suffix.lower() == OWN_FILE and not place.is_dir():
        return _described(place, suffix)
    here, parts = _layout(place)
    subsets = [_subset(part, suffix, repeats, words) for part, repeats, words in parts] or [_subset(here, suffix)]
    return Dataset(
        path=place,
        layout="repeats" if parts else "flat",
        caption_extension=suffix,
        subsets=tuple(subset for subset in subsets if subset.pictures or len(subsets) == 1),
        loose=tuple(here.pictures) if parts else (),
    )


def _described(file: Path, suffix: str) -> Dataset:
    """The data set that a TOML file describes; `caption_extension` is for the subsets that it names none for."""
    described = read_own_file(file)
    problems = list(described.problems)
    subsets = []
    for part in described.subsets:
        try:
            files = _files(part.folder)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            params = {"where": part.where, "folder": printable(str(part.folder)), "why": why}
            problems.append(Problem("dataset_folder_missing", params))
            continue
        if not files.pictures:
            params = {"where": part.where, "folder": printable(str(part.folder))}
            problems.append(Problem("dataset_folder_empty", params, "warning"))
        extension = part.caption_extension or suffix
        subsets.append(_subset(files, extension, part.repeats, printable(part.class_tokens).strip()))
    return Dataset(
        path=file,
        layout="file",
        caption_extension=suffix,
        subsets=tuple(subset for subset in subsets if subset.pictures),
        asks=described.asks,
        problems=tuple(problems),
    )


def list_datasets(folder: str | os.PathLike[str], *, caption_extension: str = ".txt") -> tuple[DatasetEntry, ...]:
    """The data sets in a folder, one per subfolder, by name; () where there is no such folder.

    The Dataset Generator keeps them in `<ComfyUI>/output/character_training`; the folder `temp` that it moves earlier
    ones into is left out. Cheap: only names are read, and the generator's note of the character's name. Raises
    `SettingError` for an impossible caption extension.
    """
    suffix = caption_suffix(caption_extension)
    try:
        entries = _entries(Path(folder).absolute())
    except (OSError, ValueError):
        return ()
    found = [_entry(path, suffix) for path, kind in entries if kind == "folder"]
    return tuple(entry for entry in found if entry.pictures or entry.path.name != "temp")


def _entry(folder: Path, suffix: str) -> DatasetEntry:
    parts: Sequence[tuple[_Files, int, str]] = ()
    try:
        here, parts = _layout(folder)
    except OSError:
        pictures = captions = 0
    else:
        files = [part for part, _, _ in parts] or [here]
        pictures = sum(len(part.pictures) for part in files)
        captions = sum(len(part.captions_of(suffix)) for part in files)
    words = next((words for part, _, words in parts if part.pictures and words), "")
    name = printable(folder.name)
    trigger = _noted_name(folder) or words or name
    state: State = "partly_captioned"
    if not pictures:
        state = "empty"
    elif not captions:
        state = "uncaptioned"
    elif captions == pictures:
        state = "ready"
    return DatasetEntry(name=name, path=folder, pictures=pictures, captions=captions, state=state, trigger=trigger)


def _noted_name(folder: Path) -> str:
    """The character's name in the Dataset Generator's `metadata.json`; "" where there is none."""
    text = _text(folder / "metadata.json")
    try:
        name = json.loads(text)["character_name"] if text else ""
    except (ValueError, LookupError, TypeError, RecursionError):  # another program's, of another form
        return ""
    return name.strip() if isinstance(name, str) and name.isprintable() else ""


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
    others = {file.name.casefold(): file for file in files.others} if len(captions) < len(files.pictures) else {}
    pictures = []
    for path in files.pictures:
        caption = captions.get(path)
        picture = _picture(path, caption)
        if caption is None:
            named = (others.get((path.stem + ending).casefold()) for ending in CAPTIONS)
            lender = others.get(("_".join(path.stem.split("_")[:-4]) + suffix).casefold())
            picture = attrs.evolve(picture, other_caption=next(filter(None, named), None), lent_caption=lender)
        pictures.append(picture)
    return Subset(
        folder=files.folder,
        repeats=repeats,
        class_tokens=class_tokens,
        caption_extension=suffix,
        pictures=tuple(pictures),
        stray_captions=tuple(p for p in files.others if p.suffix.lower() == suffix.lower() and p not in used),
        caches=tuple(p for p in files.others if p.suffix.lower() == ".npz" or p.name == "metadata_cache.json"),
        ignored=_of(files.others, OTHER_PICTURES),
    )


def _of(files: Iterable[Path], endings: Collection[str]) -> tuple[Path, ...]:
    return tuple(file for file in files if file.suffix.lower() in endings)


def _picture(path: Path, caption_path: Path | None) -> Picture:
    header, size, foreign = None, 0, ""
    try:
        if path.is_file():  # opening a pipe would wait for ever
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = read_header(file)
                if header is None:
                    file.seek(0)
                    foreign = foreign_format(file.read(32))
    except OSError:
        pass  # no header: it cannot be read
    caption = _text(caption_path) if caption_path else None
    if header is None:
        return Picture(path=path, format=foreign, file_size=size, caption_path=caption_path, caption=caption)
    return Picture(
        path=path,
        format=header.format,
        file_size=size,
        width=header.width,
        height=header.height,
        seen=header.seen,
        rotated=header.rotated,
        animated=header.animated,
        transparent=None if header.alpha else False,
        grey16=header.grey16,
        caption_path=caption_path,
        caption=caption,
    )


def _text(path: Path) -> str | None:
    """A file's text with plain line ends and without byte order mark; None where there is none or it is no UTF-8."""
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_LIMIT + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if len(content) > TEXT_LIMIT or "\0" in text:  # zero bytes: UTF-16
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")
