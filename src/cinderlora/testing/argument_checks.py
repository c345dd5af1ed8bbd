"""Whether what `build_args` writes reaches the script as it was meant."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cinderlora.adapter import Adapter
from cinderlora.sd_scripts.arguments import argument_problems
from cinderlora.sd_scripts.config import misread, setting_problems
from cinderlora.sd_scripts.reserved import OURS
from cinderlora.serial import toml_text
from cinderlora.testing.checking import Subject, calling, fail, skip
from cinderlora.types import Job, ModelFile

__all__ = ["arguments_are_known_to_the_script", "arguments_survive_being_read_as_toml"]

# What the core says itself and relies on: a run would not find its files, or nothing would be drawn.
_THE_CORES = {**OURS, "sample_prompts": "sample_prompt"}

# What jobs differ by, so that an adapter may answer differently.
_WISHES: tuple[dict[str, Any], ...] = (
    {},
    {"train_text_encoder": True, "cache_text_encoders": False},
    {"cache_latents": False, "sample_every": 0, "save_every": 0},
    {"resolution": 1024, "fp8_base": True},
    {"mixed_precision": "fp16", "network_module": "lycoris.kohya"},
)


def arguments_are_known_to_the_script(subject: Subject) -> None:
    unknown, asked = [], 0
    for adapter in subject.adapters():
        script, known = adapter.type.script, subject.known_arguments(adapter)
        for job, why in _jobs(subject, adapter):
            args = _args(adapter, job, why)
            for key, instead in _THE_CORES.items():
                if key in args:
                    there = f" ({instead})" if instead else ""
                    fail(f"build_args writes {key}, which is the core's{there}: leave it out.")
            if known is None:
                continue
            wrong = [*argument_problems(script, args, known)]
            if job.preset and adapter.type.trainer == "sd-scripts":
                # Everything that the script will get, not just what is the model's own.
                wrong += setting_problems(adapter.type, job, args, known)
            errors = [problem for problem in wrong if problem.severity == "error"]
            if errors:
                fail(f"build_args{why}: {' '.join(map(str, errors))}")
        if known is None:
            unknown.append(script)
        else:
            asked += 1
    if not asked:
        skip(
            f"nothing is known of what {', '.join(unknown)} takes. Give a checkout of the trainer (checkout=FOLDER, or "
            "--checkout FOLDER), or a JSON file of its arguments (arguments=FILE)"
        )


def _jobs(subject: Subject, adapter: Adapter) -> Iterator[tuple[Job, str]]:
    """Jobs of all presets and wishes, each with the words that name it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {c.role: ModelFile(path=folder / "models ü" / f"{c.role}.safetensors", role=c.role)
                  for c in adapter.type.components}  # fmt: skip
        for preset in (None, *adapter.presets):
            said = f" for preset {preset!r}" if preset else ""
            yield subject.job(adapter, folder, preset).evolve(models=models), said
        for wish in _WISHES:
            words = ", ".join(f"{key}={value!r}" for key, value in wish.items())
            yield subject.job(adapter, folder, **wish).evolve(models=models), f" with {words}" if words else ""


def _args(adapter: Adapter, job: Job, why: str) -> Mapping[str, Any]:
    with calling("build_args", why):
        args = adapter.build_args(job)
        again = adapter.build_args(job)
    strange = [key for key in args if not isinstance(key, str)]
    if strange:
        fail(f"build_args writes the key {strange[0]!r}: keys are the trainer's own names, as texts.")
    if args != again:
        fail(f"build_args{why} says something else each time: make it depend on nothing but the job.")
    return args


def arguments_survive_being_read_as_toml(subject: Subject) -> None:
    for adapter in subject.adapters():
        for job, why in _jobs(subject, adapter):
            for key, value in _args(adapter, job, why).items():
                _survives(key, value, why)


def _survives(key: str, value: Any, why: str) -> None:
    if value is None or value is False:
        return  # left out, which says the same
    if isinstance(value, Mapping):
        fail(f"build_args{why} writes {key} = {value!r}: a script's argument is no table. Use a list of 'name=value'.")
    plain = list(value) if isinstance(value, tuple) else value
    try:
        text = toml_text({"training": {key: plain}})
    except (TypeError, ValueError) as error:
        fail(
            f"build_args{why} writes {key} = {value!r}, which TOML cannot say ({error}). Use texts, numbers, true, and "
            "lists of one of these."
        )
    expected = tomllib.loads(text)["training"][key]
    found = _read(text, key, expected)
    if found != expected or type(found) is not type(expected):
        fail(
            f"build_args{why} writes {key} = {value!r}, and the trainer's reader (toml 0.10.2) makes {found!r} of it. "
            "Write it in another way."
        )


def _read(text: str, key: str, expected: Any) -> Any:
    """What toml 0.10.2, sd-scripts' reader, makes of a value; where it is not installed, what it is known to do."""
    try:
        import toml
    except ImportError:
        return "another value" if _is_misread(expected) else expected
    try:
        return toml.loads(text)["training"][key]
    except Exception as error:  # it raises whatever comes up: IndexError, TypeError, ...
        return error


def _is_misread(value: Any) -> bool:
    """Besides what `misread` knows: it refuses lists of several types."""
    return misread(value) or (isinstance(value, list) and len({type(item) for item in value}) > 1)
