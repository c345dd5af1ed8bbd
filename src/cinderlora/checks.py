"""What is wrong with a job, and what it will cost: everything that can be said before the start."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cinderlora.errors import LaunchFailed, SettingError
from cinderlora.names import is_plain_file_name
from cinderlora.problems import Problem, Report
from cinderlora.types import SETTINGS, Job, ModelType

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.cost.data import Estimate
    from cinderlora.dataset import BucketPlan, Dataset
    from cinderlora.gpu import Gpu
    from cinderlora.trainers import Trainer

__all__ = ["check", "job_problems", "plan_problems", "within_limits"]


def check(
    adapter: Adapter,
    job: Job,
    trainer: Trainer,
    *,
    runs: Path | None = None,
    decode: bool = False,
    progress: Callable[[int, int], object] | None = None,
    gpus: Sequence[Gpu] | None = None,
    machines: int = 1,
) -> Report:
    """The report of a job: see `Adapter.check`."""
    from cinderlora.dataset import difference_problems, inspect_dataset

    dataset = inspect_dataset(
        job.dataset,
        trigger=job.trigger or None,
        caption_extension=job.settings.caption_extension or ".txt",
        decode=decode,
        progress=progress,
    )
    problems = [
        *plan_problems(adapter, job, trainer),
        *dataset.problems,
        *difference_problems(dataset, trainer.completed(job.settings)),
        *_model_problems(adapter, job, trainer),
        *_limit_problems(adapter.looked_into(job)),
        *trainer.machine_problems(job),
        *_output_problems(job.output),
    ]
    processes, refused = _processes(gpus, machines)
    problems += [*refused, *_several_problems(job, trainer, processes)]
    report, buckets = _numbers(adapter, job, trainer, dataset, problems, processes)
    if trainer.is_rehearsal:
        return report
    return _with_cost(adapter, job, trainer, buckets, report, runs, () if refused else gpus or ())


def plan_problems(adapter: Adapter, job: Job, trainer: Trainer) -> tuple[Problem, ...]:
    """The cheap part: what the job's own values and the trainer forbid."""
    kind = adapter.type
    problems = list(job_problems(job, kind))
    if kind.trainer != trainer.kind:
        problems.append(Problem("trainer_of_another_kind", {"model_type": kind.title, "trainer": kind.trainer}))
    else:
        problems += trainer.problems(kind, job, adapter.build_args(job))
    return tuple(problems)


def job_problems(job: Job, kind: ModelType) -> Iterator[Problem]:
    """What is wrong with a job's own values, whatever the machine. Pure."""
    if not job.name:
        yield Problem("name_missing")
    elif not is_plain_file_name(job.lora_name) or not is_plain_file_name(job.name):
        yield Problem("name_unsafe", {"name": repr(job.lora_name if is_plain_file_name(job.name) else job.name)})
    if not job.trigger.strip():
        yield Problem("trigger_missing")
    elif not job.trigger.isprintable():
        yield Problem("trigger_unprintable", {"trigger": repr(job.trigger)})
    yield from _range_problems(job)
    prompt = job.settings.sample_prompt or ""
    if job.settings.sample_every or job.settings.sample_at_first:
        if not prompt.strip():
            yield Problem("sample_prompts_missing", changes={"sample_prompt": "{trigger}, portrait, high quality"})
        elif not prompt.isprintable() or prompt.lstrip().startswith("#"):
            yield Problem("prompt_form", {"prompt": repr(prompt)})
    if job.model_type != kind.name:
        yield Problem("job_of_another_type", {"its_type": job.model_type, "model_type": kind.name})


def within_limits(job: Job) -> Job:
    """The job with settings lowered to what its model files allow."""
    over = {setting: limit for setting, _, limit in _over_limits(job)}
    extra = job.settings.extra
    if over.keys() & extra.keys():
        over["extra"] = {**extra, **{setting: limit for setting, limit in over.items() if setting in extra}}
    return job.evolve(**over) if over else job


