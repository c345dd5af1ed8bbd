"""What one line of musubi-tuner's output means. Pure.

Its scripts print as sd-scripts' do, but for Python's own form of log lines, "INFO:musubi_tuner.cache_latents:Encoding
dataset [0]"; what they print past the log (`accelerator.print`, bars) has no such head and is the core's to read.
Wordings as of 30c658c4 (v0.3.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from cinderlora import Event, Log, Phase
from cinderlora.sd_scripts.progress import parse_progress as parse_kohya

__all__ = ["parse"]

_HEAD = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL):([A-Za-z_][\w.]{0,200}):(.*)")
# Of the two caching scripts only the module that logs the line tells which one it is.
_CACHING = {
    "musubi_tuner.cache_latents": "caching_latents",
    "musubi_tuner.cache_text_encoder_outputs": "caching_text_encoders",
}


def parse(line: str, phase: str | None) -> Sequence[Event] | None:
    """The events in a line of musubi-tuner's own log; None for everything else."""
    head = _HEAD.match(line)
    if head is None:
        return None
    level, module, text = head.groups()
    if not text.strip():
        return []
    caching = _CACHING.get(module)
    if caching is not None and text.startswith("Encoding dataset "):
        return [Phase(caching), Log(text, level)]
    if text.startswith("Load dataset config from "):  # the first word of each of its scripts
        return [Phase("loading"), Log(text, level)]
    events = parse_kohya(text, phase)
    if events is None:
        return [Log(text, level)]
    return [attrs.evolve(event, level=level) if isinstance(event, Log) else event for event in events]
