"""What a training with sd-scripts left to go on from, and what makes another one go on from there.

As seen on 48d368fa (v0.10.1): `resume=STATE` with `initial_step=0` and `max_train_steps` set to what is left trains
exactly that, and ends at 100 %. Without `initial_step` it skips whole epochs and ends somewhere short of it;
`skip_until_initial_step` loses steps where gradients are accumulated. Steps and file names begin at 0 again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cinderlora.problems import Problem
from cinderlora.running import supervisor
from cinderlora.trainers import Saved
from cinderlora.types import Resumption

__all__ = ["resumed_table", "saved_in", "table_warnings"]

OUTPUT = "output"
"""Where a resumed training writes, relative to its run folder."""

_STATE = "-state"
# What accelerate writes into the folder of a state, in this order. The log speaks of sampler.bin, too, which is not
# there, and the random states that it saves it cannot load under newer versions of torch: it goes on without them.
_PICKLES = ("optimizer.bin", "scheduler.bin", "random_states_0.pkl")


def saved_in(folder: Path, lora: str, names: Iterable[str], since: float, until: float) -> list[Saved]:
    """The states and checkpoints that a run wrote into a folder between two times, in seconds since the epoch.

    `lora` is the LoRA's file name, `names` are the checkpoints on record. Of a state nothing but JSON and safetensors
    is read: the rest are pickles, and only looked at from outside. Files of the same names that another training wrote
    are told by their times.
    """
    stem = Path(lora).stem

    def is_of_run(path: Path) -> bool:
        try:
            return since - supervisor.CLOCK_SLACK <= path.stat().st_mtime <= until + supervisor.CLOCK_SLACK
        except OSError:
            return False

    found = [
        _state(path, stem)
        for path in _folders(folder)
        if path.name.endswith(_STATE)
        and (path.name == stem + _STATE or supervisor.is_checkpoint(_weights(path.name), stem))
        and is_of_run(path / "train_state.json")
    ]
    for name in sorted(names):
        path = folder / name
        if name.endswith(".safetensors") and is_of_run(path):
            found.append(Saved(path, "weights", _step(path, stem), _is_sound(path)))
    return found


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return


def _weights(name: str) -> str:
    """What the weights are called that are saved with a state."""
    return f"{name.removesuffix(_STATE)}.safetensors"


def _state(path: Path, stem: str) -> Saved:
    try:
        told = json.loads((path / "train_state.json").read_bytes())["current_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        told = 0
    told = told if type(told) is int and told > 0 else 0
    named = _step_in(path.name.removesuffix(_STATE), stem)
    complete = (
        told > 0
        and named in {None, told}
        and _is_sound(path / "model.safetensors")
        and all(_is_closed(path / name) for name in _PICKLES)
    )
    return Saved(path, "state", told if named is None else named, complete)


def _is_sound(path: Path) -> bool:
    facts = supervisor.lora_facts(str(path), None, [])
    return bool(facts["complete"] and facts["finite"])


def _is_closed(path: Path) -> bool:
    """Whether a file of torch's was written to its end: it is a zip archive, and those have their directory there.
    Very old versions of torch wrote no archives."""
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
        return zipfile.is_zipfile(path) if is_archive else path.stat().st_size > 0
    except OSError:
        return False


def _step(path: Path, stem: str) -> int:
    """The step that a checkpoint was saved at: in its name, or else in its metadata."""
    from cinderlora.models.headers import read_header

    named = _step_in(path.stem, stem)
    if named is not None:
        return named
    told = read_header(path).metadata.get("ss_steps", "")
    return int(told) if told.isdecimal() and len(told) <= 12 else 0


def _step_in(name: str, stem: str) -> int | None:
    """The step in "cg_elena-step00000008"; epochs have no word before their number."""
    step = name.removeprefix(f"{stem}-step")
    return int(step) if step != name and step.isdecimal() and len(step) <= 12 else None


# ---- going on --------------------------------------------------------------------------------------------------------


def resumed_table(training: Mapping[str, Any], resumption: Resumption, steps: int) -> dict[str, Any]:
    """The training TOML of a job of so many steps in all, for going on with it."""
    changes: dict[str, Any] = {
        "output_dir": OUTPUT,
        "max_train_steps": steps - resumption.step,
        "max_train_epochs": None,  # goes over the steps
        "initial_epoch": None,
        "initial_step": None,
        "skip_until_initial_step": None,
        "resume": None,
    }
    if resumption.kind == "state":
        changes |= {"resume": str(resumption.path), "initial_step": 0}
    else:
        changes["network_weights"] = str(resumption.path)
        if isinstance(seed := training.get("seed"), int):
            # With the first run's seed it would see the first run's pictures, noise and timesteps over again.
            changes["seed"] = (seed + resumption.step) % 2**32
    return {key: value for key, value in {**training, **changes}.items() if value is not None}


def table_warnings(training: Mapping[str, Any]) -> Iterator[Problem]:
    """What will not go on as if nothing had been: the learning rate, where it depends on the step."""
    scheduler = training.get("lr_scheduler_type") or training.get("lr_scheduler", "constant")
    warms_up = bool(training.get("lr_warmup_steps"))
    if scheduler not in {"constant", "constant_with_warmup"} or (scheduler == "constant_with_warmup" and warms_up):
        yield Problem("resume_scheduler", {"scheduler": scheduler}, severity="warning")
