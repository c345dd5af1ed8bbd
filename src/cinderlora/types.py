"""The frozen data that everything is said in: model types, settings, presets, jobs, plans, model files, results.

Nothing here does I/O or knows a trainer; what a setting is called in sd-scripts stands in `sd_scripts.config`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import attrs
from attrs import field, frozen

from cinderlora.errors import SettingError
from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.names import nearest
from cinderlora.problems import Problem

__all__ = [
    "Activations",
    "Component",
    "Failure",
    "Footprint",
    "Job",
    "Launcher",
    "Layer",
    "Link",
    "LoraFacts",
    "ModelFile",
    "ModelType",
    "Plan",
    "Preset",
    "Result",
    "Resumption",
    "SettingInfo",
    "Settings",
    "Stage",
]


# ---- what a model type is ----


def _check_fields(value: object, kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Raise `TypeError` for a field of another type: a plugin gave it, and it would fail far from there."""
    for name, wanted in kinds.items():
        found = getattr(value, name)
        items = found if isinstance(found, tuple) else (found,)
        for item in items:
            if not isinstance(item, wanted) or (isinstance(item, bool) and bool not in wanted):
                words = " or ".join("None" if kind is type(None) else kind.__name__ for kind in wanted)
                raise TypeError(f"{type(value).__name__}.{name} is {item!r}; it takes {words}")


@frozen
class Component:
    """A model file that a training needs: its role, and the trainer's argument that takes it.

    `role` is an open string: model, clip_l, clip_g, t5xxl, ae, vae, gemma2, qwen3, ... `key` is the trainer's own name
    for it: `pretrained_model_name_or_path` for the model and the role itself for others, unless given. `bundled` says
    that the model file may carry this component inside; then no file of its own is needed.
    """

    role: str
    key: str = field(default="")
    required: bool = field(default=True, kw_only=True)
    bundled: bool = field(default=False, kw_only=True)
    title: str = field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_fields(self, {"role": (str,), "key": (str,), "required": (bool,), "bundled": (bool,), "title": (str,)})
        if not self.key:
            object.__setattr__(self, "key", "pretrained_model_name_or_path" if self.role == "model" else self.role)
        if not self.title:
            object.__setattr__(self, "title", "Base model" if self.role == "model" else self.role.upper())


@frozen(kw_only=True)
class Activations:
    """Bytes that a calculation takes on the card besides the weights, for each picture in a batch and each of its
    pixels. `casts` are what weights kept in eight bits take on top, as copies in 16 bits."""

    picture: float
    pixel: float
    casts: float = 0

    def bytes(self, batch: int, pixels: int) -> float:
        """For a batch of pictures of so many pixels each, casts left out."""
        return batch * (self.picture + self.pixel * pixels)


@frozen(kw_only=True)
class Footprint:
    """What the cost of a training follows from, for one variant of a model: `docs/cost.md` says how, and from where the
    adapters have theirs."""

    parameters: Mapping[str, int] = field(converter=FrozenDict)
    """Numbers in each part, by role, where no file's header tells them."""
    encoders: tuple[str, ...] = field(converter=as_tuple)
    """The roles of the text encoders."""
    as_stored: tuple[str, ...] = field(default=(), converter=as_tuple)
    """Those of them that `fp8_base` leaves in the precision of their file; others are loaded in the training's."""
    vae: str = "vae"
    """The role of the VAE."""
    vae_bytes: int = 2
    """Bytes that the VAE has for each of its numbers on the card."""
    loaded_as_floats: bool = False
    """All parts are loaded into the machine's memory as 32-bit floats, and cast to the training's precision later."""
    lora_parameters: int
    """Numbers in a LoRA of dim 1, where no file's header tells its layers."""
    block_parameters: int = 0
    """Numbers in each of the blocks that `blocks_to_swap` counts; 0 where none can be swapped."""
    swappable: int = 0
    """The most blocks that can be swapped, where no file's header tells."""
    latent_channels: int
    caption_bytes: int
    """What the cached outputs of the text encoders take on disk for one caption."""
    checkpointed: Activations
    """Of a training step with gradient checkpointing."""
    plain: Activations
    """Of a training step without."""
    denoising: Activations
    """Of one step of drawing a sample."""
    encoding: Activations
    """Of the VAE while a picture becomes latents."""
    decoding: Activations
    """Of the VAE while latents become a sample."""
    captioning: float
    """Bytes besides the weights while the text encoders read one caption."""


