"""From a job to the three configuration files of sd-scripts. Pure.

Where a value follows from a fact about sd-scripts, the fact was seen on 48d368fa (v0.10.1).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from cinderlora import __version__
from cinderlora.problems import Problem
from cinderlora.sd_scripts.arguments import Arguments, argument_problems
from cinderlora.sd_scripts.reserved import reserved_problems
from cinderlora.sd_scripts.rules import rule_problems
from cinderlora.serial import toml_text
from cinderlora.types import SETTINGS, Job, ModelType, Settings

if TYPE_CHECKING:
    from cinderlora.dataset import BucketPlan, Dataset, View

__all__ = ["dataset_text", "job_buckets", "misread", "prompt_lines", "setting_problems", "training_table"]

TRACKED = "tracked"
"""Where a tracker writes that was not told where to, relative to the run folder."""

# The script's own defaults: buckets of 256 to 1024 pixels.
_MIN_BUCKET, _MAX_BUCKET = 256, 1024

_OPTIMIZERS: dict[str, dict[str, Any]] = {
    # Names checked against prodigyopt 1.1.2. Prodigy finds its own rate, as a multiple of 1.
    "prodigy": {
        "learning_rate": 1.0,
        "optimizer_args": (
            "decouple=True",
            "weight_decay=0.01",
            "use_bias_correction=True",
            "safeguard_warmup=True",
        ),
    },
    # A fixed rate with Adafactor, as sd-scripts' documentation advises for LoRA.
    "adafactor": {
        "optimizer_args": ("relative_step=False", "scale_parameter=False", "warmup_init=False"),
        "lr_scheduler": "constant_with_warmup",
        "max_grad_norm": 0.0,
    },
}


# What a setting that can cure a problem is called in the training TOML, where that is another name.
_KEYS = {"cache_text_encoders": "cache_text_encoder_outputs", "bucket_step": "bucket_reso_steps"}


def derived(settings: Settings) -> Settings:
    """The settings with what follows from others filled in where unset: alpha is half the dim, and the learning rate,
    the optimizer's arguments and the scheduler are those the optimizer is known to want."""
    follows = _OPTIMIZERS.get((settings.optimizer or "").lower(), {})
    own = {
        "network_alpha": settings.network_dim / 2 if settings.network_dim else None,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "bucket_step": 64,
        # At 64 px, cutting to steps of 64 would leave nothing of a picture that is not square.
        "bucket_no_upscale": (settings.resolution or 512) >= _MIN_BUCKET,
        **follows,
    }
    unset = {key: value for key, value in own.items() if getattr(settings, key) is None}
    if "max_grad_norm" in follows:  # 1.0 is every model type's default and no one's wish
        unset["max_grad_norm"] = follows["max_grad_norm"]
    return attrs.evolve(settings, **unset)


# What changes nothing in what is learned, and is done without where a script does not know it: an older version, or one
# whose text encoders have no cache.
_DISPENSABLE = {
    "cache_text_encoder_outputs",
    "cache_text_encoder_outputs_to_disk",
    "console_log_simple",
    "metadata_author",
    "metadata_trigger_phrase",
    "training_comment",
}


