"""The presets and saved configurations of the kohya_ss GUI (JSON), old and new.

What its fields become is read off kohya_ss' own `kohya_gui/lora_gui.py` (45088f04): a field of another model than the
one that is ticked, and one that is empty, false or 0, reaches no trainer and is passed over here.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from cinderlora.errors import ConfigError
from cinderlora.importing.command_line import arguments
from cinderlora.importing.data import Reading, words
from cinderlora.importing.source import Source

__all__ = ["load_json", "number", "read"]


class Family(NamedTuple):
    """A kind of model: the field that chooses it, its script, and the fields that only it has."""

    field: str
    script: str
    prefixes: tuple[str, ...]
    """What stands before the argument's name in fields of its own: `sd3_clip_l`."""
    own: frozenset[str] = frozenset()
    """Arguments of its own whose fields have no prefix."""
    loras: tuple[str, ...] = ()
    """What `LoRA_type` says for this kind alone."""


_FLUX = words(
    """
    ae clip_l t5xxl discrete_flow_shift model_prediction_type timestep_sampling split_mode t5xxl_max_token_length
    guidance_scale mem_eff_save apply_t5_attn_mask cpu_offload_checkpointing blocks_to_swap single_blocks_to_swap
    double_blocks_to_swap fp8_base_unet
    """
)
_SD3 = words(
    """
    clip_g clip_g_dropout_rate logit_mean logit_std mode_scale pos_emb_random_crop_rate save_clip save_t5xxl
    t5xxl_device t5xxl_dtype weighting_scheme blocks_to_swap
    """
)
_FAMILIES = (
    Family("sdxl", "sdxl_train_network.py", ("sdxl_",)),
    Family("flux1_checkbox", "flux_train_network.py", ("flux1_",), _FLUX, ("Flux1", "Flux1 OFT")),
    Family("sd3_checkbox", "sd3_train_network.py", ("sd3_",), _SD3),
    Family(
        "hunyuan_image_checkbox",
        "hunyuan_image_train_network.py",
        ("hunyuan_image_", "hunyuan_"),
        frozenset({"blocks_to_swap"}),
        ("HunyuanImage-2.1",),
    ),
    Family("anima_checkbox", "anima_train_network.py", ("anima_",), frozenset({"blocks_to_swap"}), ("Anima",)),
    Family("lumina_checkbox", "lumina_train_network.py", ("lumina_",), frozenset({"blocks_to_swap"}), ("Lumina",)),
)
_PLAIN = Family("", "train_network.py", ())

# Fields that are called like the argument that they become.
_SAME = words(
    """
    async_upload bucket_no_upscale bucket_reso_steps cache_latents cache_latents_to_disk
    caption_dropout_every_n_epochs caption_dropout_rate caption_extension clip_skip color_aug dataset_config
    debiased_estimation_loss dim_from_weights enable_bucket flip_aug fp8_base full_bf16 full_fp16
    gradient_accumulation_steps gradient_checkpointing highvram huber_c huber_scale huber_schedule
    huggingface_path_in_repo huggingface_repo_id huggingface_repo_type huggingface_repo_visibility huggingface_token
    ip_noise_gamma ip_noise_gamma_random_strength keep_tokens learning_rate log_config log_tracker_config
    log_tracker_name log_with logging_dir loss_type lr_scheduler lr_scheduler_num_cycles lr_scheduler_power
    lr_scheduler_type masked_loss max_bucket_reso max_grad_norm max_timestep max_train_epochs max_train_steps
    metadata_author metadata_description metadata_license metadata_tags metadata_title min_bucket_reso min_snr_gamma
    min_timestep mixed_precision network_alpha network_dim network_dropout network_weights output_dir output_name
    persistent_data_loader_workers pretrained_model_name_or_path prior_loss_weight random_crop reg_data_dir resume
    resume_from_huggingface sample_every_n_epochs sample_every_n_steps sample_sampler save_every_n_epochs
    save_every_n_steps save_last_n_epochs save_last_n_epochs_state save_last_n_steps save_last_n_steps_state
    save_model_as save_precision save_state save_state_on_train_end save_state_to_huggingface
    scale_v_pred_loss_like_noise_pred scale_weight_norms seed shuffle_caption skip_cache_check train_batch_size
    train_data_dir train_inpainting training_comment v2 v_parameterization v_pred_like_loss vae vae_batch_size
    wandb_api_key wandb_run_name weighted_captions
    """
)
# The GUI's own concerns: what it shows, and what it works out of them is taken elsewhere here.
_QUIET = words(
    """
    LyCORIS_preset model_list save_as_bool show_timesteps show_timesteps_resolution v_pred num_cpu_threads_per_process
    dynamo_mode lowvram mem_eff_attn no_token_padding stop_text_encoder_training stop_text_encoder_training_pct
    noise_offset noise_offset_type noise_offset_random_strength adaptive_noise_scale multires_noise_iterations
    multires_noise_discount max_token_length use_wandb model_type loraplus_lr_ratio loraplus_text_encoder_lr_ratio
    loraplus_unet_lr_ratio train_blocks
    """
)
_LAUNCH = {
    "num_processes": 1,
    "num_machines": 1,
    "multi_gpu": False,
    "gpu_ids": "",
    "main_process_port": 0,
    "dynamo_backend": "no",
    "dynamo_use_fullgraph": False,
    "dynamo_use_dynamic": False,
    "extra_accelerate_launch_args": "",
}

