"""What sd-scripts stumbles over after minutes of loading, or silently ignores: rules on the keys it will get. Pure.

Each was seen on 48d368fa (v0.10.1), in a run or in its source; the scripts do not look at their training TOML.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cinderlora.names import nearest
from cinderlora.problems import Problem

__all__ = ["rule_problems"]

# Seen by the data set with every caption, so they cannot be cached; the script stops before training.
_CAPTION_CHANGES = ("shuffle_caption", "caption_dropout_rate", "caption_tag_dropout_rate", "token_warmup_step")
# Draw other latents each time, so they cannot be cached either.
_PICTURE_CHANGES = ("color_aug", "random_crop")
# Without effect once the text encoders' outputs are cached: no error, no word.
_CAPTION_ADDITIONS = ("caption_prefix", "caption_suffix", "enable_wildcard")
_NEVER_ZERO = ("save_every_n_steps", "save_every_n_epochs", "sample_every_n_steps", "sample_every_n_epochs")
# What the script knows by name: transformers' schedulers and its own, the optimizers that it looks for whatever the
# case, and PyTorch's, which it takes as they are written. Others come with a module before their name.
_SCHEDULERS = """
    constant constant_with_warmup cosine cosine_warmup_with_min_lr cosine_with_min_lr cosine_with_restarts inverse_sqrt
    linear piecewise_constant polynomial reduce_lr_on_plateau warmup_stable_decay
"""
_OPTIMIZERS = """
    Adafactor AdamW AdamW8bit AdamWScheduleFree DAdaptAdaGrad DAdaptAdam DAdaptAdamPreprint DAdaptAdan DAdaptAdanIP
    DAdaptLion DAdaptSGD DAdaptation Lion Lion8bit PagedAdamW PagedAdamW32bit PagedAdamW8bit PagedLion8bit Prodigy
    RAdamScheduleFree SGDNesterov SGDNesterov8bit SGDScheduleFree
"""
_OF_TORCH = "ASGD Adadelta Adagrad Adam Adamax LBFGS Muon NAdam RAdam RMSprop Rprop SGD SparseAdam"
# What is trained with a learning rate of its own. Where all are 0 the optimizer gets nothing, and the script stops.
_RATES = ("unet_lr", "text_encoder_lr")
_SAMPLING = ("sample_every_n_steps", "sample_every_n_epochs", "sample_at_first")

# The LoRA modules that come with sd-scripts, and the scripts each is for; others (LyCORIS, ...) are not judged.
_MODULES = {
    "networks.lora": ("sdxl_train_network.py", "train_network.py"),
    "networks.lora_fa": ("sdxl_train_network.py", "train_network.py"),
    "networks.dylora": ("sdxl_train_network.py", "train_network.py"),
    "networks.lora_flux": ("flux_train_network.py",),
    "networks.oft_flux": ("flux_train_network.py",),
    "networks.lora_sd3": ("sd3_train_network.py",),
    "networks.lora_lumina": ("lumina_train_network.py",),
    "networks.lora_hunyuan_image": ("hunyuan_image_train_network.py",),
    "networks.lora_anima": ("anima_train_network.py",),
    # 0.11.1, from its source
    "networks.loha": ("sdxl_train_network.py", "anima_train_network.py"),
    "networks.lokr": ("sdxl_train_network.py", "anima_train_network.py"),
}
# What the sides of buckets have to be multiples of, in pixels: FLUX' script asks for more than it says itself.
_BUCKET_STEPS = {"flux_train_network.py": 64, "sdxl_train_network.py": 32, "sd3_train_network.py": 32}
_TRANSFORMERS = ("flux_train_network.py", "sd3_train_network.py")
_FULL_PRECISION = {"full_fp16": "fp16", "full_bf16": "bf16"}


def rule_problems(script: str, keys: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with keys that are each right by themselves: `keys` are those of the training and of the data set,
    by the trainer's own names."""
    yield from _caching(script, keys)
    yield from _optimizing(keys)
    yield from _sampling_and_saving(keys)
    yield from _buckets(script, keys)
    yield from _model(script, keys)


def _caching(script: str, keys: Mapping[str, Any]) -> Iterator[Problem]:
    if keys.get("cache_latents") or keys.get("cache_latents_to_disk"):
        for key in _PICTURE_CHANGES:
            if keys.get(key):
                yield Problem("latents_cached", {"setting": key}, changes={"cache_latents": False})
    if not (keys.get("cache_text_encoder_outputs") or keys.get("cache_text_encoder_outputs_to_disk")):
        return
    for key in _CAPTION_CHANGES:
        if keys.get(key):
            yield Problem("captions_cached", {"setting": key}, changes={key: False} if key == "shuffle_caption" else {})
    for key in _CAPTION_ADDITIONS:
        if keys.get(key):
            yield Problem("no_effect_with_cache", {"setting": key}, severity="warning")
    if script == "sdxl_train_network.py" and not keys.get("network_train_unet_only"):
        yield Problem("text_encoder_cached", changes={"cache_text_encoders": False})
    if script in _TRANSFORMERS and "train_t5xxl=True" in (keys.get("network_args") or ()):
        yield Problem("t5xxl_cached", changes={"cache_text_encoders": False})


