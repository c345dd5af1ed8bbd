"""The model files of a folder, as one model type sees them, and which of them go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs
from attrs import frozen

from cinderlora.models.cache import HeaderCache
from cinderlora.models.components import lora
from cinderlora.models.folders import FoundFile, Place, find_model_files
from cinderlora.models.headers import Header, Tensors, file_problem
from cinderlora.problems import Problem
from cinderlora.types import Component, ModelFile

__all__ = ["Claim", "ModelLibrary", "scan"]

Claim = Callable[[Sequence[Header]], Iterable[ModelFile]]
"""Says which of some headers are a model type's, and what each is: the hook `scan_models`."""

# Headers are handed out in batches, so that a folder of any size takes little memory.
_BATCH = 64

# FP8 files are half as large and are trained in FP8 anyway; of the rest, what the training computes in comes first.
_PREFERRED = ("fp8_e4m3fn", "bf16", "fp16", "fp32")


@frozen
class ModelLibrary:
    """The model files that were found, each with its role for one model type.

    `files` has all of them, those too that are nothing for this type (role "") or cannot be used (`problems`).
    `problems` are of folders and files that could not be looked at.
    """

    files: tuple[ModelFile, ...] = ()
    components: tuple[Component, ...] = ()
    problems: tuple[Problem, ...] = ()

    def of(self, role: str) -> tuple[ModelFile, ...]:
        """The files of a role: usable ones first, of these the ones without warnings, FP8, then by name."""
        return tuple(sorted((file for file in self.files if file.role == role), key=_rank))

    def defaults(self) -> dict[str, ModelFile]:
        """A set of files to train with, by role: the best model that all it needs is there for, and the best of those.

        What a model has inside is not added, nor is what a training can do without. Where no set is complete, it is
        the one that lacks least.
        """
        models = [file for file in self.of("model") if file.usable]
        sets = [self._set_for(model) for model in models] or [self._set_for(None)]
        return max(sets, key=lambda chosen: sum(self._served(chosen, c) for c in self.components))

    def _set_for(self, model: ModelFile | None) -> dict[str, ModelFile]:
        chosen = {} if model is None else {"model": model}
        for component in self.components:
            if component.role != "model" and component.required and not self._served(chosen, component):
                file = next((file for file in self.of(component.role) if file.usable), None)
                if file is not None:
                    chosen[component.role] = file
        return chosen

    @staticmethod
    def _served(chosen: dict[str, ModelFile], component: Component) -> bool:
        model = chosen.get("model")
        inside = component.bundled and model is not None and component.role in model.bundled
        return inside or component.role in chosen or not component.required


def _rank(file: ModelFile) -> tuple[bool, bool, int, str]:
    precision = _PREFERRED.index(file.precision) if file.precision in _PREFERRED else len(_PREFERRED)
    return (not file.usable, bool(file.problems), precision, str(file.path))


def scan(
    where: Place | Iterable[Place],
    claim: Claim,
    components: Iterable[Component] = (),
    *,
    cache: HeaderCache | None = None,
) -> ModelLibrary:
    """Find the model files in folders, or look at single files, and let a model type say what each one is.

    Only headers are read, and with a `cache` only of files that it does not know or that have changed. What is wrong
    with a file is in its `problems`, and nothing in a file or a folder makes this raise.
    """
    found, problems = find_model_files(where)
    cache = HeaderCache() if cache is None else cache
    files: list[ModelFile] = []
    for batch in _batches(found):
        headers = cache.read([file for unit in batch for file in unit])
        by_path = {str(header.path): header for header in headers}
        files += _claimed([_joined([by_path[file.path] for file in unit]) for unit in batch], claim)
    return ModelLibrary(tuple(files), tuple(components), tuple(problems))


def _claimed(headers: Sequence[Header], claim: Claim) -> Iterator[ModelFile]:
    """What was claimed, in the order of the headers, with the problems of the files themselves; then the rest."""
    claims: dict[Path, list[ModelFile]] = {}
    for file in claim(headers):
        claims.setdefault(file.path, []).append(file)
    for header in headers:
        for file in claims.get(header.path) or [_unclaimed(header)]:
            new = [problem for problem in header.problems if problem not in file.problems]
            yield attrs.evolve(file, problems=(*new, *file.problems)) if new else file


def _unclaimed(header: Header) -> ModelFile:
    file = lora(header) or ModelFile(path=header.path, precision=header.precision, size=header.size)
    if header.problems:
        return file
    code = "model_is_lora" if file.role == "lora" else "model_not_for_type"
    return attrs.evolve(file, problems=(*file.problems, file_problem(header.path, code, "warning")))


# ---- shards ---------------------------------------------------------------------------------------------------------

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.[a-z]+)")


def _batches(found: Sequence[FoundFile]) -> Iterator[list[list[FoundFile]]]:
    """The files in batches, those of a set of shards together."""
    units: dict[str, list[FoundFile]] = {}
    for file in found:
        shard = _SHARD.fullmatch(file.path)
        key = f"{shard['stem']}-of-{shard['total']}{shard['suffix']}" if shard else file.path
        units.setdefault(f"{'shards' if shard else 'file'}:{key}", []).append(file)
    whole = list(units.values())
    for start in range(0, len(whole), _BATCH):
        yield whole[start : start + _BATCH]


def _joined(headers: Sequence[Header]) -> Header:
    """The one header of a set of shards."""
    first = headers[0]
    shard = _SHARD.fullmatch(first.path.name)
    if shard is None:
        return first
    problems = [problem for header in headers for problem in header.problems]
    if len(headers) != int(shard["total"]):
        total = int(shard["total"])
        problems.append(file_problem(first.path, "model_shard_missing", found=len(headers), total=total))
    return attrs.evolve(
        first,
        size=sum(header.size for header in headers),
        tensors=Tensors({name: tensor for header in headers for name, tensor in header.tensors.items()}),
        metadata={key: value for header in headers for key, value in header.metadata.items()},
        problems=tuple(problems),
        parts=tuple(header.path for header in headers),
    )
