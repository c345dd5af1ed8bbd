"""Which build of PyTorch a machine wants."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from cinderlora.frozendict import as_tuple
from cinderlora.sd_scripts.processes import Commands

__all__ = ["BUILDS", "Card", "TorchBuild", "build_for", "card_in", "nvidia_cards"]

# 2.8.0 with CUDA 12.8 is what sd-scripts 0.10.1's README names for RTX 50; it works with its requirements.txt.
_PACKAGES = ("torch==2.8.0", "torchvision==0.23.0")
_INDEX = "https://download.pytorch.org/whl/"


@frozen
class TorchBuild:
    """PyTorch as it is to be installed: packages as pip takes them, and where they come from.

    `index` is the address of an index or a folder of wheels; None for the index that pip or uv use anyhow.
    """

    name: str
    packages: tuple[str, ...] = field(default=_PACKAGES, converter=as_tuple)
    index: str | None = None


BUILDS = {name: TorchBuild(name, index=_INDEX + name) for name in ("cpu", "cu126", "cu128")}
"""PyTorch's own builds, as its installation guide has them."""


@frozen
class Card:
    """An NVIDIA GPU as its driver describes it."""

    name: str
    driver: int
    """The driver's major version."""
    capability: float | None
    """The compute capability, e.g. 8.9; None where an old driver does not tell."""


def build_for(cards: Sequence[Card]) -> TorchBuild | None:
    """The build for a machine's NVIDIA cards; the one without CUDA where there are none, None where the driver is too
    old for all.

    Any driver from 525 on runs programs made for CUDA 12 (NVIDIA, "CUDA minor version compatibility"), 570 is 12.8's
    own. In PyTorch 2.8, CUDA 12.6 has the cards up to Hopper (9.0), 12.8 those from Turing (7.5) on (PyTorch's
    RELEASE.md, "CUDA support matrix").
    """
    if not cards:
        return BUILDS["cpu"]
    driver = min(card.driver for card in cards)
    if driver < 525:
        return None
    capabilities = [card.capability for card in cards if card.capability is not None]
    if capabilities and max(capabilities) >= 10:
        return BUILDS["cu128"]
    if driver < 570 or (capabilities and min(capabilities) < 7.5):
        return BUILDS["cu126"]
    return BUILDS["cu128"]


def nvidia_cards(commands: Commands, environ: Mapping[str, str]) -> list[Card]:
    """The cards that nvidia-smi, which comes with the driver, lists; none where there is no driver."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    in_wsl = Path("/usr/lib/wsl/lib/nvidia-smi")
    if program is None and sys.platform == "linux" and in_wsl.is_file():
        program = str(in_wsl)
    if program is None:
        return []
    # The name comes last, as it may have anything in it. Drivers before 510 know no compute_cap.
    for what in ("driver_version,compute_cap,name", "driver_version,name"):
        try:
            asked = commands.run([program, f"--query-gpu={what}", "--format=csv,noheader"], env=environ, timeout=30)
        except OSError:
            return []
        if asked.exit_code == 0:
            return [card for line in asked.lines if (card := card_in(line))]
    return []


def card_in(line: str) -> Card | None:
    """The card in a line of nvidia-smi's list: "570.124.06, 8.9, NVIDIA GeForce RTX 4090", or without the 8.9."""
    told = re.fullmatch(r"\s*(\d+)[\d.]*\s*,\s*(?:(\d+\.\d+|\[.*?\])\s*,\s*)?(\S.*?)\s*", line)
    if told is None:
        return None
    driver, capability, name = told.groups()
    return Card(name, int(driver), float(capability) if capability and capability[0] != "[" else None)
