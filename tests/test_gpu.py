"""What is made of the answers of NVIDIA's library. It is imitated here: no machine of the suite has a card."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from cinderlora import Estimate, Preset, gpu
from cinderlora.cost.machine import Memory

GB = 2**30


class Library(ModuleType):
    """The part of `pynvml` that is asked: cards as (total, free, [(pid, bytes held)])."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards: tuple[int, int, list[tuple[int, int | None]]]) -> None:
        super().__init__("pynvml")
        self.cards = cards

    def nvmlInit(self) -> None:
        if not self.cards:
            raise self.NVMLError("no driver")

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int):
        return self.cards[index]

    def nvmlDeviceGetMemoryInfo(self, card):
        return SimpleNamespace(total=card[0], free=card[1], used=card[0] - card[1])

    def nvmlDeviceGetComputeRunningProcesses(self, card):
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in card[2]]


@pytest.fixture
def library(monkeypatch):
    def install(*cards) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", Library(*cards))

    return install


@pytest.fixture
def program(tmp_path):
    """A process in a folder of that name."""
    started = []

    def start(folder: str) -> int:
        (tmp_path / folder).mkdir()
        waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        started.append(subprocess.Popen(waiting, cwd=tmp_path / folder, stdin=subprocess.PIPE))
        return started[-1].pid

    yield start
    for process in started:
        process.communicate()


def test_the_largest_card_is_told_with_what_is_free_of_it(library):
    library((8 * GB, 8 * GB, []), (24 * GB, 3 * GB, []))
    assert gpu.memory() == Memory(24, 3)
    assert gpu.memory_gb() == 24


def test_without_a_card_nothing_is_known(library):
    library()
    assert (gpu.memory(), gpu.memory_gb(), gpu.holders()) == (None, None, ())


def test_without_the_library_nothing_is_known(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (gpu.memory(), gpu.holders()) == (None, ())


def test_who_is_to_be_closed_first_is_named_first(library, program):
    comfyui, others = program("ComfyUI"), [program("a"), program("b")]
    library((24 * GB, GB, [(others[0], GB), (others[1], 9 * GB), (comfyui, 5 * GB), (2**22 + 1, None)]))
    first, second, third, last = gpu.holders()
    assert first == f"ComfyUI, process {comfyui}, 5.0 GB"
    assert second.endswith(f"process {others[1]}, 9.0 GB") and third.endswith(f"process {others[0]}, 1.0 GB")
    assert last == f"a program, process {2**22 + 1}"  # gone, and its size not told, as on Windows


def test_a_preset_fits_by_its_figure_or_by_the_upper_bound_of_an_estimate():
    preset = Preset(name="x", vram_gb=16)
    assert gpu.fits(preset, 15.0) and not gpu.fits(preset, 14.0)
    assert gpu.fits(preset, 12.0, Estimate(9.0, 8.0, 11.0)) and not gpu.fits(preset, 12.0, Estimate(9.0, 8.0, 13.0))
    assert not gpu.fits(Preset(name="x"), 80.0)


def test_estimates_go_over_the_figures_for_the_largest_that_fits():
    presets = [Preset(name=f"{gb}gb", vram_gb=gb) for gb in (24, 8, 16)]
    takes = {"24gb": Estimate(9.0, 8.0, 10.0), "16gb": Estimate(19.0, 18.0, 20.0)}
    assert gpu.largest_fitting(presets, 12.0, takes).name == "24gb"
    assert gpu.largest_fitting(presets, 9.5, takes).name == "8gb"