def _over_limits(job: Job) -> Iterator[tuple[str, Any, Any]]:
    """Settings above what a model file allows, with value and limit; `extra` goes over them under the same names."""
    for file in job.models.values():
        for setting, limit in file.limits.items():
            value = job.settings.extra.get(setting, getattr(job.settings, setting))
            if type(value) in (int, float) and value > limit:
                yield setting, value, limit


def _limit_problems(job: Job) -> Iterator[Problem]:
    for setting, value, limit in _over_limits(job):
        params = {"setting": setting, "value": value, "limit": limit}
        yield Problem("setting_clamped", params, severity="warning", changes={setting: limit})


def _range_problems(job: Job) -> Iterator[Problem]:
    for name, info in SETTINGS.items():
        value = getattr(job.settings, name)
        if value is None or isinstance(value, (bool, tuple, dict)):
            continue
        if info.choices and value not in info.choices:
            yield Problem("setting_choice", {"setting": name, "value": repr(value), "choices": info.choices})
        if not isinstance(value, (int, float)):
            continue
        low, high = info.minimum, info.maximum
        in_range = (low is None or value >= low) and (high is None or value <= high)
        if math.isnan(value) or not in_range:
            params = {"setting": name, "value": repr(value), "low": _said(low), "high": _said(high)}
            yield Problem("setting_range", params)
        elif not _usual(value, info.low, info.high):
            params = {"setting": name, "value": repr(value), "low": _said(info.low), "high": _said(info.high)}
            yield Problem("setting_unusual", params, severity="warning")


def _usual(value: float, low: float | None, high: float | None) -> bool:
    # 0 switches off, and that is nothing unusual.
    return value == 0 or ((low is None or value >= low) and (high is None or value <= high))


def _said(bound: float | None) -> str | None:
    return None if bound is None else f"{bound:g}"


# ---- the machine ----


def _model_problems(adapter: Adapter, job: Job, trainer: Trainer) -> Iterator[Problem]:
    if trainer.is_rehearsal:
        return  # it needs none
    scanned = {role: adapter.seen(file.path) for role, file in job.models.items() if file.path.exists()}
    bundled = {inside for files in scanned.values() for file in files for inside in file.bundled}
    wins = {r for files in scanned.values() for file in files for p in file.problems for r in p.params.get("wins", ())}
    for component in adapter.type.components:
        file = job.models.get(component.role)
        if file is None:
            if component.required and component.role not in bundled:
                yield Problem("component_missing", {"role": component.title, "model_type": adapter.title})
            continue
        if not file.path.exists():
            yield Problem("model_file_missing", {"path": str(file.path), "role": component.title})
            continue
        for seen in scanned[component.role]:
            yield from seen.problems
            is_a = seen.role or (seen.variant if adapter.knows_its_files else "")
            if is_a and is_a != component.role:
                params = {"path": str(file.path), "role": component.title, "is_a": is_a}
                yield Problem("wrong_component", params)
        if component.role in wins:
            yield Problem("model_inside_wins", {"role": component.title, "given": str(file.path)}, severity="warning")


def _output_problems(output: Path) -> Iterator[Problem]:
    there = output
    while not there.exists() and there != there.parent:
        there = there.parent
    if output.exists() and not output.is_dir():
        yield Problem("output_not_a_folder", {"path": str(output)})
    elif not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Problem("output_not_writable", {"path": str(output)})


def _processes(gpus: Sequence[Gpu] | None, machines: int) -> tuple[int, list[Problem]]:
    """How many processes will train at once, and what speaks against the GPUs."""
    from cinderlora.running.devices import check_devices

    try:
        return check_devices(gpus, machines), []
    except LaunchFailed as error:
        return 1, [Problem(error.code, error.params)]


def _several_problems(job: Job, trainer: Trainer, processes: int) -> Iterator[Problem]:
    """What several processes mean for the steps."""
    s = job.settings
    if processes > 1 and trainer.is_rehearsal:
        yield Problem("launch_one_process", {"model_type": job.model_type})
    elif processes > 1 and s.steps:
        batch = (s.batch_size or 1) * (s.gradient_accumulation or 1)
        fewer = math.ceil(s.steps / processes)
        params = {"processes": processes, "pictures": batch * processes, "steps": s.steps, "fewer": fewer}
        yield Problem("several_gpus", params, severity="warning", changes={"steps": fewer})


