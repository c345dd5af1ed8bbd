"""What a training will take, held against what this machine has. A guess never forbids, a certainty does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from cinderlora.cost.data import Disk, Estimate
from cinderlora.cost.disk import estimate_disk
from cinderlora.cost.lora import lora_layers
from cinderlora.cost.machine import Memory, room
from cinderlora.cost.ram import estimate_ram
from cinderlora.cost.vram import cheaper, estimate_vram, stored_bytes, swap_limit
from cinderlora.problems import Problem
from cinderlora.types import Footprint, Job, ModelType

if TYPE_CHECKING:
    from cinderlora.dataset import BucketPlan

__all__ = ["Cost", "cost_of", "disk_problems", "ram_problems", "vram_problems"]

_CAPTIONS = "caching_text_encoders"
_SPARE_BLOCKS = 4
"""Blocks that are swapped needlessly before it is worth a word."""


@frozen(kw_only=True)
class Cost:
    """What a job will take, as far as it can be told."""

    disk: Disk | None = None
    vram: Estimate | None = None
    ram: Estimate | None = None


def cost_of(kind: ModelType, job: Job, buckets: BucketPlan | None, checkpoints: int, samples: int) -> Cost:
    """What a job takes whose model files are looked into. Pure."""
    s = job.settings
    footprint = _footprint(kind, job)
    layers = lora_layers(kind, job.models, s)
    size = _sample_size(job)
    disk = None
    if buckets is not None:
        latents = [fit.bucket for fit in buckets.fits if fit is not None]
        disk = estimate_disk(
            s,
            layers=layers,
            footprint=footprint,
            latents=latents,
            checkpoints=checkpoints,
            samples=samples,
            sample_size=size,
        )
    if footprint is None:
        return Cost(disk=disk)
    vram = estimate_vram(footprint, s, job.models, layers=layers, sample_size=size)
    return Cost(disk=disk, vram=vram, ram=estimate_ram(footprint, s, job.models))


def _footprint(kind: ModelType, job: Job) -> Footprint | None:
    model = job.models.get("model")
    return kind.footprint(model.variant if model else "")


def _sample_size(job: Job) -> tuple[int, int]:
    """Width and height of the samples in pixels: the resolution, where the prompt does not say another."""
    px = job.settings.resolution or 512
    said = dict(re.findall(r" --([wh]) (\d{1,5})(?!\S)", f" {job.settings.sample_prompt or ''}"))
    return int(said.get("w", px)), int(said.get("h", px))


# ---- disk ----


def disk_problems(disk: Disk, output: Path, runs: Path) -> Iterator[Problem]:
    """Where a file system has less room than the training will write to it."""
    needs: dict[int, list[tuple[Path, int, int]]] = {}
    for folder, needed in ((output, disk.output), (runs, disk.caches)):
        there = room(folder)
        if there is not None and needed:
            needs.setdefault(there.device, []).append((folder, needed, there.free))
    for parts in needs.values():
        folder, free = parts[0][0], parts[0][2]
        needed = sum(part for _, part, _ in parts)
        hopeless = folder == output and disk.lora is not None and free < disk.lora
        if needed > free:
            params = {"path": str(folder), "needed": _gb(needed), "free": _gb(free)}
            yield Problem("disk_small", params, severity="error" if hopeless else "warning")


def _gb(size: int) -> str:
    """Bytes in GB of 10**9, as disks and their tools count."""
    return f"{size / 1e9:.2g}" if size < 10e9 else f"{size / 1e9:.0f}"


# ---- memory of the card ----


def vram_problems(
    kind: ModelType, job: Job, estimate: Estimate, card: Memory, holders: Sequence[str]
) -> Iterator[Problem]:
    """What an estimate says of a card: too much for it, too much for what others leave of it, or room to spare."""
    footprint = _footprint(kind, job)
    if footprint is None:
        return

    def again(**changes: object) -> Estimate:
        changed = job.evolve(**changes)
        return cost_of(kind, changed, None, 0, 0).vram or estimate

    if estimate.gb > card.total:
        yield from _too_small(footprint, job, estimate, card, again)
    elif estimate.gb > card.free:
        params = {**_figures(estimate), "there": round(card.total, 1), "free": round(card.free, 1)}
        yield Problem("gpu_in_use", {**params, "programs": tuple(holders)}, severity="warning")
    else:
        swapped = min(job.settings.blocks_to_swap or 0, swap_limit(footprint, job.models))
        enough = next((n for n in range(swapped) if again(blocks_to_swap=n).high <= card.free), swapped)
        if swapped - enough >= _SPARE_BLOCKS:
            spare = {"value": swapped, "enough": str(enough), "there": round(card.total, 1)}
            yield Problem("blocks_to_swap_spare", spare, severity="warning", changes={"blocks_to_swap": enough})


def _too_small(
    footprint: Footprint, job: Job, estimate: Estimate, card: Memory, again: Callable[..., Estimate]
) -> Iterator[Problem]:
    """A card too small, and the cure: of the text encoders another file, of everything else other settings."""
    params = {**_figures(estimate), "there": round(card.total, 1)}
    captions = estimate.phases.get(_CAPTIONS, 0)
    halved = any(not job.settings.fp8_base or (stored_bytes(role, job.models) or 2) > 1 for role in footprint.as_stored)
    if captions > card.total and halved:
        yield Problem("vram_small_for_captions", params | {"needed": round(captions, 1)}, severity="warning")
        params = {"there": params["there"], "needed": round(_rest(estimate), 1)}
    if _rest(estimate) > card.total or not halved:
        limit = swap_limit(footprint, job.models)
        changes = cheaper(job.settings, limit, lambda change: _rest(again(**change)) <= card.total) or {}
        said = ", ".join(f"{name} = {value}" for name, value in changes.items())
        yield Problem("vram_small", params | {"change": said}, severity="warning", changes=changes)


def _rest(estimate: Estimate) -> float:
    """GB of all phases but that of the text encoders, which settings do not make smaller."""
    return max(gb for phase, gb in estimate.phases.items() if phase != _CAPTIONS)


def _figures(estimate: Estimate) -> dict[str, float]:
    return {
        "needed": round(estimate.gb, 1),
        "low": round(estimate.low, 1),
        "high": round(estimate.high, 1),
    }


# ---- memory of the machine ----


def ram_problems(estimate: Estimate, machine: Memory) -> Iterator[Problem]:
    """Where the machine has less memory than loading the models takes."""
    if estimate.gb > machine.free:
        params = {**_figures(estimate), "free": round(machine.free, 1), "there": round(machine.total, 1)}
        yield Problem("ram_small", params, severity="warning")
