"""What one line of sd-scripts' output means. Pure, and without memory: the stream keeps what went before.

Wordings as of 48d368fa (v0.10.1); Chroma, Lumina and the other scripts share them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cinderlora.events import Activity, Event, Log, Phase, Progress, quick_progress
from cinderlora.markers import EpochBegan, LoraSaved, PromptBegan, SaveAnnounced

__all__ = ["REFRESH", "parse_progress"]

# `steps:  50%|█████     | 4/8 [00:19<00:19,  4.86s/it, avr_loss=2.61]`, or `steps: 0it [00:00, ?it/s]` where there is
# nothing to train. Anchored: `validation steps:`, `bucket_reso_steps: 64` and `sample_steps: 2` are others' lines.
_TRAINING = re.compile(
    r"steps: +(?:[0-9]+%\|[^|]*\| *([0-9]{1,12})/([0-9]{1,12})|([0-9]{1,12})it) \[[^,\]]*"
    r"(?:, *(?:([0-9.]+)(it/s|s/it)|[^,\]]*))?(?:,[^\]]*?\bavr_loss=([^,\]\s]+))?"
)
REFRESH = re.compile(
    rb" *\rsteps: {1,3}[0-9]{1,3}%\|[^\x00-\x1f\x7f\[\]|]{0,1000}\| ([0-9]{1,12})/([0-9]{1,12}) "
    rb"\[[0-9:]{1,20}<[0-9:]{1,20}, {1,3}([1-9][0-9]{0,8}\.[0-9]{2})(s/it|it/s)"
    rb"(?:\]|, avr_loss=([0-9]{1,20}\.?[0-9]{0,20})\])"
)
"""A refresh of the training bar that follows on another, as nearly all are printed: step, total, rate, its unit, loss.
Of what it matches it says what `parse_progress` would. All others are left to that: where nothing was measured yet, the
rate is zero, or the loss is infinite, no number, or so large or small that it has an exponent."""

_BAR = re.compile(
    r"(?:([^|\[\]]{1,200}): )? *"
    r"(?:[0-9]+%\|[^|]*\| *([0-9.]{1,12})([kMGTP]?)[A-Za-z]*/([0-9.]{1,12})?\??([kMGTP]?)[A-Za-z]*"
    r"|([0-9]{1,12})[A-Za-z]+) \[[0-9:]+[<,]"
)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

_EPOCH = re.compile(r"epoch ([0-9]{1,9})/([0-9]{1,9})$")
_SAMPLING = re.compile(r"generating sample images at step / [^:]*: ([0-9]{1,12})$")
_SAVING = "saving checkpoint: "
_SAVING_STATE = re.compile(r"saving (?:state at (?:step|epoch) [0-9]+$|last state)")
_STEP_IN_NAME = re.compile(r"step([0-9]{8,12})\.[A-Za-z]+$")

# The first words of the lines that say what is going on before the training begins.
_BEFORE = re.compile(
    r"(?P<caching_latents>caching latents)"
    r"|(?P<caching_text_encoders>cach(?:ing|e) [Tt]ext [Ee]ncoder outputs|no Text Encoder outputs to cache)"
    r"|(?P<loading>Loading |loading |load |Building |building |Checking the state dict|prepar(?:e|ing) |make buckets"
    r"|import network module: |create LoRA |accelerator device: |resume training )"
)
_ONCE_TRAINING = frozenset(["training", "sampling", "saving"])

# Lines that say nothing to a person, once per checkpoint, epoch or data loader worker.
_NOISE = re.compile(
    r"epoch is incremented\. |huggingface/tokenizers: The current process just got forked|To disable this warning, you"
    r"|\s+- (?:Avoid using `tokenizers`|Explicitly set the environment variable TOKENIZERS)"
    r"|\S+:[0-9]+: FutureWarning: Positional args are being deprecated|  return super\(\)\.state_dict\("
)


def parse_progress(line: str, phase: str | None) -> Sequence[Event] | None:
    """The events in one logical line of sd-scripts' output; None where it is a log line like any other.

    `Progress` is the training bar's, counted as the bar does, its `epoch` unset: the bar does not say. All other bars
    are `Activity`, labelled with their own description or else with the phase.
    """
    if line.startswith("steps: "):
        found = _TRAINING.match(line)
        if found is not None:
            return [_progress(found)]
    if "[" in line:
        found = _BAR.match(line)
        if found is not None:
            return [_activity(found, phase)]
    return _log_line(line, phase)


def _progress(found: re.Match[str]) -> Progress:
    done, of, alone, rate, unit, loss = found.groups()
    # Without a total the bar shows its count alone: nothing to train, or more than there was to be.
    step, total = (int(done), int(of)) if alone is None else (int(alone), int(alone))
    seconds = (_float(rate) if rate else None) or None
    if seconds and unit != "s/it":
        seconds = 1 / seconds
    eta = None if seconds is None else max(total - step, 0) * seconds
    return quick_progress(step, total, None if loss is None else _float(loss), seconds, eta)


def _activity(found: re.Match[str], phase: str | None) -> Activity:
    label, done, unit, total, total_unit, alone = found.groups()
    if alone is not None:
        return Activity(label or phase or "loading", int(alone), None)
    of = None if total is None else _amount(total, total_unit)
    return Activity(label or phase or "loading", _amount(done, unit) or 0, of)


def _log_line(line: str, phase: str | None) -> Sequence[Event] | None:
    if phase == "sampling" and line.startswith("prompt: "):
        return [PromptBegan(), Log(line)]
    if line.startswith(_SAVING):
        path = line.removeprefix(_SAVING)
        number = _STEP_IN_NAME.search(path)
        return [Phase("saving"), SaveAnnounced(Path(path), int(number[1]) if number else None), Log(line)]
    if line == "model saved.":
        return [LoraSaved(), Log(line)]
    if (found := _EPOCH.match(line)) is not None:
        return [EpochBegan(int(found[1]), int(found[2])), Log(line)]
    if (found := _SAMPLING.match(line)) is not None:
        return [Phase("sampling", step=int(found[1])), Log(line)]
    if _SAVING_STATE.match(line):
        return [Phase("saving"), Log(line)]
    if line.startswith("running training"):
        return [Phase("training"), Log(line)]
    if line.startswith("Loading settings from "):  # in whatever phase: another training in the same log
        return [Phase("loading"), Log(line)]
    if phase not in _ONCE_TRAINING and (found := _BEFORE.match(line)) is not None:
        return [Phase(found.lastgroup or "loading"), Log(line)]
    if _NOISE.match(line):
        return []
    return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _amount(text: str, unit: str) -> int | None:
    number = _float(text)
    return None if number is None else int(number * _UNITS[unit])