@frozen(kw_only=True)
class ModelType:
    """What an adapter teaches cinderlora: a kind of model, the script that trains it, and what that needs."""

    name: str
    """How programs call it, e.g. "flux"."""
    title: str
    """How people call it, e.g. "FLUX.1"."""
    script: str
    """The training script in the trainer's checkout, e.g. "flux_train_network.py"."""
    network_module: str
    """The trainer's module for LoRA, e.g. "networks.lora_flux"; a job may name another one."""
    components: tuple[Component, ...] = field(converter=as_tuple)
    min_vram_gb: float | None = None
    """GPU memory in GB that is recommended at least: less is a warning, never a wall."""
    trainer: str = "sd-scripts"
    """Which trainer runs the script."""
    zero_at_start: tuple[str, ...] = field(default=("lora_up",), converter=as_tuple)
    """Parts of the names of the tensors that are zero in an untrained file; if all still are, nothing was learned."""
    footprints: Mapping[str, Footprint] = field(factory=FrozenDict, converter=FrozenDict)
    """What a training costs, by variant of the model (`ModelFile.variant`), the usual one first. Without them there
    are no estimates of memory."""

    def __attrs_post_init__(self) -> None:
        texts = ("name", "title", "script", "network_module", "trainer", "zero_at_start")
        kinds: dict[str, tuple[type, ...]] = dict.fromkeys(texts, (str,))
        kinds |= {"components": (Component,), "min_vram_gb": (int, float, type(None))}
        _check_fields(self, kinds)

    def footprint(self, variant: str = "") -> Footprint | None:
        """That of a variant, of the usual one where none is named; None where nothing is known of it."""
        return self.footprints.get(variant) if variant else next(iter(self.footprints.values()), None)

    def component(self, role: str) -> Component | None:
        """The component of that role, if the type has one."""
        return next((c for c in self.components if c.role == role), None)


# ---- settings ----

Kind = Literal["int", "float", "bool", "str", "strs", "table"]


@frozen(kw_only=True)
class SettingInfo:
    """What a form needs to know of a setting.

    `minimum` and `maximum` are what the trainer can take; `low`, `high` and `step` are the range a form offers, and a
    value outside of it is a warning. `default` is the model type's, before any preset. `label` has the languages as
    keys.
    """

    name: str
    kind: Kind
    label: Mapping[str, str] = field(converter=FrozenDict)
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    advanced: bool = True


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "strs": (tuple,),
    "table": (dict,),
}


def _check_type(info: SettingInfo, value: Any) -> None:
    right = isinstance(value, _PYTHON_TYPES[info.kind]) and (info.kind == "bool" or not isinstance(value, bool))
    if right and info.kind == "strs":
        right = all(isinstance(item, str) for item in value)
    if not right:
        raise SettingError("setting_type", setting=info.name, value=repr(value), expected=info.kind)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _frozen_table(value: Any) -> Any:
    return FrozenDict(value) if isinstance(value, Mapping) else value


def _setting(kind: Kind, en: str, de: str, **info: Any) -> Any:
    converter = {"strs": _tupled, "table": _frozen_table}.get(kind)
    default = FrozenDict() if kind == "table" else None
    return field(
        default=default,
        converter=converter,
        metadata={"info": info | {"kind": kind, "label": {"en": en, "de": de}}},
    )


