"""What sd-scripts' exceptions mean: a table, most specific first. Seen on 48d368fa (v0.10.1) unless noted.

Named groups of a pattern are parameters of the diagnosis. The wordings of safetensors are those of 0.8.0 and of 0.4.5,
which sd-scripts pins. Nothing here has a GPU or Windows: rules for what they say are marked as `reported`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from cinderlora.frozendict import FrozenDict
from cinderlora.types import Settings

__all__ = ["RULES", "Rule", "package"]

Changes = Callable[[Settings | None, "re.Match[str]"], Mapping[str, Any]]


@frozen
class Rule:
    """An exception (and, where the exception alone does not tell, its traceback) and the code of its diagnosis."""

    code: str
    pattern: str
    trace: str | None = None
    params: Mapping[str, Any] = field(factory=FrozenDict, converter=FrozenDict)
    changes: Mapping[str, Any] | Changes = FrozenDict()
    reported: bool = False
    """Its wording is known from other people's reports only: it was never provoked, so it is not proven."""

    def match(self, text: str, trace: str) -> re.Match[str] | None:
        """Whether the rule speaks of an exception."""
        found = re.search(self.pattern, text)
        return found if found and (self.trace is None or re.search(self.trace, trace)) else None


def _setting(name: str, /, **changes: Any) -> dict[str, Any]:
    return {"params": {"setting": name}, "changes": changes}


