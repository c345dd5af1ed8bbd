"""The three scripts: caching latents, caching text encoder outputs, training."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from PIL import Image

from cinderlora.rehearsal import config, encoders, failures, files
from cinderlora.rehearsal.console import prepare_streams
from cinderlora.rehearsal.data import EXTENSIONS, Dataset, Subset
from cinderlora.rehearsal.kinds import Kind
from cinderlora.rehearsal.training import Training
from cinderlora_musubi.buckets import plan
from cinderlora_musubi.miniature.output import WithHeads, log, over

__all__ = ["main"]

_MAIN = "__main__"
_TRAINING = "musubi_tuner.training.trainer_base"
_DATASET = "musubi_tuner.dataset.config_utils"
_REHEARSAL = "REHEARSAL: a miniature NumPy training, not {name} (no GPU, no downloads); the LoRA is for practice only"
_SHORT = {"zimage": "zi"}
"""What the caches of an architecture have in their names."""

_LAYERS = tuple(
    {
        "mod": f"layers_{block}_attention_to_v",
        "in": f"layers_{block}_feed_forward_w1",
        "out": f"layers_{block}_feed_forward_w2",
    }
    for block in (0, 1)
)


def main(argv: Sequence[str]) -> int:
    """The exit code. Errors are left to Python: a traceback, exit code 1."""
    prepare_streams()
    name = Path(argv[0]).name.removesuffix(".py") if argv else ""
    for ending, script in _SCRIPTS.items():
        if name.endswith(ending):
            architecture = name.removesuffix(ending)
            log(_MAIN, _REHEARSAL.format(name=architecture))
            with np.errstate(all="ignore"):
                script(architecture, argv[1:])
            return 0
    print(f"usage: python -m cinderlora_musubi.miniature ARCHITECTURE{{{','.join(_SCRIPTS)}}}.py", file=sys.stderr)
    return 2


# ---- the data sets ----


@frozen
class _Folder:
    """One of the data sets: a folder with pictures, and one for their caches."""

    options: Mapping[str, Any]
    pictures: Path
    caches: Path
    short: str

    def items(self) -> list[Path]:
        """The pictures that have a caption."""
        found = sorted(path for path in self.pictures.iterdir() if path.suffix.lower() in EXTENSIONS)
        return [path for path in found if self.caption_of(path).is_file()]

    def caption_of(self, picture: Path) -> Path:
        return picture.with_name(picture.stem + str(self.options["caption_extension"]))

    def latents_of(self, picture: Path, size: tuple[int, int]) -> Path:
        return self.caches / f"{picture.stem}_{size[0]:04d}x{size[1]:04d}_{self.short}.safetensors"

    def words_of(self, stem: str) -> Path:
        return self.caches / f"{stem}_{self.short}_te.safetensors"


def _folders(architecture: str, file: str, module: str) -> Iterator[tuple[int, _Folder]]:
    log(module, f"Load dataset config from {file}")
    table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    for number, own in enumerate(table["datasets"]):
        options = {**table.get("general", {}), **own}
        folder = _Folder(
            options=options,
            pictures=Path(options["image_directory"]),
            caches=Path(options.get("cache_directory", options["image_directory"])),
            short=_SHORT.get(architecture, architecture),
        )
        log("musubi_tuner.dataset.datasources", f"glob images in {options['image_directory']}")
        yield number, folder


def _flags(words: Sequence[str]) -> Mapping[str, Any]:
    return config.read(words).values


def _write(path: Path, name: str, values: encoders.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries, data = files.pack({name: values}, "F32")
    files.write(path, entries, data, {"cinderlora_rehearsal": "true"})


# ---- the scripts ----


def _cache_latents(architecture: str, words: Sequence[str]) -> None:
    flags = _flags(words)
    folders = list(_folders(architecture, flags["dataset_config"], _MAIN))
    log(_MAIN, f"Loading {architecture} VAE from {flags.get('vae')}")
    for number, folder in folders:
        log("musubi_tuner.cache_latents", f"Encoding dataset [{number}]")
        for path in over(folder.items()):
            with Image.open(path) as picture:
                _write(folder.latents_of(path, picture.size), "latents", encoders.encode(picture))
    log(_MAIN, "Done!")


def _cache_captions(architecture: str, words: Sequence[str]) -> None:
    flags = _flags(words)
    folders = list(_folders(architecture, flags["dataset_config"], _MAIN))
    log(_MAIN, f"Loading text encoder from {flags.get('text_encoder')}")
    for number, folder in folders:
        log("musubi_tuner.cache_text_encoder_outputs", f"Encoding dataset [{number}]")
        for path in over(folder.items()):
            caption = folder.caption_of(path).read_text(encoding="utf-8").strip()
            _write(folder.words_of(path.stem), "words", encoders.words(caption))
    log(_MAIN, "Done!")


def _train(architecture: str, words: Sequence[str]) -> None:
    script = failures.read(os.environ.get(failures.VARIABLE, ""))
    kind = Kind(name=architecture, title=architecture, layers=_LAYERS, base_version="z_image")
    sys.stdout = WithHeads(_TRAINING)
    _FromCaches(config.read(words), kind, script).run()


class _FromCaches(Training):
    """The miniature training, on what the two steps before it have cached."""

    def read(self) -> list[Dataset]:
        folders = _folders(self.kind.name, str(self.settings.text("dataset_config")), _TRAINING)
        datasets = [_cached(folder) for _, folder in folders]
        if not any(dataset.images for dataset in datasets):
            raise ValueError(
                "No training items found in the dataset. Please ensure that the latent/Text Encoder cache has been "
                "created beforehand."
            )
        return datasets

    def load(self, datasets: Sequence[Dataset]) -> None:
        print("preparing accelerator")
        print(f"Loading DiT model from {self.settings.text('dit')}")


def _cached(folder: _Folder) -> Dataset:
    """A data set as its caches have it; the pictures are not looked at again."""
    options = folder.options
    side = options["resolution"][0]
    repeats = int(options.get("num_repeats", 1))
    dataset = Dataset(
        options=options,
        resolution=(side, side),
        batch_size=int(options["batch_size"]),
    )
    subset = Subset(options, str(folder.pictures), repeats)
    sizes = []
    for path in sorted(folder.caches.glob(f"*_{folder.short}.safetensors")):
        stem, size, _ = path.stem.rsplit("_", 2)
        if not folder.words_of(stem).is_file():
            log(_DATASET, f"Text encoder output cache file not found: {folder.words_of(stem)}", "WARNING")
            continue
        width, height = map(int, size.split("x"))
        sizes.append((width, height))
        subset.pictures.append(folder.pictures / stem)
        subset.captions.append("")
        dataset.latents.append(files.read(path)["latents"])
        dataset.words.append(files.read(folder.words_of(stem))["words"])
    dataset.subsets = [subset]
    fits = plan(
        sizes,
        resolution=side,
        repeats=[repeats] * len(sizes),
        batch_size=dataset.batch_size,
        enable=options["enable_bucket"],
        no_upscale=options["bucket_no_upscale"],
    ).fits
    for place, fit in enumerate(fits):
        if fit is not None:
            dataset.buckets.setdefault(fit.bucket, []).extend([place] * repeats)
    dataset.images = sum(map(len, dataset.buckets.values()))
    for bucket, places in sorted(dataset.buckets.items()):
        log("musubi_tuner.dataset.bucket", f"bucket: {bucket}, count: {len(places)}")
    return dataset


_SCRIPTS = {
    "_cache_latents": _cache_latents,
    "_cache_text_encoder_outputs": _cache_captions,
    "_train_network": _train,
}
