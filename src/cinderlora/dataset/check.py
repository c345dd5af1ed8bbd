"""What is wrong with a data set, or looks wrong, before it is trained on."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from cinderlora.dataset.buckets import BucketPlan
from cinderlora.dataset.data import Dataset, Picture, printable
from cinderlora.dataset.decode import decodable
from cinderlora.dataset.read import list_datasets, read_dataset
from cinderlora.errors import SettingError
from cinderlora.problems import Problem, Severity

__all__ = ["has_trigger", "inspect_dataset", "size_problems"]

NAMED = 5
"""How many files a problem names; `count` tells how many there are."""
FEW, MANY = 10, 100
"""A character is usually taught with 15 to 40 pictures; only what is far from that is worth a warning."""
SMALL = 0.5
"""A picture with less than this share of the resolution's area is called small: training shows how blurred it is."""
GENERIC = (
    "a an the person people human character girl 1girl boy 1boy woman man women men female male lady guy child kid "
    "baby face ein eine der die das frau mann mädchen junge mensch kind figur"
)
"""Words that the base model knows well: as a trigger word they change every picture of that kind."""


def inspect_dataset(
    path: str | os.PathLike[str],
    *,
    trigger: str | None = None,
    caption_extension: str = ".txt",
    decode: bool = False,
) -> Dataset:
    """Read a data set and say what is wrong with it. Nothing is moved, changed or written, and nothing is raised for
    what lies there: `problems` of the returned `Dataset` has it all, errors first.

    `trigger` is looked for in the captions. Sizes come from the files' headers; with `decode` every picture is decoded
    as well, which finds truncated ones. Only that needs the extra `pictures` (else `CinderloraError`, `extra_missing`).
    """
    try:
        dataset = read_dataset(path, caption_extension)
    except SettingError as error:
        return Dataset(path=Path(path).absolute(), problems=(Problem(error.code, error.params),))
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        missing = Problem("dataset_not_found", {"path": printable(str(path)), "why": why})
        return Dataset(path=Path(path).absolute(), problems=(missing,))
    if not dataset.pictures:
        inside = [entry.name for entry in list_datasets(path, caption_extension=caption_extension) if entry.pictures]
        empty = Problem("dataset_empty", {"path": printable(str(dataset.path)), "folders": _listed(inside)})
        return attrs.evolve(dataset, problems=(empty, *_beside(dataset)))
    if decode:
        dataset = _without_undecodable(dataset)
    return attrs.evolve(dataset, problems=(*_pictures(dataset), *_captions(dataset, trigger), *_beside(dataset)))


def size_problems(dataset: Dataset, plan: BucketPlan) -> tuple[Problem, ...]:
    """What a bucket plan of `dataset.sizes` shows: pictures that sd-scripts fails on, and those that are small for the
    resolution though they train."""
    readable = [picture for picture in dataset.pictures if picture.readable]
    unfit = [readable[i] for i in plan.unfit]
    wanted = plan.resolution[0] * plan.resolution[1]
    small = [p for p, fit in zip(readable, plan.fits, strict=True) if fit and p.width * p.height < SMALL * wanted]
    return (
        *_about(dataset, "image_unfit", unfit, "error"),
        *_about(dataset, "image_small", small, resolution="x".join(map(str, plan.resolution))),
    )


def has_trigger(text: str, trigger: str) -> bool:
    """Whether a text has the trigger word as a word of its own; upper and lower case count as the same."""
    words = r"\s+".join(map(re.escape, trigger.casefold().split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text.casefold()) is not None


def _without_undecodable(dataset: Dataset) -> Dataset:
    readable = [picture.path for picture in dataset.pictures if picture.readable]  # others may be pipes: never opened
    good = dict(zip(readable, decodable(readable), strict=True))

    def known(picture: Picture) -> Picture:
        return picture if good.get(picture.path) else attrs.evolve(picture, format="", width=0, height=0, seen=(0, 0))

    subsets = [attrs.evolve(s, pictures=tuple(map(known, s.pictures))) for s in dataset.subsets]
    return attrs.evolve(dataset, subsets=tuple(subsets))


def _pictures(dataset: Dataset) -> Iterable[Problem]:
    pictures = dataset.pictures
    stems = Counter(_stem(picture) for picture in pictures)
    yield from _about(dataset, "image_unreadable", [p for p in pictures if not p.readable], "error")
    unread = [p for p in pictures if p.caption_path and p.caption is None]
    yield from _about(dataset, "caption_not_utf8", [p.caption_path for p in unread if p.caption_path], "error")
    if len(pictures) < FEW:
        yield Problem("few_pictures", {"count": len(pictures)}, "warning")
    if len(pictures) > MANY:
        yield Problem("many_pictures", {"count": len(pictures)}, "warning")
    yield from _about(dataset, "image_rotated", [p for p in pictures if p.rotated])
    yield from _about(dataset, "image_same_stem", [p for p in pictures if stems[_stem(p)] > 1])


def _stem(picture: Picture) -> tuple[Path, str]:
    return picture.path.parent, picture.path.stem.casefold()


def _captions(dataset: Dataset, trigger: str | None) -> Iterable[Problem]:
    read = [p for p in dataset.pictures if p.caption is not None]
    said = [p for p in read if p.line]
    shown = printable(trigger or "")
    yield from _about(dataset, "caption_missing", [p for p in dataset.pictures if not p.caption_path], trigger=shown)
    yield from _about(dataset, "caption_blank", [p for p in read if not p.line], trigger=shown)
    late = [p for p in said if not (p.caption or "").split("\n")[0].strip()]
    yield from _about(dataset, "caption_first_line_blank", late)
    several = [p for p in said if sum(bool(line.strip()) for line in (p.caption or "").split("\n")) > 1]
    yield from _about(dataset, "caption_several_lines", several)
    if trigger and trigger.strip():
        without = [p for p in said if not has_trigger(p.line, trigger)]
        yield from _about(dataset, "caption_without_trigger", without, trigger=shown)
        words = set(re.findall(r"\w+", trigger.casefold()))
        if words and words <= set(GENERIC.split()):
            yield Problem("trigger_generic", {"trigger": shown}, "warning")


def _beside(dataset: Dataset) -> Iterable[Problem]:
    """What else lies in the folders."""
    for code, files in (
        ("image_loose", dataset.loose),
        ("image_format_ignored", [path for subset in dataset.subsets for path in subset.ignored]),
        ("caption_stray", [path for subset in dataset.subsets for path in subset.stray_captions]),
        ("caches_found", [path for subset in dataset.subsets for path in subset.caches]),
    ):
        yield from _about(dataset, code, files)


def _about(
    dataset: Dataset, code: str, files: Sequence[Picture | Path], severity: Severity = "warning", **params: Any
) -> Iterable[Problem]:
    """One problem for all the files that have it, if there are any."""
    if files:
        names = [dataset.shown(f.path if isinstance(f, Picture) else f) for f in files]
        yield Problem(code, {"names": _listed(names), "count": len(names), **params}, severity)


def _listed(names: Sequence[str]) -> tuple[str, ...]:
    return (*names[:NAMED], "…") if len(names) > NAMED else tuple(names)
