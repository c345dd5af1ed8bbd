"""For authors of adapters: checks that a plugin keeps its side of the contract, headers of real models to try it with.

>>> import cinderlora_sdxl
>>> import pytest
>>> from cinderlora.testing import adapter_checks
>>> @pytest.mark.parametrize("check", adapter_checks(cinderlora_sdxl), ids=str)
... def test_adapter(check):
...     check()

Fixtures for pytest lie in `cinderlora.testing.fixtures`. `docs/adapters.md` is the guide.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cinderlora.models.headers import Header
from cinderlora.testing import argument_checks, header_checks, hook_checks, progress_checks, running_checks, type_checks
from cinderlora.testing.checking import Check, Subject
from cinderlora.testing.headers import make_header, sample_header, sample_headers
from cinderlora.testing.pictures import draw_pictures
from cinderlora.testing.scripted import ScriptedTrainer

__all__ = [
    "Check",
    "ScriptedTrainer",
    "adapter_checks",
    "draw_pictures",
    "make_header",
    "sample_header",
    "sample_headers",
]

_ALL = (
    hook_checks.hooks_are_spelt_and_called_right,
    hook_checks.goes_with_what_is_installed,
    hook_checks.importing_it_is_light,
    type_checks.the_model_type_is_complete,
    type_checks.its_trainer_is_complete,
    type_checks.the_presets_are_valid,
    type_checks.the_presets_inherit_well,
    type_checks.the_presets_fit_their_memory,
    argument_checks.arguments_are_known_to_the_script,
    argument_checks.arguments_survive_being_read_as_toml,
    header_checks.headers_of_its_own_are_claimed,
    header_checks.headers_of_others_are_left_alone,
    header_checks.damaged_headers_are_survived,
    progress_checks.parse_progress_never_raises,
    progress_checks.progress_does_not_depend_on_how_lines_are_split,
    progress_checks.its_log_is_understood,
    progress_checks.diagnose_never_raises,
    running_checks.a_plan_is_deterministic_and_inert,
    running_checks.a_rehearsal_runs_from_job_to_lora,
)
_FOR_ADAPTERS = {
    type_checks.the_model_type_is_complete,
    header_checks.headers_of_its_own_are_claimed,
    header_checks.headers_of_others_are_left_alone,
    header_checks.damaged_headers_are_survived,
    progress_checks.its_log_is_understood,
    running_checks.a_rehearsal_runs_from_job_to_lora,
}
"""What has nothing to ask of a plugin without a model type."""

_FOR_TRAINERS = {type_checks.its_trainer_is_complete}
"""What has nothing to ask of a plugin without a trainer of its own, as most are."""

Headers = Mapping[str, Header | Iterable[Header]]


def adapter_checks(
    plugin: object,
    *,
    headers: Headers | None = None,
    others: Iterable[Header] = (),
    arguments: Mapping[str, Any] | str | Path | None = None,
    checkout: str | Path | None = None,
    logs: Iterable[bytes | str | Path] = (),
    rehearsal: bool = True,
    import_seconds: float = 1.0,
) -> list[Check]:
    """The checks for a plugin: a module, or an object with hook implementations. Nothing is looked at yet.

    One with `model_type` is tried alone; one without, a preset pack or a policy, with all adapters that are installed.

    `headers` are those of its own components by role, of one file or of several, and `others` those that it has to
    leave alone; `make_header` and `cinderlora.models.read_header` give some. A `checkout` of the trainer is asked what
    its script takes; where there is none, `arguments` say so, as `SdScripts.arguments` gives them or as a JSON file; of
    the scripts that cinderlora itself trains with, it is known. `logs` are outputs of its trainer, as bytes or files.
    `rehearsal=False` says that its trainer has none. Importing the plugin may take `import_seconds`. A check that lacks
    one of these skips, and says so.
    """
    own = {role: (found,) if isinstance(found, Header) else tuple(found) for role, found in (headers or {}).items()}
    subject = Subject(
        plugin=plugin,
        headers=own,
        others=tuple(others),
        arguments=Path(arguments) if isinstance(arguments, (str, os.PathLike)) else arguments,
        checkout=Path(checkout).expanduser().absolute() if checkout else None,
        logs=tuple(log if isinstance(log, bytes) else Path(log).read_bytes() for log in logs),
        rehearsal=rehearsal,
        import_seconds=import_seconds,
    )
    nothing_to_ask = (set() if subject.is_adapter else _FOR_ADAPTERS) | (
        set() if hasattr(plugin, "trainer") else _FOR_TRAINERS
    )
    functions = [function for function in _ALL if function not in nothing_to_ask]
    return [Check(function.__name__.replace("_", " "), function, subject) for function in functions]
