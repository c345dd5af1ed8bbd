"""Sample prompts, whose options are settings here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cinderlora.importing.data import Entry
from cinderlora.importing.work import Work

__all__ = ["take_prompts"]

_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "w": ("resolution", int),
    "h": ("resolution", int),
    "d": ("seed", int),
    "s": ("sample_steps", int),
    "l": ("sample_scale", float),
    "g": ("sample_guidance", float),
}


def take_prompts(work: Work) -> None:
    """The first prompt, its options as settings where they are ones. Of size and seed, which settings of the training
    stand for, only what differs stays in the prompt."""
    prompts = [line for line in work.reading.prompts if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        return
    if len(prompts) > 1:
        work.reading.problem("import_several_prompts", count=len(prompts))
    text, *options = prompts[0].strip().split(" --")
    entry = Entry(prompts[0], "sample_prompts", prompts[0])
    for option in options:
        name, _, value = option.partition(" ")
        setting, kind = _OPTIONS.get(name, ("", str))
        try:
            number = kind(value.strip())
        except ValueError:
            setting = ""
        if setting in {"resolution", "seed"} and number == work.settings.get(setting):
            continue
        if setting in {"", "resolution", "seed"} or setting in work.settings:
            text = f"{text} --{option}"
        else:
            work.settings[setting] = number
    work.put(entry, "sample_prompt", text)
