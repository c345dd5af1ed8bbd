"""Whether `scan_models` knows its own files, leaves others alone, and survives whatever lies in a folder."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import attrs

from cinderlora.adapter import Adapter
from cinderlora.models.headers import Header, Tensor, Tensors
from cinderlora.models.hollow import write_hollow
from cinderlora.testing.checking import Subject, calling, fail, skip
from cinderlora.testing.headers import FAMILIES, MODELS, PARTS, make_header, sample_header
from cinderlora.types import ModelFile

__all__ = ["damaged_headers_are_survived", "headers_of_its_own_are_claimed", "headers_of_others_are_left_alone"]


def headers_of_its_own_are_claimed(subject: Subject) -> None:
    adapter = _scanning(subject)
    if not subject.headers:
        skip("no headers are given: headers={'model': make_header({...}), ...}, or --header model=FILE")
    roles = {component.role for component in adapter.type.components}
    for role, headers in subject.headers.items():
        if role not in roles:
            fail(f"headers has the role {role!r}, which {adapter.name} has not; it has {', '.join(sorted(roles))}.")
        for header in headers:
            _claimed(subject, adapter, role, header)
    needed = {component.role for component in adapter.type.components if component.required and not component.bundled}
    missing = sorted(needed - set(subject.headers))
    if missing:
        skip(f"no headers are given for {', '.join(missing)}")


def _scanning(subject: Subject) -> Adapter:
    adapter = subject.adapter()
    if not subject.implementations(adapter, "scan_models"):
        skip("it has no scan_models: files are taken for what a person says they are")
    return adapter


def _claimed(subject: Subject, adapter: Adapter, role: str, header: Header) -> None:
    files = [file for file in _scan(subject, adapter, [header]) if file.role == role]
    if not files:
        fail(
            f"scan_models does not claim {header.path.name}, which is given as its {role!r}: yield a ModelFile with "
            f"role={role!r} for it. It has {_tensors(header)}."
        )
    file = files[0]
    errors = [problem for problem in file.problems if problem.severity == "error"]
    if errors:
        fail(f"scan_models claims {header.path.name} as {role!r} and says it cannot be used: {errors[0]}")
    for what, said, true in (("size", file.size, header.size), ("precision", file.precision, header.precision)):
        if said != true:
            fail(
                f"scan_models says that the {what} of {header.path.name} is {said!r}, its header says {true!r}: pass "
                "that on, or use cinderlora.models.components.model_file."
            )


def _tensors(header: Header) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in islice(header.tensors.items(), 3)]
    more = len(header.tensors) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "no tensors"


def _scan(subject: Subject, adapter: Adapter, headers: Sequence[Header]) -> list[ModelFile]:
    """What the plugin says of some headers; it is asked twice."""
    found: list[ModelFile] = []
    for implementation in subject.implementations(adapter, "scan_models"):
        what = headers[0].path.name if len(headers) == 1 else f"{len(headers)} headers"
        with calling("scan_models", what):
            found += implementation.call(files=tuple(headers)) or ()
            again = list(implementation.call(files=tuple(headers)) or ())
        if found[len(found) - len(again) :] != again:
            fail("scan_models says something else each time: let it depend on the headers alone.")
    paths = {path for header in headers for path in (header.path, *header.parts)}
    for file in found:
        if not isinstance(file, ModelFile):
            fail(f"scan_models gave {file!r}: yield cinderlora.ModelFile(...).")
        if file.path not in paths:
            fail(f"scan_models speaks of {file.path}, which it was not asked about: pass header.path on.")
        for problem in file.problems:
            if problem.message == problem.code:
                fail(f"The problem {problem.code!r} has no words: give it a message and a fix, or a known code.")
    return found


def headers_of_others_are_left_alone(subject: Subject) -> None:
    adapter = _scanning(subject)
    own = [frozenset(header.tensors) for headers in subject.headers.values() for header in headers]
    taken = {}
    for family, kinds in FAMILIES.items():
        samples = [sample_header(kind) for kind in kinds]
        if any(_alike(frozenset(sample.tensors), names) for sample in samples for names in own):
            continue
        claimed = [sample.path.stem for sample in samples if _as_model(subject, adapter, sample)]
        if claimed:
            taken[family] = claimed[0]
    # Without headers of its own, nobody knows which of the families is the one that it is for.
    if len(taken) > (0 if "model" in subject.headers else 1):
        fail(
            f"scan_models takes {', '.join(taken)} for its own model ({_try(taken.values())}). Look for a tensor that "
            "only your model has, and at its shape."
        )
    for kind in PARTS:
        if _as_model(subject, adapter, sample_header(kind)):
            fail(
                f"scan_models takes a {kind} for a model ({_try([kind])}). Look for a tensor that only your model has."
            )
    for header in subject.others:
        usable = [file for file in _scan(subject, adapter, [header]) if file.usable]
        if usable:
            fail(f"scan_models claims {header.path.name} as {usable[0].role!r}, which is given as another's.")


def _as_model(subject: Subject, adapter: Adapter, header: Header) -> bool:
    return any(file.role == "model" and file.usable for file in _scan(subject, adapter, [header]))


def _try(kinds: Iterable[str]) -> str:
    """Where the headers are to be had from."""
    return f"cinderlora.testing.sample_header of {', '.join(map(repr, kinds))}"


def _alike(names: frozenset[str], own: frozenset[str]) -> bool:
    """Whether two headers are of one family: they share most of their names."""
    return len(names & own) > 0.9 * min(len(names), len(own))


# ---- what comes out of broken downloads and other people's programs --------------------------------------------------


def damaged_headers_are_survived(subject: Subject) -> None:
    adapter = _scanning(subject)
    own = [header for headers in subject.headers.values() for header in headers]
    headers = [*own, *(sample_header(kind) for kind in (*MODELS, *PARTS))]
    for header in (*_strange(), *_mutilated(headers)):
        _scan(subject, adapter, [header])
    _scan(subject, adapter, headers)
    _scan(subject, adapter, [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, header in enumerate(own):
            write_hollow(folder / f"cut_off_{i}.safetensors", dict(header.tensors), missing=1)
        (folder / "empty.safetensors").write_bytes(b"")
        (folder / "short.safetensors").write_bytes(b"\xff" * 8)
        (folder / "nothing.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        (folder / "page.safetensors").write_text("<html>404</html>", encoding="utf-8")
        for file in adapter.scan_models(folder).files:
            if file.usable:
                fail(
                    f"scan_models takes {file.path.name}, which has nothing of a model in it, for {file.role!r}. "
                    "Claim what has your tensors in header.tensors, and nothing else."
                )


def _strange() -> Iterator[Header]:
    """Headers that no model has."""
    wild = [
        "",
        ".",
        "..",
        "blocks.",
        "blocks.x.weight",
        "blocks.-1.weight",
        "\x1b[31m",
        "ü" * 300,
        "a" * 5000,
        "weight",
    ]
    shapes: list[tuple[int, ...]] = [(), (0,), (1,), (0, 0), (1 << 40, 1 << 20), (1,) * 12, (3, 3), (4096,)]
    yield make_header({}, "nothing.safetensors")
    yield make_header({}, "text only.safetensors", metadata={"modelspec.architecture": "\0", "": "x"})
    for shape in shapes:
        yield make_header(dict.fromkeys(wild, shape), f"strange {shape}.safetensors")
    yield make_header({name: Tensor("WHAT", (2, 2)) for name in wild}, "unknown dtype.safetensors")
    yield attrs.evolve(make_header({"a": (1,)}, "a.gguf"), format="gguf", metadata={"general.architecture": "ü"})
    yield attrs.evolve(make_header({"unet/a": (1,)}, "folder"), format="diffusers", parts=(Path("folder/unet/a.sft"),))
    yield attrs.evolve(make_header({}, "old.ckpt"), format="pickle")


_CHANGES: tuple[Callable[[tuple[int, ...]], tuple[int, ...]], ...] = (
    lambda shape: (),
    lambda shape: (0, *shape[1:]),
    lambda shape: shape[::-1],
    lambda shape: (*shape, 1),
)


def _mutilated(headers: Sequence[Header]) -> Iterator[Header]:
    """Real headers with a part missing, other shapes, or other kinds of numbers."""
    chance = random.Random(48)  # noqa: S311
    for header in headers:
        names = list(header.tensors)
        for share in (0.02, 0.3, 0.9):
            kept = {name: header.tensors[name] for name in names if chance.random() < share}
            yield attrs.evolve(header, tensors=Tensors(kept))
        for change in _CHANGES:
            changed = {n: Tensor(t.dtype, change(t.shape)) for n, t in header.tensors.items()}
            yield attrs.evolve(header, tensors=Tensors(changed))
        for dtype in ("U8", "F8_E5M2", "I4"):
            changed = {n: Tensor(dtype, t.shape) for n, t in header.tensors.items()}
            yield attrs.evolve(header, tensors=Tensors(changed))
        for prefix in ("model.diffusion_model.", "transformer/", "module."):
            yield attrs.evolve(header, tensors=Tensors({prefix + n: t for n, t in header.tensors.items()}))
