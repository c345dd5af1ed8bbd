"""What a model file says of itself: the header, and nothing but the header.

A safetensors file begins with the length of a JSON text (8 bytes, little-endian), then that text: for each tensor its
dtype, its shape and where its bytes lie behind the header; `__metadata__` holds text
(https://github.com/huggingface/safetensors#format). That tells what a model is and whether the file is complete.
Tensors are never read, files are never mapped into memory (mapping fails on some network drives), and pickles are not
even opened. A header comes from anywhere, so it is read under limits and everything in it is checked.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import attrs
from attrs import field, frozen

from cinderlora.frozendict import FrozenDict
from cinderlora.models.gguf import GgufError, read_gguf
from cinderlora.problems import Problem, Severity

__all__ = [
    "BITS",
    "MODEL_SUFFIXES",
    "PICKLES",
    "UNFINISHED",
    "Header",
    "Layout",
    "Part",
    "Tensor",
    "Tensors",
    "file_problem",
    "printable",
    "read_header",
]

T = TypeVar("T")

Format = Literal["safetensors", "gguf", "pickle", "diffusers", "unknown"]

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
MODEL_SUFFIXES = (".safetensors", ".sft", ".gguf", *PICKLES)
# What browsers and tools put behind the name until a download is there. aria2 gives the file its name and its full size
# at once, and keeps a file of its own beside it as long.
UNFINISHED = (".part", ".partial", ".crdownload", ".opdownload", ".download", ".downloading", ".incomplete", ".tmp")
_ARIA2 = ".aria2"

# Real headers take up to 0.5 MB, and some LoRAs carry a megabyte or two of metadata. What is beyond that is no model,
# and would cost more than a glance at it may: 0.1 s and 50 MB.
MAX_HEADER = 3_000_000
# A tensor's entry has about 15 values, keys and brackets; a text of 3 MB could hold a million of them. A smaller one
# is harmless whatever it says.
MAX_VALUES = 150_000
HARMLESS = 500_000
MAX_SIDES = 16
# Of the metadata only short texts are of use here; sd-scripts adds lists of all captions' tags.
MAX_METADATA_TEXT = 512
MAX_METADATA_ENTRIES = 200

_METADATA = '{"__metadata__":'
_CONTROL = bytes(range(32))
_SPACE = " \t\r\n"

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

_PRECISIONS = {
    "F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2",
    "I8": "int8", "U8": "uint8",
}  # fmt: skip

# How quantised files keep their scales: ComfyUI's scaled fp8 (older and newer), bitsandbytes.
_FP8_SCALES = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant")
_BITSANDBYTES = (".absmax", ".bitsandbytes__nf4", ".bitsandbytes__fp4")


class Tensor(NamedTuple):
    """A tensor's dtype, as safetensors names it ("BF16", "F8_E4M3", ...), and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


