"""Models in diffusers' form: a folder with a `model_index.json`, and in it a folder for each part.

sd-scripts takes such a folder for some models and not for others; its files are of use as a whole only. One header
stands for it: names have the part's folder before them ("unet/conv_in.weight"), and the name of the pipeline's class is
in the metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

from cinderlora.models.folders import FoundFile
from cinderlora.models.headers import Header, Tensors, file_problem, printable

__all__ = ["CLASS_NAME", "Pipeline", "joined", "read_pipeline"]

CLASS_NAME = "_class_name"

MAX_INDEX = 65_536
"""Bytes. Real ones have less than a thousand."""

# What diffusers and transformers look for where no variant is asked for, in one file or in shards.
_PLAIN = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors")


@frozen
class Pipeline:
    """What a `model_index.json` says."""

    folder: Path
    class_name: str
    parts: frozenset[str]
    """The names of the parts' folders, whether they are there or not."""


def read_pipeline(index: str | Path) -> Pipeline | None:
    """Read a `model_index.json`; None for what is none."""
    import json

    index = Path(index)
    try:
        with index.open("rb") as file:
            said = json.loads(file.read(MAX_INDEX))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get(CLASS_NAME), str):
        return None
    parts = {name for name, value in said.items() if isinstance(value, list) and len(value) == 2 and all(value)}
    return Pipeline(index.parent, printable(said[CLASS_NAME][:100]), frozenset(parts))


def weights(files: Iterable[FoundFile]) -> list[FoundFile]:
    """Of the files in the parts' folders those that would be loaded; of several variants (fp16, EMA) the plain one."""
    by_part: dict[Path, list[FoundFile]] = {}
    for file in files:
        if file.path.endswith(".safetensors"):
            by_part.setdefault(Path(file.path).parent, []).append(file)
    chosen: list[FoundFile] = []
    for found in by_part.values():
        plain = [file for file in found if _PLAIN.fullmatch(Path(file.path).name)]
        single = [file for file in plain if "-of-" not in Path(file.path).name]
        chosen += single or plain or found[:1]
    return chosen


def joined(pipeline: Pipeline, headers: Sequence[Header]) -> Header:
    """The one header of a pipeline's weights."""
    problems = [problem for header in headers for problem in header.problems]
    other = [header.path.name for header in headers if not _PLAIN.fullmatch(header.path.name)]
    if not headers:
        problems.append(file_problem(pipeline.folder, "model_no_weights"))
    elif other:
        problems.append(file_problem(pipeline.folder, "model_weights_variant", "warning", files=other))
    return Header(
        path=pipeline.folder,
        size=sum(header.size for header in headers),
        format="diffusers",
        tensors=Tensors(
            {f"{header.path.parent.name}/{name}": t for header in headers for name, t in header.tensors.items()}
        ),
        metadata={CLASS_NAME: pipeline.class_name},
        problems=tuple(problems),
        parts=tuple(header.path for header in headers),
    )
