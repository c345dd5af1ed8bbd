"""What NVIDIA's library says of this machine's cards. No card, no driver or no library: then nothing is known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from cinderlora.types import Preset

ENOUGH = 0.92
"""A card reports a little less than its name says: so much of a preset's figure is enough (24 GB cards say 22.5)."""


def memory_gb() -> float | None:
    """The memory of the largest NVIDIA card in GiB, or None where there is none or nothing can be asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nvidia-ml-py and its unofficial twin warn of each other
        try:
            import pynvml
        except ImportError:
            return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return max((pynvml.nvmlDeviceGetMemoryInfo(card).total / 2**30 for card in cards), default=None)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def largest_fitting(presets: Sequence[Preset], memory: float | None) -> Preset | None:
    """The preset for the largest card that this one's memory (GiB) is enough for; the smallest where none fits or
    nothing is known."""
    sized = sorted((p for p in presets if p.vram_gb is not None), key=lambda p: p.vram_gb or 0)
    fitting = [p for p in sized if memory is not None and memory >= ENOUGH * (p.vram_gb or 0)]
    if fitting:
        return fitting[-1]
    return sized[0] if sized else None
