"""The way back from sd-scripts' arguments to settings: what `sd_scripts.config` makes of a job, undone."""

from __future__ import annotations

import math
from typing import Any

import attrs

from cinderlora.errors import CinderloraError, SettingError
from cinderlora.importing.data import Entry, shown
from cinderlora.importing.values import coerced, items
from cinderlora.importing.work import DATASET, TRAINING, Work
from cinderlora.problems import Problem
from cinderlora.types import SETTINGS, Job, Settings

__all__ = ["take_settings"]

# What holds where neither the configuration nor the script's own default says anything. The network modules take a dim
# of 4, AdamW is what an empty optimizer_type stands for, and weights are saved as they are trained.
_UNSAID: dict[str, Any] = {
    "blocks_to_swap": 0,
    "network_dim": 4,
    "optimizer": "AdamW",
    "sample_every": 0,
    "save_every": 0,
    "save_precision": "float",
}
# Unsaid, these are cinderlora's to choose: they say nothing of what is learned.
_OPEN = frozenset({"author", "comment", "network_args", "network_module", "optimizer_args", "sample_sampler", "seed"})
_ATTENTION = ("xformers", "mem_eff_attn")


def take_settings(work: Work) -> None:
    """All settings but the sample prompt's, and those of the steps that depend on others last."""
    _switches(work)
    _rates(work)
    _uncached(work)
    _plain_settings(work)
    _pictures(work)
    _lengths(work)
    _unsaid(work)
    _warmup(work)


def _switches(work: Work) -> None:
    """What is said twice in sd-scripts, or the other way round."""
    for argument in ("cache_latents", "cache_text_encoder_outputs"):
        to_disk = work.pop(f"{argument}_to_disk")
        if to_disk is not None and to_disk.value:
            work.table.setdefault(argument, to_disk)
    for argument in _ATTENTION:
        entry = work.pop(argument)
        if entry is not None:
            work.reading.drop(entry.key, entry.theirs, "import_attention")
    work.pop("sdpa")
    entry = work.pop("network_train_unet_only")
    if entry is not None:
        work.put(entry, "train_text_encoder", not entry.value)
    elif work.reading.complete:
        work.settings["train_text_encoder"] = True
        work.implied.append("train_text_encoder")


def _rates(work: Work) -> None:
    """One rate where one will do, so that changing it changes the training: `unet_lr` goes over `learning_rate`."""
    rate, unet, encoder = (work.pop(key) for key in ("learning_rate", "unet_lr", "text_encoder_lr"))
    said = unet or rate
    if said is None:
        if work.reading.complete:
            _imply(work, "learning_rate", "learning_rate")
        return
    work.put(said, "learning_rate", said.value)
    rates = [coerced(item, "float") for item in items(encoder.value)] if encoder else []
    trained = work.settings.get("train_text_encoder")
    if not encoder and rate and rate is not said and trained:
        encoder, rates = rate, [coerced(rate.value, "float")]
    if encoder and trained and any(item != work.settings.get("learning_rate") for item in rates):
        work.table["text_encoder_lr"] = Entry(rates, encoder.key, encoder.theirs)
    elif encoder and encoder is not rate and trained:
        work.note(encoder, "learning_rate", rates[0])
    elif encoder and encoder is not rate:
        work.reading.drop(encoder.key, encoder.theirs, "import_overridden", by="network_train_unet_only")


def _uncached(work: Work) -> None:
    """Another trainer's ways with captions need captions that are encoded anew in every step. Here they are cached
    unless somebody says otherwise, for that is what a card of common size can hold."""
    if work.reading.complete or "cache_text_encoder_outputs" in work.table:
        return
    for argument in ("shuffle_caption", "caption_dropout_rate", "caption_tag_dropout_rate"):
        entry = work.table.get(argument)
        if entry is not None and entry.value:
            del work.table[argument]
            work.reading.drop(entry.key, entry.theirs, "import_cached")


def _plain_settings(work: Work) -> None:
    for argument, setting in (TRAINING | DATASET).items():
        if setting == "caption_extension":
            continue
        entry = work.pop(argument)
        if entry is None:
            continue
        value = entry.value
        if setting == "steps" and "max_train_epochs" in work.table:
            work.reading.drop(entry.key, entry.theirs, "import_overridden", by=work.table["max_train_epochs"].key)
        elif setting == "network_module" and work.adapter and value == work.adapter.type.network_module:
            work.note(entry, "", value)
        elif SETTINGS[setting].choices and value not in SETTINGS[setting].choices:
            params = {"setting": argument, "value": repr(shown(value)), "choices": SETTINGS[setting].choices}
            work.reading.refuse(entry, Problem("argument_choice", params))
        else:
            work.put(entry, setting, value)