_BLOCK_ARGS = (
    "down_lr_weight",
    "mid_lr_weight",
    "up_lr_weight",
    "block_lr_zero_threshold",
    "block_dims",
    "block_alphas",
    "conv_block_dims",
    "conv_block_alphas",
    "rank_dropout",
    "module_dropout",
)
_FLUX_ARGS = (
    "img_attn_dim",
    "img_mlp_dim",
    "img_mod_dim",
    "single_dim",
    "txt_attn_dim",
    "txt_mlp_dim",
    "txt_mod_dim",
    "single_mod_dim",
    "in_dims",
    "train_double_block_indices",
    "train_single_block_indices",
    "split_qkv",
    "train_t5xxl",
    "rank_dropout",
    "module_dropout",
)
_LYCORIS = (
    "conv_dim",
    "conv_alpha",
    "rank_dropout",
    "module_dropout",
    "rank_dropout_scale",
    "use_tucker",
    "train_norm",
)
_LYCORIS_ALGOS: dict[str, tuple[str, tuple[str, ...]]] = {
    "BOFT": ("boft", ()),
    "Diag-OFT": ("diag-oft", ("rescaled",)),
    "DyLoRA": ("dylora", ()),
    "GLoRA": ("glora", ()),
    "iA3": ("ia3", ("train_on_input",)),
    "LoCon": ("locon", ("bypass_mode", "dora_wd", "use_scalar")),
    "LoHa": ("loha", ("bypass_mode", "dora_wd", "use_scalar")),
    "LoKr": ("lokr", ("bypass_mode", "dora_wd", "use_scalar", "factor", "use_cp", "decompose_both")),
    "Native Fine-Tuning": ("full", ()),
}
# A value that is none: it is the preset's author asking for one.
_PLACEHOLDER = re.compile(r"put (your|the) .*\bhere\b", re.IGNORECASE)


def read(source: Source) -> Reading:
    """A saved configuration or a preset."""
    data = load_json(source)
    reading = Reading(format="kohya_gui")
    family = _family(data)
    reading.script = family.script
    if "LoRA_type" not in data:
        reading.problem("import_not_lora", method="DreamBooth, finetuning")
    for key, value in data.items():
        _take(reading, family, key, value)
    _rates(reading, data)
    _length(reading, data)
    _noise(reading, data)
    _network(reading, family, data)
    _other(reading, family, data)
    _additional(reading, data)
    return reading


def _family(data: Mapping[str, Any]) -> Family:
    """By the box that is ticked. Without one the GUI would start the script for Stable Diffusion 1.5, which takes no
    LoRA of another model: there the LoRA tells what was meant."""
    ticked = (family for family in _FAMILIES if _is_on(data.get(family.field)))
    meant = (family for family in _FAMILIES if data.get("LoRA_type") in family.loras)
    return next(ticked, None) or next(meant, _PLAIN)


