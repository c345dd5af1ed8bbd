"""What the log around an exception adds to a diagnosis: which file, which component, which setting. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import define

from cinderlora.sd_scripts.failure_rules import package
from cinderlora.sd_scripts.tracebacks import Raised, raised_in
from cinderlora.types import Failure

__all__ = ["Case", "complete", "groups", "last"]

_CACHE_FILE = re.compile(r"Error loading file: (?P<path>.+\.npz)$")
_PICTURE_FILE = re.compile(r"Error loading file: (?P<file>.+)$")
_PICTURE_SIZE = re.compile(r"failed to get image size: (?P<file>.+), error: ")
_MODEL_FILE = re.compile(r"(?:from|checkpoint:?|weights) (?P<path>\S.*\.(?:safetensors|sft|ckpt|pth?))$")
_CONFIG_FILE = re.compile(r"^Loading (?:settings|dataset config) from (?P<path>.+?)(?:\.\.\.)?$")
_SAVING = re.compile(r"^saving checkpoint: (?P<path>.+)$")
_NETWORK_MODULE = re.compile(r"^import network module: (?P<module>\S+)$")
_MODULES = re.compile(r"^enable LoRA for U-Net: (?P<modules>[0-9]+) modules")
_LOADED = re.compile(r"^Loaded (?P<component>[\w-]+): (?P<how>.*)$")
_NOT_LOADED = "_IncompatibleKeys(missing_keys=['"
_ALWAYS_MISSING = _NOT_LOADED + "encoder.embed_tokens.weight']"  # T5XXL shares it with another of its own
_STATE_DICT = re.compile(r"^Loading state dict from (?P<path>.+)$")
_VAE_FILE = re.compile(r"^(?:Loading VAE from|load VAE:) (?P<path>.+?)(?:\.\.\.)?$")
_NOT_INCLUDED = re.compile(r"(?P<role>\w+) is not included in the checkpoint")

# The functions that load a component, as they stand in tracebacks.
_LOADERS = (("t5xxl", "T5XXL"), ("clip_l", "CLIP-L"), ("clip_g", "CLIP-G"), ("load_ae", "AE"), ("load_vae", "VAE"))
# What reads pictures and caches, as it stands in tracebacks.
_READERS = ("np.load", "load_image(", "numpy/lib")


@define
class Case:
    """An exception that a rule knows, while a diagnosis is made of it."""

    failure: Failure
    raised: Raised
    code: str
    params: dict[str, Any]
    evidence: list[str]
    changes: Mapping[str, Any]

    @property
    def before(self) -> tuple[str, ...]:
        """The lines up to the exception, its traceback among them."""
        return self.failure.lines[: self.raised.end]

    def look_back(self, *patterns: re.Pattern[str], within: int = 200) -> None:
        """Take parameters and evidence from the newest line before that matches."""
        found = last(self.before[-within:], *patterns)
        if found is not None:
            self.params.update(found.groupdict())
            self.evidence.insert(0, found.string)


def complete(case: Case) -> None:
    """Add what is found; for some exceptions the lines before decide what failed."""
    reads = any(reader in case.raised.trace for reader in _READERS)
    detail = _reading if reads else _DETAILS.get(case.code)
    if detail is not None:
        detail(case)


def _reading(case: Case) -> None:
    # A picture and a cache fail alike; the line before says which file it was.
    file = last(case.before[-60:], _PICTURE_FILE)
    if file is not None and _CACHE_FILE.match(file.string):
        case.code = "cache_corrupt"
    if case.code == "cache_corrupt":
        case.look_back(_CACHE_FILE)
    elif case.code == "image_unreadable" and "file" not in case.params:
        case.look_back(_PICTURE_FILE, _PICTURE_SIZE)


def _gpu_memory(case: Case) -> None:
    case.params.update(_amounts(case.raised.text))
    if others := case.failure.gpu_others or _others(case.raised.text):
        case.params["programs"] = others
    case.changes = _less_memory(case.failure)


def _amounts(text: str) -> dict[str, str]:
    amount = r"([0-9.]+ ?[KMGT]iB)"
    tried = re.search(rf"Tried to allocate {amount}", text)
    total = re.search(rf"total capaci?ty of {amount}|{amount} total capacity", text)  # torch 2.1's spelling
    return {
        **({"tried": tried[1]} if tried else {}),
        **({"total": total[1] or total[2]} if total else {}),
    }


def _others(text: str) -> tuple[str, ...]:
    """The other processes that PyTorch knows of on the card. In a container it takes itself for one of them."""
    if "this process has" not in text:
        return ()
    found = re.findall(r"Process ([0-9]+) has ([0-9.]+ [KMG]iB) memory in use", text)
    return tuple(f"process {pid}, {amount}" for pid, amount in found)


def _less_memory(failure: Failure) -> Mapping[str, Any]:
    """The next thing to give up, cheapest first; nothing where the settings are not known."""
    s = failure.settings
    if s is None:
        return {}
    if failure.phase == "sampling":
        return {"sample_every": 0}
    if s.gradient_checkpointing is False:
        return {"gradient_checkpointing": True}
    if (s.batch_size or 1) > 1:
        return {"batch_size": 1}
    if s.fp8_base is False:
        return {"fp8_base": True}
    if s.blocks_to_swap is not None and s.blocks_to_swap < 34:
        # Where that is more than the model has, the trainer refuses it and names the most, the next change to make.
        return {"blocks_to_swap": min(s.blocks_to_swap + 8, 35)}
    if (s.resolution or 0) > 512:
        return {"resolution": max(512, (s.resolution or 0) - 256)}
    if (s.network_dim or 0) > 8:
        return {"network_dim": (s.network_dim or 0) // 2}
    if (s.resolution or 0) > 256:
        return {"resolution": max(256, (s.resolution or 0) - 128)}
    return {}


def _driver(case: Case) -> None:
    if version := case.params.pop("version", ""):  # 12040 is 12.4
        case.params["cuda"] = f"{int(version) // 1000}.{int(version) % 1000 // 10}"


def _configuration(case: Case) -> None:
    if "path" not in case.params:
        case.look_back(_CONFIG_FILE)


def _data_set_key(case: Case) -> None:
    if "key" in case.params:
        case.params["key"] = re.sub(r"\['(.+?)'\]", r".\1", case.params["key"]).removeprefix(".")


def _disk(case: Case) -> None:
    case.look_back(_SAVING, within=20 + case.raised.end - case.raised.begin)


def _model_file(case: Case) -> None:
    if case.raised.begin > 0:
        # Only the line right before speaks of this file for certain.
        line = case.failure.lines[_beginning(case.failure.lines, case.raised)]
        case.params.update(groups(_MODEL_FILE.search(line)))


def _beginning(lines: tuple[str, ...], raised: Raised) -> int:
    """The line before the first traceback of those that belong together."""
    at = raised.begin
    for one in reversed(raised_in(lines[: raised.end])):
        if one.end < at and all(line.startswith(("During", "The above")) for line in lines[one.end + 1 : at]):
            at = one.begin
    return max(at - 1, 0)


def _missing_file(case: Case) -> None:
    case.params.setdefault("path", case.params.pop("repo", ""))
    case.params["role"] = _role(case.raised) or "Base model"


def _missing_component(case: Case) -> None:
    case.params["model_type"], case.params["role"] = case.failure.model_type, _role(case.raised)
    if not case.params["role"]:
        case.look_back(_NOT_INCLUDED)
        case.params["role"] = str(case.params["role"]).upper() or "VAE / text encoder"


def _role(raised: Raised) -> str:
    calls = raised.trace.lower()
    return next((role for name, role in _LOADERS if name in calls), "")


def _component_not_loaded(case: Case) -> None:
    if "component" in case.params:  # a VAE
        case.look_back(_VAE_FILE)
        if "path" not in case.params:  # it was looked for in the base model
            case.code = "component_missing"
            case.params.update(model_type=case.failure.model_type, role=case.params["component"])
    elif role := _role(case.raised):
        case.params["component"] = role
        case.look_back(_STATE_DICT)
    else:
        found, lines = _not_loaded(case.before)
        case.params.update(found)
        case.evidence[:0] = lines


def _not_loaded(lines: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The components whose weights were not in their files, with the files, and the lines that say so."""
    components, paths, evidence, path = [], [], [], ""
    for line in lines:
        file, loaded = _STATE_DICT.match(line), _LOADED.match(line)
        if file is not None:
            path = file["path"]
        elif loaded is not None:
            if loaded["how"].startswith(_NOT_LOADED) and not loaded["how"].startswith(_ALWAYS_MISSING):
                components.append(loaded["component"])
                paths += [path] if path else []
                evidence.append(line)
            path = ""
    return {"component": ", ".join(components), "path": ", ".join(paths)}, evidence


