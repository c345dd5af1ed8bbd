"""Model files with a true header and nothing in them: for tests, benchmarks and adapter authors.

They are sparse, so that 24 GB of model take a few kB on most file systems.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cinderlora.models.headers import BITS, Tensor

__all__ = ["write_hollow"]


def write_hollow(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, missing: int = 0
) -> Path:  # fmt: skip
    """Write a safetensors file with these tensors, all zero, of the size that a real one has.

    `missing` bytes are left out at the end, as after a download that broke off.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + (tensor.parameters * BITS[tensor.dtype] + 7) // 8
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as safetensors does
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end - missing)
    return path
