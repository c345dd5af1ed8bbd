"""The page of the settings, from their types, their docstrings and the files that are written for sd-scripts."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

from cinderlora import Job, Registry, SettingInfo, Settings
from cinderlora.adapter import DEFAULTS
from cinderlora.sd_scripts.config import dataset_keys, prompt_lines, training_table
from cinderlora.types import SETTINGS

HEAD = """# Settings

What `adapter.job(...)`, a `Preset`, a job file and the options of `cinderlora train` take. None means unset: the
preset's base, then the model type, then sd-scripts decides. 0 and False are values. A value outside its bounds is an
error of `check`, one outside the range that forms offer a warning. Programs get the same from `adapter.settings()`.
Made from `cinderlora.types` by `python docs/make_pages.py`.

Behind the arrow stands what it is called in the files for sd-scripts: in the training TOML, the data-set TOML or the
line of the sample prompt.
"""

_ELSEWHERE = {
    "caption_extension": "`caption_extension` (data set)",
    "repeats": "`num_repeats` (data set)",
    "copy_to": "none, it is done after the training",
    "hard_links": "none, it is done after the training",
    "models_sidecar": "none, it is done after the training",
}
"""What stands in parts of the data-set file that are made of the pictures."""


def page() -> str:
    described = descriptions()
    return "\n".join([HEAD, *(section(info, described.get(info.name, "")) for info in SETTINGS.values())])


def section(info: SettingInfo, description: str) -> str:
    return f"## {info.name}\n\n{description}\n\n{values(info)} → {arguments(info)}\n"


def descriptions() -> dict[str, str]:
    """The docstrings under the fields of `Settings`."""
    (definition,) = (node for node in ast.parse(inspect.getsource(Settings)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, text in pairwise(definition.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = " ".join(words.split())
    return found


def values(info: SettingInfo) -> str:
    """Its type, bounds, choices, the range that forms offer, and the default."""
    several = 'texts, each "key=value"' if info.name.endswith("_args") else "texts"
    kind = {"str": "text", "strs": several, "bool": "yes or no", "table": "table"}.get(info.kind)
    said = [kind or {"int": "whole number", "float": "number"}[info.kind]]
    if info.choices:
        said.append(", ".join(f"`{choice}`" for choice in info.choices))
    if info.minimum is not None and info.maximum is not None:
        said.append(f"{number(info.minimum)} to {number(info.maximum)}")
    elif info.minimum is not None:
        said.append(f"at least {number(info.minimum)}")
    if info.low is not None and info.high is not None:
        step = f" in steps of {number(info.step)}" if info.step else ""
        said.append(f"forms offer {number(info.low)} to {number(info.high)}{step}")
    default = getattr(DEFAULTS, info.name)
    if default not in (None, {}):
        said.append(f"default `{default}`")
    return " · ".join(said)


def number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


# ---- what it is called in sd-scripts ---------------------------------------------------------------------------------


def arguments(info: SettingInfo) -> str:
    """The arguments that take it, found by changing it and looking at what is written."""
    if info.name == "extra":
        return "any"
    if info.name in _ELSEWHERE:
        return _ELSEWHERE[info.name]
    before = written(DEFAULTS)
    for value in probes(info):
        after = written(Settings(**{info.name: value}).over(DEFAULTS))
        mark = str(value[0] if isinstance(value, tuple) else value)
        changed = [key for key in after if after[key] != before.get(key)]
        own = [key for key in changed if info.kind == "bool" or mark in str(after[key])]
        off = [key for key in before if key not in after]
        if own or off:
            return ", ".join(own) or ", ".join(f"{key}: the opposite" if value else key for key in off)
    raise ValueError(f"{info.name} changes nothing that is written")


def probes(info: SettingInfo) -> tuple[Any, ...]:
    """Values that can be found again in what is written."""
    known: dict[str, Any] = {"int": (448,), "float": (0.40625,), "bool": (True, False), "strs": (("probe=448",),)}
    return info.choices or known.get(info.kind, ("probe448",))


def written(settings: Settings) -> dict[str, Any]:
    """What stands in the three files of a job, by the trainer's names."""
    sdxl = Registry.from_installed()["sdxl"].type
    job = Job(model_type="sdxl", name="elena", trigger="elena", dataset="d", output=Path("o"), settings=settings)
    training = training_table(sdxl, job, {}, None, dataset_config="d", sample_prompts="p")
    _, *options = prompt_lines(job).split(" --")
    prompt = {f"`--{option.split()[0]}` (prompt)": option.split()[1] for option in options}
    if prompt_lines(job).split(" --")[0] != prompt_lines(Job(**_of(job, DEFAULTS))).split(" --")[0]:
        prompt["the prompt file"] = prompt_lines(job)
    return {
        **{f"`{key}`": value for key, value in training.items()},
        **{f"`{key}` (data set)": value for key, value in dataset_keys(job).items()},
        **prompt,
    }


def _of(job: Job, settings: Settings) -> dict[str, Any]:
    names = ("model_type", "name", "trigger", "dataset", "output")
    return {name: getattr(job, name) for name in names} | {"settings": settings}
