"""What NVIDIA's library says of this machine's cards. No card, no driver or no library: then nothing is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cinderlora.types import Preset

T = TypeVar("T")

ENOUGH = 0.92
"""A card reports a little less than its name says: so much of a preset's figure is enough (24 GB cards say 22.5)."""


def memory_gb() -> float | None:
    """The memory of the largest NVIDIA card in GiB, or None where there is none or nothing can be asked."""
    sizes = _of_each_card(lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card).total / 2**30)
    return max(sizes, default=None)


def load() -> str | None:
    """How busy each card is and how full its memory, e.g. "98 %, 15.2 of 16.0 GB"; None where nothing can be asked."""

    def said(nvml: Any, card: Any) -> str:
        memory, busy = nvml.nvmlDeviceGetMemoryInfo(card), nvml.nvmlDeviceGetUtilizationRates(card).gpu
        return f"{busy} %, {memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GB"

    return "; ".join(_of_each_card(said)) or None


def holders() -> tuple[str, ...]:
    """The processes that hold memory of the cards, the largest first, e.g. "ComfyUI, process 4711, 10.2 GB".

    Never tried on a card: it is written by NVIDIA's documentation of the library.
    """

    def of(nvml: Any, card: Any) -> list[tuple[float, int]]:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(card)
        return [((process.usedGpuMemory or 0) / 2**30, process.pid) for process in running]

    found = sorted((entry for card in _of_each_card(of) for entry in card), reverse=True)
    return tuple(f"{_program(pid)}, process {pid}, {size:.1f} GB" for size, pid in found)


def _program(pid: int) -> str:
    """What people call a process: ComfyUI is a script of Python like many others."""
    import psutil

    try:
        process = psutil.Process(pid)
        words = " ".join([process.cwd(), *process.cmdline()])
        return "ComfyUI" if "comfyui" in words.lower() else process.name()
    except psutil.Error:
        return "a program"


def _of_each_card(question: Callable[[Any, Any], T]) -> list[T]:
    """What NVIDIA's library answers for each card; nothing where it is not there or does not answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nvidia-ml-py and its unofficial twin warn of each other
        try:
            import pynvml as nvml
        except ImportError:
            return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [question(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
    finally:
        nvml.nvmlShutdown()


def largest_fitting(presets: Sequence[Preset], memory: float | None) -> Preset | None:
    """The preset for the largest card that this one's memory (GiB) is enough for; the smallest where none fits or
    nothing is known."""
    sized = sorted((p for p in presets if p.vram_gb is not None), key=lambda p: p.vram_gb or 0)
    fitting = [p for p in sized if memory is not None and memory >= ENOUGH * (p.vram_gb or 0)]
    if fitting:
        return fitting[-1]
    return sized[0] if sized else None