def _network_module(case: Case) -> None:
    if "module" not in case.params:
        case.look_back(_NETWORK_MODULE)
    case.changes = {"network_module": None}


def _nothing_to_train(case: Case) -> None:
    case.look_back(_MODULES)
    case.look_back(_NETWORK_MODULE)
    if "modules" in case.params:
        of_module = {"network_module": None, "network_args": None}
        case.changes = of_module if case.params["modules"] == "0" else {"learning_rate": None}


def _missing_package(case: Case) -> None:
    case.params["package"] = package(case.params["package"])


_DETAILS: dict[str, Callable[[Case], None]] = {
    "cache_corrupt": _reading,
    "image_unreadable": _reading,
    "cuda_out_of_memory": _gpu_memory,
    "driver_too_old": _driver,
    "config_unreadable": _configuration,
    "dataset_config_invalid": _data_set_key,
    "disk_full": _disk,
    "model_file_truncated": _model_file,
    "model_file_unreadable": _model_file,
    "model_file_missing": _missing_file,
    "component_missing": _missing_component,
    "component_not_loaded": _component_not_loaded,
    "wrong_network_module": _network_module,
    "nothing_to_train": _nothing_to_train,
    "missing_package": _missing_package,
}


# ---- lines -----------------------------------------------------------------------------------------------------------


def last(lines: Iterable[str], *patterns: re.Pattern[str]) -> re.Match[str] | None:
    """The newest line that matches one of the patterns."""
    for line in reversed(tuple(lines)):
        for pattern in patterns:
            found = pattern.search(line)
            if found is not None:
                return found
    return None


def groups(found: re.Match[str] | None) -> dict[str, Any]:
    """The named groups of a match that have something in them."""
    return {} if found is None else {name: value for name, value in found.groupdict().items() if value}
