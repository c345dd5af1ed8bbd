"""A studio's house settings, on top of whatever adapters are installed: presets, and what goes into every LoRA.

There is no `model_type` here, so the plugin is cross-cutting: its hooks are called for all model types.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cinderlora import Preset, hookimpl

if TYPE_CHECKING:
    from cinderlora import Job, ModelType

STUDIO = "Northlight Studio"
LICENCE = "Northlight Studio, internal use only"

DRAFT, FINAL = "studio-draft", "studio-final"

_BASES = {"flux": "16gb", "sdxl": "16gb", "sd3": "16gb", "zimage": "16gb"}
"""The preset of the adapter that ours go over, by model type. Of other types we have no experience."""

_KEPT = 2
"""Checkpoints of a draft that stay on the disk."""


@hookimpl
def presets(model_type: ModelType) -> Iterable[Preset]:
    base = _BASES.get(model_type.name)
    if base is None:
        return
    yield Preset(
        name=DRAFT,
        title="Draft: is the data set any good?",
        base=base,
        network_dim=8,
        steps=800,
        save_every=200,
        sample_every=100,
    )
    yield Preset(
        name=FINAL,
        title="For delivery",
        base=base,
        network_dim=32,
        steps=2400,
        save_every=400,
        sample_every=400,
        sample_prompt="{trigger}, three-quarter portrait, neutral light",
        seed=1234,
    )


@hookimpl(wrapper=True)
def build_args(job: Job) -> Generator[None, Mapping[str, Any] | None, dict[str, Any]]:
    """The adapter's own arguments, with the house's over them: they reach every LoRA, whoever trains it."""
    args = yield
    return {**(args or {}), **_house(job)}


def _house(job: Job) -> dict[str, Any]:
    """What the house wants in a LoRA's metadata, and on the disk. All trainers know these by the same names."""
    is_draft = job.preset != FINAL
    house: dict[str, Any] = {
        "metadata_author": STUDIO,
        "metadata_license": LICENCE,
        "metadata_description": f"{job.trigger}{' (draft, not for delivery)' if is_draft else ''}",
    }
    if is_draft and job.settings.save_every:
        house["save_last_n_steps"] = (_KEPT - 1) * job.settings.save_every
    return house