class Tensors(Mapping[str, Tensor]):
    """The tensors of a file by name, in the order of their bytes. Files of the same structure share one of these."""

    __slots__ = ("_answers", "_by_name")

    def __init__(self, by_name: Mapping[str, Tensor] | None = None) -> None:
        self._by_name = dict(by_name or {})
        self._answers: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    # What Mapping gives goes through one lookup a name.
    def keys(self) -> KeysView[str]:
        return self._by_name.keys()

    def values(self) -> ValuesView[Tensor]:
        return self._by_name.values()

    def items(self) -> ItemsView[str, Tensor]:
        return self._by_name.items()

    def __repr__(self) -> str:
        return f"<Tensors: {len(self)}>"

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, or None where there is no such tensor."""
        tensor = self._by_name.get(name)
        return tensor.shape if tensor is not None else None

    def once(self, question: str, answer: Callable[[], T]) -> T:
        """What `answer()` gives, worked out once for all files that share these tensors."""
        if question not in self._answers:
            self._answers[question] = answer()
        return cast("T", self._answers[question])

    def has_prefix(self, prefix: str) -> bool:
        """Whether the name of some tensor begins like this."""
        names = self.once("names", lambda: sorted(self._by_name))
        place = bisect_left(names, prefix)
        return place < len(names) and names[place].startswith(prefix)

    def part(self, prefix: str = "") -> Part:
        """The tensors below a prefix in figures."""
        return self.once(
            f"part {prefix}",
            lambda: _part({n: t for n, t in self._by_name.items() if n.startswith(prefix)} if prefix else self),
        )

    def precision(self, prefix: str = "") -> str:
        """How the weights below a prefix are kept: "fp32", "fp16", "bf16", "fp8_e4m3fn", "fp8_e5m2", ...

        What most of the parameters are kept in counts. "fp8_scaled" has scales beside its fp8 weights, "nf4" is
        bitsandbytes' four bits; "" where there are no tensors.
        """
        return self.part(prefix).precision

    def parameters(self, prefix: str = "") -> int:
        """How many numbers the tensors below a prefix hold."""
        return self.part(prefix).parameters

    def count(self, prefix: str, suffix: str) -> int:
        """How many tensors `<prefix>N<suffix>` there are, from 0 on without a gap: the number of blocks."""
        number = 0
        while f"{prefix}{number}{suffix}" in self._by_name:
            number += 1
        return number


class Part(NamedTuple):
    """What some tensors of a file are together."""

    precision: str
    """How most of their numbers are kept."""
    others: tuple[str, ...]
    """How the rest is kept, the most frequent first."""
    parameters: int


def _part(tensors: Mapping[str, Tensor]) -> Part:
    amounts: dict[str, int] = {}
    for tensor, times in Counter(tensors.values()).items():
        amounts[tensor.dtype] = amounts.get(tensor.dtype, 0) + times * tensor.parameters
    if not amounts:
        return Part("", (), 0)
    first, *rest = sorted(amounts, key=lambda name: (amounts[name], name), reverse=True)
    precision = _word(first)
    if first in {"U8", "I8"} and any(name.endswith(_BITSANDBYTES) for name in tensors):
        precision = "nf4"
    elif first.startswith("F8_") and any(name.endswith(_FP8_SCALES) for name in tensors):
        precision = "fp8_scaled"
    return Part(precision, tuple(map(_word, rest)), sum(amounts.values()))


def _word(dtype: str) -> str:
    return _PRECISIONS.get(dtype) or printable(dtype.lower())


def _as_tensors(tensors: Mapping[str, Tensor]) -> Tensors:
    return tensors if isinstance(tensors, Tensors) else Tensors(tensors)


@frozen(kw_only=True)
class Header:
    """A model file as its header tells it.

    `size` is the bytes on disk. `metadata` holds the shorter texts of the file's own metadata. `problems` say why the
    file cannot be used by anybody: it is truncated, damaged, a pickle. A set of shards is one header: `path` is the
    first one, `parts` are all of them. So is a folder in diffusers' form, of the format "diffusers": see `pipelines`.
    """

    path: Path = field(converter=Path)
    size: int
    format: Format = "safetensors"
    tensors: Tensors = field(factory=Tensors, converter=_as_tensors)
    metadata: Mapping[str, str] = field(factory=FrozenDict, converter=FrozenDict)
    problems: tuple[Problem, ...] = ()
    parts: tuple[Path, ...] = ()
    link: str = ""
    """What the path says where it is a symbolic link."""

    @property
    def precision(self) -> str:
        """How most of the weights are kept: see `Tensors.precision`; "gguf_q8_0" and the like for GGUF."""
        if self.format == "gguf":
            return (
                f"gguf_{self.metadata['general.file_type'].lower()}" if "general.file_type" in self.metadata else "gguf"
            )
        return self.tensors.precision()


class Layout(NamedTuple):
    """What the tensors' part of a header says; the same for all files of one structure."""

    tensors: Tensors
    size: int
    """The bytes of all tensors."""


class _Refused(Exception):
    """The header cannot be relied on. The code is the problem's."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code)
        self.code = code
        self.params = params


def read_header(path: str | Path, layouts: dict[bytes, Layout] | None = None) -> Header:
    """Read what a file's header says. Never raises for what is wrong with a file: that is in `problems`.

    Headers of one structure that share `layouts` (by digest) share their tensors, and only the first is decoded.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        return _with_problem(path, 0, "unknown", "model_unreadable", why=error.strerror or str(error))
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep us waiting
        return _with_problem(path, 0, "unknown", "model_unreadable", why="not a file")
    if path.suffix.lower() in PICKLES:
        return _with_problem(path, size, "pickle", "model_pickle")
    try:
        # Unbuffered: not a byte more is read than asked for.
        with path.open("rb", buffering=0) as file:
            header = _read_open(path, size, file, {} if layouts is None else layouts)
    except OSError as error:
        return _with_problem(path, size, "unknown", "model_unreadable", why=error.strerror or str(error))
    return _unfinished(header) if path.suffix.lower() in UNFINISHED or _exists(f"{path}{_ARIA2}") else header


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - a thousand Path objects take time


