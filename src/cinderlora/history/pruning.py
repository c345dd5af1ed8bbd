"""Removing the folders of runs that have ended. What they made lies in the output folder and stays."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal

import attrs
from attrs import field, frozen

from cinderlora.errors import RunNotFound
from cinderlora.frozendict import as_tuple
from cinderlora.running import supervisor
from cinderlora.running.folder import RunFolder, StateName
from cinderlora.running.starting import default_runs_folder

__all__ = ["Pruned", "Pruning", "prune_runs"]

_REMOVED = ".cinderlora-removed-"


@frozen(kw_only=True)
class Pruned:
    """A run that was looked at for `prune_runs`."""

    folder: Path
    name: str
    state: StateName
    ended: float | None
    """Seconds since the epoch."""
    bytes: int
    """What is gained on the disk: links, and what is linked to from elsewhere, count nothing."""
    kept: Literal["", "has_lora", "is_link", "failed"] = ""
    """Why it stays although the rules are met: a LoRA or checkpoint lies in it and nowhere else, the run folder is a
    link, or the system did not allow it. Empty: it goes, or has gone."""
    loras: tuple[Path, ...] = field(default=(), converter=as_tuple)
    """The LoRAs and checkpoints that it stays for."""
    why: str = ""
    """What the system said."""


@frozen(kw_only=True)
class Pruning:
    """What `prune_runs` did, or would do."""

    runs: tuple[Pruned, ...] = field(default=(), converter=as_tuple)
    """The ended runs that the rules are met by, newest first."""
    done: bool = False

    @property
    def going(self) -> tuple[Pruned, ...]:
        """Those that go, or have gone."""
        return tuple(run for run in self.runs if not run.kept)

    @property
    def bytes(self) -> int:
        """What is gained by that."""
        return sum(run.bytes for run in self.going)


def prune_runs(
    folder: Path | str | None = None,
    *,
    older_than: timedelta | float | None = None,
    keep: int | None = None,
    state: StateName | Collection[StateName] | None = None,
    model_type: str | None = None,
    name: str | None = None,
    delete: bool = False,
) -> Pruning:
    """Remove run folders, or with `delete` left False only say which and how many bytes that gains.

    Of the runs that have ended on record (in a `state`, of a `model_type`, of a `name` that fits a pattern), all but
    the newest `keep` go, and only those that ended longer ago than `older_than` (a `timedelta`, or seconds). One of
    `older_than`, `keep` and `state` has to be given.

    A run that goes on, or whose end nobody recorded, is never touched; LoRAs, checkpoints and samples in the output
    folder neither, and what is linked to from the run folder stays where it is. A run folder with a LoRA or checkpoint
    in it that is nowhere else stays and is named. Saved states of a resumed training, which lie in its run folder, go.
    Blocking.
    """
    if older_than is None and keep is None and state is None:
        raise TypeError("prune_runs needs a rule: older_than, keep or state")
    from cinderlora.running.listing import run_folders, selected

    root = Path(folder).expanduser() if folder is not None else default_runs_folder()
    seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
    found = selected(run_folders(root), state=state, model_type=model_type, name=name)
    ended = [run for run in found if _has_ended(run)][keep or 0 :]
    before = None if seconds is None else time.time() - seconds
    met = [run for run in ended if before is None or (run.ended or 0.0) < before]
    if delete:
        _clear(root)
    return Pruning(runs=[_prune(run, delete=delete) for run in met], done=delete)


def _has_ended(run: RunFolder) -> bool:
    """Whether its end is on record, and was seen: one that was lost may be looked into yet."""
    try:
        return run.ended is not None and run.state_name != "lost"
    except RunNotFound:
        return False


def _prune(run: RunFolder, *, delete: bool) -> Pruned:
    size, loras = _size(run.path), _only_here(run)
    about = Pruned(folder=run.path, name=run.heading.name, state=run.state_name, ended=run.ended, bytes=size)
    if run.path.is_symlink():
        return attrs.evolve(about, kept="is_link")
    if loras:
        return attrs.evolve(about, kept="has_lora", loras=loras)
    if delete:
        try:
            _remove(run.path)
        except OSError as error:
            return attrs.evolve(about, kept="failed", why=error.strerror or str(error))
    return about


def _size(folder: Path) -> int:
    """The bytes of what is only here. No link is followed."""
    size = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                there = (Path(here) / name).lstat()
                if there.st_nlink == 1:
                    size += getattr(there, "st_blocks", 0) * 512 or there.st_size
    return size


def _only_here(run: RunFolder) -> list[Path]:
    """The LoRAs and checkpoints that a resumed training wrote into its run folder, and that could not be put into the
    output folder, or are no longer there."""
    launch, state = run.launch, run.state()
    if not launch.output.resolve().is_relative_to(run.path.resolve()):
        return []
    found = []
    for path in sorted(launch.output.glob("*.safetensors")):
        name = None if state is None else state.published.get(path.name)
        copy = None if name is None or launch.publish is None else launch.publish / name
        with suppress(OSError):
            there = path.lstat()
            if there.st_nlink == 1 and (copy is None or not copy.is_file() or copy.stat().st_size != there.st_size):
                found.append(path)
    return found


def _remove(folder: Path) -> None:
    """Remove a run folder: all at once for everybody who looks, under another name, then in pieces."""
    if supervisor.is_supervised(str(folder)):
        raise BlockingIOError(None, "its supervisor is still there")
    gone = folder.with_name(f"{_REMOVED}{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone)  # does not follow links


def _clear(root: Path) -> None:
    """Remove what was left of an earlier call that was ended halfway."""
    for path in root.glob(f"{_REMOVED}*"):
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
