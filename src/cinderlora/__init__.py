"""Train character LoRAs for FLUX, SDXL and SD3 with Kohya's sd-scripts, from your own program.

The names below are the public face. They are loaded when they are first used: importing cinderlora costs little, and
no plugin is loaded by it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; typing's own would cost a third of the import

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter
    from cinderlora.config import Config
    from cinderlora.cost.data import Disk, Estimate
    from cinderlora.dataset import Dataset, inspect_dataset, list_datasets
    from cinderlora.errors import (
        CinderloraError,
        ConfigError,
        InstallFailed,
        JobRefused,
        LaunchFailed,
        PluginError,
        QueueError,
        RunNotFound,
        SettingError,
        StillRunning,
        TrainerNotFound,
        TrainingFailed,
        TrainingStopped,
        UnknownName,
    )
    from cinderlora.events import (
        Activity,
        CheckpointSaved,
        Event,
        Failed,
        Finished,
        Log,
        Phase,
        Progress,
        SampleSaved,
        Started,
        Stopped,
        Warned,
    )
    from cinderlora.history.losses import LossCurve
    from cinderlora.history.pruning import Pruned, Pruning, prune_runs
    from cinderlora.hookspecs import hookimpl
    from cinderlora.importing import Imported, import_config
    from cinderlora.models import Header, ModelLibrary
    from cinderlora.preset_files import preset_folders
    from cinderlora.problems import Diagnosis, Problem, Report
    from cinderlora.queues import Entry, Outcome, Queue, QueueStatus
    from cinderlora.registry import BrokenPlugin, Registry
    from cinderlora.running import Run, Status, StopReport, attach, launch, runs, status
    from cinderlora.sd_scripts import SdScripts
    from cinderlora.serial import to_json
    from cinderlora.types import (
        Activations,
        Component,
        Failure,
        Footprint,
        Job,
        Launcher,
        Layer,
        Link,
        LoraFacts,
        ModelFile,
        ModelType,
        Plan,
        Preset,
        Result,
        Resumption,
        SettingInfo,
        Settings,
        Stage,
    )

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapter",
    "Config": "config",
    "Disk": "cost.data",
    "Estimate": "cost.data",
    "Dataset": "dataset",
    "inspect_dataset": "dataset",
    "list_datasets": "dataset",
    "CinderloraError": "errors",
    "ConfigError": "errors",
    "InstallFailed": "errors",
    "JobRefused": "errors",
    "LaunchFailed": "errors",
    "PluginError": "errors",
    "QueueError": "errors",
    "RunNotFound": "errors",
    "SettingError": "errors",
    "StillRunning": "errors",
    "TrainerNotFound": "errors",
    "TrainingFailed": "errors",
    "TrainingStopped": "errors",
    "UnknownName": "errors",
    "Activity": "events",
    "CheckpointSaved": "events",
    "Event": "events",
    "Failed": "events",
    "Finished": "events",
    "Log": "events",
    "Phase": "events",
    "Progress": "events",
    "SampleSaved": "events",
    "Started": "events",
    "Stopped": "events",
    "Warned": "events",
    "LossCurve": "history.losses",
    "Pruned": "history.pruning",
    "Pruning": "history.pruning",
    "prune_runs": "history.pruning",
    "hookimpl": "hookspecs",
    "Imported": "importing",
    "import_config": "importing",
    "Header": "models",
    "ModelLibrary": "models",
    "preset_folders": "preset_files",
    "Diagnosis": "problems",
    "Problem": "problems",
    "Report": "problems",
    "Entry": "queues",
    "Outcome": "queues",
    "Queue": "queues",
    "QueueStatus": "queues",
    "BrokenPlugin": "registry",
    "Registry": "registry",
    "Run": "running",
    "Status": "running",
    "StopReport": "running",
    "attach": "running",
    "launch": "running",
    "runs": "running",
    "status": "running",
    "SdScripts": "sd_scripts",
    "to_json": "serial",
    "Activations": "types",
    "Component": "types",
    "Failure": "types",
    "Footprint": "types",
    "Job": "types",
    "Launcher": "types",
    "Layer": "types",
    "Link": "types",
    "LoraFacts": "types",
    "ModelFile": "types",
    "ModelType": "types",
    "Plan": "types",
    "Preset": "types",
    "Result": "types",
    "Resumption": "types",
    "SettingInfo": "types",
    "Settings": "types",
    "Stage": "types",
}
"""The module that each public name is in."""

__all__ = [
    "Activations",
    "Activity",
    "Adapter",
    "BrokenPlugin",
    "CheckpointSaved",
    "CinderloraError",
    "Component",
    "Config",
    "ConfigError",
    "Dataset",
    "Diagnosis",
    "Disk",
    "Entry",
    "Estimate",
    "Event",
    "Failed",
    "Failure",
    "Finished",
    "Footprint",
    "Header",
    "Imported",
    "InstallFailed",
    "Job",
    "JobRefused",
    "LaunchFailed",
    "Launcher",
    "Layer",
    "Link",
    "Log",
    "LoraFacts",
    "LossCurve",
    "ModelFile",
    "ModelLibrary",
    "ModelType",
    "Outcome",
    "Phase",
    "Plan",
    "PluginError",
    "Preset",
    "Problem",
    "Progress",
    "Pruned",
    "Pruning",
    "Queue",
    "QueueError",
    "QueueStatus",
    "Registry",
    "Report",
    "Result",
    "Resumption",
    "Run",
    "RunNotFound",
    "SampleSaved",
    "SdScripts",
    "SettingError",
    "SettingInfo",
    "Settings",
    "Stage",
    "Started",
    "Status",
    "StillRunning",
    "StopReport",
    "Stopped",
    "TrainerNotFound",
    "TrainingFailed",
    "TrainingStopped",
    "UnknownName",
    "Warned",
    "__version__",
    "attach",
    "hookimpl",
    "import_config",
    "inspect_dataset",
    "launch",
    "list_datasets",
    "preset_folders",
    "prune_runs",
    "runs",
    "status",
    "to_json",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