def load_json(source: Source) -> dict[str, Any]:
    """A JSON file's object; raises `ConfigError`."""
    try:
        data = json.loads(source.text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("file_unreadable", path=str(source.path), why=str(error)) from error
    if not isinstance(data, dict):
        raise ConfigError("import_format_unknown", path=str(source.path))
    return data


def _take(reading: Reading, family: Family, key: str, value: Any) -> None:
    if key in _LAUNCH:
        if value not in (_LAUNCH[key], "", None):
            reading.drop(key, value, "import_launcher")
    elif value in ("", None, False) or value == 0:
        return  # `0 == False`: none of these is handed to the trainer
    elif isinstance(value, str) and _PLACEHOLDER.search(value):
        return
    elif (argument := _argument(family, key)) is not None:
        reading.take(argument, value, key=key, theirs=value)
    elif not _is_field(key):
        reading.drop(key, value, "import_no_counterpart")


def _argument(family: Family, key: str) -> str | None:
    """The argument that a field becomes as it is."""
    if key in _SAME or key in family.own:
        return key
    if key == family.field:
        return None
    return next((key.removeprefix(start) for start in family.prefixes if key.startswith(start)), None)


def _is_field(key: str) -> bool:
    """Whether it is a field that was looked at, or one of another model or network."""
    starts = tuple(start for family in _FAMILIES for start in family.prefixes)
    fields = {family.field for family in _FAMILIES} | _FLUX | _SD3 | _QUIET | _TAKEN_ELSEWHERE
    return key in fields or key.startswith(starts)


def number(value: Any) -> float:
    """A number that may be written as text; 0 for none."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return found if math.isfinite(found) else 0.0


def _is_on(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _rates(reading: Reading, data: Mapping[str, Any]) -> None:
    """Which parts are trained follows from their learning rates, not from a field of its own."""
    encoder, unet, t5xxl = (number(data.get(key)) for key in ("text_encoder_lr", "unet_lr", "t5xxl_lr"))
    if unet:
        reading.take("unet_lr", unet)
    if encoder:
        reading.take("text_encoder_lr", [encoder, t5xxl or encoder], theirs=encoder)
    if not encoder and unet:
        reading.take("network_train_unet_only", True, key="text_encoder_lr", theirs=0)
    if encoder and not unet:
        reading.take("network_train_text_encoder_only", True, key="unet_lr", theirs=0)


def _length(reading: Reading, data: Mapping[str, Any]) -> None:
    steps, epoch = int(number(data.get("max_train_steps"))), int(number(data.get("epoch")))
    if not steps and epoch and "max_train_epochs" not in reading.table:
        reading.take("max_train_epochs", epoch, key="epoch", theirs=data["epoch"])
    warmup, percent = int(number(data.get("lr_warmup_steps"))), number(data.get("lr_warmup"))
    if warmup > 0:
        reading.take("lr_warmup_steps", warmup)
    elif percent > 0:
        reading.take("lr_warmup_steps", percent / 100, key="lr_warmup", theirs=f"{percent:g} %")


def _noise(reading: Reading, data: Mapping[str, Any]) -> None:
    fields = (
        ("multires_noise_iterations", "multires_noise_discount")
        if data.get("noise_offset_type") == "Multires"
        else ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    )
    if number(data.get(fields[0])):  # the others have no effect without the first
        for key in fields:
            if data.get(key) not in ("", None, False, 0):
                reading.take(key, data[key])


def _network(reading: Reading, family: Family, data: Mapping[str, Any]) -> None:
    kind = str(data.get("LoRA_type", "Standard"))
    kind = "LyCORIS/LoCon" if kind == "LoCon" else kind
    name = kind.removeprefix("LyCORIS/")
    if kind.startswith("LyCORIS/") and name in _LYCORIS_ALGOS:
        algo, more = _LYCORIS_ALGOS[name]
        args = [("preset", data.get("LyCORIS_preset", "full")), ("algo", algo)]
        args += [(key, data[key]) for key in (*_LYCORIS, *more) if key in data and data[key] != ""]
        args += [("constraint", data["constrain"])] if name == "Diag-OFT" and "constrain" in data else []
        args += [("block_size", data["unit"])] if name == "DyLoRA" and "unit" in data else []
        module = "lycoris.kohya"
    else:
        modules = {
            "Standard": "networks.lora_sd3" if family.field == "sd3_checkbox" else "networks.lora",
            "Kohya LoCon": "networks.lora_sd3" if family.field == "sd3_checkbox" else "networks.lora",
            "Kohya DyLoRA": "networks.dylora",
            "Kohya LoHa": "networks.loha",
            "Kohya LoKr": "networks.lokr",
            "LoRA-FA": "networks.lora_fa",
            "Flux1": "networks.lora_flux",
            "Flux1 OFT": "networks.oft_flux",
            "HunyuanImage-2.1": "networks.lora_hunyuan_image",
            "Anima": "networks.lora_anima",
            "Lumina": "networks.lora_lumina",
        }
        if kind not in modules:
            reading.drop("LoRA_type", kind, "import_no_counterpart")
            return
        module = modules[kind]
        args = [(key, data.get(key)) for key in _network_fields(kind)]
        args = [
            (key, value) for key, value in args if number(value) or (isinstance(value, str) and value) or value is True
        ]
        if kind == "Flux1" and _is_on(data.get("split_mode")):
            args.append(("train_blocks", "single"))
    ratios = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
    args += [(key, data[key]) for key in ratios if number(data.get(key))]
    reading.take("network_module", module, key="LoRA_type", theirs=kind)
    if args:
        reading.take(
            "network_args", [f"{key}={value}".replace('"', "") for key, value in args], key="LoRA_type", theirs=kind
        )


def _network_fields(kind: str) -> tuple[str, ...]:
    if kind == "Flux1":
        return _FLUX_ARGS
    if kind == "Flux1 OFT":
        return ("enable_all_linear",)
    if kind in {"Kohya LoHa", "Kohya LoKr"}:
        return ("conv_dim", "conv_alpha", "use_tucker", "rank_dropout", "module_dropout", "factor")
    if kind == "Kohya DyLoRA":
        return ("conv_dim", "conv_alpha", *_BLOCK_ARGS, "unit")
    if kind == "Kohya LoCon":
        return ("conv_dim", "conv_alpha", *_BLOCK_ARGS)
    if kind in {"Standard", "LoRA-FA"}:
        return _BLOCK_ARGS
    return ("rank_dropout", "module_dropout")


_TAKEN_ELSEWHERE = frozenset(
    {
        "LoRA_type",
        "additional_parameters",
        "block_size",
        "constrain",
        "conv_alphas",
        "conv_dims",
        "epoch",
        "lora_network_weights",
        "lr_scheduler_args",
        "lr_warmup",
        "lr_warmup_steps",
        "max_data_loader_n_workers",
        "max_resolution",
        "optimizer",
        "optimizer_args",
        "sample_prompts",
        "t5xxl_lr",
        "text_encoder_lr",
        "train_lora_ggpo",
        "ggpo_beta",
        "ggpo_sigma",
        "unet_lr",
        "unit",
        "use_8bit_adam",
        "xformers",
        "enable_all_linear",
        "train_on_input",
        "factor",
        "use_cp",
        "decompose_both",
        "bypass_mode",
        "dora_wd",
        "use_scalar",
        "rescaled",
        *_LYCORIS,
        *_FLUX_ARGS,
        *_BLOCK_ARGS,
    }
)


def _other(reading: Reading, family: Family, data: Mapping[str, Any]) -> None:
    optimizer = data.get("optimizer") or ("AdamW8bit" if _is_on(data.get("use_8bit_adam")) else "AdamW")
    reading.take("optimizer_type", optimizer, key="optimizer")
    for key in ("optimizer_args", "lr_scheduler_args"):
        value = data.get(key)
        words = value if isinstance(value, list) else str(value or "").replace('"', "").split()
        if words:
            reading.take(key, [str(word) for word in words], theirs=value)
    if data.get("max_resolution"):
        reading.take("resolution", data["max_resolution"], key="max_resolution")
    reading.take("max_data_loader_n_workers", int(number(data.get("max_data_loader_n_workers"))))
    if data.get("lora_network_weights"):
        reading.take("network_weights", data["lora_network_weights"], key="lora_network_weights")
    tokens = int(number(data.get("max_token_length")))
    if tokens > 75 and family.field in {"", "sdxl", "sd3_checkbox"}:  # 75 is what the script takes anyway
        reading.take("max_token_length", tokens, theirs=data["max_token_length"])
    if str(data.get("model_type", "")).lower() == "chroma" and family.field == "flux1_checkbox":
        reading.take("model_type", "chroma")
        reading.take("apply_t5_attn_mask", True, key="model_type", theirs="chroma")
        reading.take("guidance_scale", number(data.get("guidance_scale")))
    attention = data.get("xformers")
    if attention in ("xformers", True) or _is_on(attention):
        reading.take("xformers", True, theirs=attention)
    prompts = data.get("sample_prompts")
    if isinstance(prompts, str):
        reading.prompts = tuple(prompts.splitlines())


def _additional(reading: Reading, data: Mapping[str, Any]) -> None:
    """What people typed into the field for further arguments: it goes over the rest."""
    text = data.get("additional_parameters")
    if not isinstance(text, str) or not text.strip():
        return
    try:
        words = shlex.split(text)
    except ValueError:
        reading.drop("additional_parameters", text, "import_not_understood")
        return
    for name, value in arguments(words, reading.script):
        reading.take(name, value, key=f"--{name}", theirs=value)
