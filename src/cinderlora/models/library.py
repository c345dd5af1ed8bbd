"""The model files of a folder, as one model type sees them, and which of them go together."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from attrs import frozen

from cinderlora.models.cache import HeaderCache
from cinderlora.models.components import lora
from cinderlora.models.folders import INDEX, SHARD, FoundFile, Place, find_model_files
from cinderlora.models.headers import Header, Tensors, file_problem
from cinderlora.models.pipelines import Pipeline, joined, read_pipeline, weights
from cinderlora.models.zoo import what_is
from cinderlora.problems import Problem
from cinderlora.types import Component, ModelFile

__all__ = ["Claim", "Claimant", "ModelLibrary", "scan", "scan_for"]

Claim = Callable[[Sequence[Header]], Iterable[ModelFile]]
"""Says which of some headers are a model type's, and what each is: the hook `scan_models`."""

# Headers are handed out in batches, so that a folder of any size takes little memory.
_BATCH = 64

# FP8 files are half as large and are trained in FP8 anyway; of the rest, what the training computes in comes first.
_PREFERRED = ("fp8_e4m3fn", "bf16", "fp16", "fp32")
# Parts with fewer parameters (CLIP, VAEs) take little room in any precision, so there FP8 only costs some of it.
_LARGE = 1_000_000_000


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
        """The files of a role: usable ones first, of these the ones without warnings, then by precision (large ones in
        FP8, small ones in 16 bits), the ones with fewer other parts inside, and by name."""
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


def _rank(file: ModelFile) -> tuple[bool, bool, int, int, str]:
    precision = _PREFERRED.index(file.precision) if file.precision in _PREFERRED else len(_PREFERRED)
    if precision == 0 and file.parameters.get(file.role, _LARGE) < _LARGE:
        precision = len(_PREFERRED)
    return (not file.usable, bool(file.problems), precision, len(file.bundled), str(file.path))


@frozen
class Claimant:
    """A model type that is asked which files are its own."""

    claim: Claim
    components: tuple[Component, ...] = ()
    by: Hashable = None
    """Who claims: what the same one claimed before is remembered. The claim itself, where nobody is named."""

    @property
    def who(self) -> Hashable:
        return self.claim if self.by is None else self.by


def scan(
    where: Place | Iterable[Place],
    claim: Claim,
    components: Iterable[Component] = (),
    *,
    cache: HeaderCache | None = None,
    by: Hashable = None,
) -> ModelLibrary:
    """Find the model files in folders, or look at single files, and let a model type say what each one is.

    Only headers are read, and with a `cache` only of files that it does not know or that have changed; files that were
    claimed `by` the same before (the claim itself, where nobody is named) are not even claimed again. What is wrong
    with a file is in its `problems`, and nothing in a file or a folder makes this raise.
    """
    libraries, failed = scan_for(where, {"": Claimant(claim, tuple(components), by)}, cache=cache)
    for error in failed.values():
        raise error
    return libraries[""]


def scan_for(
    where: Place | Iterable[Place], claimants: Mapping[str, Claimant], *, cache: HeaderCache | None = None
) -> tuple[dict[str, ModelLibrary], dict[str, Exception]]:
    """The same for several model types, by their names; each header is read once, however many there are. What was
    raised by the claim of one is given behind the libraries of the others."""
    found, problems = find_model_files(where)
    cache = HeaderCache() if cache is None else cache
    units = _units(found)
    known = {
        name: {unit.key: cache.claimed((claimant.who, unit.key), unit.stamp) for unit in units}
        for name, claimant in claimants.items()
    }
    failed: dict[str, Exception] = {}
    for batch in _batches([unit for unit in units if any(files[unit.key] is None for files in known.values())]):
        headers = {str(header.path): header for header in cache.read([file for unit in batch for file in unit.files])}
        joint = {unit.key: unit.header([headers[file.path] for file in unit.files]) for unit in batch}
        for name, claimant in claimants.items():
            new = [unit for unit in batch if known[name][unit.key] is None]
            try:
                claims = list(_claimed([joint[unit.key] for unit in new], claimant.claim)) if name not in failed else ()
            except Exception as error:
                failed[name] = error
                continue
            for unit, claimed in zip(new, claims, strict=False):
                known[name][unit.key] = claimed
                cache.remember((claimant.who, unit.key), unit.stamp, claimed)
        if len(failed) == len(claimants):
            break
    libraries = {
        name: ModelLibrary(
            tuple(file for unit in units for file in known[name][unit.key] or ()), claimant.components, tuple(problems)
        )
        for name, claimant in claimants.items()
        if name not in failed
    }
    return libraries, failed


