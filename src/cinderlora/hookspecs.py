"""The hooks: everything that a plugin can tell cinderlora.

A plugin is a module or an object with some of these functions, each marked with `@cinderlora.hookimpl`. One with
`model_type` is an *adapter*; one without is *cross-cutting*: a preset pack, a site policy. For a model type, its own
adapter is called and all cross-cutting plugins, never another adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from cinderlora.events import Event
    from cinderlora.models.headers import Header
    from cinderlora.problems import Diagnosis
    from cinderlora.sync import Run
    from cinderlora.trainers import TrainerType
    from cinderlora.types import Failure, Job, ModelFile, ModelType, Preset

__all__ = [
    "build_args",
    "diagnose",
    "hookimpl",
    "model_type",
    "parse_progress",
    "presets",
    "run_finished",
    "scan_models",
    "trainer",
]

PROJECT = "cinderlora"

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def model_type() -> ModelType:  # type: ignore[empty-body]
    """The model type that this plugin is the adapter of. Called once, when the plugin is registered.

    >>> from cinderlora import Component, ModelType, hookimpl
    >>> class Lumina:
    ...     @hookimpl
    ...     def model_type(self):
    ...         return ModelType(
    ...             name="lumina", title="Lumina Image 2", min_vram_gb=12,
    ...             script="lumina_train_network.py", network_module="networks.lora_lumina",
    ...             components=[Component("model"), Component("gemma2"), Component("ae")],
    ...         )
    """


@hookspec
def trainer() -> TrainerType:  # type: ignore[empty-body]
    """Where trainers of a kind other than sd-scripts come from: a class, as a rule. It is for the model types whose
    `trainer` is its `kind`, of whatever plugin. Called when somebody asks for such a trainer.

    >>> from cinderlora import hookimpl
    >>> from cinderlora.checkouts import Checkout
    >>> class MusubiTuner(Checkout):
    ...     kind, sign = "musubi-tuner", "src/musubi_tuner/hv_train_network.py"
    ...     def problems(self, model_type, job, args): ...
    ...     def plan(self, model_type, job, dataset, args, resumption=None): ...
    >>> class Musubi:
    ...     @hookimpl
    ...     def trainer(self):
    ...         return MusubiTuner
    """


@hookspec
def presets(model_type: ModelType) -> Iterable[Preset]:  # type: ignore[empty-body]
    """Presets for a model type. Any plugin may add some for any type; two of one name are refused, naming both.

    >>> from cinderlora import Preset, hookimpl
    >>> class StudioPresets:
    ...     @hookimpl
    ...     def presets(self, model_type):
    ...         if model_type.name == "flux":
    ...             yield Preset(name="studio-draft", base="16gb", steps=800, network_dim=8)
    """


@hookspec
def scan_models(files: Sequence[Header]) -> Iterable[ModelFile]:  # type: ignore[empty-body]
    """Which of these model files are this type's, and what each one is. Only headers are read, once for all adapters.

    A file that is not yours: leave it out. One that is yours but cannot be used: give it `problems` that say why.

    >>> from cinderlora import ModelFile, hookimpl
    >>> class Lumina:
    ...     @hookimpl
    ...     def scan_models(self, files):
    ...         for header in files:
    ...             if "cap_embedder.0.weight" in header.tensors:
    ...                 yield ModelFile(path=header.path, role="model", precision=header.precision, size=header.size)
    """


@hookspec(firstresult=True)
def build_args(job: Job) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """The trainer's settings that are this model's own, by the trainer's own names. What is common to all model types
    (steps, network_dim, optimizer, folders, ...) is set already; a key given here goes over it, and the job's `extra`
    goes over both. A cross-cutting plugin wraps it to set a policy.

    >>> from cinderlora import hookimpl
    >>> class NoBiggerThanThis:
    ...     @hookimpl(wrapper=True)
    ...     def build_args(self, job):
    ...         args = yield
    ...         return {**args, "max_token_length": 75}
    """


@hookspec(firstresult=True)
def parse_progress(line: str, phase: str | None) -> Sequence[Event] | None:
    r"""The events in one line of the trainer's output: a refresh of a bar up to its "]", or a log line with its
    wrapping undone. None: not mine. An empty list: mine, and there is nothing to tell. Keep no state; `phase` is the
    name of the last `Phase`. The core numbers what is returned.

    >>> import re
    >>> from cinderlora import Activity, hookimpl
    >>> BLOCK = re.compile(r"quantizing block (\d+)/(\d+)")
    >>> class Quantizing:
    ...     @hookimpl
    ...     def parse_progress(self, line, phase):
    ...         if found := BLOCK.match(line):
    ...             return [Activity(label="quantizing", done=int(found[1]), total=int(found[2]))]
    """


@hookspec(firstresult=True)
def diagnose(failure: Failure) -> Diagnosis | None:
    """Why a training failed, where this plugin can tell. The core's own diagnosis comes last.

    >>> from cinderlora import Diagnosis, hookimpl
    >>> class Licence:
    ...     @hookimpl
    ...     def diagnose(self, failure):
    ...         for line in failure.lines:
    ...             if "no licence for" in line:
    ...                 return Diagnosis(code="studio_licence", cause="The studio licence has expired.",
    ...                                  fix="Ask Kim for a new one.", evidence=[line])
    """


@hookspec
def run_finished(run: Run) -> None:
    """A run has ended, well or not: the place for notifications and uploads.

    It is called once, in a process of its own that starts when the end is on record, whether or not the program that
    launched the run is still there; so only plugins that are installed can be told. What it prints, and an exception
    of its own, goes to `run_finished.log` in the run folder and changes nothing else. `run` is a `cinderlora.sync.Run`.

    >>> from cinderlora import hookimpl
    >>> class Upload:
    ...     @hookimpl
    ...     def run_finished(self, run):
    ...         if run.state == "finished":
    ...             print("to be uploaded:", run.result.lora)
    """
