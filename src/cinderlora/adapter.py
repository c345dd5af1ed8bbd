"""One model type as a program sees it: its presets, models, jobs, checks, plans and events, typed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cinderlora.errors import PluginError, SettingError, UnknownName
from cinderlora.frozendict import FrozenDict
from cinderlora.names import nearest
from cinderlora.problems import Diagnosis, Report, raise_for
from cinderlora.types import SETTINGS, Job, ModelFile, ModelType, Plan, Preset, SettingInfo, Settings, checked_names

if TYPE_CHECKING:
    from cinderlora.events import Event
    from cinderlora.models import ModelLibrary
    from cinderlora.registry import Registry
    from cinderlora.running.stream import EventStream
    from cinderlora.trainers import Trainer
    from cinderlora.types import Failure, Resumption

__all__ = ["DEFAULTS", "Adapter"]

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
        return _Presets({p.name: p for p in order}, self.type.name)

    def settings(self) -> tuple[SettingInfo, ...]:
        """What a form needs to know of every setting: label, type, range, whether advanced, this type's default."""
        defaults = self._defaults()
        return tuple(attrs.evolve(info, default=getattr(defaults, name)) for name, info in SETTINGS.items())

    def _defaults(self) -> Settings:
        return Settings(network_module=self.type.network_module).over(DEFAULTS)

    def _given_presets(self) -> dict[str, tuple[str, Preset]]:
        given: dict[str, tuple[str, Preset]] = {}
        # In the order of registration, so that a name stays with whoever had it first.
        for plugin, call in reversed(self._registry.implementations("presets", self._plugin)):
            try:
                for preset in call(model_type=self.type) or ():
                    if not isinstance(preset, Preset):
                        raise TypeError(f"presets() gave {preset!r}, not a Preset")
                    if preset.name in given:
                        raise PluginError(
                            "preset_duplicate",
                            preset=preset.name,
                            model_type=self.type.name,
                            first=self._registry.provider(given[preset.name][0]),
                            second=self._registry.provider(plugin),
                        )
                    given[preset.name] = (plugin, preset)
            except Exception as error:
                self._broken(plugin, error)
        return given

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

        folders = [folder] if isinstance(folder, (str, Path)) else list(folder)
        return scan(folders, self._claim, self.type.components, cache=self._registry.headers)

    def _claim(self, headers: Any) -> list[ModelFile]:
        claimed: list[ModelFile] = []
        for plugin, call in self._registry.implementations("scan_models", self._plugin):
            try:
                taken = {file.path for file in claimed}
                claimed += [file for file in call(files=headers) or () if file.path not in taken]
            except Exception as error:
                self._broken(plugin, error)
                if plugin == self._plugin:
                    raise PluginError(
                        "plugin_failed", plugin=plugin, hook="scan_models", why=f"{type(error).__name__}: {error}"
                    ) from error
        return claimed

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
        chosen = self._preset(preset)
        if chosen is not None:
            wanted = wanted.over(chosen.settings())
        for role in models or {}:
            if self.type.component(role) is None:
                roles = [c.role for c in self.type.components]
                raise UnknownName(
                    "role_unknown", name=role, model_type=self.type.title, nearest=nearest(role, roles), known=roles
                )
        for what, value in {"name": name, "trigger": trigger}.items():
            if not isinstance(value, str):
                raise SettingError("setting_type", setting=what, value=repr(value), expected="str")
        return Job(
            model_type=self.type.name,
            name=name,
            trigger=trigger,
            dataset=Path(dataset).expanduser().absolute(),
            output=Path(output).expanduser().absolute(),
            models=models,
            preset=chosen.name if chosen else None,
            settings=wanted.over(self._defaults()),
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
        if preset == "auto":
            from cinderlora.gpu import largest_fitting, memory_gb

            return largest_fitting(list(self.presets.values()), memory_gb())
        return self.presets[preset]

    def build_args(self, job: Job) -> FrozenDict:
        """The trainer's settings that are this model's own, from the `build_args` hooks."""
        try:
            args = self._registry.caller("build_args", self._plugin)(job=job)
        except Exception as error:
            raise PluginError(
                "plugin_failed", plugin=self._plugin, hook="build_args", why=f"{type(error).__name__}: {error}"
            ) from error
        return FrozenDict(args or {})

    def check(self, job: Job, trainer: Trainer) -> Report:
        """Everything that can be said of a job before it costs anything: problems, and the numbers worth knowing.

        Reads the data set, the headers of the model files and the trainer's checkout; writes nothing.
        """
        from cinderlora.checks import check

        return check(self, job, trainer)

    def looked_into(self, job: Job) -> Job:
        """The job with what the headers tell of model files that were given as bare paths."""
        models = dict(job.models)
        for role, file in job.models.items():
            if file.size is None and file.path.exists():
                found = [f for f in self.scan_models(file.path).files if f.role == role]
                models[role] = found[0] if found else file
        return job.evolve(models=models)

    def plan(self, job: Job, trainer: Trainer, resumption: Resumption | None = None) -> Plan:
        """What will run, as data: command lines, the text of every file, the view of the data set. Writes nothing.

        Raises `JobRefused` where the job's values, its data set or the trainer forbid it. With a `resumption` it goes
        on from there; `Run.resume` finds one.
        """
        from cinderlora.checks import plan_problems, within_limits
        from cinderlora.dataset import inspect_dataset

        raise_for(plan_problems(self, job, trainer))
        job = within_limits(self.looked_into(job))
        dataset = inspect_dataset(
            job.dataset, trigger=job.trigger, caption_extension=job.settings.caption_extension or ".txt"
        )
        raise_for(dataset.problems)
        args = self.build_args(job)
        if resumption is None:
            return trainer.plan(self.type, job, dataset, args)
        return trainer.plan(self.type, job, dataset, args, resumption)

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

    def __init__(self, presets: Mapping[str, Preset], model_type: str) -> None:
        super().__init__(presets)
        self._model_type = model_type

    def __missing__(self, name: str) -> Preset:
        raise UnknownName(
            "preset_unknown", name=name, model_type=self._model_type, nearest=nearest(str(name), self), known=list(self)
        )
