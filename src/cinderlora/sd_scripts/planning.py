"""The plan of a training with sd-scripts: command line, files, links and the record, all as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinderlora.dataset import dataset_view
from cinderlora.launchers import accelerate_launcher
from cinderlora.sd_scripts.checkout import ENVIRONMENT, SdScripts
from cinderlora.sd_scripts.config import dataset_text, prompt_lines, training_table
from cinderlora.sd_scripts.resuming import OUTPUT, resumed_table, table_warnings
from cinderlora.serial import toml_text
from cinderlora.trainers import run_record
from cinderlora.types import Job, Launcher, ModelType, Plan, Resumption, Stage

if TYPE_CHECKING:
    from cinderlora.dataset import Dataset

__all__ = ["make_plan"]

_HEADER = "# Written by cinderlora. Relative paths start at the run folder, which is where the trainer is started.\n"


def make_plan(
    trainer: SdScripts,
    model_type: ModelType,
    job: Job,
    dataset: Dataset,
    args: Mapping[str, Any],
    resumption: Resumption | None = None,
) -> Plan:
    """The plan of a job. Reads sizes and times of the model files and the trainer's commit, for the record."""
    config, data, prompts = (
        f"{job.name}_kohya_training.toml",
        f"{job.name}_dataset.toml",
        f"{job.name}_sample_prompts.txt",
    )
    view = dataset_view(dataset, job.trigger, ".txt")
    known = trainer.arguments(model_type.script)
    training = training_table(model_type, job, args, known, dataset_config=data, sample_prompts=prompts)
    steps = training.get("max_train_steps")
    if resumption is not None:
        steps = job.settings.steps or 0
        training = resumed_table(training, resumption, steps)
    files = {
        config: _HEADER + toml_text({"training": training}),
        data: _HEADER + dataset_text(job, view),
    }
    if "sample_prompts" in training:
        files[prompts] = prompt_lines(job)
    command = trainer.command(model_type.script, config)
    resumed: dict[str, Any] = {}
    if resumption is not None:
        resumed = {"publish": job.output, "first_step": resumption.step, "resumed_from": resumption}
        resumed["warnings"] = tuple(table_warnings(training))
    return Plan(
        name=job.name,
        model_type=model_type.name,
        output=job.output if resumption is None else Path(OUTPUT),
        lora=f"{job.lora_name}.safetensors",
        stages=[Stage(name="train", argv=command, env=ENVIRONMENT, launcher=_launcher(trainer, command, training))],
        files={**files, "run.toml": run_record(job, trainer.record(), resumption, dataset=dataset), **view.files},
        links=view.links,
        configs=[name for name in (config, data, prompts) if name in files],
        steps=steps,
        zero_at_start=_zero_at_start(model_type, job),
        rehearsal=trainer.is_rehearsal,
        **resumed,
    )


def _launcher(trainer: SdScripts, command: Sequence[str], training: Mapping[str, Any]) -> Launcher | None:
    """How the script is run by several processes; the rehearsal is one only."""
    if trainer.is_rehearsal:
        return None
    # Each process caches a part of the pictures and reads the others' from the disk; every machine has its own view.
    on_disk = training.get("cache_latents_to_disk") or training.get("cache_text_encoder_outputs_to_disk")
    return accelerate_launcher(
        command[0],
        command[1:],
        mixed_precision=training.get("mixed_precision"),
        one_machine="caches_on_disk" if on_disk else "",
    )


def _zero_at_start(model_type: ModelType, job: Job) -> tuple[str, ...]:
    """The names of an untrained network's zero tensors; none where the job uses a module they are not known of."""
    module = job.settings.network_module
    return model_type.zero_at_start if module in {None, model_type.network_module} else ()
