"""The first facts of a GGUF file: which architecture it holds, and how it is quantised.

GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) begins with the magic "GGUF", a version, the numbers
of tensors and of metadata entries, and the entries, of which `general.*` come first. sd-scripts cannot load such
files; knowing what they are is for saying so.
"""

from __future__ import annotations

import struct

__all__ = ["GgufError", "read_gguf"]


class GgufError(ValueError):
    """This is no GGUF that can be read."""


# Value types with a fixed length, in bytes; 8 is text, 9 an array.
_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _TEXT = 4, 8

# general.file_type, the numbers of llama.cpp's llama_ftype.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


def read_gguf(after_magic: bytes) -> dict[str, str]:
    """`general.architecture` and `general.file_type` ("Q8_0") from the bytes that follow the first 8 of a file.

    A beginning is enough: reading stops where the bytes end, at the first list, or when both are known.
    """
    try:
        _, entries = struct.unpack_from("<QQ", after_magic)
    except struct.error as error:
        raise GgufError(str(error)) from None
    position = 16
    found: dict[str, str] = {}
    try:
        for _ in range(min(entries, 100)):
            key, position = _text(after_magic, position)
            (kind,) = struct.unpack_from("<I", after_magic, position)
            position += 4
            if kind == _TEXT:
                value, position = _text(after_magic, position)
                if key == "general.architecture":
                    found[key] = value
            elif kind in _FIXED:
                if key == "general.file_type" and kind == _UINT32:
                    (number,) = struct.unpack_from("<I", after_magic, position)
                    found[key] = _FILE_TYPES.get(number, str(number))
                position += _FIXED[kind]
            else:
                break
            if len(found) == 2:
                break
    except (struct.error, GgufError):
        pass  # what was found before counts
    return found


def _text(data: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, position)
    end = position + 8 + length
    if end > len(data):
        raise GgufError("the text goes on behind what was read")
    return data[position + 8 : end].decode("utf-8", "replace"), end
