"""Why a training with musubi-tuner failed, where that is its own doing; what it shares with others the core knows."""

from __future__ import annotations

import re

from cinderlora import Diagnosis, Failure

__all__ = ["find"]

# Which line shows it, and what to say of it. As of 30c658c4 (v0.3.4).
_KNOWN = [
    (
        re.compile(r"No training items found in the dataset"),
        Diagnosis(
            "musubi_no_items",
            cause="musubi-tuner found no picture that has both of its caches.",
            fix="Look in the log for what the two caching steps said before.",
        ),
    ),
    (
        re.compile(r"Tongyi-MAI/Z-Image|couldn't connect to|LocalEntryNotFoundError|OfflineModeIsEnabled"),
        Diagnosis(
            "musubi_tokenizer",
            cause="The tokenizer of Qwen3 could not be loaded: musubi-tuner takes it from the Hugging Face hub.",
            fix="Connect once, so that it lies in the hub's cache; later runs need no connection.",
        ),
    ),
    (
        re.compile(r"No module named '?musubi_tuner"),
        Diagnosis(
            "musubi_not_installed",
            cause="The Python has not got musubi-tuner's own modules.",
            fix="Install it there: pip install -e . in its folder.",
        ),
    ),
    (
        re.compile(r"Image size too small"),
        Diagnosis(
            "musubi_picture_small",
            cause="A picture is smaller than 16 pixels once it is in its bucket.",
            fix="Remove it, or raise the resolution.",
        ),
    ),
]
_AN_ERROR = re.compile(r"[A-Za-z_.]*(Error|Exception|NotFound|Enabled)\b|OSError")


def find(failure: Failure) -> Diagnosis | None:
    """The cause, told from the last line that speaks of an error; None where it is none of these."""
    for line in reversed(failure.lines):
        for pattern, diagnosis in _KNOWN:
            if pattern.search(line) and _AN_ERROR.search(line):
                return Diagnosis(diagnosis.code, evidence=[line], cause=diagnosis.cause, fix=diagnosis.fix)
    return None
