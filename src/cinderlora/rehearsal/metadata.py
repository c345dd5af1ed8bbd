"""The metadata of a saved LoRA: the same keys as sd-scripts', with the values of this run."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

from .config import Settings
from .data import Dataset
from .kinds import Kind

NOTICE = "rehearsal by cinderlora: a miniature NumPy training, for practice only"

#: Arguments kept as ``ss_NAME``, with their value as text.
ARGUMENTS = (
    "adaptive_noise_scale",
    "caption_dropout_every_n_epochs",
    "caption_dropout_rate",
    "caption_tag_dropout_rate",
    "clip_skip",
    "face_crop_aug_range",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "huber_c",
    "huber_scale",
    "huber_schedule",
    "ip_noise_gamma",
    "ip_noise_gamma_random_strength",
    "learning_rate",
    "loss_type",
    "lowram",
    "lr_scheduler",
    "lr_warmup_steps",
    "max_grad_norm",
    "max_token_length",
    "max_train_steps",
    "max_validation_steps",
    "min_snr_gamma",
    "mixed_precision",
    "multires_noise_discount",
    "multires_noise_iterations",
    "network_alpha",
    "network_dim",
    "network_dropout",
    "network_module",
    "noise_offset",
    "noise_offset_random_strength",
    "output_name",
    "prior_loss_weight",
    "resize_interpolation",
    "scale_weight_norms",
    "seed",
    "text_encoder_lr",
    "unet_lr",
    "validate_every_n_epochs",
    "validate_every_n_steps",
    "validation_seed",
    "validation_split",
)
SWITCHES = ("cache_latents", "fp8_base", "fp8_base_unet", "full_fp16", "lowram", "v2", "zero_terminal_snr")
SWITCHES_BY_NAME = (
    *SWITCHES,
    "gradient_checkpointing",
    "ip_noise_gamma_random_strength",
    "noise_offset_random_strength",
)
FLOW_SWITCHES = ("apply_t5_attn_mask", "apply_lg_attn_mask")
MINIMUM = (
    "ss_v2",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
)
SPECIFICATION = ("author", "description", "license", "tags", "trigger_phrase", "usage_hint")


def of_run(
    settings: Settings, kind: Kind, datasets: Sequence[Dataset], *, batches: int, epochs: int, steps: int
) -> dict[str, str]:
    """What is known before the first step. ``steps`` is max_train_steps after max_train_epochs was applied."""
    values: dict[str, object] = {f"ss_{name}": settings.get(name) for name in (*ARGUMENTS, *kind.arguments)}
    for name in SWITCHES_BY_NAME + FLOW_SWITCHES:
        if name in SWITCHES_BY_NAME or name in kind.arguments:
            values[f"ss_{name}"] = settings.flag(name)
    comment = settings.text("training_comment")
    optimizer = settings.text("optimizer_type") or "AdamW"
    options = ",".join(f"{name}={value}" for name, value in settings.pairs("optimizer_args").items())
    dirs = {
        Path(subset.image_dir).name: {"n_repeats": subset.repeats, "img_count": len(subset.pictures)}
        for dataset in datasets
        for subset in dataset.subsets
    }
    frequency = {name: counts for dataset in datasets for name, counts in dataset.tag_frequency().items()}
    values |= {
        "ss_base_model_version": kind.base_version,
        "ss_dataset_dirs": json.dumps(dirs),
        "ss_datasets": json.dumps([_described(dataset) for dataset in datasets]),
        "ss_debiased_estimation": settings.flag("debiased_estimation_loss"),
        "ss_max_train_steps": steps,
        "ss_new_sd_model_hash": "rehearsal",  # no model file is read
        "ss_num_batches_per_epoch": batches,
        "ss_num_epochs": epochs,
        "ss_num_reg_images": 0,
        "ss_num_train_images": sum(dataset.images for dataset in datasets),
        "ss_num_validation_images": 0,
        "ss_optimizer": f"rehearsal.{optimizer}" + (f"({options})" if options else ""),
        "ss_sd_model_hash": "rehearsal",
        "ss_sd_model_name": Path(settings.text("pretrained_model_name_or_path") or "rehearsal").name,
        "ss_sd_scripts_commit_hash": "rehearsal",
        "ss_session_id": random.SystemRandom().randint(0, 2**32),
        "ss_tag_frequency": json.dumps(frequency),
        "ss_training_comment": f"{comment}; {NOTICE}" if comment else NOTICE,
        "ss_training_started_at": time.time(),
    }
    if settings.pairs("network_args"):
        values["ss_network_args"] = json.dumps(settings.pairs("network_args"))
    return {key: str(value) for key, value in values.items()}


def of_file(settings: Settings, kind: Kind, run: dict[str, str], step: int, epoch: int) -> dict[str, str]:
    """The metadata of one file, saved after ``step`` steps in epoch ``epoch``."""
    own = {"ss_training_finished_at": str(time.time()), "ss_steps": str(step), "ss_epoch": str(epoch)}
    metadata = {**run, **own}
    if settings.flag("no_metadata"):
        metadata = {key: value for key, value in metadata.items() if key in MINIMUM}
    metadata |= {
        "modelspec.architecture": kind.architecture,
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "modelspec.implementation": kind.implementation,
        "modelspec.implementation_version": "cinderlora/rehearsal",
        "modelspec.resolution": settings.text("metadata_resolution") or "1024x1024",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": settings.text("metadata_title") or settings.text("output_name") or "LoRA",
        **kind.metadata,
        "cinderlora_rehearsal": "true",
    }
    for name in SPECIFICATION:
        value = settings.text(f"metadata_{name}")
        if value is not None:
            metadata[f"modelspec.{name}"] = value
    return metadata


def _described(dataset: Dataset) -> dict[str, object]:
    """One entry of ``ss_datasets``."""
    options = dataset.options
    buckets = {
        str(number): {"resolution": bucket, "count": len(places)}
        for number, (bucket, places) in enumerate(dataset.buckets.items())
    }
    subsets = [
        {
            "img_count": len(subset.pictures),
            "num_repeats": subset.repeats,
            **{
                name: bool(subset.options.get(name))
                for name in ("color_aug", "flip_aug", "random_crop", "shuffle_caption")
            },
            "keep_tokens": subset.options.get("keep_tokens", 0),
            "caption_prefix": subset.options.get("caption_prefix"),
            "caption_suffix": subset.options.get("caption_suffix"),
            "image_dir": Path(subset.image_dir).name,
            "class_tokens": subset.options.get("class_tokens"),
            "is_reg": False,
        }
        for subset in dataset.subsets
    ]
    return {
        "is_dreambooth": True,
        "batch_size_per_device": dataset.batch_size,
        "num_train_images": dataset.images,
        "num_reg_images": 0,
        "resolution": dataset.resolution,
        "enable_bucket": dataset.bucketed,
        "min_bucket_reso": options.get("min_bucket_reso", 256),
        "max_bucket_reso": options.get("max_bucket_reso", 1024),
        "tag_frequency": dataset.tag_frequency(),
        "bucket_info": {"buckets": buckets, "mean_img_ar_error": dataset.mean_error} if dataset.bucketed else None,
        "resize_interpolation": options.get("resize_interpolation"),
        "subsets": subsets,
    }
