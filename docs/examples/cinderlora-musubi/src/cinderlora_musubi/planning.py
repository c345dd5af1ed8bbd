"""The plan of a training with musubi-tuner: two steps that fill the caches, then the training. All as data.

Where a value follows from a fact about musubi-tuner, the fact is in its source at 30c658c4 (v0.3.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from cinderlora import Job, ModelType, Plan, Problem, Settings, Stage, __version__
from cinderlora.dataset import dataset_view
from cinderlora.launchers import accelerate_launcher
from cinderlora.sd_scripts.arguments import Arguments, argument_problems
from cinderlora.sd_scripts.config import misread
from cinderlora.sd_scripts.resuming import OUTPUT, resumed_table, table_warnings
from cinderlora.sd_scripts.rules import rule_problems
from cinderlora.serial import toml_text
from cinderlora.trainers import run_record
from cinderlora_musubi.buckets import STEP

if TYPE_CHECKING:
    from cinderlora import Resumption
    from cinderlora.dataset import Dataset, View
    from cinderlora_musubi.tuner import MusubiTuner

__all__ = ["Scripts", "completed", "make_plan", "problems"]

_HEADER = "# Written by cinderlora. Relative paths start at the run folder, which is where the trainer is started.\n"

# Prompt output, and no noise in the log.
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}

_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "prodigy": {
        "learning_rate": 1.0,
        "optimizer_args": ("decouple=True", "weight_decay=0.01", "use_bias_correction=True", "safeguard_warmup=True"),
    },
    "adafactor": {
        "optimizer_args": ("relative_step=False", "scale_parameter=False", "warmup_init=False"),
        "lr_scheduler": "constant_with_warmup",
        "max_grad_norm": 0.0,
    },
}
# What it knows by another name than people do: any class by its full name.
_OPTIMIZER_NAMES = {"prodigy": "prodigyopt.Prodigy", "lion": "lion_pytorch.Lion"}


@frozen
class Scripts:
    """The three scripts of an architecture, by the names that they have in all of them."""

    latents: str
    captions: str
    training: str

    @classmethod
    def of(cls, model_type: ModelType) -> Scripts:
        """From "zimage_train_network.py": "zimage_cache_latents.py" and "zimage_cache_text_encoder_outputs.py"."""
        stem = model_type.script.removesuffix("train_network.py")
        return cls(f"{stem}cache_latents.py", f"{stem}cache_text_encoder_outputs.py", model_type.script)

    def __iter__(self) -> Iterator[str]:
        yield from (self.latents, self.captions, self.training)


def completed(settings: Settings) -> Settings:
    """The settings with what follows from others filled in where unset: alpha is half the dim; learning rate,
    scheduler and arguments are those that the optimizer is known to want."""
    follows = _OPTIMIZERS.get((settings.optimizer or "").lower(), {})
    own = {
        "network_alpha": settings.network_dim / 2 if settings.network_dim else None,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "bucket_step": STEP,
        "bucket_no_upscale": True,
        **follows,
    }
    unset = {key: value for key, value in own.items() if getattr(settings, key) is None}
    if "max_grad_norm" in follows:  # 1.0 is every model type's default and no one's wish
        unset["max_grad_norm"] = follows["max_grad_norm"]
    return attrs.evolve(settings, **unset)


# ---- what goes to which script ----


def _training_table(
    trainer: MusubiTuner, model_type: ModelType, job: Job, args: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, Any]:
    """The training's arguments: what is common to all architectures, then the model's own, then the job's `extra`.

    What only a caching script takes goes there alone.
    """
    s = completed(job.settings)
    *caching, known = (trainer.arguments(script) for script in Scripts.of(model_type))
    wished = {**args, **s.extra}
    own = {key: v for key, v in wished.items() if key in known or not any(key in other for other in caching)}
    table: dict[str, Any] = {
        **_components(model_type, job),
        "dataset_config": files["data"],
        "output_dir": str(job.output),
        "output_name": job.lora_name,
        "save_precision": s.save_precision,
        "network_module": s.network_module or model_type.network_module,
        "network_dim": s.network_dim,
        "network_alpha": s.network_alpha,
        "network_args": s.network_args,
        "optimizer_type": _OPTIMIZER_NAMES.get((s.optimizer or "").lower(), s.optimizer),
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
        "max_data_loader_n_workers": s.workers,
        "persistent_data_loader_workers": bool(s.workers),
        "seed": s.seed,
        "save_every_n_steps": s.save_every or None,
        "save_state": s.save_state,
        "metadata_author": s.author,
        "training_comment": s.comment or f"cinderlora {__version__}, {job.model_type}",
    }
    if s.sample_every or s.sample_at_first:
        table |= {
            "sample_every_n_steps": s.sample_every or None,
            "sample_at_first": s.sample_at_first,
            "sample_prompts": files["prompts"],
        }
    return _given(table | own)


def _caching_table(
    model_type: ModelType, job: Job, args: Mapping[str, Any], known: Arguments, files: Mapping[str, str]
) -> dict[str, Any]:
    """A caching script's arguments: of the model's files, its own arguments and `extra` those that it takes."""
    wished = {**_components(model_type, job), **args, **job.settings.extra}
    own = {key: value for key, value in wished.items() if key in known}
    return _given({"dataset_config": files["data"], **own})


def _components(model_type: ModelType, job: Job) -> dict[str, str]:
    return {c.key: str(job.models[c.role].path) for c in model_type.components if c.role in job.models}


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is unset, and without switches that are off."""
    return {
        key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in table.items()
        if value is not None and value is not False
    }