def _name_infos(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Give each setting's info its name, which the field knows only now."""

    def named(a: attrs.Attribute[Any]) -> attrs.Attribute[Any]:
        info = a.metadata.get("info")
        if not isinstance(info, dict):
            return a
        return a.evolve(metadata={**a.metadata, "info": SettingInfo(name=a.name, **info)})

    return [named(a) for a in fields]


@frozen(kw_only=True, field_transformer=_name_infos)
class Settings:
    """How to train. None means unset: the preset's base, the model type or the trainer decides. 0 or False is a value.

    `extra` takes any of the trainer's own keys by its own name, and goes over everything else. A value of the wrong
    type raises `SettingError`; whether it is in range is the business of `adapter.check`.
    """

    resolution: int | None = _setting(
        "int", "Resolution", "Auflösung", minimum=64, maximum=4096, low=256, high=1536, step=64, advanced=False
    )
    """Pixels: pictures are scaled to about resolution x resolution, in buckets of several aspect ratios."""
    batch_size: int | None = _setting(
        "int", "Batch size", "Batch-Größe", minimum=1, maximum=1024, low=1, high=8, step=1
    )
    """Pictures in one batch, all of one bucket."""
    steps: int | None = _setting(
        "int", "Training steps", "Training Steps", minimum=1, low=500, high=5000, step=50, advanced=False
    )
    """Optimizer steps in all."""
    repeats: int | None = _setting("int", "Dataset repeats", "Dataset Repeats", minimum=1, low=1, high=30, step=1)
    """How often each picture counts in an epoch; a folder `<repeats>_<words>` has its own."""
    network_dim: int | None = _setting("int", "Network dim", "Network Dim", minimum=1, low=4, high=64, step=4)
    """The LoRA's rank: how much it can hold, and how large its file is."""
    network_alpha: float | None = _setting("float", "Network alpha", "Network Alpha", minimum=0, low=1, high=64, step=1)
    """The LoRA's scale, as alpha / dim; half the dim where unset."""
    network_module: str | None = _setting("str", "Network module", "Network-Modul")
    """The trainer's module that makes the LoRA; the model type's own where unset."""
    network_args: tuple[str, ...] | None = _setting("strs", "Network arguments", "Network-Argumente")
    """For the network module, each "key=value"."""
    optimizer: str | None = _setting("str", "Optimizer", "Optimizer", advanced=False)
    """By the trainer's name for it: AdamW8bit, AdamW, Adafactor, Prodigy, ..."""
    optimizer_args: tuple[str, ...] | None = _setting("strs", "Optimizer arguments", "Optimizer-Argumente")
    """For the optimizer, each "key=value"; those the optimizer is known to want where unset."""
    learning_rate: float | None = _setting("float", "Learning rate", "Lernrate", minimum=0, low=1e-6, high=1.0)
    """Where unset, it follows from the optimizer: 1.0 for Prodigy, 1e-4 for others."""
    lr_scheduler: str | None = _setting("str", "Scheduler", "Scheduler")
    """By the trainer's name for it; `constant` where unset, for Adafactor `constant_with_warmup`."""
    lr_warmup_steps: int | None = _setting(
        "int", "Warm-up steps", "Warm-up-Schritte", minimum=0, low=0, high=500, step=10
    )
    """Steps in which the learning rate rises to its value, where the scheduler has a warm-up."""
    max_grad_norm: float | None = _setting("float", "Gradient clipping", "Gradient Clipping", minimum=0)
    """Gradients are scaled down to this norm. 0 switches it off, and so does Adafactor."""
    gradient_accumulation: int | None = _setting(
        "int", "Gradient accumulation", "Gradient Accumulation", minimum=1, low=1, high=16, step=1
    )
    """Batches whose gradients are added up for one optimizer step."""
    gradient_checkpointing: bool | None = _setting("bool", "Gradient checkpointing", "Gradient Checkpointing")
    """Calculates parts of a step twice, to save GPU memory."""
    mixed_precision: str | None = _setting("str", "Mixed precision", "Mixed Precision", choices=("no", "fp16", "bf16"))
    """What is calculated with; no: 32 bits."""
    save_precision: str | None = _setting(
        "str", "Save precision", "Speicher-Präzision", choices=("float", "fp16", "bf16")
    )
    """How the LoRA's numbers are kept in its file."""
    fp8_base: bool | None = _setting("bool", "FP8 base model", "FP8-Basismodell")
    """Keeps the base model in 8 bits, to save GPU memory."""
    blocks_to_swap: int | None = _setting("int", "Blocks to swap", "Blocks to Swap", minimum=0, low=0, high=36, step=1)
    """Transformer blocks kept in system memory to save GPU memory."""
    cache_latents: bool | None = _setting("bool", "Cache latents", "Latents cachen")
    """Pictures go through the VAE once, before the training; what comes of it is kept in the run folder."""
    cache_text_encoders: bool | None = _setting("bool", "Cache text encoder outputs", "Text-Encoder-Ausgaben cachen")
    """Captions go through the text encoders once, before the training."""
    train_text_encoder: bool | None = _setting("bool", "Train the text encoder", "Text-Encoder trainieren")
    """Trains the text encoder as well."""
    shuffle_caption: bool | None = _setting("bool", "Shuffle captions", "Captions mischen")
    """Changes the order of a caption's parts, which commas separate, every time."""
    flip_aug: bool | None = _setting("bool", "Flip pictures", "Bilder spiegeln")
    """Mirrors pictures at random."""
    caption_extension: str | None = _setting("str", "Caption extension", "Caption-Endung")
    """The ending of the caption files."""
    enable_bucket: bool | None = _setting("bool", "Aspect ratio buckets", "Seitenverhältnis-Buckets")
    """Sorts pictures into buckets by their aspect ratio, instead of cutting all to a square."""
    bucket_no_upscale: bool | None = _setting("bool", "Never enlarge pictures", "Bilder nie vergrößern")
    """Where unset: so for resolutions of 256 and more."""
    bucket_step: int | None = _setting("int", "Bucket step", "Bucket-Schritt", minimum=1, low=32, high=128, step=32)
    """Pixels: the sides of buckets are multiples of it. 64 where unset."""
    workers: int | None = _setting(
        "int", "Data loader workers", "Data-Loader-Prozesse", minimum=0, low=0, high=8, step=1
    )
    """Processes that load pictures."""
    seed: int | None = _setting("int", "Seed", "Seed", minimum=0, maximum=2**32 - 1)
    """Where chance begins: the order of the pictures, the noise, the samples."""
    save_every: int | None = _setting("int", "Save every", "Save Every", minimum=0, low=100, high=1000, step=50)
    """Steps between checkpoints; 0 for none on the way."""
    save_state: bool | None = _setting("bool", "Save the training state", "Trainingszustand speichern")
    """Leaves with every checkpoint, and at the end, what resuming wants."""
    sample_every: int | None = _setting("int", "Sample every", "Sample Every", minimum=0, low=0, high=1000, step=50)
    """Steps between sample pictures; 0 for none."""
    sample_prompt: str | None = _setting("str", "Sample prompt", "Sample Prompt")
    """One line. `{trigger}` stands for the trigger word; `--w --h --s --d --l --g --n` are sd-scripts' own options."""
    sample_sampler: str | None = _setting("str", "Sampler", "Sampler")
    """By the trainer's name for it."""
    sample_steps: int | None = _setting("int", "Sample steps", "Sample-Steps", minimum=1, low=10, high=50, step=1)
    """Steps in which a sample is drawn."""
    sample_scale: float | None = _setting("float", "Sample CFG scale", "Sample CFG-Scale", minimum=0)
    """How much a sample follows its prompt (classifier-free guidance)."""
    sample_guidance: float | None = _setting("float", "Sample guidance", "Sample-Guidance", minimum=0)
    """The distilled guidance of FLUX; other models have none."""
    sample_at_first: bool | None = _setting("bool", "Sample before training", "Vor dem Training samplen")
    """Draws samples before the first step, too."""
    output_prefix: str | None = _setting("str", "Output prefix", "Ausgabe-Präfix")
    """What the LoRA's file name begins with, before the character's name."""
    copy_to: tuple[str, ...] | None = _setting("strs", "Copy the LoRA to", "LoRA kopieren nach")
    """Folders that get a copy of the finished LoRA; relative ones are meant from where the job is made, or from its
    file."""
    hard_links: bool | None = _setting("bool", "Hard links for copies", "Hardlinks statt Kopien")
    """Copies take no room where the file system can have one file under two names."""
    models_sidecar: bool | None = _setting("bool", "Write a .models file", ".models-Datei schreiben")
    """Beside the LoRA and its copies lies `<name>.models` with a line `type=flux`, which related tools read."""
    author: str | None = _setting("str", "Author", "Autor")
    """Goes into the LoRA's metadata, as `comment` does."""
    comment: str | None = _setting("str", "Comment", "Kommentar")
    """Where unset: the version of cinderlora and the preset."""
    extra: Mapping[str, Any] = _setting("table", "Further trainer arguments", "Weitere Trainer-Argumente")
    """Any of the trainer's arguments, by its own name; they go over everything else."""

    def __attrs_post_init__(self) -> None:
        # Here and not as a validator of each field: those would double what importing this module costs.
        for name, info in SETTINGS.items():
            value = getattr(self, name)
            if value is not None:
                _check_type(info, value)

    def over(self, base: Settings) -> Settings:
        """These settings, completed by a base's where unset; `extra` is merged key by key."""
        values = {name: getattr(self, name) for name in SETTINGS}
        for name in SETTINGS:
            if values[name] is None:
                values[name] = getattr(base, name)
        values["extra"] = {**base.extra, **self.extra}
        return Settings(**values)

    def items(self) -> Iterable[tuple[str, Any]]:
        """The settings that are set, by name."""
        for name in SETTINGS:
            value = getattr(self, name)
            if value is not None and not (name == "extra" and not value):
                yield name, value


SETTINGS: dict[str, SettingInfo] = {a.name: a.metadata["info"] for a in attrs.fields(Settings)}
"""What is known of each setting, by name, in the order of a form."""


def meant_from(folder: Path, settings: Settings) -> Settings:
    """Settings with absolute paths: relative ones are meant from a folder."""
    if not settings.copy_to:
        return settings
    return attrs.evolve(
        settings, copy_to=tuple(str((folder / Path(to).expanduser()).absolute()) for to in settings.copy_to)
    )


def checked_names(names: Iterable[str], known: Iterable[str] = SETTINGS) -> None:
    """Raise `SettingError` for the first name that is no setting, with the nearest one."""
    known = tuple(known)
    for name in names:
        if name not in known:
            raise SettingError("setting_unknown", setting=name, nearest=nearest(name, known))


@frozen(kw_only=True)
class Preset(Settings):
    """A partial `Settings` with a name.

    `base` is the name of another preset of the same model type that this one goes over; `adapter.presets[name]` is
    resolved already and knows its `model_type`.
    """

    name: str
    title: str = ""
    vram_gb: float | None = None
    """The GPU memory in GB it is meant for."""
    base: str | None = None
    model_type: str | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for name, kinds, expected in _PRESETS_OWN:
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise SettingError("setting_type", setting=name, value=repr(value), expected=expected)

    def settings(self) -> Settings:
        """The settings alone."""
        return Settings(**{name: getattr(self, name) for name in SETTINGS})

    def evolve(self, **changes: Any) -> Self:
        """A copy with changes; raises `SettingError` for a name that is no setting."""
        checked_names(changes, (*SETTINGS, *PRESET_FIELDS))
        return attrs.evolve(self, **changes)

    def save(self, path: str | Path) -> None:
        """Write it as TOML, for `Preset.load`."""
        from cinderlora.serial import save_preset

        save_preset(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Preset:
        """Read a preset that `save` wrote; raises `ConfigError` that says where it is wrong."""
        from cinderlora.serial import load_preset

        return load_preset(Path(path))


_NONE = type(None)
_PRESETS_OWN: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("name", (str,), "str"),
    ("title", (str,), "str"),
    ("vram_gb", (int, float, _NONE), "float"),
    ("base", (str, _NONE), "str"),
    ("model_type", (str, _NONE), "str"),
)
PRESET_FIELDS: tuple[str, ...] = tuple(name for name, _, _ in _PRESETS_OWN)


# ---- model files ----


@frozen
class Layer:
    """Layers of one shape that the trainer's own LoRA module attaches itself to: linear ones, or convolutions."""

    inputs: int
    outputs: int
    count: int = 1
    kernel: int = 1
    """The side of a convolution's kernel in pixels; 1 for linear layers."""


@frozen(kw_only=True)
class ModelFile:
    """A model on disk: a file, a folder, or the first of a set of shards.

    `role` is what it can serve as ("" where it serves as nothing for this type), `variant` which one it is ("dev",
    "schnell", ...), `precision` how its weights are kept ("fp32", "bf16", "fp8_e4m3fn", ...), `size` its bytes,
    `bundled` the roles of what else is inside, `problems` what is wrong with it, `limits` the largest value that it
    allows for a setting (`{"blocks_to_swap": 35}`).

    `layout` says whose names its tensors have ("bfl", "diffusers", "comfyui", ...). `parameters` and `precisions` say
    for each part inside it, by role, how many numbers it holds and how most of them are kept; `"model.rest"` among the
    precisions says how the rest is ("bf16+fp32"), where a part is mixed. `layers` are those of each part, by role, that
    a LoRA is trained on where that part is: what the size of the LoRA's file follows from.
    """

    path: Path = field(converter=Path)
    role: str = ""
    variant: str = ""
    precision: str = ""
    size: int | None = None
    bundled: tuple[str, ...] = field(default=(), converter=as_tuple)
    problems: tuple[Problem, ...] = field(default=(), converter=as_tuple)
    limits: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    layout: str = ""
    parameters: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    precisions: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    layers: Mapping[str, tuple[Layer, ...]] = field(factory=FrozenDict, converter=FrozenDict)

    @property
    def usable(self) -> bool:
        """Whether it has a role here and nothing that forbids its use."""
        return bool(self.role) and not any(p.severity == "error" for p in self.problems)


# ---- a job ----


def _model_files(models: Mapping[str, ModelFile | Path | str] | None) -> FrozenDict:
    models = models or {}
    return FrozenDict(
        (role, file if isinstance(file, ModelFile) else ModelFile(path=file, role=role))
        for role, file in models.items()
    )


@frozen(kw_only=True)
class Job:
    """What a person wants: a character, pictures of it, a model type, settings. `adapter.job(...)` makes one."""

    model_type: str
    name: str
    """The character; names the files. Must be a plain file name."""
    trigger: str
    """The trigger word: what a prompt says to get the character."""
    dataset: Path = field(converter=Path)
    """The folder with pictures and captions, or a TOML file in sd-scripts' form that tells the folders."""
    output: Path = field(converter=Path)
    """The folder the LoRA goes to; samples go to its `sample` folder."""
    settings: Settings = field(factory=Settings)
    models: Mapping[str, ModelFile] = field(factory=FrozenDict, converter=_model_files)
    """The model files, by role."""
    preset: str | None = None
    """The preset the settings came from, for the record."""

    @property
    def lora_name(self) -> str:
        """The LoRA's file name without its ending, e.g. "cg_elena"."""
        return f"{self.settings.output_prefix or ''}{self.name}"

    def sweep(self, **values: Iterable[Any]) -> tuple[Job, ...]:
        """The jobs of all combinations of settings: `job.sweep(network_dim=[8, 16, 32], seed=[1, 2])` gives six.

        Each is named after what it has (elena-dim8-seed1), so that no LoRA takes another's place. The last setting
        changes fastest. Raises `SettingError` for a name that is no setting, no values, or the same value twice.
        """
        from cinderlora.sweeps import sweep

        return sweep(self, values)

    def evolve(self, **changes: Any) -> Job:
        """A copy with changes, of the job's own fields or of single settings; unknown names raise `SettingError`."""
        own = {a.name for a in attrs.fields(Job)}
        checked_names(changes, (*own, *SETTINGS))
        settings = {k: v for k, v in changes.items() if k in SETTINGS}
        changes = {k: v for k, v in changes.items() if k not in SETTINGS}
        if settings:
            changes["settings"] = attrs.evolve(changes.get("settings", self.settings), **settings)
        return attrs.evolve(self, **changes)

    def save(self, path: str | Path) -> None:
        """Write it as TOML, for `Job.load` and `cinderlora train`; relative paths are made absolute.

        What the headers told of the model files is not written: whoever plans the job reads them anyway. Raises
        `SettingError` where `extra` holds a secret.
        """
        from cinderlora.serial import save_job

        save_job(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read a job that `save` wrote; raises `ConfigError` that says where it is wrong."""
        from cinderlora.serial import load_job

        return load_job(Path(path))


# ---- a plan ----


@frozen(kw_only=True)
class Launcher:
    """How a stage is run by several processes at once, each on a GPU of its own."""

    argv: tuple[str, ...] = field(converter=as_tuple)
    """The command line that starts them. Its parts "{processes}" (in all), "{machines}", "{machine_rank}", "{address}"
    and "{port}" (of the machine with rank 0) are filled in."""
    one_machine: str = ""
    """Where the processes have to be on one machine: the code of the text that says why."""


@frozen(kw_only=True)
class Stage:
    """One process of a run. `cwd` is relative to the run folder (".") or absolute; `env` is added to ours."""

    name: str
    argv: tuple[str, ...] = field(converter=as_tuple)
    env: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    cwd: str = "."
    launcher: Launcher | None = None
    """How several GPUs train at once; None: they cannot."""
    processes: int = 1
    """How many processes `argv` starts on this machine: one per GPU. `launch` fills it in."""


@frozen
class Link:
    """One file of the run's view of the data set: a link (never a copy, where links can be had) to a person's file."""

    source: Path
    """Absolute."""
    target: str
    """Relative to the run folder, with forward slashes."""


@frozen(kw_only=True)
class Resumption:
    """What a resumed training goes on from."""

    run: Path
    """The folder of the run that it goes on with."""
    path: Path
    """The saved state (a folder), or the checkpoint whose weights are all there is."""
    kind: Literal["state", "weights"]
    """A state has the optimizer's memory in it; with weights alone the optimizer begins anew."""
    step: int
    """Steps done by then, all earlier runs included."""


@frozen(kw_only=True)
class Plan:
    """What will run: complete, comparable and inert. Nothing is written before `launch`; printing it is the dry run."""

    name: str
    model_type: str
    output: Path
    """The folder the trainer writes the LoRA to. Relative: below the run folder."""
    lora: str
    """The LoRA's file name, e.g. "cg_elena.safetensors"."""
    stages: tuple[Stage, ...] = field(converter=as_tuple)
    """The processes, one after the other; the last one trains."""
    files: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    """The text of every file, by its path relative to the run folder."""
    links: tuple[Link, ...] = field(default=(), converter=as_tuple)
    """The view of the data set."""
    configs: tuple[str, ...] = field(default=(), converter=as_tuple)
    """Those of `files` that people know as the training's configuration."""
    steps: int | None = None
    first_step: int = 0
    """Steps done by earlier runs that this one goes on from."""
    publish: Path | None = None
    """The folder that what is in `output` is put into at the end, under steps that count on from `first_step`."""
    resumed_from: Resumption | None = None
    warnings: tuple[Problem, ...] = field(default=(), converter=as_tuple)
    """What is worth knowing while it runs: a follower hears of it as `Warned`."""
    zero_at_start: tuple[str, ...] = field(default=(), converter=as_tuple)
    rehearsal: bool = False
    assists: bool = False
    """It takes part in a training whose LoRA another machine writes. `launch` fills it in."""
    copy_to: tuple[Path, ...] = field(default=(), converter=as_tuple)
    """Folders that get a copy of the finished LoRA."""
    hard_links: bool = False
    """Such copies are hard links where they can be."""
    models_sidecar: bool = False
    """A file that says the LoRA's type is put beside it and its copies."""
    tells: bool = False
    """A plugin wants to hear of the end, see the hook `run_finished`."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The training stage's command line."""
        return self.stages[-1].argv

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.model_type}) -> {(self.publish or self.output) / self.lora}"]
        if self.resumed_from is not None:
            lines += [f"# goes on at step {self.first_step}, from {self.resumed_from.path}"]
        for stage in self.stages:
            lines += [f"\n# {stage.name}, in {stage.cwd}"]
            lines += [f"{key}={shlex.quote(value)} \\" for key, value in stage.env.items()] + [shlex.join(stage.argv)]
        for name, text in self.files.items():
            lines += [f"\n# {name}", text.rstrip("\n")]
        lines += [f"\n# {len(self.links)} links"] + [f"{link.target} -> {link.source}" for link in self.links]
        return "\n".join(lines)


