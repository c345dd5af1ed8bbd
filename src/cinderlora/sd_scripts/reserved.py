"""Arguments that are not a job's to give: what a run depends on, and what its data-set file says already. Pure.

sd-scripts takes what the data-set TOML leaves open from the training TOML, and never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cinderlora.problems import Problem

__all__ = ["OURS", "reserved_problems"]

OURS = {
    "config_file": "",
    "console_log_file": "",  # what it takes away from the log, nobody who follows the run would see
    "dataset_class": "",
    "dataset_config": "dataset",
    "debug_dataset": "",  # goes through the pictures for ever instead of training
    "in_json": "dataset",
    "initial_epoch": "cinderlora resume",
    "initial_step": "cinderlora resume",
    "output_config": "",  # writes a configuration instead of training
    "output_dir": "output",
    "output_name": "name, output_prefix",
    "reg_data_dir": "",
    "resume": "cinderlora resume",
    "save_model_as": "",
    "skip_until_initial_step": "cinderlora resume",  # stands still for steps, where gradients are accumulated
    "train_data_dir": "dataset",
}
"""What cinderlora relies on: a run would not find its files, or would not be a training; with what there is instead."""

_OF_THE_DATA_SET = {
    "bucket_no_upscale": "bucket_no_upscale",
    "bucket_reso_steps": "bucket_step",
    "caption_extension": "caption_extension",
    "dataset_repeats": "repeats",
    "enable_bucket": "enable_bucket",
    "resolution": "resolution",
    "train_batch_size": "batch_size",
}
"""What the data-set file says already, with the setting that it says it by."""


def reserved_problems(extra: Iterable[str]) -> Iterator[Problem]:
    """What a job's `extra` must not have, by its keys."""
    for key in extra:
        if key in OURS:
            yield Problem("argument_ours", {"setting": key, "instead": OURS[key]})
        elif key in _OF_THE_DATA_SET:
            yield Problem("argument_of_data_set", {"setting": key, "instead": _OF_THE_DATA_SET[key]})