def _flags(table: Mapping[str, Any]) -> Iterator[str]:
    """A table as a command line."""
    for key, value in table.items():
        yield f"--{key}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


# ---- what is wrong ----


def problems(trainer: MusubiTuner, model_type: ModelType, job: Job, args: Mapping[str, Any]) -> Iterator[Problem]:
    """What musubi-tuner would stumble over, or silently ignore. Like sd-scripts it looks neither at the names nor at
    the types in its training TOML."""
    scripts = Scripts.of(model_type)
    training = _training_table(trainer, model_type, job, args, {"data": "x.toml", "prompts": "x.txt"})
    yield from argument_problems(scripts.training, training, trainer.arguments(scripts.training))
    for script in (scripts.latents, scripts.captions):
        known = trainer.arguments(script)
        table = _caching_table(model_type, job, args, known, {"data": "x.toml"})
        yield from argument_problems(script, table, known)
    yield from rule_problems(scripts.training, training)
    yield from _setting_problems(job, training)


def _setting_problems(job: Job, training: Mapping[str, Any]) -> Iterator[Problem]:
    s = completed(job.settings)
    if s.train_text_encoder:
        yield Problem(
            "musubi_text_encoder",
            message="musubi-tuner trains the model alone, never a text encoder.",
            fix="Switch train_text_encoder off.",
            changes={"train_text_encoder": False},
        )
    for name in ("shuffle_caption", "flip_aug"):
        if getattr(s, name):
            yield Problem(
                "musubi_no_effect",
                {"setting": name},
                severity="warning",
                message=f"{name} has no effect: musubi-tuner learns from caches that are made once.",
                fix="Leave it off.",
                changes={name: False},
            )
    if s.bucket_step != STEP:
        yield Problem(
            "musubi_bucket_step",
            {"value": s.bucket_step},
            severity="warning",
            message=f"Buckets go in steps of {STEP} pixels with musubi-tuner, not of {s.bucket_step}.",
            fix="Leave bucket_step out.",
            changes={"bucket_step": None},
        )
    if training.get("fp8_scaled") and not training.get("fp8_base"):
        yield Problem(
            "musubi_fp8",
            message="fp8_scaled needs fp8_base; musubi-tuner stops there.",
            fix="Switch fp8_base on.",
            changes={"fp8_base": True},
        )
    texts = {"author": s.author, "comment": s.comment, **{key: training.get(key) for key in _LISTS}, **s.extra}
    for name, value in texts.items():
        if misread(value):
            yield Problem("text_misread", {"setting": name, "value": repr(value)})


_LISTS = ("network_args", "optimizer_args")


# ---- the plan ----


