"""The core's own plugin: sd-scripts as a trainer, how its output is read, and why its trainings fail. The last two are
asked after all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cinderlora.hookspecs import hookimpl

if TYPE_CHECKING:
    from cinderlora.events import Event
    from cinderlora.problems import Diagnosis
    from cinderlora.trainers import TrainerType
    from cinderlora.types import Failure


@hookimpl
def trainer() -> TrainerType:
    from cinderlora.sd_scripts.checkout import SdScripts

    return SdScripts


@hookimpl(trylast=True)
def parse_progress(line: str, phase: str | None) -> Sequence[Event] | None:
    from cinderlora.sd_scripts.progress import parse_progress as parse

    return parse(line, phase)


@hookimpl(trylast=True)
def diagnose(failure: Failure) -> Diagnosis | None:
    from cinderlora.sd_scripts.failures import diagnose as find

    return find(failure)