def _flux_blocks(_: Settings | None, found: re.Match[str]) -> dict[str, int]:
    # n // 2 of the double blocks are swapped and twice the rest of the single ones.
    double, single = int(found["double"]), int(found["single"])
    return {"blocks_to_swap": max(0, min(2 * double + 1, single // 2 * 2))}


def _blocks(_: Settings | None, found: re.Match[str]) -> dict[str, int]:
    return {"blocks_to_swap": max(0, int(found["most"]))}


def _without_shuffling(settings: Settings | None, _: re.Match[str]) -> dict[str, bool]:
    # Dropout and token warm-up are refused with the cache too; then it is the cache that has to go.
    off = settings is None or settings.shuffle_caption
    return {"shuffle_caption": False} if off else {"cache_text_encoders": False}


_PACKAGES = {
    "cv2": "opencv-python",
    "lion_pytorch": "lion-pytorch",
    "PIL": "pillow",
    "Prodigy": "prodigyopt",
    "google": "protobuf",
}


def package(module: str) -> str:
    """The package that brings a module."""
    name = module.partition(".")[0]
    return _PACKAGES.get(name, name)


def _common_optimizer(_: Settings | None, found: re.Match[str]) -> dict[str, str]:
    eight_bit = "bitsandbytes" in found.string or "8bit" in found.string
    return {"optimizer": "AdamW"} if eight_bit else {}


_MODEL_ENDINGS = r"(?:safetensors|sft|ckpt|pth?|bin|gguf)"

RULES: tuple[Rule, ...] = (
    # ---- what runs out ----
    Rule(
        "cuda_out_of_memory",
        r"(?:CUDA|HIP|XPU) out of memory|CUDA error: out of memory|MPS backend out of memory"
        r"|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED|OutOfMemoryError",
        reported=True,
    ),
    Rule("host_out_of_memory", r"WinError 1455|paging file is too small", reported=True),
    Rule(
        "host_out_of_memory",
        r"^MemoryError|ArrayMemoryError|DefaultCPUAllocator|not enough memory: you tried|Cannot allocate memory"
        r"|bad_alloc|is killed by signal: (?:Killed|Bus error)",
    ),
    Rule(
        "disk_full",
        r"No space left on device|code: 28\b|StorageFull|Disk quota exceeded",
    ),
    Rule("disk_full", r"not enough space on the disk|WinError 112\b", reported=True),
    Rule(
        "driver_too_old",
        r"NVIDIA driver on your system is too old(?: \(found version (?P<version>[0-9]{4,6})\))?"
        r"|CUDA driver version is insufficient",
        reported=True,
    ),
    # Said by torch 2.8.0+cu128 and by 2.13.0+cpu where there is no card.
    Rule("gpu_unusable", r"Found no NVIDIA driver|Torch not compiled with CUDA"),
    Rule("gpu_unusable", r"no kernel image is available|No CUDA GPUs are available|cudaGetDeviceCount", reported=True),
    Rule("libuv_missing", r"use_libuv was requested but PyTorch was buil[dt] without", reported=True),
    # ---- model files ----
    Rule(
        "model_file_truncated",
        r"SafetensorError: .*(?:incomplete metadata|not fully covered|MetadataIncompleteBuffer)",
    ),
    Rule(
        "model_file_unreadable",
        r"SafetensorError: Error while deserializing|UnpicklingError|PytorchStreamReader failed|invalid magic number",
    ),
    Rule("model_file_unreadable", r"^OSError: No such device", r"safe_open"),  # a folder
    Rule("model_file_missing", r"^FileNotFoundError: No such file or directory: \"?(?P<path>.+?)\"?$"),
    Rule(
        "model_file_missing",
        rf"^FileNotFoundError: \[Errno 2\] [^:]*: ['\"](?P<path>.+\.{_MODEL_ENDINGS})['\"]$",
    ),
    Rule(
        "model_file_missing",
        r"provided pretrained_model_name_or_path \"(?P<path>.*)\" is neither a valid local path"
        r"|HFValidationError: .*'(?P<repo>.*)'",
    ),
    Rule("model_file_missing", r"^OSError: (?P<path>\S.*?) is not a local folder and is not a valid model identifier"),
    Rule(
        "download_failed",
        r"LocalEntryNotFoundError|couldn't connect to '?https?://|Can't load tokenizer|OfflineModeIsEnabled"
        r"|MaxRetryError|NameResolutionError|(?:requests|httpx|urllib3?)\.\S*(?:Connect|SSL|Proxy|Timeout|URL)\w*",
    ),
    Rule("component_missing", r"^TypeError: argument 'filename': .*NoneType"),
    Rule("component_missing", r"^AttributeError: 'NoneType' object has no attribute 'eval'"),
    Rule("component_missing", r"^AttributeError: 'NoneType' object has no attribute", r"load_target_model"),
    Rule("component_missing", r"os\.PathLike object, not NoneType", r"load_target_model|pretrained_model_name_or_path"),
    Rule("bad_setting", r"loading state_dict for \w*LoRA", **_setting("network_weights")),
    Rule("component_not_loaded", r"loading state_dict for (?:SDVAE|Auto[Ee]ncoder)", params={"component": "VAE"}),
    Rule("component_not_loaded", r"^KeyError: ", r"\bload_vae\b", params={"component": "VAE"}),
    Rule("component_not_loaded", r"loading state_dict for (?:CLIP|T5)", r"\bload_(?:clip|t5)"),
    Rule("wrong_architecture", r"Error\(s\) in loading state_dict for \w+"),
    Rule("wrong_architecture", r"^KeyError: 'x_embedder\.proj\.weight'"),
    Rule("wrong_architecture", r"^KeyError: '[\w.]+\.(?:weight|bias|scale)'", r"load_target_model|load_"),
    Rule("wrong_architecture", r"^ValueError: max\(\) (?:arg|iterable argument) is (?:an )?empty", r"analyze_|load_"),
    # No weight of the file was wanted: it is another component's, or keeps its text encoders under other names.
    Rule("component_not_loaded", r"Cannot copy out of meta tensor; no data"),
    # ---- pictures, captions, caches ----
    Rule("caption_empty", r"caption file is empty / [^:]*: (?P<path>.+)$"),
    Rule("latents_nan", r"NaN detected in (?:latents|text encoder outputs): (?P<path>.+)$"),
    Rule("cache_corrupt", r"zipfile\.BadZipFile|No data left in file|Failed to interpret file .* as a pickle"),
    # What is no archive at all is taken for a pickle; NumPy 2's wording, then that of 1.
    Rule("cache_corrupt", r"contains pickled \(object\) data|Cannot load file containing pickled data", r"np\.load"),
    Rule("image_unreadable", r"^ZeroDivisionError", r"select_bucket"),  # the size that it found was 0 x 0
    Rule("image_unreadable", r"cannot identify image file ['\"](?P<file>.+)['\"]$"),
    Rule(
        "image_unreadable",
        r"image file is truncated|[Bb]roken PNG|DecompressionBombError|Truncated File Read|when reading image file"
        r"|unrecognized data stream contents",
    ),
    # ---- packages ----
    Rule("wrong_network_module", r"^ModuleNotFoundError: No module named '(?P<module>networks(?:\.[\w.]+)?)'"),
    Rule("wrong_network_module", r"'NoneType' object has no attribute 'startswith'", r"import_module"),
    Rule("wrong_network_module", r"module '(?P<module>[\w.]+)' has no attribute 'create_network"),
    Rule("wrong_network_module", r"'\w*Network\w*' object has no attribute"),
    Rule("wrong_network_module", r"^ValueError: Cannot auto-detect architecture for LyCORIS"),  # 0.11.1, its source
    Rule("nothing_to_train", r"optimizer got an empty parameter list"),
    Rule("missing_package", r"^ImportError: No (?P<package>\w+) / ", changes=_common_optimizer),
    Rule(
        "missing_package",
        r"^AttributeError: No (?:\w+8bit|Paged\w+|AdEMAMix\w*)\. The version of (?P<package>bitsandbytes)",
        changes=_common_optimizer,
    ),
    Rule(
        "missing_package",
        r"(?P<package>bitsandbytes) was compiled without GPU|CUDA Setup failed despite|libbitsandbytes",
        params={"package": "bitsandbytes"},
        changes={"optimizer": "AdamW"},
    ),
    Rule(
        "trainer_broken",
        r"^ModuleNotFoundError: No module named '(?:library|torch|torchvision|accelerate|transformers|diffusers)\b",
    ),
    Rule("missing_package", r"^ModuleNotFoundError: No module named '(?P<package>[\w.]+)'", changes=_common_optimizer),
    Rule("missing_package", r"^ImportError: .*requires the (?P<package>[\w-]+) library"),
    # ---- settings ----
    Rule(
        "bad_setting",
        r"network_dim|empty\(\): argument 'size' .*type str",
        r"create_network|create_modules",
        **_setting("network_dim"),
    ),
    Rule("bad_setting", r"unsupported operand .*'str' and 'int'", r"scheduler", **_setting("max_train_steps")),
    Rule("bad_setting", r"'<=' not supported between .* 'str'", **_setting("learning_rate")),
    Rule(
        "bad_setting",
        r"Unknown mixed_precision mode: (?P<value>\w+)|bf16 mixed precision requires|doesn't support bf16"
        r"|Input type \(.*\) and bias type",
        **_setting("mixed_precision"),
    ),
    Rule("bad_setting", r"not enough values to unpack \(expected 2", r"get_optimizer", **_setting("optimizer_args")),
    Rule("bad_setting", r"not enough values to unpack \(expected 2", r"scheduler", **_setting("lr_scheduler_args")),
    Rule("bad_setting", r"not enough values to unpack \(expected 2", r"in train\b", **_setting("network_args")),
    Rule(
        "bad_setting",
        r"^ValueError: '?(?P<value>[^\s']+)'? is not a valid (?:Diffusers)?SchedulerType",
        **_setting("lr_scheduler", lr_scheduler="constant"),
    ),
    Rule(
        "bad_setting",
        r"module 'torch\.optim' has no attribute '(?P<value>\w+)'|Unknown optimizer type: (?P<type>\S+)",
        **_setting("optimizer_type"),
    ),
    Rule(
        "bad_setting",
        r"bucket_reso_steps is (?P<value>[0-9]+)",
        **_setting("bucket_reso_steps", bucket_step=64),
    ),
    Rule("bad_setting", r"'int' object has no attribute 'split'|resolution must be 'size'", **_setting("resolution")),
    Rule(
        "bad_setting",
        r"Cannot swap more than (?P<double>-?[0-9]+) double blocks and (?P<single>-?[0-9]+) single blocks",
        params={"setting": "blocks_to_swap"},
        changes=_flux_blocks,
    ),
    Rule(
        "bad_setting",
        r"Cannot swap more than (?P<most>-?[0-9]+) (?:main )?blocks\. Requested:? (?P<value>[0-9]+)",
        params={"setting": "blocks_to_swap"},
        changes=_blocks,
    ),
    Rule(
        "bad_setting",
        r"^ZeroDivisionError",
        r"args\.sample_every_n",
        **_setting("sample_every_n_steps", sample_every=0),
    ),
    Rule("bad_setting", r"^ZeroDivisionError", r"args\.save_every_n", **_setting("save_every_n_steps", save_every=0)),
    Rule("bad_setting", r"^NotADirectoryError: .*: '(?P<value>.+)'", **_setting("output_dir")),
    Rule("bad_setting", r"os\.PathLike object, not NoneType", r"output_dir", **_setting("output_dir")),
    Rule(
        "bad_setting",
        r"requires `?num_warmup_steps`?, please provide",
        **_setting("lr_warmup_steps", lr_scheduler="constant", lr_warmup_steps=0),
    ),
    Rule("conflicting_settings", r"does not require `?num_warmup_steps`?", changes={"lr_warmup_steps": 0}),
    Rule(
        "conflicting_settings",
        r"when caching Text Encoder output, either caption_dropout_rate",
        changes=_without_shuffling,
    ),
    Rule(
        "conflicting_settings",
        r"network for Text Encoder cannot be trained with caching",
        changes={"train_text_encoder": False},
    ),
    Rule("conflicting_settings", r"when caching latents, either color_aug", changes={"cache_latents": False}),
    Rule("conflicting_settings", r"fp8_base requires mixed precision", changes={"mixed_precision": "bf16"}),
    Rule(
        "conflicting_settings",
        r"fp8_base requires torch|^RuntimeError: mixed dtype \(CPU\)",
        changes={"fp8_base": False},
    ),
    Rule(
        "conflicting_settings",
        r"requires mixed precision|is not supported with|(?:does not|only) works? with|must be used with|both option"
        r"|cannot be (?:used|enabled|specified)|at the same time|m(?:in|ax)_bucket_reso must be"
        r"|max_train_steps should be greater than initial step|must be (?:True|enabled) ",
    ),
    # ---- configuration ----
    Rule("dataset_config_invalid", r"^voluptuous\..*? @ data(?P<key>\[.+\])$"),
    Rule(
        "dataset_config_invalid",
        r"^voluptuous\.|image_dir must be specified|^AssertionError: resolution is required"
        r"|^AssertionError: datasets should not be an empty iterable",
    ),
    Rule("config_unreadable", r"TomlDecodeError|JSONDecodeError|UnicodeDecodeError", r"toml\.load|load_user_config"),
    Rule("config_unreadable", r"^IsADirectoryError: .*: '(?P<path>.+\.toml)'$"),
    Rule("config_unreadable", r"(?:file not found|not supported config file format) / [^:]*: (?P<path>.+)$"),
    Rule("sample_prompts_missing", r"^TypeError: stat: path should be string"),
    Rule("sample_prompts_missing", r"^FileNotFoundError: .*: '(?P<path>.+)'$", r"load_prompts|sample_prompts"),
    Rule("config_unreadable", r"^FileNotFoundError: .*: '(?P<path>.+\.(?:toml|json))'$"),
    # ---- the machine ----
    Rule("permission_denied", r"(?:PermissionError|Permission denied|Read-only file system)[^']*(?:'(?P<path>.+)')?"),
    Rule("killed", r"^KeyboardInterrupt", params={"signal": "SIGINT"}),
    Rule(
        "trainer_broken",
        r"^ImportError: cannot import name|DLL load failed|undefined symbol|^(?:Syntax|Indentation)Error"
        r"|^ImportError: .*\.so\b|^AttributeError: module '[\w.]+' has no attribute",
    ),
)
