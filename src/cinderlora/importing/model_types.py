"""Which of the registry's model types a configuration is for."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from cinderlora.importing.data import Reading
from cinderlora.problems import Problem
from cinderlora.sd_scripts.arguments import known_arguments

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.registry import Registry

__all__ = ["model_type_of"]


def model_type_of(reading: Reading, registry: Registry) -> Adapter | None:
    """By the script's name; where that is not known, or several types share it, by the arguments that are there. None,
    with a problem, where nothing speaks for one more than for the others."""
    adapters = list(registry.values())
    if reading.script is not None:
        script = PureWindowsPath(reading.script).name
        adapters = [adapter for adapter in adapters if adapter.type.script == script]
        if not adapters:
            scripts = sorted(adapter.type.script for adapter in registry.values())
            reading.problems.append(Problem("import_script_unknown", {"script": script, "known": scripts}))
            return None
        if len(adapters) == 1:
            return adapters[0]
    ranked = sorted(adapters, key=lambda adapter: _evidence(reading, adapter), reverse=True)
    evidence = [_evidence(reading, adapter) for adapter in ranked]
    if not ranked or not any(evidence[0][:3]) or evidence[0] in evidence[1:]:
        reading.problems.append(Problem("import_type_unclear", {"known": sorted(registry)}))
        return None
    if reading.script is None and not (evidence[0][0] or evidence[0][2]):
        title = ranked[0].title
        reading.problem("import_type_guessed", model_type=title, module=str(reading.table["network_module"].value))
    return ranked[0]


def _evidence(reading: Reading, adapter: Adapter) -> tuple[bool, bool, int, int]:
    """What speaks for a model type, the stronger first: its name, its network module, its own model files, and how few
    arguments its script does not know."""
    table = reading.table
    kind = adapter.type
    named = table.get("model_type")
    module = table.get("network_module")
    components = {component.key for component in kind.components} - {"pretrained_model_name_or_path", "vae"}
    known = known_arguments(kind.script)
    strange = len(set(table) - set(known)) if known else 0
    return (
        named is not None and named.value == kind.name,
        module is not None and module.value == kind.network_module,
        len(components & set(table)),
        -strange,
    )