def training_table(
    model_type: ModelType,
    job: Job,
    args: Mapping[str, Any],
    known: Container[str] | None,
    *,
    dataset_config: str,
    sample_prompts: str,
) -> dict[str, Any]:
    """The training TOML: what is common to all scripts, then the model's own `args`, then the job's `extra`.

    Keys that are None are left out, and so are switches that are off: `save_every_n_steps = 0` divides by zero. `known`
    are the arguments of the script, where they are known.
    """
    s = derived(job.settings)
    models = {c.key: str(job.models[c.role].path) for c in model_type.components if c.role in job.models}
    table: dict[str, Any] = {
        **models,
        "dataset_config": dataset_config,
        "output_dir": str(job.output),
        "output_name": job.lora_name,
        "save_model_as": "safetensors",
        "save_precision": s.save_precision,
        "network_module": s.network_module or model_type.network_module,
        "network_dim": s.network_dim,
        "network_alpha": s.network_alpha,
        "network_args": s.network_args,
        "network_train_unet_only": not s.train_text_encoder,
        "optimizer_type": s.optimizer,
        "optimizer_args": s.optimizer_args,
        "learning_rate": s.learning_rate,
        "lr_scheduler": s.lr_scheduler,
        "lr_warmup_steps": s.lr_warmup_steps or None,
        "max_grad_norm": s.max_grad_norm,
        "max_train_steps": s.steps,
        "gradient_accumulation_steps": s.gradient_accumulation,
        "gradient_checkpointing": s.gradient_checkpointing,
        "mixed_precision": s.mixed_precision,
        "fp8_base": s.fp8_base,
        "blocks_to_swap": s.blocks_to_swap or None,
        "sdpa": True,
        "cache_latents": s.cache_latents,
        "cache_latents_to_disk": s.cache_latents,
        "cache_text_encoder_outputs": s.cache_text_encoders,
        "cache_text_encoder_outputs_to_disk": s.cache_text_encoders,
        "max_data_loader_n_workers": s.workers,
        "persistent_data_loader_workers": bool(s.workers),
        "seed": s.seed,
        "save_every_n_steps": s.save_every or None,
        "save_state": s.save_state,
        "metadata_trigger_phrase": job.trigger,
        "metadata_author": s.author,
        "training_comment": _comment(job),
        "console_log_simple": True,
    }
    if s.sample_every or s.sample_at_first:
        table |= {
            "sample_every_n_steps": s.sample_every or None,
            "sample_at_first": s.sample_at_first,
            "sample_prompts": sample_prompts,
            "sample_sampler": s.sample_sampler,
        }
    for key in _DISPENSABLE:
        if known is not None and key not in known:
            del table[key]
    table |= args
    table |= s.extra
    if table.get("log_with") in {"tensorboard", "all"} and not table.get("logging_dir"):
        table["logging_dir"] = TRACKED  # without a folder the script ends with an error
    return {key: _listed(value) for key, value in table.items() if value is not None and value is not False}


def _comment(job: Job) -> str:
    """The person's own words, and what made the LoRA: there is no key for a preset."""
    made = f"cinderlora {__version__}, {job.model_type}" + (f", preset {job.preset}" if job.preset else "")
    return f"{job.settings.comment}; {made}" if job.settings.comment else made


def dataset_keys(job: Job) -> dict[str, Any]:
    """What the data-set TOML says of all subsets."""
    s = derived(job.settings)
    px = s.resolution or 512
    keys: dict[str, Any] = {
        "resolution": [px, px],
        "batch_size": s.batch_size,
        "enable_bucket": s.enable_bucket,
        "bucket_no_upscale": s.bucket_no_upscale,
        "bucket_reso_steps": s.bucket_step,
        **_bucket_range(s),
        "shuffle_caption": s.shuffle_caption,
        "flip_aug": s.flip_aug,
    }
    return {key: value for key, value in keys.items() if value is not None and value is not False}


def dataset_text(job: Job, view: View) -> str:
    """The data-set TOML: the run's own view of the pictures, a subset for each folder.

    Each table is written on its own: tomli-w would put short ones inline, and toml 0.10.2, which sd-scripts reads with,
    takes an inline table with an apostrophe in it for none at all.
    """
    general = {**dataset_keys(job), "caption_extension": view.caption_extension}
    parts = [toml_text({"general": general}), "[[datasets]]\n"]
    for part in view.subsets:
        repeats = job.settings.repeats if part.repeats is None else part.repeats
        subset = {"image_dir": part.folder, "num_repeats": repeats, "class_tokens": part.class_tokens}
        parts.append("[[datasets.subsets]]\n" + toml_text(subset))
    return "\n".join(parts)


def _bucket_range(settings: Settings) -> dict[str, int]:
    """The smallest and largest side of a bucket: those of `extra`, or what the resolution takes."""
    own = bucket_range(settings.resolution or 512, settings.bucket_no_upscale)
    return own | {key: settings.extra[key] for key in ("min_bucket_reso", "max_bucket_reso") if key in settings.extra}


