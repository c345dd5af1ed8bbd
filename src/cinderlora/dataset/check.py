"""What is wrong with a data set, or looks wrong, before it is trained on."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from cinderlora.dataset.alike import duplicates, nearly_alike
from cinderlora.dataset.buckets import BucketPlan
from cinderlora.dataset.data import Dataset, Picture, printable
from cinderlora.dataset.decode import BOMB, decode
from cinderlora.dataset.finding import Finding, as_problems, marked
from cinderlora.dataset.read import list_datasets, read_dataset
from cinderlora.errors import SettingError
from cinderlora.problems import Problem
from cinderlora.types import Settings

__all__ = ["difference_problems", "has_trigger", "inspect_dataset", "size_findings", "size_problems"]

FEW, MANY = 10, 100
"""A character is usually taught with 15 to 40 pictures; only what is far from that is worth a warning."""
SMALL = 0.5
"""A picture with less than this share of the resolution's area is called small: training shows how blurred it is."""
CUT = 0.25
"""A picture that loses more than this share of its area to its bucket is worth a look: there may be a face in it."""
GENERIC = (
    "a an the person people human character girl 1girl boy 1boy woman man women men female male lady guy child kid "
    "baby face ein eine der die das frau mann mädchen junge mensch kind figur"
)
"""Words that the base model knows well: as a trigger word they change every picture of that kind."""
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def inspect_dataset(
    path: str | os.PathLike[str],
    *,
    trigger: str | None = None,
    caption_extension: str = ".txt",
    decode: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Dataset:
    """Read a data set and say what is wrong with it. Nothing is moved, changed or written, and nothing is raised for
    what lies there: `problems` of the returned `Dataset` has it all, errors first.

    `path` is a folder, flat or with `<repeats>_<words>` subfolders, or a TOML file in sd-scripts' form that tells the
    folders. `trigger` is looked for in the captions. `caption_extension` holds where such a file says none.

    Sizes come from the files' headers. With `decode` every picture is decoded as well, on all cores, which finds
    truncated, transparent and nearly equal ones; `progress` is then called with how many are done, and of how many,
    in this thread. Only that needs the extra `pictures` (else `CinderloraError`, `extra_missing`).
    """
    try:
        dataset = read_dataset(path, caption_extension)
    except SettingError as error:
        return Dataset(path=Path(path).absolute(), problems=(Problem(error.code, error.params),))
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        missing = Problem("dataset_not_found", {"path": printable(str(path)), "why": why})
        return Dataset(path=Path(path).absolute(), problems=(missing,))
    headed = [picture for picture in dataset.pictures if picture.width > 0]  # others may be pipes: never opened
    dataset = attrs.evolve(dataset, duplicates=duplicates(headed))
    if decode:
        dataset = _decoded(dataset, headed, progress)
    findings = [*_pictures(dataset), *_captions(dataset, trigger), *_beside(dataset)]
    problems = [*dataset.problems, *_in_general(dataset, trigger), *as_problems(dataset, findings)]
    return attrs.evolve(
        dataset,
        subsets=marked(dataset.subsets, findings),
        problems=sorted(problems, key=lambda problem: problem.severity != "error"),
    )


def size_problems(dataset: Dataset, plan: BucketPlan) -> tuple[Problem, ...]:
    """What a bucket plan of `dataset.sizes` shows: pictures that sd-scripts fails on, those that are small for the
    resolution though they train, and those of which much is cut off."""
    return tuple(as_problems(dataset, size_findings(dataset, plan)))


def size_findings(dataset: Dataset, plan: BucketPlan) -> list[Finding]:
    """See `size_problems`."""
    readable = [picture for picture in dataset.pictures if picture.readable]
    fits = list(zip(readable, plan.fits, strict=True))
    unfit = [picture for picture, fit in fits if fit is None]
    wanted = plan.resolution[0] * plan.resolution[1]
    small = [p for p, fit in fits if fit and p.width * p.height < SMALL * wanted]
    cut = [p for p, fit in fits if fit and fit.cut > CUT]
    return [
        Finding("image_unfit", unfit, severity="error"),
        Finding("image_small", small, params={"resolution": "x".join(map(str, plan.resolution))}),
        Finding("image_cut", cut, params={"percent": round(100 * CUT)}),
    ]


def difference_problems(dataset: Dataset, settings: Settings) -> Iterator[Problem]:
    """What a data set's own file wants otherwise than a job's settings, which decide. Pure."""
    for name, values in dataset.asks.items():
        mine = getattr(settings, name) or False
        asked = [_squared(value) or False for value in values]
        if asked == [mine]:
            continue
        params = {"setting": name, "asked": [_shown(value) for value in asked], "value": _shown(mine)}
        fits = len(asked) == 1 and not isinstance(asked[0], tuple)
        yield Problem("dataset_setting_differs", params, "warning", changes={name: asked[0]} if fits else {})


def has_trigger(text: str, trigger: str) -> bool:
    """Whether a text has the trigger word as a word of its own; upper and lower case count as the same."""
    words = r"\s+".join(map(re.escape, trigger.casefold().split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text.casefold()) is not None


def _squared(value: object) -> object:
    return value[0] if isinstance(value, tuple) and value[0] == value[1] else value


def _shown(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def _decoded(dataset: Dataset, headed: Sequence[Picture], progress: Callable[[int, int], object] | None) -> Dataset:
    results = decode([(p.path, p.width * p.height) for p in headed], progress)
    told = {picture.path: found for picture, found in zip(headed, results, strict=True)}

    def known(picture: Picture) -> Picture:
        found = told.get(picture.path)
        if found is None:
            return picture
        if not found.whole:
            return attrs.evolve(picture, decoded=False)
        return attrs.evolve(picture, decoded=True, animated=found.animated, transparent=found.transparent)

    subsets = [attrs.evolve(s, pictures=tuple(map(known, s.pictures))) for s in dataset.subsets]
    looks = [(path, found.look) for path, found in told.items() if found and found.look]
    return attrs.evolve(dataset, subsets=tuple(subsets), alike=nearly_alike(looks, dataset.duplicates))


def _in_general(dataset: Dataset, trigger: str | None) -> Iterator[Problem]:
    """What is wrong with the data set as a whole."""
    count = len(dataset.pictures)
    if not count:
        listed = list_datasets(dataset.path, caption_extension=dataset.caption_extension)
        inside = [entry.name for entry in listed if entry.pictures]
        yield Problem("dataset_empty", {"path": printable(str(dataset.path)), "folders": _first(inside)})
        return
    if count < FEW:
        yield Problem("few_pictures", {"count": count}, "warning")
    if count > MANY:
        yield Problem("many_pictures", {"count": count}, "warning")
    words = set(re.findall(r"\w+", (trigger or "").casefold()))
    if words and words <= set(GENERIC.split()):
        yield Problem("trigger_generic", {"trigger": printable(trigger or "")}, "warning")


def _pictures(dataset: Dataset) -> Iterator[Finding]:
    pictures = dataset.pictures
    stems = Counter(_stem(picture) for picture in pictures)
    huge = [p for p in pictures if p.width * p.height > BOMB]
    broken = [p for p in pictures if not p.readable and p not in huge]
    yield Finding("image_unreadable", broken, severity="error", note=lambda p: "" if p.width else p.format)
    yield Finding("image_too_large", huge, severity="error")
    good = [p for p in pictures if p.readable]
    other = [p for p in good if p.format != _FORMATS[p.path.suffix.lower()]]
    yield Finding("image_mislabelled", other, note=lambda p: p.format)
    yield Finding("image_rotated", [p for p in good if p.rotated])
    yield Finding("image_transparent", [p for p in good if p.transparent])
    yield Finding("image_animated", [p for p in good if p.animated])
    yield Finding("image_grey16", [p for p in good if p.grey16])
    yield Finding("image_same_stem", [p for p in pictures if stems[_stem(p)] > 1])
    by_path = {p.path: p for p in pictures}
    same, alike = ([[by_path[path] for path in group] for group in of] for of in (dataset.duplicates, dataset.alike))
    yield Finding("image_duplicate", groups=same)
    yield Finding("image_alike", groups=alike, joint=" ~ ")


def _stem(picture: Picture) -> tuple[Path, str]:
    return picture.path.parent, picture.path.stem.casefold()


def _captions(dataset: Dataset, trigger: str | None) -> Iterator[Finding]:
    shown = {"trigger": printable(trigger or "")}
    unread = [p for p in dataset.pictures if p.caption_path and p.caption is None]
    yield Finding("caption_not_utf8", unread, severity="error", named=lambda p: p.caption_path or p.path)
    missing = [p for p in dataset.pictures if not p.caption_path]
    yield from _other_extension(dataset, missing)
    yield Finding("caption_missing", [p for p in missing if not p.other_caption], params=shown)
    lent = [p for p in missing if p.lent_caption]
    yield Finding("caption_lent", lent, note=lambda p: p.lent_caption.name if p.lent_caption else "")
    read = [p for p in dataset.pictures if p.caption is not None]
    said = [p for p in read if p.line]
    yield Finding("caption_blank", [p for p in read if not p.line], params=shown)
    late = [p for p in said if not (p.caption or "").split("\n")[0].strip()]
    yield Finding("caption_first_line_blank", late)
    several = [p for p in said if sum(bool(line.strip()) for line in (p.caption or "").split("\n")) > 1]
    yield Finding("caption_several_lines", several)
    if trigger and trigger.strip():
        without = [p for p in said if not has_trigger(p.line, trigger)]
        yield Finding("caption_without_trigger", without, params=shown)


def _other_extension(dataset: Dataset, missing: Iterable[Picture]) -> Iterator[Finding]:
    """Captions of another ending than the one asked for; the cure where most of the data set has that one."""
    there = [p for p in missing if p.other_caption]
    endings = Counter(p.other_caption.suffix for p in there if p.other_caption)
    asked = {s.caption_extension for s in dataset.subsets}
    for ending, count in endings.items():
        found = [p for p in there if p.other_caption and p.other_caption.suffix == ending]
        most = count > sum(p.caption_path is not None for p in dataset.pictures)
        # In a data set's own file it is the file that says so.
        changes = {"caption_extension": ending} if most and asked == {dataset.caption_extension} else {}
        params = {"asked": sorted(asked), "there": printable(ending)}
        yield Finding("caption_other_extension", found, params=params, changes=changes)


def _beside(dataset: Dataset) -> Iterator[Finding]:
    """What else lies in the folders."""
    for code, files in (
        ("image_loose", dataset.loose),
        ("image_format_ignored", [path for subset in dataset.subsets for path in subset.ignored]),
        ("caption_stray", [path for subset in dataset.subsets for path in subset.stray_captions]),
        ("caches_found", [path for subset in dataset.subsets for path in subset.caches]),
    ):
        yield Finding(code, files=files)
    yield Finding("cache_lent", [p for s in dataset.subsets for p in _size_from_another(s.pictures, s.caches)])


def _size_from_another(pictures: Iterable[Picture], caches: Iterable[Path]) -> Iterator[Picture]:
    """Pictures without cached latents that sd-scripts would give the size of another's: it takes the first cache whose
    name begins with the picture's."""
    latents = {m[1] for cache in caches if (m := re.fullmatch(r"(.+)_\d{4,5}x\d{4,5}_\w+\.npz", cache.name))}
    for picture in pictures:
        stem = picture.path.stem
        if stem not in latents and any(name.startswith(stem) for name in latents):
            yield picture


def _first(names: list[str], limit: int = 5) -> tuple[str, ...]:
    return (*names[:limit], "…") if len(names) > limit else tuple(names)
