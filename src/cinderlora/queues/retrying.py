"""Another try of a job that ran out of memory, with what its diagnosis advises."""

from __future__ import annotations

from typing import Any

import attrs

from cinderlora.errors import TrainingFailed
from cinderlora.queues.entries import Entry
from cinderlora.queues.freezing import Frozen, job_of
from cinderlora.running.base import RunBase
from cinderlora.running.resuming import recorded_trainer
from cinderlora.types import Plan

__all__ = ["plan_with_advice"]

_CODES = {"cuda_out_of_memory", "host_out_of_memory"}


def plan_with_advice(entry: Entry, frozen: Frozen) -> tuple[Plan, dict[str, Any]] | None:
    """The plan of the same job with the settings that the diagnosis changes, and these; None where the run did not fail
    for want of memory, or nothing is advised. The adapter is the installed one, the trainer the one on record.

    Raises what planning raises. Reads the run's log and the data set.
    """
    from cinderlora.registry import Registry

    if entry.run is None:
        return None
    registry = Registry.from_installed()
    try:
        _ = RunBase.at(entry.run, registry=registry).result
    except TrainingFailed as error:
        diagnosis = error.diagnosis
    else:
        return None
    job = job_of(frozen.plan)
    if diagnosis.code not in _CODES or not diagnosis.changes or job is None:
        return None
    adapter = registry[entry.model_type]
    trainer = recorded_trainer(entry.run, adapter)
    plan = adapter.plan(job.evolve(**diagnosis.changes), trainer, frozen.plan.resumed_from)
    return _on_the_same_data(plan, frozen.plan), dict(diagnosis.changes)


def _on_the_same_data(plan: Plan, before: Plan) -> Plan:
    """A plan on the view of the data set that an earlier one had: captions may have changed since."""

    def is_view(of: Plan, name: str) -> bool:
        return name != "run.toml" and name not in of.configs

    own = {name: text for name, text in plan.files.items() if not is_view(plan, name)}
    view = {name: text for name, text in before.files.items() if is_view(before, name)}
    return attrs.evolve(plan, links=before.links, files={**own, **view})
