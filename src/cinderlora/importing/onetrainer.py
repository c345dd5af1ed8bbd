"""OneTrainer's presets and configurations (JSON), as far as there is something like it in sd-scripts.

Names and defaults are those of OneTrainer's `modules/util/config/TrainConfig.py`. It is another trainer with a method
of its own: what is taken over are the settings that mean the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any

from cinderlora.importing.data import Reading, words
from cinderlora.importing.kohya_gui import load_json, number
from cinderlora.importing.source import Source

__all__ = ["read"]

_SCRIPTS = {
    "FLUX_DEV_1": "flux_train_network.py",
    "CHROMA_1": "flux_train_network.py",
    "STABLE_DIFFUSION_XL_10_BASE": "sdxl_train_network.py",
    "STABLE_DIFFUSION_3": "sd3_train_network.py",
    "STABLE_DIFFUSION_35": "sd3_train_network.py",
    "STABLE_DIFFUSION_15": "train_network.py",
    "STABLE_DIFFUSION_20": "train_network.py",
    "STABLE_DIFFUSION_21": "train_network.py",
    "ANIMA": "anima_train_network.py",
}
_OPTIMIZERS = {
    "ADAMW": "AdamW",
    "ADAMW_8BIT": "AdamW8bit",
    "ADAFACTOR": "Adafactor",
    "PRODIGY": "Prodigy",
    "LION": "Lion",
    "LION_8BIT": "Lion8bit",
    "SGD_8BIT": "SGDNesterov8bit",
    "DADAPT_ADAM": "DAdaptAdam",
    "DADAPT_ADA_GRAD": "DAdaptAdaGrad",
    "DADAPT_ADAN": "DAdaptAdan",
    "DADAPT_LION": "DAdaptLion",
    "DADAPT_SGD": "DAdaptSGD",
    "CAME": "CAME",
}
_OPTIMIZER_ARGS = {
    "PRODIGY": ("d_coef", "decouple", "use_bias_correction", "safeguard_warmup"),
    "ADAFACTOR": ("relative_step", "scale_parameter", "warmup_init"),
}
_SCHEDULERS = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_RESTARTS": "cosine_with_restarts",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
}
_MIXED = {"FLOAT_16": "fp16", "BFLOAT_16": "bf16", "FLOAT_32": "no", "TFLOAT_32": "no"}
_SAVED = {"FLOAT_16": "fp16", "BFLOAT_16": "bf16", "FLOAT_32": "float"}
_EIGHT_BITS = frozenset({"FLOAT_8", "FLOAT_W8A8"})

# Same meaning, another name.
_SAME = {
    "aspect_ratio_bucketing": "enable_bucket",
    "base_model_name": "pretrained_model_name_or_path",
    "batch_size": "train_batch_size",
    "clip_grad_norm": "max_grad_norm",
    "dataloader_threads": "max_data_loader_n_workers",
    "dropout_probability": "network_dropout",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "latent_caching": "cache_latents",
    "learning_rate": "learning_rate",
    "lora_alpha": "network_alpha",
    "lora_rank": "network_dim",
    "offset_noise_weight": "noise_offset",
    "seed": "seed",
}
# OneTrainer's own housekeeping, and parts of models that no type has here: nobody looks for them in a job.
_QUIET = words(
    """
    __version async_gradient_reduce async_gradient_reduce_buffer async_offloading backup_after backup_after_unit
    backup_before_save cache_dir clear_cache_before_training cloud concept_file_name config_version
    continue_last_backup debug_dir debug_mode decoder decoder_text_encoder decoder_vqgan device_indexes effnet_encoder
    embedding embedding_weight_dtype enable_autocast_cache fallback_train_dtype frames fused_gradient_reduce
    gradient_reduce_precision huggingface_cache_dir include_train_config lora_weight_dtype non_ema_sampling
    offline_mode optimizer_defaults output_model_format prevent_overwrites prior quantization rolling_backup
    rolling_backup_count sample_audio_format sample_definition_file_name sample_image_format sample_video_format
    samples_to_tensorboard save_filename_prefix save_skip_first sample_skip_first temp_device tensorboard
    tensorboard_always_on tensorboard_expose tensorboard_port train_device unconditional_transformer validate_after
    validate_after_unit workspace_dir attention_mechanism bundle_additional_embeddings mse_strength vb_loss_strength
    ema_decay ema_update_step_interval huber_delta oft_block_size lokr_dim lokr_decompose_factor max_noising_strength
    unmasked_probability unmasked_weight learning_rate_cycles loss_weight_strength text_encoder_sequence_length
    text_encoder_2_sequence_length lora_decompose_norm_epsilon lokr_dora_on_output lokr_vec_trick timestep_shift
    layer_filter_preset resolution training_method model_type peft_type epochs optimizer learning_rate_scheduler
    learning_rate_warmup_steps train_dtype output_dtype gradient_checkpointing loss_weight_fn output_model_destination
    concepts samples sample_after sample_after_unit save_every save_every_unit secrets
    """
)
_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4", "vae")


def read(source: Source) -> Reading:
    """A preset or a configuration for a LoRA."""
    data = load_json(source)
    kind = str(data.get("model_type", ""))
    reading = Reading(format="onetrainer", script=_SCRIPTS.get(kind, kind or None), complete=False)
    if data.get("training_method", "FINE_TUNE") != "LORA" or data.get("peft_type", "LORA") != "LORA":
        method = f"{data.get('training_method', 'FINE_TUNE')} {data.get('peft_type', '')}".strip()
        reading.problem("import_not_lora", method=method)
    if kind == "CHROMA_1":
        reading.take("model_type", "chroma", theirs=kind)
        reading.take("apply_t5_attn_mask", True, key="model_type", theirs=kind)
    # Without these, OneTrainer's own defaults hold, which are not what anybody expects.
    for key, value in ({"lora_rank": 16, "lora_alpha": 1.0, "epochs": 100} | data).items():
        _take(reading, key, value)
    _length_and_pace(reading, data)
    _precision(reading, data)
    _optimizer(reading, data)
    _pictures(reading, data)
    _output(reading, data)
    _samples(reading, data)
    return reading


def _take(reading: Reading, key: str, value: Any) -> None:
    if key in _SAME:
        if value not in (None, ""):
            reading.take(_SAME[key], value, key=key)
    elif key == "secrets":
        if isinstance(value, dict) and any(isinstance(item, str) and item for item in value.values()):
            reading.drop(key, "", "import_secret", variable="HF_TOKEN")
    elif key not in _QUIET and key not in _PARTS and not _is_off(value):
        reading.drop(key, "" if isinstance(value, (dict, list)) else value, "import_no_counterpart")


def _is_off(value: Any) -> bool:
    return value in (None, "", False, [], {}) or value == 0 or value in ("NONE", "NEVER", "OFF", "UNIFORM")


def _length_and_pace(reading: Reading, data: Mapping[str, Any]) -> None:
    reading.take("max_train_epochs", int(number(data.get("epochs", 100))), key="epochs")
    scheduler = data.get("learning_rate_scheduler", "CONSTANT")
    warmup = number(data.get("learning_rate_warmup_steps"))
    name = _SCHEDULERS.get(str(scheduler))
    if name is None:
        reading.drop("learning_rate_scheduler", scheduler, "import_no_counterpart")
    else:
        name = "constant_with_warmup" if name == "constant" and warmup else name
        reading.take("lr_scheduler", name, key="learning_rate_scheduler", theirs=scheduler)
    if warmup:
        reading.take("lr_warmup_steps", warmup, key="learning_rate_warmup_steps")
    if data.get("loss_weight_fn") == "MIN_SNR_GAMMA":
        gamma = number(data.get("loss_weight_strength", 5.0))
        reading.take("min_snr_gamma", gamma, key="loss_weight_fn", theirs="MIN_SNR_GAMMA")
    elif not _is_off(data.get("loss_weight_fn")) and data.get("loss_weight_fn") != "CONSTANT":
        reading.drop("loss_weight_fn", data["loss_weight_fn"], "import_no_counterpart")


def _precision(reading: Reading, data: Mapping[str, Any]) -> None:
    for key, argument, names in (
        ("train_dtype", "mixed_precision", _MIXED),
        ("output_dtype", "save_precision", _SAVED),
    ):
        if str(data.get(key)) in names:
            reading.take(argument, names[str(data[key])], key=key, theirs=data[key])
        elif not _is_off(data.get(key)):
            reading.drop(key, data[key], "import_no_counterpart")
    parts = {part: data[part] for part in _PARTS if isinstance(data.get(part), dict)}
    for part in ("unet", "transformer"):
        kept = parts.get(part, {}).get("weight_dtype")
        if str(kept) in _EIGHT_BITS:
            reading.take("fp8_base", True, key=f"{part}.weight_dtype", theirs=kept)
        elif kept is not None and str(kept) not in _SAVED:
            reading.drop(f"{part}.weight_dtype", kept, "import_no_counterpart")
    encoders = [parts[part].get("train") for part in parts if part.startswith("text_encoder")]
    if encoders and None not in encoders:
        reading.take("network_train_unet_only", not any(encoders), key="text_encoder.train", theirs=any(encoders))
    checkpointing = data.get("gradient_checkpointing")
    if checkpointing is None:
        told = [parts[part].get("gradient_checkpointing") for part in ("unet", "transformer") if part in parts]
        checkpointing = next((value for value in told if value is not None), None)
    if checkpointing is not None:
        on = checkpointing not in (False, "OFF")
        reading.take("gradient_checkpointing", on, theirs=checkpointing)
    for part, argument in (("transformer", "pretrained_model_name_or_path"), ("vae", "vae")):
        if parts.get(part, {}).get("model_name"):
            reading.take(argument, parts[part]["model_name"], key=f"{part}.model_name")


def _optimizer(reading: Reading, data: Mapping[str, Any]) -> None:
    given = data.get("optimizer")
    options = given if isinstance(given, dict) else {"optimizer": given} if given else {}
    kind = options.get("optimizer")
    if kind is None:
        return
    if str(kind) not in _OPTIMIZERS:
        reading.drop("optimizer.optimizer", kind, "import_no_counterpart")
        return
    reading.take("optimizer_type", _OPTIMIZERS[str(kind)], key="optimizer.optimizer", theirs=kind)
    args = [f"{key}={options[key]}" for key in _OPTIMIZER_ARGS.get(str(kind), ()) if options.get(key) is not None]
    if kind != "ADAFACTOR" and options.get("beta1") is not None and options.get("beta2") is not None:
        args.append(f"betas={options['beta1']},{options['beta2']}")
    if options.get("weight_decay") is not None:
        args.append(f"weight_decay={options['weight_decay']}")
    if args:
        reading.take("optimizer_args", args, key="optimizer")


def _pictures(reading: Reading, data: Mapping[str, Any]) -> None:
    sizes = [size for size in str(data.get("resolution", "")).split(",") if size.strip()]
    if sizes:
        reading.take("resolution", sizes[0].split("x")[0].strip(), key="resolution", theirs=data["resolution"])
        if len(sizes) > 1:
            reading.problem("import_several_resolutions", value=data["resolution"], now=sizes[0].strip())
    concepts = data.get("concepts")
    if not isinstance(concepts, list):
        if data.get("concept_file_name"):
            reading.drop("concept_file_name", data["concept_file_name"], "import_elsewhere")
        return
    used = [c for c in concepts if isinstance(c, dict) and c.get("enabled", True) and c.get("path")]
    for other in used[1:]:
        reading.drop("concepts.path", other["path"], "import_other_folder")
    if used:
        reading.take("train_data_dir", used[0]["path"], key="concepts.path")
        if used[0].get("balancing_strategy", "REPEATS") == "REPEATS" and number(used[0].get("balancing")) >= 1:
            reading.take("num_repeats", int(number(used[0]["balancing"])), key="concepts.balancing")
        image, text = used[0].get("image"), used[0].get("text")
        if isinstance(image, dict) and image.get("enable_random_flip"):
            reading.take("flip_aug", True, key="concepts.image.enable_random_flip")
        if isinstance(text, dict) and text.get("enable_tag_shuffling"):
            reading.take("shuffle_caption", True, key="concepts.text.enable_tag_shuffling")


def _output(reading: Reading, data: Mapping[str, Any]) -> None:
    target = data.get("output_model_destination")
    if isinstance(target, str) and target:
        path = PureWindowsPath(target) if "\\" in target else PurePath(target)
        reading.take("output_name", path.stem, key="output_model_destination", theirs=target)
        reading.take("output_dir", str(path.parent), key="output_model_destination", theirs=target)
    for key, step, epoch in (
        ("save_every", "save_every_n_steps", "save_every_n_epochs"),
        ("sample_after", "sample_every_n_steps", "sample_every_n_epochs"),
    ):
        unit, value = str(data.get(f"{key}_unit")), int(number(data.get(key)))
        if unit in {"STEP", "EPOCH"} and value:
            reading.take(step if unit == "STEP" else epoch, value, key=key, theirs=f"{value} {unit}")
        elif unit in {"SECOND", "MINUTE", "HOUR"} and value:
            reading.drop(key, f"{value} {unit}", "import_by_the_clock")


def _samples(reading: Reading, data: Mapping[str, Any]) -> None:
    samples = data.get("samples")
    lines = []
    for sample in samples if isinstance(samples, list) else ():
        if isinstance(sample, dict) and sample.get("enabled", True) and sample.get("prompt"):
            options = {"w": "width", "h": "height", "s": "diffusion_steps", "l": "cfg_scale", "d": "seed"}
            said = "".join(f" --{o} {sample[key]}" for o, key in options.items() if sample.get(key) is not None)
            lines.append(f"{' '.join(str(sample['prompt']).split())}{said}")
    reading.prompts = tuple(lines)