# ---- how a run ended ----


@frozen(kw_only=True)
class LoraFacts:
    """What is on disk where the LoRA should be, looked at when the trainer had ended.

    `trained` is None where it cannot be told (a network module whose zero tensors are not known).
    """

    exists: bool = False
    fresh: bool = False
    """Written since the start."""
    complete: bool = False
    """The header is valid and the file as long as it says."""
    finite: bool = False
    """No tensor holds NaN or infinity."""
    trained: bool | None = None
    """At least one of the tensors that start at zero no longer is."""
    all_steps: bool | None = None
    """It says of itself that it has all the steps its training was to have; None where it does not say."""
    size: int = 0
    problem: str = ""
    """What was wrong with the file, in the words of whoever read it."""

    @property
    def good(self) -> bool:
        """Whether this is a LoRA that a training of this run made."""
        return self.exists and self.fresh and self.complete and self.finite and self.trained is not False


@frozen(kw_only=True)
class Result:
    """What a finished training left behind."""

    lora: Path
    steps: int | None = None
    """Steps trained in all, earlier runs included."""
    loss: float | None = None
    """The last moving average the trainer printed."""
    seconds: float | None = None
    checkpoints: tuple[Path, ...] = field(default=(), converter=as_tuple)
    samples: tuple[Path, ...] = field(default=(), converter=as_tuple)
    copies: tuple[Path, ...] = field(default=(), converter=as_tuple)
    """The LoRA in the other folders that the setting `copy_to` names."""
    rehearsal: bool = False
    """True for the built-in miniature: this LoRA is for practice only."""
    ram_peak_bytes: int | None = None
    """The most memory that one process of the trainer had; None where that was not measured."""
    vram_peak_bytes: int | None = None
    """The most GPU memory that its processes were seen to hold together, looked at every ten seconds; None where
    NVIDIA's library could not tell."""


@frozen(kw_only=True)
class Failure:
    """What is known of a training that did not succeed, for the `diagnose` hook.

    `lines` are the last log lines without bars, wrapping undone; `nan` says whether the printed loss was not a
    number; `steps` and `total` are the training bar's last figures.
    """

    model_type: str
    exit_code: int | None = None
    """Negative: the number of the signal that ended it, as in `subprocess`."""
    lines: tuple[str, ...] = field(default=(), converter=as_tuple)
    phase: str | None = None
    nan: bool = False
    steps: int | None = None
    total: int | None = None
    model_saved: bool = False
    """The trainer said that it saved the LoRA."""
    lora: LoraFacts | None = None
    """None where only a log is there to judge by."""
    settings: Settings | None = None
    oom_kills: int = 0
    """Processes that the kernel ended for lack of memory while it ran, of the whole machine."""
    gpu_others: tuple[str, ...] = field(default=(), converter=as_tuple)
    """The programs of others that held GPU memory shortly before, e.g. "ComfyUI, process 4711, 10.2 GB"."""
