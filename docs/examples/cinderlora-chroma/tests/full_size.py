"""Write a Chroma of full size with random weights in FP8, 8.9 GB: python full_size.py chroma.safetensors

What it learns is of no use; that the real script loads it, trains on it and saves a LoRA is what it is for.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from cinderlora.testing import sample_header

ONE = b"\x38"  # 1.0 as F8_E4M3
SMALL = bytes((*range(13), *range(0x80, 0x8D)))  # up to 0.023, and their negatives


def main(path: Path) -> None:
    noise = bytes(random.Random(1).choices(SMALL, k=1 << 22))  # noqa: S311
    header, end = {}, 0
    for name, tensor in sample_header("chroma").tensors.items():
        header[name] = {"dtype": "F8_E4M3", "shape": tensor.shape, "data_offsets": [end, end + tensor.parameters]}
        end += tensor.parameters
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in header.items():
            count = entry["data_offsets"][1] - entry["data_offsets"][0]
            one_kind = None if len(entry["shape"]) > 1 else b"\0" if name.endswith("bias") else ONE
            while count > 0:
                file.write((noise if one_kind is None else one_kind * len(noise))[:count])
                count -= len(noise)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
