"""What the estimates are said in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from cinderlora.frozendict import FrozenDict

__all__ = ["GB", "Disk", "Estimate"]

GB = 2**30
"""Bytes in a GB of memory, as cards and tools count it."""


@frozen
class Estimate:
    """Memory in GB (2**30 bytes): the likely figure, and what it may be at least and at most.

    `phases` are the likely figures of each phase of a training; the largest is the whole's.
    """

    gb: float
    low: float
    high: float
    phases: Mapping[str, float] = field(factory=FrozenDict, converter=FrozenDict)

    @property
    def phase(self) -> str | None:
        """The phase that takes most: "caching_latents", "caching_text_encoders", "training" or "sampling"."""
        return max(self.phases, key=lambda name: self.phases[name], default=None)


@frozen(kw_only=True)
class Disk:
    """Bytes that a training will write; None where they cannot be told."""

    lora: int | None = None
    """The LoRA's file."""
    checkpoints: int | None = None
    """The LoRA files on the way, all together."""
    states: int | None = None
    """The saved states, all together."""
    samples: int | None = None
    """The sample pictures, all together. Estimated: how small a picture gets depends on what is on it."""
    caches: int | None = None
    """Latents and text encoder outputs, in the run folder."""

    @property
    def output(self) -> int | None:
        """What goes to the output folder; None where nothing of it can be told."""
        return _sum((self.lora, self.checkpoints, self.states, self.samples))

    @property
    def total(self) -> int | None:
        """All of it, as far as it can be told; None where nothing can."""
        return _sum((self.output, self.caches))


def _sum(parts: Iterable[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