def bucket_range(resolution: int, no_upscale: bool | None) -> dict[str, int]:
    """The smallest and largest side of a bucket, where the script's own 256 and 1024 do not hold the resolution.

    Where pictures may be enlarged, the sides go up to twice the resolution: 1024 would leave a portrait of 2 to 3 at
    1024 pixels with 704 x 1024, two thirds of the area. Otherwise the script only asks that they hold the resolution.
    """
    wider: dict[str, int] = {}
    if resolution < _MIN_BUCKET:
        wider["min_bucket_reso"] = resolution
    largest = resolution if no_upscale else 2 * resolution
    if largest > _MAX_BUCKET:
        wider["max_bucket_reso"] = largest
    return wider


def job_buckets(job: Job, dataset: Dataset) -> BucketPlan:
    """The buckets that sd-scripts will sort a job's pictures into; raises `SettingError` where it could not."""
    from cinderlora.dataset import bucket_plan

    s = derived(job.settings)
    px = s.resolution or 512
    reach = {"min_bucket_reso": _MIN_BUCKET, "max_bucket_reso": _MAX_BUCKET, **_bucket_range(s)}
    return bucket_plan(
        dataset.sizes,
        resolution=px,
        repeats=dataset.repeats(s.repeats or 1),
        batch_size=s.batch_size or 1,
        enable=bool(s.enable_bucket),
        no_upscale=bool(s.bucket_no_upscale),
        step=s.bucket_step or 64,
        minimum=reach["min_bucket_reso"],
        maximum=reach["max_bucket_reso"],
    )


def prompt_lines(job: Job) -> str:
    """The sample prompt file: one line, with size, steps, scale and seed unless the prompt has its own."""
    s = job.settings
    prompt = (s.sample_prompt or "").replace("{trigger}", job.trigger).strip()
    given = {option for option, _ in _options(prompt)}
    options = {
        "w": s.resolution,
        "h": s.resolution,
        "s": s.sample_steps,
        "g": s.sample_guidance,
        "l": s.sample_scale,
        "d": s.seed,
    }
    added = [
        f"--{key} {value:g}" if isinstance(value, float) else f"--{key} {value}"
        for key, value in options.items()
        if value is not None and key not in given
    ]
    return " ".join([prompt, *added]) + "\n"


def setting_problems(
    model_type: ModelType, job: Job, args: Mapping[str, Any], known: Arguments | None
) -> Iterator[Problem]:
    """What sd-scripts would stumble over, or silently ignore, in what it will be given for a job."""
    s = derived(job.settings)
    training = training_table(model_type, job, args, known, dataset_config="x", sample_prompts="x")
    # Where a setting has choices of its own, it is them that a wrong value is held against.
    chosen = {name for name, info in SETTINGS.items() if info.choices}
    common = {key: value for key, value in training.items() if key not in {*args, *s.extra, *chosen}}
    yield from argument_problems(model_type.script, common, known)
    yield from reserved_problems(s.extra)
    for problem in rule_problems(model_type.script, {**dataset_keys(job), **training}):
        # A setting cannot change what `extra` says over it.
        curable = not any(_KEYS.get(setting, setting) in s.extra for setting in problem.changes)
        yield problem if curable else attrs.evolve(problem, changes={})
    texts = {
        "trigger": job.trigger,
        "author": s.author,
        "comment": s.comment,
        "network_args": s.network_args,
        "optimizer_args": s.optimizer_args,
        **s.extra,
    }
    for name, value in texts.items():
        if misread(value):
            yield Problem("text_misread", {"setting": name, "value": repr(value)})
    for option, value in _options((s.sample_prompt or "").replace("{trigger}", job.trigger)):
        params = {"option": f"--{option} {value}".strip()}
        yield Problem("prompt_options", params, severity="warning")


def misread(value: object, *, listed: bool = False) -> bool:
    """Whether toml 0.10.2, which sd-scripts reads with, makes something else of a text than was written.

    Tried on all texts of up to four characters of quotes, brackets, commas and others: it takes a text that begins with
    two double quotes, or is one, for an empty one, and trips over a comma at the start of a text in a list.
    """
    if isinstance(value, str):
        return value == '"' or value.startswith('""') or (listed and value.lstrip().startswith(","))
    return isinstance(value, (list, tuple)) and any(misread(item, listed=True) for item in value)


def _options(prompt: str) -> list[tuple[str, str]]:
    """The options in a prompt line as sd-scripts splits them: everything behind " --", by its first word."""
    return [(part.partition(" ")[0], part.partition(" ")[2].strip()) for part in prompt.split(" --")[1:]]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
