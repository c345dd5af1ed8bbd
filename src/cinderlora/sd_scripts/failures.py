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
from cinderlora.sd_scripts.failure_details import Case, complete, groups, last
from cinderlora.sd_scripts.failure_rules import RULES, Rule
from cinderlora.sd_scripts.tracebacks import Raised, cause_chain, raised_in
from cinderlora.types import Failure, Settings

__all__ = ["diagnose"]

_EVIDENCE_LENGTH = 1000  # characters of a line

# What can end a process by a signal too, or in one process of several.
_RESOURCE_CODES = ("cuda_out_of_memory", "host_out_of_memory", "disk_full", "driver_too_old", "gpu_unusable")
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
_NO_PICTURES = (
    re.compile(r"ignore subset with image_dir='(?P<path>.+)': no images"),
    re.compile(r"not directory: (?P<path>.+)$"),
    re.compile(r"found directory (?P<path>.+) contains 0 image"),
)

_ERROR_LINE = re.compile(r"\bE(?:rror|RROR)\b|\berror:")

_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 9: "SIGKILL", 15: "SIGTERM"}
_CRASHES = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}
_WINDOWS = {0xC000013A: 2, 0xC0000005: 11, 0xC0000409: 6, 0xC000001D: 4}  # Ctrl-C, and ways to crash


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
    case = Case(
        failure,
        raised,
        code=rule.code,
        params={"why": _in_english(raised.text), **rule.params, **groups(found)},
        evidence=[failure.lines[raised.end]],
        changes=rule.changes(failure.settings, found) if callable(rule.changes) else rule.changes,
    )
    complete(case)
    return _diagnosis(case.code, case.params, case.evidence, case.changes)


# ---- log lines -------------------------------------------------------------------------------------------------------


def _of_decisive_lines(failure: Failure) -> Diagnosis | None:
    for line in reversed(failure.lines):
        for code, pattern in _DECISIVE:
            found = pattern.search(line)
            if found is None:
                continue
            params, evidence = groups(found), [line]
            if code == "dataset_empty":
                where = last(failure.lines, *_NO_PICTURES)
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
    found = last(failure.lines[-20:], _CONFIG_NOT_FOUND)
    if found is not None and failure.exit_code != 0:
        return _diagnosis("config_unreadable", groups(found), [found.string])
    crash = last(failure.lines[-100:], _NATIVE_CRASH)
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
    died = last(failure.lines[-30:], _LAUNCHER_DIED)
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
        crash = last(failure.lines[-100:], _NATIVE_CRASH)
        evidence = [*([crash.string] if crash else _tail(failure)), *evidence]
        return _diagnosis("trainer_broken", {"why": crash.string if crash else name}, evidence)
    name, evidence = _SIGNALS.get(number, str(number)), evidence or _tail(failure)
    if name == "SIGKILL" and failure.oom_kills:  # the kernel says nothing in the log of what it ends
        why = f"oom_kill in /proc/vmstat: {failure.oom_kills} more than at the start"
        return _diagnosis("host_out_of_memory", {"signal": name, "why": why}, [*evidence, why])
    return _diagnosis("killed", {"signal": name}, evidence)


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
    bar = last(failure.lines, re.compile(r"^steps: .*\| *(?P<step>[0-9]+)/.*avr_loss=(?:-?inf|nan)"))
    settings = failure.settings
    changes: dict[str, Any] = {}
    if settings is not None and settings.mixed_precision == "fp16":
        changes = {"mixed_precision": "bf16"}
    elif settings is not None and settings.learning_rate and not _finds_its_rate(settings):
        changes = {"learning_rate": settings.learning_rate / 10}
    return _diagnosis("nan_loss", groups(bar), [bar.string] if bar else _tail(failure), changes)


def _finds_its_rate(settings: Settings) -> bool:
    return (settings.optimizer or "").lower().startswith(("prodigy", "dadapt"))


# ---- the rest --------------------------------------------------------------------------------------------------------


def _unknown(failure: Failure, chain: list[Raised]) -> Diagnosis:
    evidence = _tail(failure)
    if chain:
        evidence = [failure.lines[chain[0].end]]
    else:
        error = last(failure.lines, _ERROR_LINE)
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


def _in_english(text: str) -> str:
    """Without the Japanese that sd-scripts adds after a slash, and not longer than people read."""
    english, slash, other = text.partition(" / ")
    return (english if slash and not other.isascii() else text)[:300]