def _pictures(work: Work) -> None:
    entry = work.pop("caption_extension")
    if entry is not None:
        from cinderlora.dataset.data import caption_suffix

        try:
            caption_suffix(str(entry.value))
        except SettingError as error:
            work.reading.refuse(entry, Problem(error.code, error.params))
        else:
            work.put(entry, "caption_extension", str(entry.value))
    entry = work.pop("resolution")
    if entry is not None:
        sides = [coerced(item, "int") for item in items(entry.value, ",")]
        if not 1 <= len(sides) <= 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            work.reading.drop(entry.key, entry.theirs, "import_not_understood")
            return
        side = sides[0]
        if len(set(sides)) > 1:
            side = max(64, round(math.sqrt(math.prod(sides)) / 64) * 64)
            work.reading.problem("import_not_square", value=" x ".join(map(str, sides)), now=side)
        work.put(entry, "resolution", side)


def _lengths(work: Work) -> None:
    """What is said in epochs, in steps where the pictures are there to count them."""
    epochs = {key: work.table.get(key) for key in ("max_train_epochs", "save_every_n_epochs", "sample_every_n_epochs")}
    if not any(epochs.values()):
        return
    per_epoch = _steps_per_epoch(work)
    for argument, setting in zip(epochs, ("steps", "save_every", "sample_every"), strict=True):
        entry = epochs[argument]
        count = coerced(entry.value, "int") if entry else None
        if entry is None or not isinstance(count, int) or count <= 0:
            continue
        if per_epoch is not None and (setting == "steps" or not work.settings.get(setting)):
            del work.table[argument]
            work.put(entry, setting, count * per_epoch)
        elif setting == "steps":
            work.reading.problem("import_epochs", epochs=count)
        elif setting == "sample_every":  # sd-scripts wants prompts with it, which come with `sample_every` here
            del work.table[argument]
            if not work.settings.get(setting):
                work.reading.drop(entry.key, entry.theirs, "import_epochs_samples")


def _steps_per_epoch(work: Work) -> int | None:
    from cinderlora.dataset.read import read_dataset
    from cinderlora.sd_scripts.config import job_buckets

    folder = work.job.get("dataset")
    if folder is None or not work.source.there(folder):
        return None
    try:
        dataset = read_dataset(folder, work.settings.get("caption_extension") or ".txt")
        plain = {key: value for key, value in work.settings.items() if key != "extra"}
        wanted = Settings(**plain)
        if work.adapter is not None:
            wanted = wanted.over(Settings(**{i.name: i.default for i in work.adapter.settings()}))
        job = Job(model_type="", name="", trigger="", dataset=folder, output=folder, settings=wanted)
        steps = job_buckets(job, dataset).steps_per_epoch(max(1, wanted.gradient_accumulation or 1))
    except (OSError, CinderloraError, ArithmeticError, ValueError):
        return None
    return steps or None


def _unsaid(work: Work) -> None:
    """Where the configuration is all that the trainer gets, what it does not say is the script's own default."""
    if not work.reading.complete:
        return
    governed = TRAINING | (DATASET if work.reading.dataset_known else {})
    for argument, setting in governed.items():
        in_extra = setting == "steps" and "max_train_epochs" in work.table
        if setting not in work.settings and setting not in _OPEN and setting != "repeats" and not in_extra:
            _imply(work, argument, setting)


def _imply(work: Work, argument: str, setting: str) -> None:
    default = work.default(argument)
    if default is None:
        default = _UNSAID.get(setting, False if SETTINGS[setting].kind == "bool" else None)
    if default is not None:
        work.settings[setting] = default
        work.implied.append(setting)


def _warmup(work: Work) -> None:
    entry = work.pop("lr_warmup_steps")
    if entry is None:
        if work.reading.complete:
            work.settings["lr_warmup_steps"] = 0
        return
    value, steps = coerced(entry.value, "float"), work.settings.get("steps")
    if not isinstance(value, (int, float)) or value < 0 or not math.isfinite(value):
        work.reading.drop(entry.key, entry.theirs, "import_not_understood")
    elif value and work.settings.get("lr_scheduler") == "constant":
        work.reading.refuse(entry, Problem("warmup_without_effect", {"steps": entry.value}))
        work.settings["lr_warmup_steps"] = 0
    elif value >= 1 or value == 0:
        work.put(entry, "lr_warmup_steps", int(value))
    elif steps:  # a part of the training
        work.put(entry, "lr_warmup_steps", int(value * steps))
    else:
        work.table["lr_warmup_steps"] = attrs.evolve(entry, value=value)
