"""From what is known of a failed training to why it failed and what to do about it. Pure.

The exception that counts is often not the last line: bars are closed after it, the launcher adds a traceback of its
own, and an exception can be followed by 90 kB of tensor names. And exit code 0 does not mean that all is well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from cinderlora.problems import Diagnosis
from cinderlora.sd_scripts.failure_rules import RULES, Rule, package
from cinderlora.sd_scripts.tracebacks import Raised, cause_chain, raised_in
from cinderlora.types import Failure, Settings

__all__ = ["diagnose"]

_EVIDENCE_LENGTH = 1000  # characters of a line

# What can end a process by a signal too, or in one process of several.
_RESOURCE_CODES = ("cuda_out_of_memory", "host_out_of_memory", "disk_full", "gpu_unusable")
_RESOURCE_RULES = tuple(rule for rule in RULES if rule.code in _RESOURCE_CODES)

# Lines of the log that decide, whatever else is in it; the trainer stops itself there.
_DECISIVE = (
    ("dataset_empty", re.compile(r"^No data found\. Please verify arguments")),
    ("unknown_argument", re.compile(r"\.py: error: unrecognized arguments: (?P<argument>.+)$")),
    (
        "bad_setting",
        re.compile(r"\.py: error: argument (?P<setting>[^:]+): invalid \w+(?: value)?: '?(?P<value>[^' ]*)"),
    ),
    ("bad_setting", re.compile(r"\.py: error: (?P<why>.+)$")),
    ("trainer_not_found", re.compile(r"can't open file '(?P<script>.+)': \[Errno 2\]")),
)
_CONFIG_NOT_FOUND = re.compile(r"^(?P<path>\S.*\.toml) not found\.$")
_LAUNCHER_DIED = re.compile(r"died with <Signals\.(?P<signal>\w+): (?P<number>[0-9]+)>")
_NATIVE_CRASH = re.compile(r"^Fatal Python error|Segmentation fault|^terminate called after throwing")
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
_ALWAYS_MISSING = _NOT_LOADED + "encoder.embed_tokens"  # T5XXL shares it with another of its own
_STATE_DICT = re.compile(r"^Loading state dict from (?P<path>.+)$")
_VAE_FILE = re.compile(r"^(?:Loading VAE from|load VAE:) (?P<path>.+?)(?:\.\.\.)?$")
_NOT_INCLUDED = re.compile(r"(?P<role>\w+) is not included in the checkpoint")
_NO_PICTURES = (
    re.compile(r"ignore subset with image_dir='(?P<path>.+)': no images"),
    re.compile(r"not directory: (?P<path>.+)$"),
    re.compile(r"found directory (?P<path>.+) contains 0 image"),
)

_ERROR_LINE = re.compile(r"\bE(?:rror|RROR)\b|\berror:")

_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 9: "SIGKILL", 15: "SIGTERM"}
_CRASHES = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}
_WINDOWS = {0xC000013A: 2, 0xC0000005: 11, 0xC0000409: 6, 0xC000001D: 4}  # Ctrl-C, and ways to crash

# The functions that load a component, as they stand in tracebacks.
_LOADERS = (("t5xxl", "T5XXL"), ("clip_l", "CLIP_L"), ("clip_g", "CLIP_G"), ("load_ae", "AE"), ("load_vae", "VAE"))


def diagnose(failure: Failure) -> Diagnosis | None:
    """Why a training failed; None where nothing speaks of a failure.

    Where only a log is there to judge by (`failure.lora` is None), "model saved." stands for the LoRA.
    """
    raised = raised_in(failure.lines)
    signal = _signal(failure)
    if signal is not None:
        return _of_signal(failure, raised, *signal)
    if failure.exit_code == 0 and (failure.model_saved or (failure.lora is not None and failure.lora.good)):
        return _of_facts(failure)
    if failure.exit_code is None and failure.model_saved:
        return _of_facts(failure)
    found = _of_decisive_lines(failure) or _by_exceptions(failure, raised) or _of_other_lines(failure, raised)
    if found is not None:
        return found
    chain = cause_chain(raised)
    if failure.exit_code == 0:
        return _of_facts(failure) or _no_lora_written(failure)
    if failure.exit_code is None and not chain:
        return None  # for all that is known it may still be running
    return _unknown(failure, chain)


# ---- exceptions ------------------------------------------------------------------------------------------------------


def _by_exceptions(failure: Failure, raised: list[Raised], rules: Iterable[Rule] = RULES) -> Diagnosis | None:
    """By the last exception and those it came of; else by any that says that something ran out."""
    return _of_chain(failure, cause_chain(raised), rules) or _of_chain(failure, reversed(raised), _RESOURCE_RULES)


def _of_chain(failure: Failure, chain: Iterable[Raised], rules: Iterable[Rule]) -> Diagnosis | None:
    for raised in chain:
        for rule in rules:
            found = rule.match(raised.text, raised.trace)
            if found is not None:
                return _by_rule(failure, rule, found, raised)
    return None


def _by_rule(failure: Failure, rule: Rule, found: re.Match[str], raised: Raised) -> Diagnosis:
    code, before = rule.code, failure.lines[: raised.end]
    params: dict[str, Any] = {"why": _in_english(raised.text)}
    params.update(rule.params)
    params.update({name: value for name, value in found.groupdict().items() if value})
    evidence = [failure.lines[raised.end]]
    changes = rule.changes(failure.settings, found) if callable(rule.changes) else rule.changes

    def look_back(*patterns: re.Pattern[str], within: int = 200) -> None:
        line_found = _last(before[-within:], *patterns)
        if line_found is not None:
            params.update(line_found.groupdict())
            evidence.insert(0, line_found.string)

    # A picture and a cache fail alike; the line before says which file it was.
    if code in {"cache_corrupt", "image_unreadable"} or _is_reading(raised):
        cache = _last(before[-60:], _PICTURE_FILE)
        if cache is not None and _CACHE_FILE.match(cache.string):
            code = "cache_corrupt"
        if code == "cache_corrupt":
            look_back(_CACHE_FILE)
        elif code == "image_unreadable" and "file" not in params:
            look_back(_PICTURE_FILE, _PICTURE_SIZE)
    elif code == "cuda_out_of_memory":
        params.update(_amounts(raised.text))
        changes = _less_memory(failure)
    elif code == "config_unreadable" and "path" not in params:
        look_back(_CONFIG_FILE)
    elif code == "dataset_config_invalid" and "key" in params:
        params["key"] = re.sub(r"\['(.+?)'\]", r".\1", params["key"]).removeprefix(".")
    elif code == "disk_full":
        look_back(_SAVING, within=20 + raised.end - raised.begin)
    elif code in {"model_file_truncated", "model_file_unreadable"} and raised.begin > 0:
        # Only the line right before speaks of this file for certain.
        params.update(_groups(_MODEL_FILE.search(failure.lines[_beginning(failure.lines, raised)])))
    elif code == "model_file_missing":
        params.setdefault("path", params.pop("repo", ""))
        params["role"] = _role(raised) or "Base model"
    elif code == "component_missing":
        params["model_type"], params["role"] = failure.model_type, _role(raised)
        if not params["role"]:
            look_back(_NOT_INCLUDED)
            params["role"] = str(params["role"]).upper() or "VAE / text encoder"
    elif code == "component_not_loaded" and "component" not in params:
        params["component"] = _role(raised)
        if params["component"]:
            look_back(_STATE_DICT)
        else:
            not_loaded, evidence[:0] = _not_loaded(before)
            params.update(not_loaded)
    elif code == "component_not_loaded":
        look_back(_VAE_FILE)
        if "path" not in params:  # it was looked for in the base model
            code, params["model_type"], params["role"] = "component_missing", failure.model_type, params["component"]
    elif code == "wrong_network_module":
        if "module" not in params:
            look_back(_NETWORK_MODULE)
        changes = {"network_module": None}
    elif code == "nothing_to_train":
        look_back(_MODULES)
        look_back(_NETWORK_MODULE)
        if "modules" in params:
            changes = (
                {"network_module": None, "network_args": None} if params["modules"] == "0" else {"learning_rate": None}
            )
    elif code == "missing_package":
        params["package"] = package(params["package"])
    return _diagnosis(code, params, evidence, changes)


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


def _is_reading(raised: Raised) -> bool:
    return "np.load" in raised.trace or "load_image(" in raised.trace or "numpy/lib" in raised.trace


def _beginning(lines: tuple[str, ...], raised: Raised) -> int:
    """The line before the first traceback of those that belong together."""
    at = raised.begin
    for one in reversed(raised_in(lines[: raised.end])):
        if one.end < at and all(line.startswith(("During", "The above")) for line in lines[one.end + 1 : at]):
            at = one.begin
    return max(at - 1, 0)


def _role(raised: Raised) -> str:
    calls = raised.trace.lower()
    return next((role for name, role in _LOADERS if name in calls), "")


def _amounts(text: str) -> dict[str, str]:
    amount = r"([0-9.]+ ?[KMGT]iB)"
    tried = re.search(rf"Tried to allocate {amount}", text)
    total = re.search(rf"total capacity of {amount}|{amount} total capacity", text)
    return {
        **({"tried": tried[1]} if tried else {}),
        **({"total": total[1] or total[2]} if total else {}),
    }


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


# ---- log lines -------------------------------------------------------------------------------------------------------


def _of_decisive_lines(failure: Failure) -> Diagnosis | None:
    for line in reversed(failure.lines):
        for code, pattern in _DECISIVE:
            found = pattern.search(line)
            if found is None:
                continue
            params, evidence = _groups(found), [line]
            if code == "dataset_empty":
                where = _last(failure.lines, *_NO_PICTURES)
                if where is not None:
                    params["path"] = where["path"]
                    evidence.insert(0, where.string)
            elif code == "trainer_not_found":
                params["path"] = str(PurePath(params["script"]).parent)
            return _diagnosis(code, params, evidence)
    return None


def _of_other_lines(failure: Failure, raised: list[Raised]) -> Diagnosis | None:
    if cause_chain(raised):
        return None
    found = _last(failure.lines[-20:], _CONFIG_NOT_FOUND)
    if found is not None and failure.exit_code != 0:
        return _diagnosis("config_unreadable", _groups(found), [found.string])
    crash = _last(failure.lines[-100:], _NATIVE_CRASH)
    if crash is not None and failure.exit_code != 0:
        return _diagnosis("trainer_broken", {"why": crash.string}, [crash.string])
    return None


# ---- signals ---------------------------------------------------------------------------------------------------------


def _signal(failure: Failure) -> tuple[int, list[str]] | None:
    """The number of the signal that ended the trainer, and the lines that say so."""
    code = failure.exit_code
    if code is None or code == 0:
        return None
    if code < 0:
        return -code, []
    if code in _WINDOWS:
        return _WINDOWS[code], []
    if 128 < code < 128 + 32:  # as shells and containers report it
        return code - 128, []
    died = _last(failure.lines[-30:], _LAUNCHER_DIED)
    return (int(died["number"]), [died.string]) if died is not None else None


def _of_signal(failure: Failure, raised: list[Raised], number: int, evidence: list[str]) -> Diagnosis:
    # A process that runs out of something may be ended before or after it could say so.
    found = _by_exceptions(failure, raised, _RESOURCE_RULES)
    if found is not None:
        return found
    for line in reversed(failure.lines[-40:]):
        for rule in _RESOURCE_RULES:
            if rule.match(line, ""):
                return _diagnosis(rule.code, {"why": line}, [line, *evidence])
    name = _CRASHES.get(number)
    if name is not None:
        crash = _last(failure.lines[-100:], _NATIVE_CRASH)
        evidence = [*([crash.string] if crash else _tail(failure)), *evidence]
        return _diagnosis("trainer_broken", {"why": crash.string if crash else name}, evidence)
    name = _SIGNALS.get(number, str(number))
    return _diagnosis("killed", {"signal": name}, evidence or _tail(failure))


# ---- the LoRA --------------------------------------------------------------------------------------------------------


def _of_facts(failure: Failure) -> Diagnosis | None:
    """What a trainer that is content with itself has made, by what is on disk, or else by what it printed."""
    lora = failure.lora
    if lora is None:
        return _nan_loss(failure) if failure.nan else None
    if lora.good:
        return None
    if lora.exists and lora.fresh and lora.complete:
        if not lora.finite:
            return _nan_loss(failure)
        return _diagnosis("nothing_learned", {}, _tail(failure))
    return _no_lora_written(failure)


def _no_lora_written(failure: Failure) -> Diagnosis:
    problem = failure.lora.problem if failure.lora is not None else ""
    return _diagnosis("no_lora_written", {"problem": problem}, _tail(failure))


def _nan_loss(failure: Failure) -> Diagnosis:
    bar = _last(failure.lines, re.compile(r"^steps: .*\| *(?P<step>[0-9]+)/.*avr_loss=(?:-?inf|nan)"))
    settings = failure.settings
    changes: dict[str, Any] = {}
    if settings is not None and settings.mixed_precision == "fp16":
        changes = {"mixed_precision": "bf16"}
    elif settings is not None and settings.learning_rate and not _finds_its_rate(settings):
        changes = {"learning_rate": settings.learning_rate / 10}
    return _diagnosis("nan_loss", _groups(bar), [bar.string] if bar else _tail(failure), changes)


def _finds_its_rate(settings: Settings) -> bool:
    return (settings.optimizer or "").lower().startswith(("prodigy", "dadapt"))


# ---- the rest --------------------------------------------------------------------------------------------------------


def _unknown(failure: Failure, chain: list[Raised]) -> Diagnosis:
    evidence = _tail(failure)
    if chain:
        evidence = [failure.lines[chain[0].end]]
    else:
        error = _last(failure.lines, _ERROR_LINE)
        evidence = [error.string] if error else evidence
    return _diagnosis("unknown", {"error": _in_english(evidence[-1]), "exit_code": failure.exit_code}, evidence)


def _tail(failure: Failure) -> list[str]:
    said = [line for line in failure.lines[-3:] if line.strip()]
    return said or [f"exit code {failure.exit_code}"]


def _diagnosis(
    code: str, params: Mapping[str, Any], evidence: Iterable[str], changes: Mapping[str, Any] | None = None
) -> Diagnosis:
    changes = changes or {}
    params = {name: value for name, value in params.items() if value not in (None, "")}
    if changes:
        params["changes"] = ", ".join(f"{name}={value!r}" for name, value in changes.items())
    return Diagnosis(code, params, [line.strip()[:_EVIDENCE_LENGTH] for line in evidence], changes=changes)


def _last(lines: Iterable[str], *patterns: re.Pattern[str]) -> re.Match[str] | None:
    """The newest line that matches one of the patterns."""
    for line in reversed(tuple(lines)):
        for pattern in patterns:
            found = pattern.search(line)
            if found is not None:
                return found
    return None


def _groups(found: re.Match[str] | None) -> dict[str, Any]:
    return {} if found is None else {name: value for name, value in found.groupdict().items() if value}


def _in_english(text: str) -> str:
    """Without the Japanese that sd-scripts adds after a slash, and not longer than people read."""
    english, slash, other = text.partition(" / ")
    return (english if slash and not other.isascii() else text)[:300]
