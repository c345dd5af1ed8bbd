"""What no setting stands for: kept in `extra`, unless cinderlora does it anyway.

Found by doing it: a job is made of the settings, and what its training TOML would say is held against the
configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cinderlora.importing.data import Entry, shown, words
from cinderlora.importing.values import as_argument, fits_toml, same
from cinderlora.importing.work import TRAINING, Work
from cinderlora.problems import Problem
from cinderlora.sd_scripts.arguments import argument_problems
from cinderlora.sd_scripts.config import dataset_keys, training_table
from cinderlora.sd_scripts.reserved import reserved_problems

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.types import Job

__all__ = ["take_rest"]

# Arguments that cinderlora sets to keep a run in order, whatever the configuration leaves out.
_OURS = words(
    """
    cache_latents_to_disk cache_text_encoder_outputs_to_disk console_log_simple dataset_config metadata_author
    metadata_trigger_phrase output_dir output_name persistent_data_loader_workers sample_prompts sample_sampler
    save_model_as sdpa seed training_comment
    """
)


def take_rest(work: Work, adapter: Adapter) -> None:
    """Keep what is left in `extra`, unless cinderlora does it anyway or the script has no such argument."""
    known = work.known
    named = {"name": "x", "trigger": "x", "dataset": ".", "output": "."} | work.job
    job = adapter.job(**named, models=work.models, **work.settings)
    args = _own_args(adapter, job)
    ours = training_table(adapter.type, job, args, known, dataset_config="x", sample_prompts="x")
    pictures = dataset_keys(job)
    for argument, entry in work.table.items():
        value = as_argument(entry.value, known.get(argument) if known else None)
        if argument in ours and same(ours[argument], value):
            work.note(entry, "", value)
        elif argument in pictures:
            if same(pictures[argument], value):
                work.note(entry, "", value)
            else:
                work.reading.drop(entry.key, entry.theirs, "import_decided", now=shown(pictures[argument]))
        elif argument not in ours and known and argument in known and same(known[argument]["default"], value):
            work.note(entry, "", value)
        else:
            _keep(work, adapter.type.script, argument, entry, value)
    if work.reading.complete:
        _undo(work, ours, args)


def _own_args(adapter: Adapter, job: Job) -> Mapping[str, Any]:
    """The adapter's own, without the policies of this machine: those hold for what was imported as for any other job,
    and are not to be taken back."""
    adapter.build_args(job)  # raises what is to be raised
    own = [i for i in adapter.registry.implementations("build_args", adapter.plugin) if i.plugin == adapter.plugin]
    found = own[0].call(job=job) if own else None
    return found if isinstance(found, Mapping) else {}


def _keep(work: Work, script: str, argument: str, entry: Entry, value: Any) -> None:
    problems = (*reserved_problems([argument]), *argument_problems(script, {argument: value}, work.known))
    problem = next(iter(problems), None)
    if problem is None and fits_toml(value):
        work.extra[argument] = value
        work.note(entry, f"extra.{argument}", value)
        return
    work.reading.refuse(entry, problem or Problem("import_not_understood"))


def _undo(work: Work, ours: Mapping[str, Any], args: Mapping[str, Any]) -> None:
    """Take back what cinderlora would set and the configuration has otherwise, or does not have."""
    for argument, setting in TRAINING.items():
        wanted = work.settings.get(setting)
        if wanted is not None and argument in ours and not same(ours[argument], wanted):
            work.extra[argument] = wanted
    if "optimizer_args" in ours and "optimizer_args" not in work.settings:
        work.settings["optimizer_args"] = ()
        work.implied.append("optimizer_args")
    for argument in args:
        if argument in ours and argument not in {*work.table, *work.extra, *TRAINING, *_OURS}:
            default = work.default(argument)
            work.extra[argument] = False if default is None else default
            work.implied.append(f"extra.{argument}")
