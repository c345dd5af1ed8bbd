"""The numbers in TensorBoard's event files, read without TensorBoard.

A file is records: length (8 bytes), the length's checksum, the data, the data's checksum; little-endian. The checksums
are "masked" CRC-32C (tensorflow/core/lib/io/record_writer.h). The data is a protobuf `Event` (tensorflow/core/util/
event.proto), of which three fields count: step (2, varint) and summary (5), in that the values (1) with tag (1) and
simple_value (2, a float). That is how torch.utils.tensorboard and tensorboardX write numbers: seen on files that
sd-scripts 0.10.1 wrote with torch 2.8.

The length's checksum is held against it, since a wrong length leads astray. The data's is not: in Python that takes a
hundred times as long as reading, and data that is no event is passed over anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO, NamedTuple

__all__ = ["Scalar", "scalars"]

_RECORD_LIMIT = 1 << 20  # bytes: a number takes some sixty; pictures and histograms, which are larger, are skipped
_FILE_LIMIT = 1 << 28  # bytes; a million steps with four numbers each take 200 million
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Scalar(NamedTuple):
    """One number that was logged."""

    tag: str
    step: int
    value: float


def scalars(file: BinaryIO) -> Iterator[Scalar]:
    """The numbers in an event file, to its end or to where it is damaged or cut off; never raises for its content."""
    at = 0
    while at < _FILE_LIMIT:
        head = file.read(12)
        if len(head) < 12 or masked_crc(head[:8]) != int.from_bytes(head[8:], "little"):
            return
        length = int.from_bytes(head[:8], "little")
        at += 12 + length + 4
        if length > _RECORD_LIMIT:
            if at >= _FILE_LIMIT:
                return
            file.seek(length + 4, 1)
            continue
        data = file.read(length + 4)
        if len(data) < length + 4:
            return
        yield from _of_event(data[:length])


def _of_event(data: bytes) -> Iterator[Scalar]:
    """The numbers in one event; none where it is damaged."""
    try:
        fields = list(_fields(data))
    except ValueError:
        return
    step = 0
    for number, value in fields:
        if number == 2 and isinstance(value, int):
            step = value if value < 1 << 63 else value - (1 << 64)
    for number, value in fields:
        if number == 5 and isinstance(value, bytes):
            yield from _of_summary(value, step)


def _of_summary(data: bytes, step: int) -> Iterator[Scalar]:
    try:
        values = [value for number, value in _fields(data) if number == 1 and isinstance(value, bytes)]
        for value in values:
            tag, simple = "", None
            for number, item in _fields(value):
                if number == 1 and isinstance(item, bytes):
                    tag = item.decode("utf-8")
                elif number == 2 and isinstance(item, float):
                    simple = item
            if tag and simple is not None:
                yield Scalar(tag, step, simple)
    except ValueError:  # UnicodeDecodeError is one
        return


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a protobuf message: (number, value); eight bytes are passed over. ValueError where it is none."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        length = 8 if kind == _FIXED64 else 4
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind not in (_FIXED64, _FIXED32):
            raise ValueError(f"field of kind {kind}")
        part = data[at : at + length]
        if len(part) != length:
            raise ValueError("cut off")
        at += length
        if kind == _BYTES:
            yield number, part
        elif kind == _FIXED32:
            yield number, struct.unpack("<f", part)[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise ValueError("no varint")


# ---- CRC-32C -------------------------------------------------------------------------------------------------------


def masked_crc(data: bytes) -> int:
    """TensorFlow's masked CRC-32C: rotated by 15 bits, plus a constant."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)
