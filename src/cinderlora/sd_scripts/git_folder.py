"""What a checkout's `.git` says of its commit and version: read from its files, without running git."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["commit_of", "tags_at", "version_of"]

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH = re.compile(r"refs/[\w.@+/-]+")
_VERSION_TAG = re.compile(r"v?(\d+\.\d+(?:\.\d+)*)")
_VERSION_TEXT = re.compile(r"\bVersion (\d+\.\d+\.\d+)\b")
_LIMIT = 1 << 22  # bytes; what is larger is no file of git's that is read here


class _GitFolder(NamedTuple):
    own: Path
    """Where HEAD is."""
    common: Path
    """Where branches, tags and objects are: another folder for a worktree."""


def commit_of(folder: Path) -> str | None:
    """The commit that a folder has checked out; None where that cannot be told."""
    git = _git_folder(folder)
    if git is None:
        return None
    head = _text(git.own / "HEAD")
    name = head.removeprefix("ref: ")
    if name != head:
        head = _resolved(git, name) or ""
    return head if _COMMIT.fullmatch(head) else None


def tags_at(folder: Path, commit: str) -> list[str]:
    """The tags that name a commit. Of an annotated tag, git's own note or the loose object tells which it means."""
    git = _git_folder(folder)
    if git is None:
        return []
    tags = _packed_tags(git)
    root = git.common / "refs/tags"
    with suppress(OSError):
        for path in root.rglob("*"):
            if path.is_file() and not path.name.endswith(".lock"):
                value = _text(path)
                tags[path.relative_to(root).as_posix()] = _tagged(git, value) or value
    return sorted(name for name, value in tags.items() if value == commit)


def version_of(folder: Path) -> str | None:
    """The version of a checkout, e.g. "0.10.1": that of a tag on its commit, else the newest its README speaks of.

    The README of sd-scripts lists its versions, the newest first; between two releases it still names the older one.
    """
    commit = commit_of(folder)
    for tag in reversed(tags_at(folder, commit)) if commit else ():
        if version := _VERSION_TAG.fullmatch(tag):
            return version[1]
    told = _VERSION_TEXT.search(_text(folder / "README.md"))
    return told[1] if told else None


def _git_folder(folder: Path) -> _GitFolder | None:
    own = folder / ".git"
    if own.is_file():  # a submodule or a worktree: "gitdir: PATH"
        own = folder / _text(own).partition(":")[2].strip()
    if not (own / "HEAD").is_file():
        return None
    shared = _text(own / "commondir")
    return _GitFolder(own, own / shared if shared else own)


def _resolved(git: _GitFolder, name: str) -> str | None:
    # The name comes out of a file: it must not lead to just any other file.
    if not _BRANCH.fullmatch(name) or ".." in name:
        return None
    loose = _text(git.common / name)
    if loose:
        return loose
    return next((value for value, packed in _packed(git) if packed == name), None)


def _packed(git: _GitFolder) -> Iterator[tuple[str, str]]:
    """The pairs of packed-refs, as they stand there: a value and a name; "^value" and nothing for what a tag means."""
    for line in _text(git.common / "packed-refs").splitlines():
        if not line.startswith("#"):
            value, _, name = line.partition(" ")
            yield value, name


def _packed_tags(git: _GitFolder) -> dict[str, str]:
    tags: dict[str, str] = {}
    newest = ""
    for value, name in _packed(git):
        if value.startswith("^"):
            if newest:
                tags[newest] = value[1:]
        else:
            newest = name.removeprefix("refs/tags/") if name.startswith("refs/tags/") else ""
            if newest:
                tags[newest] = value
    return tags


def _tagged(git: _GitFolder, value: str) -> str | None:
    """The commit that an annotated tag means, where its object lies loose; None for anything else."""
    if not _COMMIT.fullmatch(value):
        return None
    try:
        data = (git.common / "objects" / value[:2] / value[2:]).read_bytes()
        text = zlib.decompressobj().decompress(data, 4096).decode("utf-8", "replace")
    except (OSError, zlib.error):
        return None
    kind, _, body = text.partition("\0")
    return body.removeprefix("object ").partition("\n")[0] if kind.startswith("tag ") else None


def _text(path: Path) -> str:
    """A file's text without white space around it; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace").strip()
    except OSError:
        return ""
