"""The data set: reading its TOML, finding pictures and captions, sorting them into buckets, with the trainer's lines.

What sd-scripts prints here, and the two or three ways in which it refuses a data set, are kept; its caches are not:
nothing is written beside the pictures.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import encoders
from .console import log, over
from .encoders import Array

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
Table = Mapping[str, object]


class MultipleInvalid(Exception):
    """Stands in for voluptuous's; the traceback shows the module below."""


MultipleInvalid.__module__ = "voluptuous.error"


@dataclass
class Subset:
    """One folder. ``options`` is its table over those of its data set and of [general]."""

    options: Table
    image_dir: str
    repeats: int
    pictures: list[Path] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


@dataclass
class Dataset:
    """Some folders that share resolution and batch size. ``batches`` index into ``latents`` and ``captions``."""

    options: Table
    resolution: tuple[int, int]
    batch_size: int
    subsets: list[Subset] = field(default_factory=list)
    images: int = 0  # counting repeats
    buckets: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    mean_error: float = 0
    latents: list[Array] = field(default_factory=list)
    words: list[Array] = field(default_factory=list)

    @property
    def pictures(self) -> list[tuple[Path, str, int]]:
        """Path, caption and repeats of every picture."""
        return [
            (path, caption, subset.repeats)
            for subset in self.subsets
            for path, caption in zip(subset.pictures, subset.captions, strict=True)
        ]

    @property
    def bucketed(self) -> bool:
        return bool(self.options.get("enable_bucket"))

    def batches_per_epoch(self) -> int:
        return sum(math.ceil(len(bucket) / self.batch_size) for bucket in self.buckets.values())

    def epoch(self, random: np.random.Generator) -> list[list[int]]:
        """The batches of one epoch, in random order: no batch mixes buckets."""
        batches = []
        for bucket in self.buckets.values():
            order = [bucket[place] for place in random.permutation(len(bucket))]
            batches += [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [batches[place] for place in random.permutation(len(batches))]

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        frequency: dict[str, dict[str, int]] = {}
        for subset in self.subsets:
            counts = frequency.setdefault(Path(subset.image_dir).name, {})
            for caption in subset.captions:
                for tag in filter(None, (part.strip().lower() for part in caption.split(","))):
                    counts[tag] = counts.get(tag, 0) + 1
        return frequency


def read(name: str | None) -> list[Dataset]:
    """The data sets of a dataset TOML, prepared as far as buckets, with everything the trainer prints meanwhile."""
    if name is None:
        return []
    path = Path(name)
    if not path.exists():
        raise ValueError(f"file not found / ファイルが見つかりません: {name}")
    log(f"Loading dataset config from {name}")
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    datasets = [_dataset(config, index) for index in range(len(config.get("datasets", [])))]
    for dataset in datasets:
        _find_pictures(dataset)
    log("\n".join(_described(dataset, index) for index, dataset in enumerate(datasets)))
    for index, dataset in enumerate(datasets):
        log(f"[Prepare dataset {index}]")
        _make_buckets(dataset)
    return datasets


def _dataset(config: Mapping[str, object], index: int) -> Dataset:
    general = config.get("general", {})
    tables = config["datasets"]
    if not isinstance(general, dict) or not isinstance(tables, list):
        raise MultipleInvalid("expected a table [general] and an array of tables [[datasets]]")
    table = {**general, **tables[index]}
    resolution = table.get("resolution", 512)
    width, height = resolution if isinstance(resolution, list) else (resolution, resolution)
    for key, value in (("resolution", width), ("resolution", height), ("batch_size", table.get("batch_size", 1))):
        if not isinstance(value, int):
            where = "['general']" if key in general else f"['datasets'][{index}]"
            raise MultipleInvalid(f"expected int for dictionary value @ data{where}['{key}']")
    dataset = Dataset(options=table, resolution=(width, height), batch_size=table.get("batch_size", 1))
    for place, own in enumerate(table.get("subsets", [])):
        options = {key: value for key, value in {**table, **own}.items() if key != "subsets"}
        if "image_dir" not in own:
            where = f"data['datasets'][{index}]['subsets'][{place}]['image_dir']"
            raise MultipleInvalid(f"required key not provided @ {where}")
        dataset.subsets.append(Subset(options, str(own["image_dir"]), int(options.get("num_repeats", 1))))
    return dataset


def _find_pictures(dataset: Dataset) -> None:
    log("prepare images.")
    kept = []
    for subset in dataset.subsets:
        folder = Path(subset.image_dir)
        if subset.repeats < 1:
            log(f"ignore subset with image_dir='{folder}': num_repeats is less than 1")
            continue
        if folder.is_dir():
            found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in EXTENSIONS]
            subset.pictures = [path for path in found if not path.name.startswith(".")]  # as glob does
            log(f"found directory {subset.image_dir} contains {len(subset.pictures)} image files")
            _read_captions(subset)
        else:
            log(f"not directory: {subset.image_dir}")
        if subset.pictures:
            kept.append(subset)
        else:
            log(
                f"ignore subset with image_dir='{subset.image_dir}': no images found / "
                "画像が見つからないためサブセットを無視します"
            )
    dataset.subsets = kept
    dataset.images = sum(subset.repeats * len(subset.pictures) for subset in kept)
    log(f"{dataset.images} train images with repeats.")
    log("0 reg images with repeats.")
    log("no regularization images / 正則化画像が見つかりませんでした")