def _unfinished(header: Header) -> Header:
    """Of a download that has not ended; what else is wrong with it follows from that."""
    missing = next((p.params["missing"] for p in header.problems if "missing" in p.params), None)
    return attrs.evolve(header, problems=(file_problem(header.path, "model_unfinished", missing=missing),))


def _read_open(path: Path, size: int, file: Any, layouts: dict[bytes, Layout]) -> Header:
    start = file.read(8)
    if len(start) < 8:
        return _with_problem(path, size, "unknown", "model_empty" if not start else "model_not_safetensors")
    if start[:4] == b"GGUF":
        return _read_gguf(path, size, file)
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        code, kind = _what_else(start)
        return _with_problem(path, size, kind, code, length=length, limit=MAX_HEADER)
    raw = _read_exactly(file, length)
    if len(raw) < length:
        return _with_problem(path, size, "safetensors", "model_truncated", size=size)
    try:
        layout, metadata = parse_header(raw, layouts)
    except _Refused as refused:
        return _with_problem(path, size, "safetensors", refused.code, **refused.params)
    expected = 8 + length + layout.size
    problems = []
    if size < expected:
        missing = expected - size
        problems.append(file_problem(path, "model_truncated", size=size, expected=expected, missing=missing))
    elif size > expected:
        problems.append(file_problem(path, "model_oversized", size=size, expected=expected, extra=size - expected))
    return Header(
        path=path, size=size, tensors=layout.tensors, metadata=metadata, problems=tuple(problems), link=_link(path)
    )


def _link(path: Path) -> str:
    try:
        return os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115 - as text, "./" and all
    except OSError:
        return ""


def _read_exactly(file: Any, length: int) -> bytes:
    """Up to that many bytes; network drives give them in pieces."""
    pieces = []
    while length > 0:
        piece = file.read(length)
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def file_problem(path: Path, code: str, severity: Severity = "error", **params: Any) -> Problem:
    """A problem of a file, for texts that name it."""
    return Problem(code, {"path": printable(str(path)), "name": printable(path.name), **params}, severity)


def printable(text: str) -> str:
    """A name from a file or a disk, so that it can be shown anywhere: no control characters, no broken Unicode."""
    return (text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)) or "?"


def _with_problem(path: Path, size: int, kind: Format, code: str, /, **params: Any) -> Header:
    return Header(path=path, size=size, format=kind, problems=(file_problem(path, code, **params),))


def _what_else(start: bytes) -> tuple[str, Format]:
    """What a file is whose first 8 bytes make no sensible length."""
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "model_pickle", "pickle"
    if start.startswith(b"version "):  # "version https://git-lfs.github.com/spec/v1"
        return "model_lfs_pointer", "unknown"
    if start.lstrip().startswith(b"<"):
        return "model_web_page", "unknown"
    return "model_header_too_large", "safetensors"


def _read_gguf(path: Path, size: int, file: Any) -> Header:
    try:
        metadata = read_gguf(file.read(4096))
    except GgufError:
        metadata = {}
    problem = file_problem(path, "model_gguf")
    return Header(path=path, size=size, format="gguf", metadata=metadata, problems=(problem,))


# ---- the JSON text --------------------------------------------------------------------------------------------------


def parse_header(raw: bytes, layouts: dict[bytes, Layout]) -> tuple[Layout, dict[str, str]]:
    """The tensors and the short texts of the metadata; raises `_Refused` for what a safetensors file may not say."""
    if len(raw) > HARMLESS and _values(raw) > MAX_VALUES:
        raise _Refused("model_header_too_large", length=len(raw), limit=MAX_HEADER)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _Refused("model_header_not_utf8", where=error.start) from None
    try:
        return _parse_text(text, layouts)
    except RecursionError:
        raise _Refused("model_header_too_deep") from None
    except ValueError:
        raise _Refused("model_header_not_json") from None


