"""What NVIDIA's library says of this machine's cards. No card, no driver or no library: then nothing is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cinderlora.cost.machine import Memory
from cinderlora.types import Preset

if TYPE_CHECKING:
    from cinderlora.cost.data import Estimate

T = TypeVar("T")

Gpu = int | str
"""A card by its number, as `nvidia-smi` counts, or by its name ("GPU-8932f937-...", "MIG-...")."""

COMFYUI = "ComfyUI"

ENOUGH = 0.92
"""A card reports a little less than its name says: so much of a preset's figure is enough (24 GB cards say 22.5)."""


def memory(*gpus: Gpu) -> Memory | None:
    """The memory of the largest NVIDIA card, or of the smallest of those that are given by number; None where there is
    none or nothing can be asked."""

    def of(nvml: Any, card: Any) -> tuple[float, float]:
        found = nvml.nvmlDeviceGetMemoryInfo(card)
        return found.total / 2**30, found.free / 2**30

    cards = _of_each_card(of)
    given = [cards[gpu] for gpu in gpus if isinstance(gpu, int) and gpu < len(cards)]
    found = min(given) if given else max(cards, default=None)
    return None if found is None else Memory(*found)


def memory_gb() -> float | None:
    """The whole memory of the largest NVIDIA card in GB (2**30 bytes), or None where nothing can be asked."""
    found = memory()
    return None if found is None else found.total


def count() -> int:
    """How many NVIDIA cards there are; 0 where nothing can be asked."""
    return len(_of_each_card(lambda nvml, card: card))


def load() -> str | None:
    """How busy each card is and how full its memory, e.g. "98 %, 15.2 of 16.0 GB"; None where nothing can be asked."""

    def said(nvml: Any, card: Any) -> str:
        memory, busy = nvml.nvmlDeviceGetMemoryInfo(card), nvml.nvmlDeviceGetUtilizationRates(card).gpu
        return f"{busy} %, {memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GB"

    return "; ".join(_of_each_card(said)) or None


def holders() -> tuple[str, ...]:
    """The processes that hold memory of the cards, ComfyUI first, then the largest, e.g. "ComfyUI, process 4711,
    10.2 GB".

    Never tried on a card: it is written by NVIDIA's documentation of the library. A size is left out where the driver
    does not tell it, as on Windows.
    """

    def of(nvml: Any, card: Any) -> list[tuple[int, int]]:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(card)
        return [(process.pid, process.usedGpuMemory or 0) for process in running]

    found = [(_program(pid), pid, used) for card in _of_each_card(of) for pid, used in card]
    found.sort(key=lambda entry: (entry[0] != COMFYUI, -entry[2]))
    return tuple(f"{name}, process {pid}" + (f", {used / 2**30:.1f} GB" if used else "") for name, pid, used in found)


def without_bf16() -> tuple[str, ...]:
    """The names of this machine's cards where none of them has bf16, which begins with compute capability 8.0 (as
    PyTorch's `torch.cuda.is_bf16_supported` has it); nothing where one has it or nothing can be asked.
    """

    def of(nvml: Any, card: Any) -> tuple[str, bool]:
        return nvml.nvmlDeviceGetName(card), nvml.nvmlDeviceGetCudaComputeCapability(card)[0] >= 8

    cards = _of_each_card(of)
    return () if any(has_it for _, has_it in cards) else tuple(name for name, _ in cards)


def held_by(pids: Collection[int]) -> float:
    """GiB of the cards' memory that these processes hold, as far as NVIDIA's library says: in a container it may name
    processes by other numbers. Never tried on a card."""

    def of(nvml: Any, card: Any) -> float:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(card)
        return sum((process.usedGpuMemory or 0) / 2**30 for process in running if process.pid in pids)

    return sum(_of_each_card(of))


def _program(pid: int) -> str:
    """What people call a process: ComfyUI is a script of Python like many others."""
    import psutil

    try:
        process = psutil.Process(pid)
        words = " ".join([process.cwd(), *process.cmdline()])
        return COMFYUI if "comfyui" in words.lower() else process.name()
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


def largest_fitting(
    presets: Sequence[Preset], memory: float | None, estimates: Mapping[str, Estimate | None] | None = None
) -> Preset | None:
    """The preset for the largest card that this one's memory (GB) is enough for; the smallest where none fits or
    nothing is known. `estimates` of what a preset takes, by its name, go over its figure."""
    sized = sorted((p for p in presets if p.vram_gb is not None), key=lambda p: p.vram_gb or 0)
    fitting = [p for p in sized if memory is not None and fits(p, memory, (estimates or {}).get(p.name))]
    if fitting:
        return fitting[-1]
    return sized[0] if sized else None


def fits(preset: Preset, memory: float, estimate: Estimate | None = None) -> bool:
    """Whether a card with so much memory (GB) holds a training with this preset: by the upper bound of an estimate, or
    by the preset's figure."""
    if estimate is not None:
        return estimate.high <= memory
    return preset.vram_gb is not None and memory >= ENOUGH * preset.vram_gb
