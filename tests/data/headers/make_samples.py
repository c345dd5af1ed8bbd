"""Writes `src/cinderlora/testing/sample_headers.txt` from the headers in this folder: python make_samples.py

A line is a name and a shape; `{0-18}` and `{key,query}` in a name stand for several, as in a shell.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent.parent.parent / "src/cinderlora/testing/sample_headers.txt"
KINDS = (
    "flux_dev", "flux_schnell", "chroma", "lumina2", "sdxl_base", "sd3_medium", "sd35_medium",
    "clip_l", "clip_g", "t5xxl", "gemma2_2b", "flux_ae", "sdxl_vae",
)  # fmt: skip
_NUMBER = re.compile(r"(?<=[._])[0-9]+(?=[._]|$)")

Numbers = tuple[int, ...]


def text() -> str:
    """The whole file."""
    parts = []
    for kind in KINDS:
        found = json.loads(gzip.decompress((HERE / f"{kind}.json.gz").read_bytes()))["tensors"]
        parts.append("\n".join([f"[{kind}]", *_lines(found)]))
    return "\n\n".join(parts) + "\n"


def _lines(tensors: dict[str, list[int]]) -> Iterator[str]:
    alike: dict[tuple[str, str], set[Numbers]] = {}
    for name, shape in tensors.items():
        key = (_NUMBER.sub("#", name), " ".join(map(str, shape)))
        alike.setdefault(key, set()).add(tuple(map(int, _NUMBER.findall(name))))
    for (pattern, shape), numbers in alike.items():
        for product in _products(numbers):
            yield f"{_filled(pattern, product)} {shape}".rstrip()


def _products(numbers: Iterable[Numbers]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The tuples as few products of sets."""
    by_rest: dict[frozenset[Numbers], list[int]] = {}
    tuples = sorted(numbers)
    if tuples == [()]:
        yield ()
        return
    for first, group in groupby(tuples, key=lambda entry: entry[0]):
        by_rest.setdefault(frozenset(entry[1:] for entry in group), []).append(first)
    for rest, firsts in by_rest.items():
        for product in _products(rest):
            yield (tuple(firsts), *product)


def _filled(pattern: str, product: Iterable[tuple[int, ...]]) -> str:
    for numbers in product:
        first, last = numbers[0], numbers[-1]
        if len(numbers) == 1:
            said = str(first)
        elif len(numbers) > 2 and numbers == tuple(range(first, last + 1)):
            said = f"{{{first}-{last}}}"
        else:
            said = "{" + ",".join(map(str, numbers)) + "}"
        pattern = pattern.replace("#", said, 1)
    return pattern


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8", newline="\n")
