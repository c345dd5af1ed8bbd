"""What is known of a data set: its pictures, their captions, and what else lies in its folders. Data without I/O."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from cinderlora.errors import SettingError
from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.problems import Problem

__all__ = [
    "OTHER_PICTURES",
    "OWN_FILE",
    "PICTURES",
    "Dataset",
    "DatasetEntry",
    "Picture",
    "State",
    "Subset",
    "caption_suffix",
    "printable",
]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""What sd-scripts takes for a picture, by the file's ending (its IMAGE_EXTENSIONS without the optional AVIF and JXL).
It knows them in lower and in upper case; the run's own view has them all in lower case, so `.Png` is found as well."""
OTHER_PICTURES = frozenset({".avif", ".gif", ".heic", ".heif", ".jfif", ".jxl", ".tif", ".tiff"})
OWN_FILE = ".toml"
"""What a data set's own file ends with."""


@frozen(kw_only=True)
class Picture:
    """One picture, as its file's header and its caption's file tell it."""

    path: Path
    """Absolute."""
    format: str = ""
    """ "PNG", "JPEG", "WEBP", "BMP" or "GIF", by the content; where it cannot be read, what it is instead ("AVIF",
    "HTML", ...) if that is known, and "" otherwise."""
    file_size: int = 0
    """Bytes."""
    width: int = 0
    height: int = 0
    """Pixels, as stored; 0 where it cannot be read."""
    seen: tuple[int, int] = (0, 0)
    """(width, height) that sd-scripts chooses the bucket by; see `headers.Header`."""
    rotated: bool = False
    """Viewers turn it by its EXIF orientation, sd-scripts does not."""
    animated: bool = False
    """It has several frames; the first one is trained on."""
    transparent: bool | None = False
    """Some of it can be seen through; None where only decoding would tell."""
    grey16: bool = False
    """Greyscale with 16 bits; see `headers.Header`."""
    decoded: bool | None = None
    """Whether it could be decoded to its end; None where that was not tried."""
    caption_path: Path | None = None
    caption: str | None = None
    """All that its caption file says, without byte order mark; None where there is no file or it is no UTF-8 text."""
    other_caption: Path | None = None
    """Where it has no caption: a file of its name with another ending for captions, ".caption" instead of ".txt"."""
    lent_caption: Path | None = None
    """Where it has no caption: the one that sd-scripts by itself would read for it. It leaves out what stands behind
    the last four "_" of a name, and so finds `a.txt` for `a_b_c_d_e.png`."""
    problems: tuple[str, ...] = ()
    """The codes of what is wrong with it or its caption."""

    @property
    def readable(self) -> bool:
        """Whether its header is that of a picture, and decoding did not prove it damaged."""
        return self.width > 0 and self.decoded is not False

    @property
    def line(self) -> str:
        """The caption's first line with text, which is the one that is learned; "" where there is none."""
        return next((line.strip() for line in (self.caption or "").split("\n") if line.strip()), "")


@frozen(kw_only=True)
class Subset:
    """The pictures of one folder. In Kohya's layout the folder's name tells the repeats and the class tokens, in a
    data set's own file its table does."""

    folder: Path
    repeats: int | None = None
    """None: the settings decide."""
    class_tokens: str = ""
    caption_extension: str = ".txt"
    """With its dot."""
    pictures: tuple[Picture, ...] = ()
    """By name."""
    stray_captions: tuple[Path, ...] = ()
    """Caption files without a picture."""
    caches: tuple[Path, ...] = ()
    """What earlier trainings left: latents, text encoder outputs, sizes and captions."""
    ignored: tuple[Path, ...] = ()
    """Pictures of formats that sd-scripts does not take."""


Layout = Literal["flat", "repeats", "file"]


@frozen(kw_only=True)
class Dataset:
    """A data set as it lies on disk; `cinderlora.inspect_dataset` makes one."""

    path: Path
    """Absolute: the folder, or the data set's own file."""
    layout: Layout = "flat"
    """One folder, `<repeats>_<words>` subfolders, or a TOML file that tells the folders."""
    caption_extension: str = ".txt"
    """What was asked for; a data set's own file may say another one for a subset."""
    subsets: tuple[Subset, ...] = ()
    loose: tuple[Path, ...] = ()
    """Pictures beside `<repeats>_<words>` subfolders: Kohya's layout does not count them."""
    asks: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    """What its own file says of things that a job's settings decide: the different values, by the setting's name."""
    duplicates: tuple[tuple[Path, ...], ...] = ()
    """Groups of pictures that are the same byte for byte."""
    alike: tuple[tuple[Path, ...], ...] = ()
    """Groups of pictures that look nearly the same; known only where they were decoded."""
    problems: tuple[Problem, ...] = field(default=(), converter=as_tuple)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of all subsets."""
        return tuple(picture for subset in self.subsets for picture in subset.pictures)

    @property
    def captions(self) -> int:
        """How many pictures have a caption with text."""
        return sum(bool(picture.line) for picture in self.pictures)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """What `bucket_plan` sorts: the (width, height) that sd-scripts sees, of each readable picture."""
        return tuple(picture.seen for picture in self.pictures if picture.readable)

    def repeats(self, default: int) -> tuple[int, ...]:
        """The repeats of each readable picture, in the order of `sizes`; `default` where the folder names none."""
        return tuple(
            default if subset.repeats is None else subset.repeats
            for subset in self.subsets
            for picture in subset.pictures
            if picture.readable
        )

    def shown(self, path: Path) -> str:
        """A file's name within the data set, fit to be printed and sent: what cannot be printed becomes "?"."""
        home = self.path.parent if self.layout == "file" else self.path
        return printable(path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path))


State = Literal["empty", "uncaptioned", "partly_captioned", "ready"]


@frozen(kw_only=True)
class DatasetEntry:
    """One data set of a folder of data sets, for a front end's drop-down."""

    name: str
    """The folder's name, fit to be printed."""
    path: Path
    pictures: int
    captions: int
    """Pictures that have a caption file."""
    state: State
    """Whether there are pictures, and whether none, some or all of them have a caption file."""
    trigger: str = ""
    """What to propose as trigger word: the character's name that the Dataset Generator wrote down, the words of a
    `<repeats>_<words>` folder, or else the folder's name."""


def printable(name: str) -> str:
    """A name without line breaks, control characters and undecodable bytes; "?" stands for each."""
    return "".join(c if c.isprintable() else "?" for c in name)


def caption_suffix(extension: str) -> str:
    """A caption extension with its dot; raises `SettingError` for one that is no ending of a text file's name.

    sd-scripts takes it with and without the dot.
    """
    suffix = extension if extension.startswith(".") else f".{extension}"
    if not re.fullmatch(r"\.[\w-]{1,16}", suffix, re.ASCII) or suffix.lower() in PICTURES | OTHER_PICTURES | {".npz"}:
        raise SettingError("caption_extension", extension=printable(extension))
    return suffix
