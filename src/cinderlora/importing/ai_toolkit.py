"""ai-toolkit's configurations (YAML, JSON), as far as there is something like it in sd-scripts.

Names and defaults are those of ai-toolkit's `toolkit/config_modules.py`. It is another trainer with a method of its
own: what is taken over are the settings that mean the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cinderlora.errors import CinderloraError, ConfigError
from cinderlora.importing.data import Entry, Reading, words
from cinderlora.importing.kohya_gui import load_json
from cinderlora.importing.source import Source

__all__ = ["read"]

_SCRIPTS = {
    "is_flux": "flux_train_network.py",
    "flux": "flux_train_network.py",
    "is_xl": "sdxl_train_network.py",
    "sdxl": "sdxl_train_network.py",
    "is_v3": "sd3_train_network.py",
    "sd3": "sd3_train_network.py",
    "is_lumina2": "lumina_train_network.py",
    "lumina2": "lumina_train_network.py",
    "chroma": "flux_train_network.py",
}
_OPTIMIZERS = {
    "adam8bit": "AdamW8bit",
    "adamw8bit": "AdamW8bit",
    "adamw": "AdamW",
    "prodigy": "Prodigy",
    "adafactor": "Adafactor",
    "lion": "Lion",
    "lion8bit": "Lion8bit",
    "dadaptation": "DAdaptAdam",
    "dadaptationadam": "DAdaptAdam",
    "dadaptationlion": "DAdaptLion",
}
_PRECISIONS = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "fp32": "no",
    "float32": "no",
    "float": "no",
}

# Same meaning, another name; by the section that they are in.
_SAME = {
    "training_folder": "output_dir",
    "network.conv": "conv",
    "network.dropout": "network_dropout",
    "save.save_every": "save_every_n_steps",
    "datasets.caption_dropout_rate": "caption_dropout_rate",
    "datasets.flip_x": "flip_aug",
    "datasets.folder_path": "train_data_dir",
    "datasets.keep_tokens": "keep_tokens",
    "datasets.num_repeats": "num_repeats",
    "datasets.random_crop": "random_crop",
    "datasets.shuffle_tokens": "shuffle_caption",
    "datasets.token_dropout_rate": "caption_tag_dropout_rate",
    "train.batch_size": "train_batch_size",
    "train.gradient_accumulation": "gradient_accumulation_steps",
    "train.gradient_accumulation_steps": "gradient_accumulation_steps",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "train.lr": "learning_rate",
    "train.max_grad_norm": "max_grad_norm",
    "train.min_snr_gamma": "min_snr_gamma",
    "train.noise_offset": "noise_offset",
    "train.seed": "seed",
    "train.steps": "max_train_steps",
    "train.text_encoder_lr": "text_encoder_lr",
    "train.unet_lr": "unet_lr",
    "model.name_or_path": "pretrained_model_name_or_path",
    "model.vae_path": "vae",
    "sample.sample_every": "sample_every_n_steps",
}
# ai-toolkit's own housekeeping, or taken together with something else.
_QUIET = words(
    """
    type device performance_log_every trigger_word sqlite_db_path network.type network.linear network.rank
    network.linear_alpha network.alpha network.conv_alpha network.network_kwargs save.dtype save.save_format
    save.max_step_saves_to_keep save.push_to_hub save.hf_repo_id save.hf_private datasets.caption_ext
    datasets.cache_latents_to_disk datasets.cache_latents datasets.resolution datasets.is_reg datasets.network_weight
    datasets.cache_text_embeddings train.train_unet train.train_text_encoder train.optimizer train.optimizer_params
    train.dtype train.cache_text_embeddings train.lr_scheduler train.lr_scheduler_params train.skip_first_sample
    train.disable_sampling train.noise_scheduler train.unload_text_encoder model.arch model.is_flux model.is_xl
    model.is_v3 model.is_lumina2 model.quantize model.qtype model.quantize_te model.qtype_te model.low_vram
    sample.sampler sample.prompts sample.samples sample.width sample.height sample.seed sample.walk_seed sample.neg
    sample.guidance_scale sample.sample_steps sample.sample_start_step sample.num_frames sample.fps logging.log_every
    logging.use_ui_logger
    """
)


def read(source: Source) -> Reading:
    """The first process of a job. Raises `ConfigError` where there is none, `CinderloraError` (`extra_missing`) for
    YAML without PyYAML."""
    is_json = source.text.lstrip().startswith("{")
    data = load_json(source) if is_json else _load_yaml(source)
    config = data.get("config")
    processes = config.get("process") if isinstance(config, dict) else None
    process = processes[0] if isinstance(processes, list) and processes else None
    if not isinstance(config, dict) or not isinstance(process, dict):
        raise ConfigError("import_format_unknown", path=str(source.path))
    model = _section(process, "model")
    reading = Reading(format="ai_toolkit", script=_script(model), complete=False)
    if model.get("arch") == "chroma":
        reading.take("model_type", "chroma", key="model.arch")
        reading.take("apply_t5_attn_mask", True, key="model.arch", theirs="chroma")
    for key, value in _flat(process):
        _take(reading, key, value)
    if isinstance(config.get("name"), str):
        reading.take("output_name", config["name"], key="name")
    trigger = process.get("trigger_word")
    if isinstance(trigger, str) and trigger.strip():
        reading.trigger = Entry(trigger.strip(), "trigger_word", trigger)
    _network(reading, _section(process, "network"))
    _pictures(reading, process)
    _training(reading, process)
    _samples(reading, process)
    return reading


def _load_yaml(source: Source) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise CinderloraError("extra_missing", what=source.path.name, packages="PyYAML", extra="yaml") from error

    class Loader(yaml.SafeLoader):
        """Plain data only, and no references: a few lines of them can stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError("references (*name) are not taken")
            return super().compose_node(parent, index)

    try:
        data = yaml.load(source.text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError("file_unreadable", path=str(source.path), why=str(error)) from error
    if not isinstance(data, dict):
        raise ConfigError("import_format_unknown", path=str(source.path))
    return data


def _section(process: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = process.get(name)
    if name == "datasets":
        value = value[0] if isinstance(value, list) and value else None
    return value if isinstance(value, dict) else {}


def _script(model: Mapping[str, Any]) -> str | None:
    arch = model.get("arch")
    if arch:
        return _SCRIPTS.get(str(arch), str(arch))
    return next((script for key, script in _SCRIPTS.items() if model.get(key) is True), None)


def _flat(process: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings by section, one level deep."""
    for name in process:
        section = _section(process, name)
        if section:
            yield from ((f"{name}.{key}", value) for key, value in section.items())
        else:
            yield str(name), process[name]


def _take(reading: Reading, key: str, value: Any) -> None:
    if value is None or key in _QUIET:
        return
    if key in _SAME:
        if key != "network.conv":
            reading.take(_SAME[key], _number(value), key=key, theirs=value)
    elif value not in (False, "", [], {}) and value != 0:
        reading.drop(key, "" if isinstance(value, (dict, list)) else value, "import_no_counterpart")


def _number(value: Any) -> Any:
    """YAML takes 1e-4 for a text: its numbers have a point."""
    try:
        return float(value) if isinstance(value, str) and value[:1].isdigit() and "e" in value else value
    except ValueError:
        return value


def _network(reading: Reading, network: Mapping[str, Any]) -> None:
    kind = network.get("type", "lora")
    if kind not in ("lora", "locon"):
        reading.problem("import_not_lora", method=str(kind))
    dim = network.get("rank", network.get("linear", 4))
    alpha = network.get("linear_alpha", network.get("alpha", 1.0))
    reading.take("network_dim", dim, key="network.rank" if "rank" in network else "network.linear")
    reading.take("network_alpha", alpha, key="network.linear_alpha")
    if network.get("conv"):
        alpha = network.get("conv_alpha", network["conv"])
        reading.take("network_args", [f"conv_dim={network['conv']}", f"conv_alpha={alpha}"], key="network.conv")


def _pictures(reading: Reading, process: Mapping[str, Any]) -> None:
    datasets = process.get("datasets")
    others = [d for d in datasets[1:] if isinstance(d, dict)] if isinstance(datasets, list) else []
    for other in others:
        code = "import_regularization" if other.get("is_reg") else "import_other_folder"
        reading.drop("datasets.folder_path", other.get("folder_path", ""), code)
    dataset = _section(process, "datasets")
    sizes = dataset.get("resolution")
    sizes = sizes if isinstance(sizes, list) else [sizes]
    if sizes and sizes[0] is not None:
        reading.take("resolution", sizes[0], key="datasets.resolution", theirs=sizes)
        if len(sizes) > 1:
            reading.problem("import_several_resolutions", value=", ".join(map(str, sizes)), now=sizes[0])
    extension = dataset.get("caption_ext")
    if isinstance(extension, str) and extension:
        ours = extension if extension.startswith(".") else f".{extension}"
        reading.take("caption_extension", ours, key="datasets.caption_ext", theirs=extension)
    for key in ("cache_latents_to_disk", "cache_latents"):
        if dataset.get(key) is not None:
            reading.take("cache_latents", dataset[key], key=f"datasets.{key}")


def _training(reading: Reading, process: Mapping[str, Any]) -> None:
    train, model, save = (_section(process, name) for name in ("train", "model", "save"))
    name = train.get("optimizer")
    if name is not None and str(name).lower() in _OPTIMIZERS:
        reading.take("optimizer_type", _OPTIMIZERS[str(name).lower()], key="train.optimizer", theirs=name)
        params = train.get("optimizer_params")
        if isinstance(params, dict) and params:
            args = [f"{key}={value}" for key, value in params.items() if not isinstance(value, (list, dict))]
            reading.take("optimizer_args", args, key="train.optimizer_params")
    elif name is not None:
        reading.drop("train.optimizer", name, "import_no_counterpart")
    if train.get("lr_scheduler") is not None:
        reading.take("lr_scheduler", train["lr_scheduler"], key="train.lr_scheduler")
    for key, section, argument in (("dtype", train, "mixed_precision"), ("dtype", save, "save_precision")):
        value = section.get(key)
        where = "train.dtype" if section is train else "save.dtype"
        if str(value) in _PRECISIONS:
            ours = _PRECISIONS[str(value)]
            ours = "float" if argument == "save_precision" and ours == "no" else ours
            reading.take(argument, ours, key=where, theirs=value)
        elif value is not None:
            reading.drop(where, value, "import_no_counterpart")
    if train.get("train_text_encoder") is not None:
        trained = train["train_text_encoder"]
        reading.take("network_train_unet_only", not trained, key="train.train_text_encoder", theirs=trained)
    cached = train.get("cache_text_embeddings", _section(process, "datasets").get("cache_text_embeddings"))
    if cached is not None:
        reading.take("cache_text_encoder_outputs", cached, key="cache_text_embeddings")
    quantized = str(model.get("qtype", "qfloat8"))
    if model.get("quantize"):
        if "float8" in quantized:
            reading.take("fp8_base", True, key="model.quantize")
        else:
            reading.drop("model.qtype", quantized, "import_no_counterpart")


def _samples(reading: Reading, process: Mapping[str, Any]) -> None:
    sample, train = _section(process, "sample"), _section(process, "train")
    if train.get("disable_sampling"):
        reading.table.pop("sample_every_n_steps", None)
        reading.take("sample_every_n_steps", 0, key="train.disable_sampling", theirs=True)
        return
    given = sample.get("samples") or sample.get("prompts")
    prompts = (
        [item.get("prompt") if isinstance(item, dict) else item for item in given if item]
        if isinstance(given, list)
        else []
    )
    options = {"w": "width", "h": "height", "s": "sample_steps", "g": "guidance_scale", "d": "seed"}
    if reading.script not in {"flux_train_network.py", None}:
        options = {"w": "width", "h": "height", "s": "sample_steps", "l": "guidance_scale", "d": "seed"}
    said = "".join(f" --{option} {sample[key]}" for option, key in options.items() if sample.get(key) is not None)
    texts = [
        " ".join(prompt.split()).replace("[trigger]", "{trigger}") for prompt in prompts if isinstance(prompt, str)
    ]
    reading.prompts = tuple(text + said for text in texts)
