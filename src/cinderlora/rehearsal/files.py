"""Writing and reading safetensors, with nothing but NumPy.

The format: eight bytes of little-endian header length, a JSON header padded with blanks to a multiple of eight, the
tensors' bytes (https://github.com/huggingface/safetensors#format).
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .encoders import Array

PRECISIONS: Mapping[str | None, str] = {None: "F32", "float": "F32", "fp16": "F16", "bf16": "BF16"}


def bfloat16(values: Array) -> NDArray[np.uint16]:
    """The upper halves of the float32 bit patterns, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _raw(values: Array, dtype: str) -> bytes:
    if dtype == "BF16":
        return bfloat16(values).tobytes()
    return values.astype(np.float16 if dtype == "F16" else np.float32).tobytes()


def pack(tensors: Mapping[str, Array], dtype: str) -> tuple[dict[str, object], bytes]:
    """The header's entries and the data of tensors stored as ``dtype`` (F32, F16, BF16)."""
    entries: dict[str, object] = {}
    data = bytearray()
    with np.errstate(over="ignore"):
        for name in sorted(tensors):
            raw = _raw(tensors[name], dtype)
            offsets = [len(data), len(data) + len(raw)]
            entries[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": offsets}
            data += raw
    return entries, bytes(data)


def write(path: Path, entries: Mapping[str, object], data: bytes, metadata: Mapping[str, str]) -> None:
    """Whole or not at all: into a temporary file beside it, then renamed."""
    header = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header + data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Array]:
    """The tensors of a file written here, as float32."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = content[start + begin : start + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, np.float16 if entry["dtype"] == "F16" else np.float32).astype(np.float32)
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def hashes(entries: Mapping[str, object], data: bytes) -> dict[str, str]:
    """``sshs_*`` as web UIs check them: of the data alone, and of one stretch of the whole file."""
    header = len(json.dumps(entries)) + 8
    stretch = data[max(0, 0x100000 - header) :][:0x10000]
    return {
        "sshs_model_hash": hashlib.sha256(data).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(stretch).hexdigest()[:8],
    }
