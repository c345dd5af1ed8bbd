"""An import while it is made, and the arguments of sd-scripts that are settings under another name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from cinderlora.errors import SettingError
from cinderlora.importing.data import Entry, Reading, Taken, shown
from cinderlora.importing.source import Source
from cinderlora.importing.values import coerced, plain
from cinderlora.problems import Problem
from cinderlora.sd_scripts.arguments import Arguments, known_arguments
from cinderlora.types import SETTINGS, Settings

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter

__all__ = ["DATASET", "TRAINING", "Work"]

TRAINING = {
    "blocks_to_swap": "blocks_to_swap",
    "cache_latents": "cache_latents",
    "cache_text_encoder_outputs": "cache_text_encoders",
    "fp8_base": "fp8_base",
    "gradient_accumulation_steps": "gradient_accumulation",
    "gradient_checkpointing": "gradient_checkpointing",
    "lr_scheduler": "lr_scheduler",
    "max_data_loader_n_workers": "workers",
    "max_grad_norm": "max_grad_norm",
    "max_train_steps": "steps",
    "metadata_author": "author",
    "mixed_precision": "mixed_precision",
    "network_alpha": "network_alpha",
    "network_args": "network_args",
    "network_dim": "network_dim",
    "network_module": "network_module",
    "optimizer_args": "optimizer_args",
    "optimizer_type": "optimizer",
    "sample_at_first": "sample_at_first",
    "sample_every_n_steps": "sample_every",
    "sample_sampler": "sample_sampler",
    "save_every_n_steps": "save_every",
    "save_precision": "save_precision",
    "save_state": "save_state",
    "seed": "seed",
    "training_comment": "comment",
}
DATASET = {
    "bucket_no_upscale": "bucket_no_upscale",
    "bucket_reso_steps": "bucket_step",
    "caption_extension": "caption_extension",
    "enable_bucket": "enable_bucket",
    "flip_aug": "flip_aug",
    "num_repeats": "repeats",
    "shuffle_caption": "shuffle_caption",
    "train_batch_size": "batch_size",
}
"""The arguments that are a setting under another name, by where cinderlora writes them."""


@define
class Work:
    """One import while it is made."""

    reading: Reading
    source: Source
    adapter: Adapter | None
    """The model type; None where it is not known."""
    settings: dict[str, Any] = Factory(dict)
    extra: dict[str, Any] = Factory(dict)
    job: dict[str, Any] = Factory(dict)
    """Name, trigger, dataset, output: as far as they are said."""
    models: dict[str, Path] = Factory(dict)
    taken: list[Taken] = Factory(list)
    implied: list[str] = Factory(list)

    @property
    def known(self) -> Arguments | None:
        """The arguments of the type's script."""
        return known_arguments(self.adapter.type.script) if self.adapter else None

    def default(self, argument: str) -> Any:
        """The script's own, None where it has none or nothing is known of it."""
        known = self.known
        value = known[argument]["default"] if known and argument in known else None
        return None if value == "" else value

    @property
    def table(self) -> dict[str, Entry]:
        """What is still to be looked at, by argument."""
        return self.reading.table

    def pop(self, argument: str) -> Entry | None:
        """An argument, which is dealt with by that."""
        return self.reading.table.pop(argument, None)

    def note(self, entry: Entry, setting: str, now: Any) -> None:
        """Say what became of an argument."""
        self.taken.append(Taken(key=entry.key, value=shown(entry.theirs), setting=setting, now=plain(now)))

    def put(self, entry: Entry, setting: str, value: Any) -> bool:
        """Set a setting, if the value is of its type; else say why not."""
        value = coerced(value, SETTINGS[setting].kind)
        try:
            Settings(**{setting: value})
        except SettingError as error:
            self.reading.refuse(entry, Problem(error.code, error.params))
            return False
        self.settings[setting] = value
        self.note(entry, setting, value)
        return True