def make_plan(
    trainer: MusubiTuner,
    model_type: ModelType,
    job: Job,
    dataset: Dataset,
    args: Mapping[str, Any],
    resumption: Resumption | None = None,
) -> Plan:
    """The plan of a job: three stages. Reads sizes and times of the model files and the trainer's commit."""
    names = {
        "training": f"{job.name}_musubi_training.toml",
        "data": f"{job.name}_dataset.toml",
        "prompts": f"{job.name}_sample_prompts.txt",
    }
    scripts = Scripts.of(model_type)
    view = dataset_view(dataset, job.trigger, ".txt")
    training = _training_table(trainer, model_type, job, args, names)
    steps = training.get("max_train_steps")
    resumed: dict[str, Any] = {}
    if resumption is not None:
        steps = job.settings.steps or 0
        training = resumed_table(training, resumption, steps)
        resumed = {"publish": job.output, "first_step": resumption.step, "resumed_from": resumption}
        resumed["warnings"] = tuple(table_warnings(training))
    files = {
        names["training"]: _HEADER + toml_text({"training": training}),
        names["data"]: _HEADER + _dataset_text(job, view),
    }
    if "sample_prompts" in training:
        files[names["prompts"]] = _prompt(job)
    stages = []
    for name, script in (("caching_latents", scripts.latents), ("caching_text_encoders", scripts.captions)):
        table = _caching_table(model_type, job, args, trainer.arguments(script), names)
        stages.append(_stage(trainer, name, script, _flags(table)))
    last = _stage(trainer, "training", scripts.training, ("--config_file", names["training"]))
    if not trainer.is_rehearsal:
        precision = training.get("mixed_precision")
        last = attrs.evolve(last, launcher=accelerate_launcher(last.argv[0], last.argv[1:], mixed_precision=precision))
    module = job.settings.network_module
    return Plan(
        name=job.name,
        model_type=model_type.name,
        output=job.output if resumption is None else Path(OUTPUT),
        lora=f"{job.lora_name}.safetensors",
        stages=[*stages, last],
        files={**files, "run.toml": run_record(job, trainer.record(), resumption), **view.files},
        links=view.links,
        configs=[name for name in names.values() if name in files],
        steps=steps,
        zero_at_start=model_type.zero_at_start if module in {None, model_type.network_module} else (),
        rehearsal=trainer.is_rehearsal,
        **resumed,
    )


def _stage(trainer: MusubiTuner, name: str, script: str, flags: Iterable[str]) -> Stage:
    env = {**_ENVIRONMENT, **trainer.environment}
    return Stage(name=name, argv=[*trainer.command(script), *flags], env=env)


def _dataset_text(job: Job, view: View) -> str:
    """The data-set TOML in musubi-tuner's form: a data set for each folder, with a folder of its own for its caches,
    in the run folder. Without it the caches would go beside the pictures."""
    s = completed(job.settings)
    general: dict[str, Any] = {
        "resolution": [s.resolution or 512, s.resolution or 512],
        "caption_extension": view.caption_extension,
        "batch_size": s.batch_size or 1,
        "enable_bucket": bool(s.enable_bucket),
        "bucket_no_upscale": bool(s.bucket_no_upscale),
    }
    parts = [toml_text({"general": general})]
    for number, subset in enumerate(view.subsets, 1):
        repeats = s.repeats if subset.repeats is None else subset.repeats
        table = {"image_directory": subset.folder, "cache_directory": f"cache/{number}", "num_repeats": repeats or 1}
        # A table by itself: the toml that it reads with takes an inline one with an apostrophe in it for none.
        parts.append("[[datasets]]\n" + toml_text(table))
    return "\n".join(parts)


def _prompt(job: Job) -> str:
    """The sample prompt file: one line, with size, steps, scale and seed unless the prompt has its own."""
    s = job.settings
    prompt = (s.sample_prompt or "").replace("{trigger}", job.trigger).strip()
    said = {part.split(" ")[0] for part in prompt.split(" --")[1:]}
    options = {"w": s.resolution, "h": s.resolution, "s": s.sample_steps, "l": s.sample_scale, "d": s.seed}
    added = [f"--{key} {value:g}" for key, value in options.items() if value is not None and key not in said]
    return " ".join([prompt, *added]) + "\n"
