"""A data set's own file: the TOML that sd-scripts takes as `dataset_config`, with folders and what it wants of them.

What a run honours of it are the folders with their repeats, class tokens and caption extensions. The rest belongs to
a job's settings; what differs from them, or cannot be had, is named. The keys, their types and their defaults are
those of `ConfigSanitizer` in sd-scripts' library/config_util.py (48d368fa, v0.10.1), and a value in a subset goes over
one in its data set, and that over `[general]`, as there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from cinderlora.dataset.data import caption_suffix, printable
from cinderlora.errors import SettingError
from cinderlora.frozendict import FrozenDict
from cinderlora.names import nearest
from cinderlora.problems import Problem

__all__ = ["OwnFile", "OwnSubset", "read_own_file", "understood"]

LIMIT = 1 << 20
"""Bytes: what is longer is no data set's file."""
NAMED = 5
"""How many unknown keys of a table are named."""

_NUMBER = (int, float)
_HONOURED = {"num_repeats": (int,), "class_tokens": (str,), "caption_extension": (str,)}
_SETTINGS = {
    "resolution": ("resolution", (int, list)),
    "batch_size": ("batch_size", (int,)),
    "enable_bucket": ("enable_bucket", (bool,)),
    "bucket_no_upscale": ("bucket_no_upscale", (bool,)),
    "bucket_reso_steps": ("bucket_step", (int,)),
    "shuffle_caption": ("shuffle_caption", (bool,)),
    "flip_aug": ("flip_aug", (bool,)),
}
"""Keys that a job's settings decide: the setting, and the types of the value."""
_LEFT_OUT: dict[str, tuple[tuple[type, ...], Any]] = {
    "alpha_mask": ((bool,), False),
    "cache_info": ((bool,), False),
    "caption_dropout_every_n_epochs": ((int,), 0),
    "caption_dropout_rate": (_NUMBER, 0),
    "caption_prefix": ((str,), ""),
    "caption_separator": ((str,), ","),
    "caption_suffix": ((str,), ""),
    "caption_tag_dropout_rate": (_NUMBER, 0),
    "color_aug": ((bool,), False),
    "custom_attributes": ((dict,), {}),
    "enable_wildcard": ((bool,), False),
    "face_crop_aug_range": ((list,), None),
    "keep_tokens": ((int,), 0),
    "keep_tokens_separator": ((str,), ""),
    "max_bucket_reso": ((int,), 1024),
    "min_bucket_reso": ((int,), 256),
    "network_multiplier": (_NUMBER, 1),
    "random_crop": ((bool,), False),
    "resize_interpolation": ((str,), None),
    "secondary_separator": ((str,), ""),
    "token_warmup_min": ((int,), 1),
    "token_warmup_step": (_NUMBER, 0),
    "validation_seed": ((int,), None),
    "validation_split": (_NUMBER, 0),
}
"""Keys that a run does without: the types of the value, and the one that changes nothing."""
_FORMS = {"metadata_file": (str,), "conditioning_data_dir": (str,)}
"""Keys of the forms for fine-tuning and ControlNet, in place of pictures with captions beside them."""
_DATASET_ONLY = frozenset(
    {
        *("batch_size", "enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "max_bucket_reso"),
        *("min_bucket_reso", "network_multiplier", "resolution", "validation_seed", "validation_split"),
    }
)
"""Keys that a subset cannot have for itself."""
_SUBSET_ONLY = {**_FORMS, "alpha_mask": (bool,), "image_dir": (str,), "is_reg": (bool,)}
_ALL_TYPES = {
    **_HONOURED,
    **{key: types for key, (_, types) in _SETTINGS.items()},
    **{key: types for key, (types, _) in _LEFT_OUT.items()},
    **_SUBSET_ONLY,
}
_TYPES = {key: types for key, types in _ALL_TYPES.items() if key not in _SUBSET_ONLY}
_SUBSET_TYPES = {key: types for key, types in _ALL_TYPES.items() if key not in _DATASET_ONLY}


@frozen(kw_only=True)
class OwnSubset:
    """One folder of pictures that the file tells."""

    folder: Path
    """Absolute. A relative one starts at the file's own folder."""
    where: str
    """Its place in the file, for people."""
    repeats: int | None
    """None: the settings decide."""
    class_tokens: str
    caption_extension: str | None


@frozen(kw_only=True)
class OwnFile:
    """What a data set's own file says."""

    subsets: tuple[OwnSubset, ...] = ()
    asks: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    """The different values that it has for what a job's settings decide, by the setting's name."""
    problems: tuple[Problem, ...] = ()


def read_own_file(path: Path) -> OwnFile:
    """Read a data set's own file; what is wrong with it are its `problems`. Raises `OSError` where it is no file."""
    import tomllib  # with what it needs a third of what this package takes to import

    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with path.open("rb") as file:
        content = file.read(LIMIT + 1)
    try:
        if len(content) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        table = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return OwnFile(problems=(Problem("file_unreadable", {"path": printable(str(path)), "why": str(error)}),))
    return understood(table, path)


def understood(table: Mapping[str, Any], path: Path) -> OwnFile:
    """What the content of a file at this path says. Pure."""
    reader = _Reader(path)
    subsets = tuple(reader.subsets(table))
    ignored = sorted(reader.ignored)
    if ignored:
        reader.say("dataset_keys_ignored", "warning", keys=ignored)
    asks = {name: tuple(values) for name, values in reader.asks.items()}
    return OwnFile(subsets=subsets, asks=asks, problems=tuple(reader.problems))


class _Reader:
    """Goes through the tables of one file and collects what is to be said of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[Path, str] = {}
        self.problems: list[Problem] = []
        self.ignored: set[str] = set()
        self.asks: dict[str, list[Any]] = {}

    def say(self, code: str, severity: Any = "error", **params: Any) -> None:
        self.problems.append(Problem(code, {"path": printable(str(self._path)), **params}, severity))

    def subsets(self, table: Mapping[str, Any]) -> Iterator[OwnSubset]:
        self._unknown(table, ("general", "datasets"), "")
        general = self._table(table.get("general", {}), "[general]", _TYPES)
        datasets = self._tables(table.get("datasets", []), "[[datasets]]")
        if not datasets and "datasets" not in table:
            self.say("dataset_table_missing", where="[[datasets]]")
        for n, dataset in enumerate(datasets, 1):
            place = f"[[datasets]] {n}"
            own = self._table({k: v for k, v in dataset.items() if k != "subsets"}, place, _TYPES)
            if not dataset.get("subsets"):
                self.say("dataset_table_missing", where=f"{place}, [[datasets.subsets]]")
            for m, subset in enumerate(self._tables(dataset.get("subsets", []), f"{place}, [[datasets.subsets]]"), 1):
                where = f"{place}, [[datasets.subsets]] {m}"
                values = {**general, **own, **self._table(subset, where, _SUBSET_TYPES)}
                yield from self._subset(subset, values, where)

    def _subset(self, subset: Mapping[str, Any], values: Mapping[str, Any], where: str) -> Iterator[OwnSubset]:
        other = [key for key in (*_FORMS, "is_reg") if values.get(key)]
        if other:
            self.say("dataset_form_unsupported", where=f"{where}, {other[0]}")
            return
        if "image_dir" not in values:
            if "image_dir" not in subset:
                self.say("dataset_table_missing", where=f"{where}, image_dir")
            return
        folder = self._path.parent / values["image_dir"]
        if folder in self._seen:
            params = {"folder": printable(str(folder)), "first": self._seen[folder], "where": where}
            self.say("dataset_folder_twice", "warning", **params)
            return
        self._seen[folder] = where
        if values.get("num_repeats", 1) < 1:
            self.say("dataset_folder_off", "warning", folder=printable(str(folder)), where=where)
            return
        self._asked(values)
        yield OwnSubset(
            folder=folder,
            where=where,
            repeats=values.get("num_repeats"),
            class_tokens=values.get("class_tokens", ""),
            caption_extension=self._suffix(values.get("caption_extension"), where),
        )

    def _asked(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if key in _LEFT_OUT and value != _LEFT_OUT[key][1]:
                self.ignored.add(key)
            if key in _SETTINGS:
                known = self.asks.setdefault(_SETTINGS[key][0], [])
                asked = tuple(value) if isinstance(value, list) else value
                if asked not in known:
                    known.append(asked)

    def _suffix(self, extension: str | None, where: str) -> str | None:
        if not extension:
            return None
        try:
            return caption_suffix(extension)
        except SettingError as error:
            self.say(error.code, **error.params, where=f"{where}, caption_extension")
            return None

    # ---- form ----

    def _tables(self, value: Any, where: str) -> list[dict[str, Any]]:
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return value
        self._wrong(where, value, "table")
        return []

    def _table(self, value: Any, where: str, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
        """What a table has of the known keys, in the types that they take."""
        if not isinstance(value, dict):
            self._wrong(where, value, "table")
            return {}
        self._unknown(value, types, where)
        good = {}
        for key, kinds in types.items():
            if key not in value:
                continue
            if _fits(key, value[key], kinds):
                good[key] = value[key]
            else:
                self._wrong(f"{where}, {key}", value[key], " or ".join(kind.__name__ for kind in kinds))
        return good

    def _unknown(self, table: Mapping[str, Any], known: Any, where: str) -> None:
        for key in [key for key in table if key not in known][:NAMED]:
            shown = printable(key[:80])
            place = ", ".join(filter(None, (where, shown)))
            self.say("config_key_unknown", "warning", where=place, nearest=nearest(shown, known))

    def _wrong(self, where: str, value: Any, expected: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) < 80 else f"{shown[:76]} ..."
        self.say("config_value", where=where, value=shown, expected=expected)


def _fits(key: str, value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if not isinstance(value, kinds):
        return False
    if key == "resolution":
        sides = value if isinstance(value, list) else [value, value]
        return len(sides) == 2 and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides)
    return not isinstance(value, list) or (len(value) == 2 and all(isinstance(v, _NUMBER) for v in value))
