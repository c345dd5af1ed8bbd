"""A run's own view of a data set: links to the pictures and copies of the captions, under names that are safe.

What sd-scripts does with names, and why it gets others here:

* `a.png` and `a.jpg` would share a caption and caches, and `A.png` and `a.png` do on some systems: so all pictures of a
  view are numbered.
* A picture without a cache takes the size of a neighbour's cache whose name starts alike (`elena_1`, `elena_10`): the
  number stands in front and has a fixed width, so no name begins another.
* `a_b_c_d_e.png` without a caption falls back to `a.txt`, and the rule even reads underscores of the folders above:
  so every picture has a caption file of its own. Pictures without a caption learn the trigger word from it.
* An empty caption file ends the training, a blank first line is an empty caption, a byte order mark is learned: the
  text of a caption starts with its first line that has text. Further lines are kept, `enable_wildcard` uses them.
* The folder's name goes into the LoRA's metadata: it is made of the trigger word, or of the words in a
  `<repeats>_<words>` folder, never of the path.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from attrs import field, frozen

from cinderlora.dataset.check import has_trigger
from cinderlora.dataset.data import Dataset, Picture, Subset, caption_suffix
from cinderlora.frozendict import FrozenDict
from cinderlora.names import is_plain_file_name
from cinderlora.types import Link

__all__ = ["View", "ViewSubset", "dataset_view", "source_of"]


@frozen(kw_only=True)
class ViewSubset:
    """One folder of the view, for one subset of the trainer's data-set file."""

    folder: str
    """Relative to the run folder, with forward slashes."""
    repeats: int | None
    """None: the settings decide."""
    class_tokens: str
    """What pictures without a caption learn."""


@frozen(kw_only=True)
class View:
    """What to put into the run folder, and how the trainer is to read it."""

    links: tuple[Link, ...]
    files: FrozenDict = field(converter=FrozenDict)
    """The captions' texts, by path relative to the run folder."""
    subsets: tuple[ViewSubset, ...]
    caption_extension: str = ".txt"
    """With its dot."""


def dataset_view(dataset: Dataset, trigger: str, caption_extension: str | None = None, under: str = "dataset") -> View:
    """The view of a data set, below the folder `under` of the run folder. Pure: nothing is read or written.

    Pictures that cannot be read are left out. `caption_extension` is the view's, the data set's own unless given;
    raises `SettingError` where it is impossible. A picture without a caption learns the trigger word, in a Kohya folder
    whose words have the trigger word those words ("10_elena woman": "elena woman").
    """
    suffix = caption_suffix(caption_extension or dataset.caption_extension)
    width = max(3, len(str(len(dataset.pictures))))
    links: list[Link] = []
    files: dict[str, str] = {}
    subsets: list[ViewSubset] = []
    for subset in dataset.subsets:
        tokens = subset.class_tokens if has_trigger(subset.class_tokens, trigger) else trigger
        folder = _unused(_folder(subset, trigger), (s.folder.rpartition("/")[2] for s in subsets))
        here = f"{under}/{folder}"
        for picture in subset.pictures:
            if picture.readable:
                stem = f"{len(links) + 1:0{width}d}-{plain(picture.path.stem)}".rstrip("-")
                links.append(Link(picture.path, f"{here}/{stem}{picture.path.suffix.lower()}"))
                files[f"{here}/{stem}{suffix}"] = _text(picture, tokens)
        subsets.append(ViewSubset(folder=here, repeats=subset.repeats, class_tokens=tokens))
    return View(links=tuple(links), files=files, subsets=tuple(subsets), caption_extension=suffix)


def source_of(links: Iterable[Link], file: str) -> Path | None:
    """The person's own picture behind a file of the view, by a path or name that the trainer printed: of the picture,
    its caption or one of its caches."""
    name = PureWindowsPath(file).name  # takes both kinds of slashes
    return next((link.source for link in links if name.startswith(PurePosixPath(link.target).stem)), None)


def plain(text: str, limit: int = 48) -> str:
    """A text as part of a file name: letters and digits of any script and "_", what is between them as "-"."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c if c == "_" or unicodedata.category(c)[0] in "LNM" else " " for c in composed)
    return "-".join(kept.split())[:limit].strip("-")


def _folder(subset: Subset, trigger: str) -> str:
    name = plain(trigger)
    if subset.repeats is not None:
        name = f"{subset.repeats}_{plain(subset.class_tokens) or name}".rstrip("_")
    return name if is_plain_file_name(name) else "character"


def _unused(name: str, taken: Iterable[str]) -> str:
    """The name, with a number where there is one like it already: upper and lower case are the same to some systems."""
    known = {other.casefold() for other in taken}
    names = (name, *(f"{name}-{n}" for n in range(2, len(known) + 2)))
    return next(n for n in names if n.casefold() not in known)


def _text(picture: Picture, tokens: str) -> str:
    """What its caption file in the view says."""
    if not picture.line:
        return f"{tokens}\n"
    lines = (picture.caption or "").split("\n")
    while not lines[0].strip():
        lines.pop(0)
    return "\n".join(lines).rstrip() + "\n"