def _values(raw: bytes) -> int:
    quotes = raw.count(b'"') - raw.count(b'\\"')
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{") + quotes // 2


def _parse_text(text: str, layouts: dict[bytes, Layout]) -> tuple[Layout, dict[str, str]]:
    import json

    # Where the metadata come first, as they mostly do, what is behind them is the same for all files of a structure.
    metadata: dict[str, str] = {}
    rest = f",{text[1:]}" if text.startswith('{"') else text
    if text.startswith(_METADATA):
        start = len(_METADATA)
        while text[start : start + 1] in {" ", "\n", "\t", "\r"}:
            start += 1
        found, end = json.JSONDecoder(object_pairs_hook=_unique).raw_decode(text, start)
        metadata = _short_texts(found)
        rest = text[end:]
    rest = rest.rstrip(_SPACE)
    digest = sha256(rest.encode()).digest()
    layout = layouts.get(digest)
    if layout is None:
        layout = _plain_layout(rest) if text.startswith('{"') else None
        if layout is not None:
            return layouts.setdefault(digest, layout), metadata
        layout, metadata, shared = _parse_all(text, metadata)
        if shared:
            layout = layouts.setdefault(digest, layout)
    return layout, metadata


def _plain_layout(rest: str) -> Layout | None:
    """The tensors of a header that is written as nearly all are, from what stands behind the metadata: each entry as
    `,"name":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}`, compact or with the spaces of Python's `json`, in
    the order of their bytes.

    Cut at the quotes, such a text repeats itself every ten pieces, and the offsets follow from the shapes; so comparing
    is all there is to do, in the time that `json` takes to decode it. None for any other text: whether that is right,
    `json` and `_layout` tell.
    """
    if rest == "}":
        return Layout(Tensors(), 0)
    pieces = rest.split('"')
    space = " " if pieces[2:3] == [": {"] else ""
    colon, comma = f":{space}", f",{space}"
    names, dtypes, shapes, offsets = pieces[1::10], pieces[5::10], pieces[8::10], pieces[10::10]
    kept = [pieces[place::10] for place in (2, 3, 4, 6, 7, 9)]
    same = (f"{colon}{{", "dtype", colon, comma, "shape", "data_offsets")
    if len(pieces) % 10 != 1 or len(pieces) == 1 or pieces[0] not in {",", comma}:
        return None
    if any(part.count(text) != len(names) for part, text in zip(kept, same, strict=True)) or not _plain_names(names):
        return None
    if len(set(names)) < len(names):
        _unique([(name, None) for name in names])
    keys = list(zip(dtypes, shapes, strict=True))
    try:
        kinds = {key: _plain_kind(*key, colon, comma) for key in set(keys)}
    except ValueError:
        return None
    found = list(map(kinds.__getitem__, keys))
    ends = list(map(str, accumulate([size for _, size in found])))
    if not offsets[-1].endswith("]}}"):
        return None
    offsets[-1] = offsets[-1][:-1] + comma  # as all the others
    if offsets != [f"{colon}[{begin}{comma}{end}]}}{comma}" for begin, end in zip(("0", *ends), ends, strict=False)]:
        return None
    return Layout(Tensors(dict(zip(names, [tensor for tensor, _ in found], strict=True))), int(ends[-1]))


def _plain_names(names: list[str]) -> bool:
    """Whether these texts say what stands between their quotes: no escapes, no control characters."""
    joined = "".join(names).encode()
    return b"\\" not in joined and len(joined.translate(None, _CONTROL)) == len(joined) and "__metadata__" not in names


@lru_cache(4096)  # models of one kind have their shapes in common
def _plain_kind(dtype: str, shape: str, colon: str, comma: str) -> tuple[Tensor, int]:
    """The same as `_kind` for a text like `:[2,3],`; raises `ValueError` for any other and for an unknown dtype."""
    if shape.count(",") > MAX_SIDES:
        raise ValueError(dtype)
    inner = shape.removeprefix(f"{colon}[").removesuffix(f"],{comma[1:]}")
    sides = tuple(map(int, inner.split(comma))) if inner else ()
    if shape != f"{colon}[{comma.join(map(str, sides))}]{comma}":
        raise ValueError(shape)
    tensor, size = _kind(dtype, sides)
    if size is None:
        raise ValueError(dtype)
    return tensor, size


def _parse_all(text: str, metadata: dict[str, str]) -> tuple[Layout, dict[str, str], bool]:
    """The same without what is known already, and whether the tensors stand behind the metadata that were given."""
    import json

    entries = json.loads(text)
    if not isinstance(entries, dict):
        raise _Refused("model_header_not_json")
    # Five texts for a tensor: its name, "dtype" and what that is, "shape", "data_offsets".
    texts = 5 * (len(entries) - ("__metadata__" in entries))
    shared = True
    if "__metadata__" in entries:
        found = entries.pop("__metadata__")
        shared = text.startswith(_METADATA)
        metadata = _short_texts(found)
        texts += 1 + 2 * len(found)
    layout = _layout(entries)
    _refuse_duplicates(text, 2 * texts)
    return layout, metadata, shared


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused("model_header_duplicate", key=printable(key[:100]))
            seen.add(key)
    return unique


def _refuse_duplicates(text: str, expected: int) -> None:
    """Refuse a key that stands twice, which `json` passes over in silence.

    Where there are as many quotes as there should be, there is none. Counting costs a hundredth of looking at each key.
    """
    import json

    plain = text.replace("\\\\", "") if "\\" in text else text
    if plain.count('"') - plain.count('\\"') != expected:
        json.loads(text, object_pairs_hook=_unique)


def _short_texts(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Refused("model_header_invalid", entry="__metadata__")
    short = [(k, v) for k, v in metadata.items() if len(v) <= MAX_METADATA_TEXT and len(k) <= MAX_METADATA_TEXT]
    return {printable(key): printable(value) for key, value in short[:MAX_METADATA_ENTRIES]}


def _layout(entries: dict[str, Any]) -> Layout:
    """Check the tensors' entries as safetensors does: their bytes lie one behind the other, without a gap."""
    names = list(entries)
    values = entries.values()
    try:
        keys = [(entry["dtype"], *entry["shape"]) for entry in values]
        spans = [(begin, end) for begin, end in [entry["data_offsets"] for entry in values]]
        kinds = {key: _kind(key[0], key[1:]) for key in dict.fromkeys(keys)}
    except (LookupError, TypeError, ValueError):
        raise _Refused("model_header_invalid", entry=_senseless(entries)) from None
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    if {*map(type, begins), *map(type, ends)} - {int}:
        raise _Refused("model_header_invalid", entry="data_offsets")
    found = [kinds[key] for key in keys]
    if begins[1:] != ends[:-1]:  # the bytes are in another order than the names, or something is wrong
        order = sorted(range(len(spans)), key=spans.__getitem__)
        names, found, spans = [names[i] for i in order], [found[i] for i in order], [spans[i] for i in order]
    # Each begins where the one before it ended, and is as long as its dtype and shape say.
    position = 0
    for (begin, end), (_, size) in zip(spans, found, strict=True):
        if begin != position or end < begin or (size is not None and size != end - begin):
            name = names[spans.index((begin, end))]
            raise _Refused("model_header_offsets", entry=printable(name[:100]))
        position = end
    return Layout(Tensors(dict(zip(names, [tensor for tensor, _ in found], strict=True))), position)


def _senseless(entries: dict[str, Any]) -> str:
    """The name of the first entry that is no tensor."""
    for name, entry in entries.items():
        try:
            _kind(entry["dtype"], tuple(entry["shape"]))
            _, _ = entry["data_offsets"]
        except (LookupError, TypeError, ValueError):
            return printable(name[:100])
    return "data_offsets"


def _kind(dtype: object, shape: tuple[object, ...]) -> tuple[Tensor, int | None]:
    """A tensor, and its bytes where the dtype is known; raises `ValueError` for what is none."""
    if len(shape) > MAX_SIDES or not isinstance(dtype, str) or len(dtype) > 20:
        raise ValueError
    sides = [side for side in shape if type(side) is int and 0 <= side < 2**63]
    if len(sides) != len(shape):
        raise ValueError
    tensor = Tensor(dtype, tuple(sides))
    bits = BITS.get(dtype)
    return tensor, None if bits is None else (bits * tensor.parameters + 7) // 8