def _claimed(headers: Sequence[Header], claim: Claim) -> Iterator[tuple[ModelFile, ...]]:
    """For each header what was claimed of it, with the problems of the file itself; what it is where nothing was."""
    claims: dict[Path, list[ModelFile]] = {}
    for file in claim(headers):
        claims.setdefault(file.path, []).append(file)
    for header in headers:
        # Of a folder or of a set of shards, a part may be claimed instead of the whole.
        paths = dict.fromkeys((header.path, *header.parts))
        claimed = [file for path in paths for file in claims.get(path, ())]
        yield tuple(_with_problems(file, header) for file in claimed) or (_unclaimed(header),)


def _with_problems(file: ModelFile, header: Header) -> ModelFile:
    new = [problem for problem in header.problems if problem not in file.problems]
    return attrs.evolve(file, problems=(*new, *file.problems)) if new else file


def _unclaimed(header: Header) -> ModelFile:
    own = lora(header)
    if own is not None:
        file, code, what = own, "model_is_lora", ""
    else:
        code, what = "model_not_for_type", what_is(header)
        file = ModelFile(path=header.path, variant=what, precision=header.precision, size=header.size)
    problems = list(header.problems)
    if what or not problems:
        problems.append(file_problem(header.path, code, "warning", what=what))
    return attrs.evolve(file, problems=(*problems, *file.problems))


# ---- what belongs together ------------------------------------------------------------------------------------------


class _Unit:
    """The files that are one model: a single one, the shards of a set, the parts of a pipeline."""

    def __init__(self, key: str, pipeline: Pipeline | None = None, index: FoundFile | None = None) -> None:
        self.key = key
        self.pipeline = pipeline
        self.index = index
        self.files: list[FoundFile] = []

    @property
    def stamp(self) -> tuple[FoundFile | None, ...]:
        """What differs where something has changed."""
        return (self.index, *self.files)

    def header(self, headers: Sequence[Header]) -> Header:
        """The one header for those of its files."""
        return _joined(headers) if self.pipeline is None else joined(self.pipeline, headers)


def _units(found: Sequence[FoundFile]) -> list[_Unit]:
    units: dict[str, _Unit] = {}
    for file in found:
        folder, _, name = file.path.rpartition(os.sep)
        if name == INDEX:
            pipeline = read_pipeline(file.path)
            if pipeline is not None:
                key = f"pipeline:{folder}"
                units[key] = _Unit(key, pipeline, file)
            continue
        above, _, part = folder.rpartition(os.sep)
        whole = units.get(f"pipeline:{above}")
        if whole is not None and whole.pipeline is not None and part in whole.pipeline.parts:
            whole.files.append(file)
            continue
        shard = SHARD.fullmatch(file.path) if "-of-" in name else None
        key = f"shards:{shard['stem']}-of-{shard['total']}{shard['suffix']}" if shard else f"file:{file.path}"
        units.setdefault(key, _Unit(key)).files.append(file)
    for unit in units.values():
        if unit.pipeline is not None:
            unit.files = weights(unit.files)
    return list(units.values())


def _batches(units: Sequence[_Unit]) -> Iterator[Sequence[_Unit]]:
    for start in range(0, len(units), _BATCH):
        yield units[start : start + _BATCH]


def _joined(headers: Sequence[Header]) -> Header:
    """The one header of a set of shards."""
    first = headers[0]
    shard = SHARD.fullmatch(first.path.name)
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
