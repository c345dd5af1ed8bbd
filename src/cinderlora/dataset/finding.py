"""One thing that is wrong with some pictures of a data set: a problem for people, a mark on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from cinderlora.dataset.data import Dataset, Picture, Subset
from cinderlora.problems import Problem, Severity

__all__ = ["Finding", "as_problems", "marked"]

NAMED = 5
"""How many files a problem names; `count` tells how many there are."""


@frozen
class Finding:
    """What is wrong, and with which pictures or other files; with none of them, it is nothing."""

    code: str
    pictures: Sequence[Picture] = ()
    files: Sequence[Path] = field(default=(), kw_only=True)
    """Files that are no pictures of the data set."""
    groups: Sequence[Sequence[Picture]] = field(default=(), kw_only=True)
    """Pictures that have it together, in place of `pictures`."""
    joint: str = field(default=" = ", kw_only=True)
    """What stands between the names of a group."""
    severity: Severity = field(default="warning", kw_only=True)
    params: Mapping[str, Any] = field(factory=dict, kw_only=True)
    changes: Mapping[str, Any] = field(factory=dict, kw_only=True)
    note: Callable[[Picture], str] = field(default=lambda _: "", kw_only=True)
    """What is said behind a picture's name, in brackets."""
    named: Callable[[Picture], Path] = field(default=lambda picture: picture.path, kw_only=True)
    """The file that is named for a picture."""


def as_problems(dataset: Dataset, findings: Iterable[Finding]) -> Iterator[Problem]:
    """One problem for all the files that have it, where there are any."""
    for finding in findings:
        names = [_name(dataset, finding, picture) for picture in finding.pictures]
        names += [dataset.shown(file) for file in finding.files]
        names += [finding.joint.join(_some([dataset.shown(p.path) for p in group])) for group in finding.groups]
        if names:
            params = {"names": _some(names), "count": len(names), **finding.params}
            if len(names) > NAMED:
                params["total"] = len(names)  # which the text says where not all are named
            yield Problem(finding.code, params, finding.severity, changes=finding.changes)


def marked(subsets: Iterable[Subset], findings: Iterable[Finding]) -> tuple[Subset, ...]:
    """The subsets, each picture with the codes of what was found of it."""
    codes: dict[Path, list[str]] = {}
    for finding in findings:
        for picture in (*finding.pictures, *(picture for group in finding.groups for picture in group)):
            codes.setdefault(picture.path, []).append(finding.code)
    if not codes:
        return tuple(subsets)
    return tuple(
        attrs.evolve(s, pictures=tuple(attrs.evolve(p, problems=tuple(codes.get(p.path, ()))) for p in s.pictures))
        for s in subsets
    )


def _name(dataset: Dataset, finding: Finding, picture: Picture) -> str:
    note = finding.note(picture)
    name = dataset.shown(finding.named(picture))
    return f"{name} ({note})" if note else name


def _some(names: Sequence[str]) -> tuple[str, ...]:
    return (*names[:NAMED], "…") if len(names) > NAMED else tuple(names)
