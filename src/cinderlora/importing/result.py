"""From a reading to what is handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cinderlora.importing.data import Imported, Reading
from cinderlora.importing.naming import leave_empty, leave_secrets, take_models, take_names, take_old_names
from cinderlora.importing.prompts import take_prompts
from cinderlora.importing.rest import take_rest
from cinderlora.importing.settings import take_settings
from cinderlora.importing.source import Source
from cinderlora.importing.work import Work
from cinderlora.types import Settings

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter

__all__ = ["imported"]


def imported(reading: Reading, source: Source, adapter: Adapter | None) -> Imported:
    """What became of a reading, for a model type; without one, settings alone."""
    work = Work(reading, source, adapter)
    leave_secrets(work)
    leave_empty(work)
    take_old_names(work)
    take_names(work)
    take_models(work)
    take_settings(work)
    take_prompts(work)
    if adapter is not None:
        take_rest(work, adapter)
    else:
        for entry in reading.table.values():
            reading.drop(entry.key, entry.theirs, "import_type_needed")
    if work.extra:
        work.settings["extra"] = work.extra
    return Imported(
        format=reading.format,
        model_type=adapter.name if adapter else None,
        models=work.models,
        settings=Settings(**work.settings),
        taken=work.taken,
        dropped=reading.dropped,
        implied=work.implied,
        problems=reading.problems,
        files=source.files,
        **work.job,
    )