def _recommended_vram(adapter: Adapter, job: Job) -> float | None:
    preset = adapter.presets.get(job.preset) if job.preset else None
    return preset.vram_gb if preset and preset.vram_gb else adapter.type.min_vram_gb


def _with_cost(
    adapter: Adapter,
    job: Job,
    trainer: Trainer,
    buckets: BucketPlan | None,
    report: Report,
    runs: Path | None,
    gpus: Sequence[Gpu],
) -> Report:
    """The report with what the training will take, and what speaks against that on this machine."""
    from cinderlora.cost.machine import memory
    from cinderlora.cost.problems import Cost, disk_problems, ram_problems
    from cinderlora.folders import data_folder

    if any(p.code in {"setting_range", "setting_choice"} for p in report.problems):
        return report  # of numbers that mean nothing
    job = within_limits(adapter.looked_into(job))
    counts = {"checkpoints": report.checkpoints or 0, "samples": report.samples or 0}
    cost = trainer.cost(adapter.type, job, buckets, **counts) or Cost()
    if cost.ram is not None and len(gpus) > 1:
        each = cost.ram  # every process loads the models for itself
        figures = {name: getattr(each, name) * len(gpus) for name in ("gb", "low", "high")}
        cost = attrs.evolve(cost, ram=attrs.evolve(each, **figures))
    problems = [*report.problems, *_card_problems(adapter, job, cost.vram, gpus)]
    if cost.disk is not None:
        problems += disk_problems(cost.disk, job.output, runs or data_folder() / "runs")
    if cost.ram is not None:
        problems += ram_problems(cost.ram, memory())
    disk_bytes = None if cost.disk is None else cost.disk.total
    return attrs.evolve(report, problems=problems, disk=cost.disk, disk_bytes=disk_bytes, vram=cost.vram, ram=cost.ram)


def _card_problems(adapter: Adapter, job: Job, estimate: Estimate | None, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    from cinderlora.cost.problems import vram_problems
    from cinderlora.gpu import ENOUGH, holders, memory

    card = memory(*gpus)
    if card is None:
        return
    others = holders()
    if estimate is not None:
        yield from vram_problems(adapter.type, job, estimate, card, others)
        return
    needed = _recommended_vram(adapter, job)
    if needed is not None and card.total < ENOUGH * needed:
        yield Problem("vram_small", {"there": round(card.total, 1), "needed": needed}, severity="warning")
    if others:
        yield Problem("gpu_in_use", {"programs": others}, severity="warning")


def _numbers(
    adapter: Adapter, job: Job, trainer: Trainer, dataset: Dataset, problems: list[Problem], processes: int
) -> tuple[Report, BucketPlan | None]:
    """The figures of a job on its data set, and its buckets, where its settings and its trainer allow to tell them."""
    from cinderlora.dataset import size_problems

    s = job.settings
    needed = _recommended_vram(adapter, job)
    report = Report(problems=problems, images=len(dataset.pictures), steps=s.steps, vram_gb=needed, processes=processes)
    if not dataset.sizes or any(p.code == "setting_range" for p in problems):
        return report, None
    try:
        buckets = trainer.buckets(adapter.type, job, dataset)
    except SettingError as error:
        return attrs.evolve(report, problems=[*problems, Problem(error.code, error.params)]), None
    steps, accumulation = s.steps or 0, s.gradient_accumulation or 1
    report = attrs.evolve(
        report,
        checkpoints=steps // s.save_every if s.save_every else 0,
        samples=(steps // s.sample_every if s.sample_every else 0) + bool(s.sample_at_first),
    )
    if buckets is None:
        return report, None
    report = attrs.evolve(
        report,
        problems=[*problems, *size_problems(dataset, buckets)],
        steps_per_epoch=buckets.steps_per_epoch(accumulation, processes),
        epochs=buckets.epochs(steps, accumulation, processes),
        buckets={"{}x{}".format(*bucket.resolution): bucket.count for bucket in buckets.buckets},
    )
    return report, buckets
