"""One model type as a program sees it: its presets, models, jobs, checks, plans and events, typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cinderlora.errors import ConfigError, PluginError, SettingError, UnknownName
from cinderlora.frozendict import FrozenDict
from cinderlora.names import nearest
from cinderlora.problems import Diagnosis, Report, raise_for
from cinderlora.types import (
    SETTINGS,
    Job,
    ModelFile,
    ModelType,
    Plan,
    Preset,
    SettingInfo,
    Settings,
    checked_names,
    meant_from,
)

if TYPE_CHECKING:
    from cinderlora.cost.data import Estimate
    from cinderlora.events import Event
    from cinderlora.gpu import Gpu
    from cinderlora.models import ModelLibrary
    from cinderlora.models.library import Claimant
    from cinderlora.registry import BrokenPlugin, Registry
    from cinderlora.running.stream import EventStream
    from cinderlora.trainers import Trainer, TrainerType
    from cinderlora.types import Failure, Resumption

__all__ = ["DEFAULTS", "Adapter", "claimant"]

DEFAULTS = Settings(
    resolution=512,
    batch_size=1,
    steps=1500,
    repeats=10,
    network_dim=16,
    optimizer="AdamW8bit",
    max_grad_norm=1.0,
    gradient_accumulation=1,
    gradient_checkpointing=True,
    mixed_precision="bf16",
    save_precision="bf16",
    cache_latents=True,
    cache_text_encoders=True,
    train_text_encoder=False,
    caption_extension=".txt",
    enable_bucket=True,
    workers=2,
    seed=42,
    save_every=500,
    sample_every=250,
    sample_prompt="{trigger}, portrait, high quality",
    sample_sampler="euler",
    output_prefix="cg_",
)
"""What goes for every model type where neither a preset nor the job says otherwise."""


class Adapter:
    """A model type, with the hooks of its own plugin and of all cross-cutting ones behind typed methods.

    `registry["flux"]` gives it. It keeps nothing: a preset pack registered later is seen by the next call.
    """

    def __init__(self, registry: Registry, kind: ModelType, plugin: str) -> None:
        self.type = kind
        self._registry = registry
        self._plugin = plugin

    def __repr__(self) -> str:
        return f"<Adapter {self.type.name} of {self._registry.provider(self._plugin)}>"

    @property
    def name(self) -> str:
        """The model type's name, e.g. "flux"."""
        return self.type.name

    @property
    def title(self) -> str:
        """The model type's name for people, e.g. "FLUX.1"."""
        return self.type.title

    @property
    def provider(self) -> str:
        """The distribution it came from, with its version."""
        return self._registry.provider(self._plugin)

    @property
    def plugin(self) -> str:
        """The name of the plugin that brings it."""
        return self._plugin

    @property
    def registry(self) -> Registry:
        """The registry that it was taken from."""
        return self._registry

    # ---- presets and settings ----

    @property
    def presets(self) -> Mapping[str, Preset]:
        """The presets by name, their bases applied, smallest GPU first.

        One that cannot be used (its plugin raises, its name is taken, its base is unknown) is left out and found in
        the registry's `broken`.
        """
        given = self._given_presets()
        resolved = {}
        for name, (plugin, preset) in given.items():
            try:
                resolved[name] = self._resolved(preset, given)
            except PluginError as error:
                self._broken(plugin, error)
        order = sorted(resolved.values(), key=lambda p: (p.vram_gb is None, p.vram_gb or 0))
        return _Presets({p.name: p for p in order}, self.type.name, self._registry.broken)

    def settings(self) -> tuple[SettingInfo, ...]:
        """What a form needs to know of every setting: label, type, range, whether advanced, this type's default."""
        defaults = self._defaults()
        return tuple(attrs.evolve(info, default=getattr(defaults, name)) for name, info in SETTINGS.items())

    def _defaults(self) -> Settings:
        return Settings(network_module=self.type.network_module).over(DEFAULTS)

    def preset_lineage(self, preset: str | Preset) -> tuple[tuple[str, Preset], ...]:
        """A preset as it was written, then its bases, each behind where it came from ("" for one that is handed in).

        Raises `UnknownName` for a name that is not among the presets and for a preset of another type, `PluginError`
        for a base that does not exist.
        """
        given = self._given_presets()
        if isinstance(preset, Preset):
            self._preset(preset)
            given[preset.name] = ("", preset)
        name: str | None = preset.name if isinstance(preset, Preset) else self.presets[preset].name
        lineage = []
        while name is not None:
            plugin, found = given[name]
            lineage.append((self._registry.provider(plugin), found))
            name = found.base
        return tuple(lineage)

    def _given_presets(self) -> dict[str, tuple[str, Preset]]:
        given: dict[str, tuple[str, Preset]] = {}
        # In the order of registration, so that a name stays with whoever had it first.
        for plugin, call in reversed(self._registry.implementations("presets", self._plugin)):
            try:
                for preset in call(model_type=self.type) or ():
                    if not isinstance(preset, Preset):
                        raise TypeError(f"presets() gave {preset!r}, not a Preset")
                    self._give(plugin, preset, given)
            except Exception as error:
                self._broken(plugin, error)
        for file, preset in self._preset_files():
            try:
                self._give(file, preset, given)
            except PluginError as error:
                self._broken(file, error)
        return given

    def _give(self, plugin: str, preset: Preset, given: dict[str, tuple[str, Preset]]) -> None:
        if preset.name in given:
            raise PluginError(
                "preset_duplicate",
                preset=preset.name,
                model_type=self.type.name,
                first=self._registry.provider(given[preset.name][0]),
                second=self._registry.provider(plugin),
            )
        given[preset.name] = (plugin, preset)

    def _preset_files(self) -> Iterator[tuple[str, Preset]]:
        """The presets in files that are for this type. What was wrong with a file is forgotten: it may be mended."""
        if not self._registry.preset_folders:
            return
        from cinderlora.preset_files import read_presets

        for path, found in read_presets(self._registry.preset_folders):
            file = str(path)
            if isinstance(found, Preset) and found.model_type == self.type.name:
                self._registry.broken.pop(file, None)
                yield file, found
            elif isinstance(found, ConfigError):
                self._registry.broken.pop(file, None)
                self._broken(file, found)
            elif found.model_type not in self._registry:
                name, known = str(found.model_type), sorted(self._registry)
                near = nearest(name, known)
                self._registry.broken.pop(file, None)
                self._broken(file, ConfigError("preset_type_unknown", path=file, name=name, nearest=near, known=known))

    def _resolved(self, preset: Preset, given: Mapping[str, tuple[str, Preset]]) -> Preset:
        settings, seen, base, vram = preset.settings(), [preset.name], preset.base, preset.vram_gb
        while base is not None:
            if base in seen or base not in given:
                code = "preset_base_cycle" if base in seen else "preset_base_unknown"
                near = nearest(base, given)
                raise PluginError(code, preset=preset.name, base=base, nearest=near, model_type=self.type.name)
            seen.append(base)
            under = given[base][1]
            settings, vram, base = settings.over(under.settings()), vram or under.vram_gb, under.base
        values = {name: getattr(settings, name) for name in SETTINGS}
        return Preset(name=preset.name, title=preset.title, vram_gb=vram, model_type=self.type.name, **values)

    def _broken(self, plugin: str, error: Exception) -> None:
        from cinderlora.registry import BrokenPlugin

        broken = BrokenPlugin(plugin, self._registry.provider(plugin), error)
        self._registry.broken.setdefault(plugin, broken)

    # ---- models ----

    def scan_models(self, folder: str | Path | Iterable[str | Path]) -> ModelLibrary:
        """The model files in a folder (ComfyUI's, a plain one, several, single files) that this type can say
        something of. Only headers are read, and those once: they are kept by path, size and time of change.
        """
        from cinderlora.models import scan

        mine = claimant(self)
        return scan(folder, mine.claim, mine.components, cache=self._registry.headers, by=mine.by)

    def seen(self, path: Path) -> tuple[ModelFile, ...]:
        """What a file or a folder that was given as a model is: of a folder that is itself one, that one alone."""
        files = self.scan_models(path).files
        return tuple(file for file in files if file.path == path.expanduser().absolute()) or files

    @property
    def knows_its_files(self) -> bool:
        """Whether the adapter says which files are its own, so that others are none of them."""
        return any(i.plugin == self._plugin for i in self._registry.implementations("scan_models", self._plugin))

    def _claim(self, headers: Any) -> list[ModelFile]:
        claimed: list[ModelFile] = []
        for plugin, call in self._registry.implementations("scan_models", self._plugin):
            try:
                taken = {file.path for file in claimed}
                found = tuple(call(files=headers) or ())
                for file in found:
                    if not isinstance(file, ModelFile):
                        raise TypeError(f"scan_models() gave {file!r}, not a ModelFile")
                claimed += [file for file in found if file.path not in taken]
            except Exception as error:
                self._broken(plugin, error)
                if plugin == self._plugin:
                    raise PluginError(
                        "plugin_failed", plugin=plugin, hook="scan_models", why=f"{type(error).__name__}: {error}"
                    ) from error
        return claimed

    # ---- who trains it ----

    @property
    def trainer_type(self) -> TrainerType:
        """Where its trainers come from; raises `UnknownName` where no plugin brings one of the kind it names."""
        return self._registry.trainer(self.type.trainer)

    def find_trainer(self, path: str | Path | None = None) -> Trainer:
        """A trainer for this type on this machine: in the folder given, or the first one where such trainers lie.

        Raises `TrainerNotFound`, which says where it was looked for.
        """
        return self.trainer_type.find(path)

    def rehearsal(self) -> Trainer:
        """A trainer that pretends: it prints and writes what the real one does, without GPU and models."""
        return self.trainer_type.rehearsal()

    # ---- from a wish to a plan ----

    def job(
        self,
        *,
        name: str,
        trigger: str,
        dataset: str | Path,
        output: str | Path,
        preset: str | Preset | None = None,
        models: Mapping[str, ModelFile | Path | str] | None = None,
        **settings: Any,
    ) -> Job:
        """What a person wants, complete: the settings given go over the preset's, those over this type's defaults.

        `preset` is a name, a `Preset`, or "auto" for the largest that the GPU holds. Raises `UnknownName` for a
        preset or role that does not exist and `SettingError` for an unknown setting or a value of the wrong type; what
        depends on values and on the disk is for `check` to say.
        """
        checked_names(settings)
        wanted = Settings(**settings)
        for role in models or {}:
            if self.type.component(role) is None:
                roles = [c.role for c in self.type.components]
                raise UnknownName(
                    "role_unknown", name=role, model_type=self.type.title, nearest=nearest(role, roles), known=roles
                )
        for what, value in {"name": name, "trigger": trigger}.items():
            if not isinstance(value, str):
                raise SettingError("setting_type", setting=what, value=repr(value), expected="str")
        chosen = self.fitting_preset(models, wanted) if preset == "auto" else self._preset(preset)
        if chosen is not None:
            wanted = wanted.over(chosen.settings())
        return Job(
            model_type=self.type.name,
            name=name,
            trigger=trigger,
            dataset=Path(dataset).expanduser().absolute(),
            output=Path(output).expanduser().absolute(),
            models=models,
            preset=chosen.name if chosen else None,
            settings=meant_from(Path.cwd(), wanted.over(self._defaults())),
        )

    def _preset(self, preset: str | Preset | None) -> Preset | None:
        if preset is None:
            return None
        if isinstance(preset, Preset):
            if preset.model_type not in {None, self.type.name}:
                raise UnknownName(
                    "preset_of_another_type", name=preset.name, its_type=preset.model_type, model_type=self.type.name
                )
            return self._resolved(preset, {**self._given_presets(), preset.name: (self._plugin, preset)})
        return self.presets[preset]

    def fitting_preset(
        self,
        models: Mapping[str, ModelFile | Path | str] | None = None,
        settings: Settings | None = None,
        *,
        memory: float | None = None,
    ) -> Preset | None:
        """The largest preset that fits a card with so many GB of memory (2**30 bytes; this machine's unless given),
        with `settings` over it. The smallest where none fits or nothing is known of the card.

        What a preset takes is estimated where the model's file is known, else it is the preset's own figure.
        """
        from cinderlora.gpu import largest_fitting, memory_gb

        known = self._looked_into(
            {
                role: f if isinstance(f, ModelFile) else ModelFile(path=f, role=role)
                for role, f in (models or {}).items()
            }
        )
        presets = list(self.presets.values())
        estimates = {}
        if "model" in known and known["model"].parameters:
            wanted = settings or Settings()
            estimates = {p.name: self.vram(wanted.over(p.settings()), known) for p in presets}
        return largest_fitting(presets, memory_gb() if memory is None else memory, estimates)

    def build_args(self, job: Job) -> FrozenDict:
        """The trainer's settings that are this model's own, from the `build_args` hooks."""
        try:
            args = self._registry.caller("build_args", self._plugin)(job=job)
        except Exception as error:
            raise PluginError(
                "plugin_failed", plugin=self._plugin, hook="build_args", why=f"{type(error).__name__}: {error}"
            ) from error
        return FrozenDict(args or {})

    def check(
        self,
        job: Job,
        trainer: Trainer,
        *,
        runs: Path | None = None,
        decode: bool = False,
        progress: Callable[[int, int], object] | None = None,
        gpus: Sequence[Gpu] | None = None,
        machines: int = 1,
    ) -> Report:
        """Everything that can be said of a job before it costs anything: problems, and the numbers worth knowing.

        `runs` is the folder that the run folder will be made in, where that is not the user's own. Reads the data set,
        the headers of the model files and the trainer's checkout, and asks the machine what it has; writes nothing.
        With `decode`, which needs the extra `pictures`, every picture is decoded: see `inspect_dataset`. `gpus` and
        `machines` are those that `launch` will be given: several change what a step is.
        """
        from cinderlora.checks import check

        return check(self, job, trainer, runs=runs, decode=decode, progress=progress, gpus=gpus, machines=machines)

    def vram(self, settings: Settings, models: Mapping[str, ModelFile] | None = None) -> Estimate | None:
        """The GPU memory that a training with these settings will take, with the type's usual model or with these.

        None where the type says nothing of what its trainings take, or nothing of this variant of its model.
        """
        from cinderlora.cost.lora import lora_layers
        from cinderlora.cost.vram import estimate_vram

        models = models or {}
        footprint = self.type.footprint(models["model"].variant if "model" in models else "")
        if footprint is None:
            return None
        settings = settings.over(self._defaults())
        return estimate_vram(footprint, settings, models, layers=lora_layers(self.type, models, settings))

    def looked_into(self, job: Job) -> Job:
        """The job with what the headers tell of model files that were given as bare paths."""
        return job.evolve(models=self._looked_into(job.models))

    def _looked_into(self, models: Mapping[str, ModelFile]) -> Mapping[str, ModelFile]:
        seen = dict(models)
        for role, file in models.items():
            if file.size is None and file.path.exists():
                found = [f for f in self.seen(file.path) if f.role == role]
                seen[role] = found[0] if found else file
        return seen

    def plan(self, job: Job, trainer: Trainer, resumption: Resumption | None = None) -> Plan:
        """What will run, as data: command lines, the text of every file, the view of the data set. Writes nothing.

        Raises `JobRefused` where the job's values, its data set or the trainer forbid it. With a `resumption` it goes
        on from there; `Run.resume` finds one.
        """
        from cinderlora.checks import plan_problems, within_limits
        from cinderlora.dataset import inspect_dataset

        raise_for(plan_problems(self, job, trainer))
        job = within_limits(self.looked_into(job))
        # A queue starts it from elsewhere, and a plan's relative output is one in the run folder.
        settings = meant_from(Path.cwd(), job.settings)
        job = attrs.evolve(job, output=job.output.expanduser().absolute(), settings=settings)
        dataset = inspect_dataset(
            job.dataset, trigger=job.trigger, caption_extension=job.settings.caption_extension or ".txt"
        )
        raise_for(dataset.problems)
        args = self.build_args(job)
        on = () if resumption is None else (resumption,)
        plan: Plan = trainer.plan(self.type, job, dataset, args, *on)
        return attrs.evolve(
            plan,
            copy_to=tuple(Path(folder) for folder in job.settings.copy_to or ()),
            hard_links=bool(job.settings.hard_links),
            models_sidecar=bool(job.settings.models_sidecar),
            tells=bool(self._registry.implementations("run_finished", self._plugin)),
        )

    # ---- from output to events ----

    def events(self, chunks: Iterable[bytes]) -> Iterator[Event]:
        """The events in a training's output, however it is cut into chunks. Pure: no file is looked at.

        Also for logs of trainings that cinderlora did not start. `Started`, `SampleSaved` and the ending are not in
        the output; a follower of a run adds them.
        """
        from cinderlora.running.stream import public

        stream = self.event_stream()
        for chunk in chunks:
            yield from public(stream.feed(chunk))
        yield from public(stream.close())

    def diagnose(self, chunks: Iterable[bytes], exit_code: int | None) -> Diagnosis | None:
        """Why a training failed, from its output and exit code; None where nothing speaks of a failure."""
        stream = self.event_stream()
        for chunk in chunks:
            stream.feed(chunk)
        stream.close()
        return self._diagnosis(stream.failure(self.type.name, exit_code))

    def event_stream(self, *, first_step: int = 0) -> EventStream:
        """A new stream from output bytes to events, as followers use it."""
        from cinderlora.running.stream import EventStream

        return EventStream(self._registry.parsers(self._plugin), first_step=first_step)

    def diagnosis(self, failure: Failure) -> Diagnosis:
        """Why a run that is known to have failed did so; `unknown` where nobody can tell."""
        found = self._diagnosis(failure) or Diagnosis(code="unknown", evidence=failure.lines[-5:])
        is_ours = found.code == "cuda_out_of_memory" and found.cause == found.text("en").message
        smaller = self._smaller_preset(failure.settings) if is_ours and failure.settings else None
        if smaller is None:
            return found
        return Diagnosis(found.code, {**found.params, "preset": smaller.name}, found.evidence, changes=found.changes)

    def _smaller_preset(self, settings: Settings) -> Preset | None:
        """The largest preset that puts less on the card at once: fewer pixels in a batch."""

        def pixels(s: Settings) -> int:
            return (s.resolution or 0) ** 2 * (s.batch_size or 1)

        smaller = [preset for preset in self.presets.values() if 0 < pixels(preset) < pixels(settings)]
        return max(smaller, key=lambda preset: preset.vram_gb or 0, default=None)

    def _diagnosis(self, failure: Failure) -> Diagnosis | None:
        for plugin, call in self._registry.implementations("diagnose", self._plugin):
            try:
                found = call(failure=failure)
            except Exception as error:  # a plugin's mistake must not hide why the training failed
                self._broken(plugin, error)
                continue
            if isinstance(found, Diagnosis):
                return found
        return None


class _Presets(dict[str, Preset]):
    """Presets by name, that know what to say of a name that is not there."""

    def __init__(self, presets: Mapping[str, Preset], model_type: str, broken: Mapping[str, BrokenPlugin]) -> None:
        super().__init__(presets)
        self._model_type = model_type
        self._broken = broken

    def __missing__(self, name: str) -> Preset:
        for broken in self._broken.values():
            of_it = broken.error.params.get("preset") if isinstance(broken.error, PluginError) else None
            file = Path(broken.provider) if isinstance(broken.error, ConfigError) else None
            if name == of_it or (file is not None and name == file.stem):
                raise UnknownName("preset_broken", name=name, why=str(broken))
        raise UnknownName(
            "preset_unknown", name=name, model_type=self._model_type, nearest=nearest(str(name), self), known=list(self)
        )


def claimant(adapter: Adapter) -> Claimant:
    """The model type as one of several that are asked which files are their own."""
    from cinderlora.models.library import Claimant

    by = (adapter._plugin, *adapter._registry.implementations("scan_models", adapter._plugin))
    return Claimant(adapter._claim, tuple(adapter.type.components), by)