def _optimizing(keys: Mapping[str, Any]) -> Iterator[Problem]:
    scheduler, warmup = keys.get("lr_scheduler", "constant"), keys.get("lr_warmup_steps")
    if scheduler == "constant" and warmup and not keys.get("lr_scheduler_type"):
        yield Problem("warmup_without_effect", {"steps": warmup}, changes={"lr_warmup_steps": 0})
    yield from _unknown_names(keys)
    optimizer, rate = str(keys.get("optimizer_type", "")).lower(), keys.get("learning_rate")
    if rate == 0 and not any(keys.get(key) for key in _RATES):
        yield Problem("learning_rate_zero", changes={"learning_rate": None})
    adaptive = optimizer == "prodigy" or optimizer.startswith("dadapt")
    if adaptive and isinstance(rate, (int, float)) and 0 < rate <= 0.1:
        params = {"optimizer": keys["optimizer_type"], "value": rate}
        yield Problem("learning_rate_low", params, severity="warning", changes={"learning_rate": 1.0})


def _unknown_names(keys: Mapping[str, Any]) -> Iterator[Problem]:
    """Optimizers and schedulers that the script has none of. A later version may, so these are warnings."""
    name, known = str(keys.get("lr_scheduler", "")), _SCHEDULERS.split()
    if name not in ("", *known) and not name.startswith("adafactor:") and not keys.get("lr_scheduler_type"):
        yield _unknown("scheduler_unknown", name, known)
    name, known = str(keys.get("optimizer_type", "")), _OPTIMIZERS.split()
    in_any_case, as_written = [other.lower() for other in known], _OF_TORCH.split()
    if "." not in name and name.lower() not in ("", *in_any_case) and name not in as_written:
        yield _unknown("optimizer_unknown", name, [*known, *as_written])


def _unknown(code: str, name: str, known: Iterable[str]) -> Problem:
    spelled = {other.lower(): other for other in known}
    close = nearest(name.lower(), spelled)
    return Problem(code, {"value": name, "nearest": spelled[close] if close else None}, severity="warning")


def _sampling_and_saving(keys: Mapping[str, Any]) -> Iterator[Problem]:
    for key in _NEVER_ZERO:
        if key in keys and keys[key] == 0:
            yield Problem("zero_divides", {"setting": key})
    if any(keys.get(key) for key in _SAMPLING) and not keys.get("sample_prompts"):
        yield Problem("sample_prompts_missing")


def _buckets(script: str, keys: Mapping[str, Any]) -> Iterator[Problem]:
    step, multiple = keys.get("bucket_reso_steps"), _BUCKET_STEPS.get(script)
    if isinstance(step, int) and multiple and step % multiple:
        yield Problem("bucket_step", {"value": step, "multiple": multiple}, changes={"bucket_step": 64})


def _model(script: str, keys: Mapping[str, Any]) -> Iterator[Problem]:
    module = keys.get("network_module")
    if isinstance(module, str) and script not in _MODULES.get(module, (script,)):
        yield Problem(
            "network_module_of_another", {"module": module, "script": script}, changes={"network_module": None}
        )
    if keys.get("blocks_to_swap") and keys.get("cpu_offload_checkpointing"):
        yield Problem("swap_with_offload", changes={"blocks_to_swap": 0})
    if script in _TRANSFORMERS:
        if keys.get("mixed_precision") == "fp16":
            yield Problem("fp16_nan", severity="warning", changes={"mixed_precision": "bf16"})
        if keys.get("min_snr_gamma"):
            yield Problem("no_effect", {"setting": "min_snr_gamma", "script": script}, severity="warning")
    for key, wanted in _FULL_PRECISION.items():
        if keys.get(key) and keys.get("mixed_precision") != wanted:
            params = {"setting": key, "needed": wanted}
            yield Problem("full_precision_differs", params, changes={"mixed_precision": wanted})
    if keys.get("fp8_base") and keys.get("mixed_precision") == "no":
        yield Problem("fp8_needs_mixed_precision", changes={"mixed_precision": "bf16"})
    if keys.get("model_type") == "chroma" and not keys.get("apply_t5_attn_mask"):
        yield Problem("chroma_mask")