def _read_captions(subset: Subset) -> None:
    extension = str(subset.options.get("caption_extension", ".caption"))
    tokens = subset.options.get("class_tokens")
    missing = []
    for path in over(subset.pictures, "read caption"):
        caption = path.with_name(path.stem + extension)
        if caption.is_file():
            lines = caption.read_text(encoding="utf-8").splitlines()
            if not lines:
                raise AssertionError(f"caption file is empty / キャプションファイルが空です: {caption}")
            subset.captions.append(lines[0].strip())
            continue
        missing.append(path)
        if tokens is None:
            log(f"neither caption file nor class tokens are found. use empty caption for {path}")
        subset.captions.append("" if tokens is None else str(tokens))
    if missing:
        log(
            f"No caption file found for {len(missing)} images. Training will continue without captions for these "
            "images. If class token exists, it will be used."
        )
        for path in missing[:5]:
            log(str(path))


def _described(dataset: Dataset, index: int) -> str:
    options = dataset.options
    lines = [
        f"[Dataset {index}]",
        f"  batch_size: {dataset.batch_size}",
        f"  resolution: {dataset.resolution}",
        f"  resize_interpolation: {options.get('resize_interpolation')}",
        f"  enable_bucket: {dataset.bucketed}",
    ]
    if dataset.bucketed:
        for key, bound in (
            ("min_bucket_reso", 256),
            ("max_bucket_reso", 1024),
            ("bucket_reso_steps", 64),
            ("bucket_no_upscale", False),
        ):
            lines.append(f"  {key}: {options.get(key, bound)}")
    for place, subset in enumerate(dataset.subsets):
        lines += ["", f"  [Subset {place} of Dataset {index}]", f'    image_dir: "{subset.image_dir}"']
        lines += [f"    image_count: {len(subset.pictures)}", f"    num_repeats: {subset.repeats}"]
        for key, default in (
            ("shuffle_caption", False),
            ("keep_tokens", 0),
            ("caption_dropout_rate", 0.0),
            ("caption_prefix", None),
            ("caption_suffix", None),
            ("color_aug", False),
            ("flip_aug", False),
            ("random_crop", False),
        ):
            lines.append(f"    {key}: {subset.options.get(key, default)}")
        lines += ["    is_reg: False", f"    class_tokens: {subset.options.get('class_tokens')}"]
        lines.append(f"    caption_extension: {subset.options.get('caption_extension', '.caption')}")
    return "\n".join([*lines, "\n"])


def _size(path: Path, otherwise: tuple[int, int]) -> tuple[int, int]:
    """A picture's size; one that cannot be opened is reported when it is encoded, as by the trainer."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except OSError:
        return otherwise


def _make_buckets(dataset: Dataset) -> None:
    log("loading image sizes.")
    pictures = dataset.pictures
    sizes = [_size(path, dataset.resolution) for path, _, _ in over(pictures)]
    log("make buckets" if dataset.bucketed else "prepare dataset")
    members: dict[tuple[int, int], list[int]] = {}
    errors = []
    for index, (width, height) in enumerate(sizes):
        bucket = _bucket(dataset, width, height) if dataset.bucketed else dataset.resolution
        errors.append(abs(bucket[0] / bucket[1] - width / height))
        members.setdefault(bucket, []).extend([index] * pictures[index][2])
    dataset.buckets = dict(sorted(members.items()))
    dataset.mean_error = float(np.mean(errors)) if errors else 0
    if dataset.bucketed:
        log("number of images (including repeats) / 各bucketの画像枚数（繰り返し回数を含む）")
        for number, (bucket, places) in enumerate(dataset.buckets.items()):
            log(f"bucket {number}: resolution {bucket}, count: {len(places)}")
        log(f"mean ar error (without repeats): {dataset.mean_error}")


def _bucket(dataset: Dataset, width: int, height: int) -> tuple[int, int]:
    """The size that a picture is trained at: sides in whole steps, no more area than the resolution has."""
    options = dataset.options
    low, high, steps = (
        int(str(options.get(key, default)))
        for key, default in (("min_bucket_reso", 256), ("max_bucket_reso", 1024), ("bucket_reso_steps", 64))
    )
    area = dataset.resolution[0] * dataset.resolution[1]
    if options.get("bucket_no_upscale"):
        shrink = min(1.0, math.sqrt(area / (width * height)))
        wide, tall = (max(steps, round(side * shrink) // steps * steps) for side in (width, height))
        return wide, tall
    square = int(math.sqrt(area) // steps) * steps
    choices = {(square, square)}
    for side in range(low, high + 1, steps):
        other = min(high, area // side // steps * steps)
        if other >= low:
            choices |= {(side, other), (other, side)}
    return min(sorted(choices), key=lambda choice: abs(choice[0] / choice[1] - width / height))


def cache_latents(datasets: Sequence[Dataset]) -> None:
    """Encode every picture, under the bar that the trainer shows for its VAE."""
    for index, dataset in enumerate(datasets):
        log(f"[Dataset {index}]")
        log("caching latents with caching strategy.")
        log("caching latents...")
        for path, _, _ in over(dataset.pictures):
            try:
                with Image.open(path) as picture:
                    dataset.latents.append(encoders.encode(picture))
            except (OSError, UnidentifiedImageError):
                log(f"Error loading file: {path}")
                raise


def cache_captions(datasets: Sequence[Dataset]) -> None:
    """The same for the captions."""
    for index, dataset in enumerate(datasets):
        log(f"[Dataset {index}]")
        log("caching Text Encoder outputs with caching strategy.")
        log("checking cache validity...")
        for _ in over(dataset.pictures):
            pass
        log("caching Text Encoder outputs...")
        dataset.words = [encoders.words(caption) for _, caption, _ in over(dataset.pictures)]
