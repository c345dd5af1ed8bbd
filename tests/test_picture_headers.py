"""What a picture's header says: real files of every format, and damaged ones."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cinderlora.dataset.headers import read_header

FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF"]


def encoded(kind: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


@given(
    kind=st.sampled_from(FORMATS),
    mode=st.sampled_from(["RGB", "RGBA", "L", "P"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    lossless=st.booleans(),
)
def test_a_header_says_what_pillow_says(kind: str, mode: str, size: tuple[int, int], lossless: bool) -> None:
    mode = "RGB" if kind == "JPEG" else mode
    options = {"lossless": lossless} if kind == "WEBP" else {}
    content = encoded(kind, size, mode, **options)
    header = read_header(io.BytesIO(content))
    assert header is not None
    assert (header.format, header.width, header.height, header.rotated) == (kind, *size, False)
    one_less = content[12:16] == b"VP8X"
    assert header.seen == (size[0] - one_less, size[1] - one_less)


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
def test_a_damaged_header_raises_nothing(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(kind, (40, 30)))
    for place in data.draw(st.lists(st.integers(0, min(len(content), 700) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    header = read_header(io.BytesIO(bytes(content[:end])))
    assert header is None or min(header.width, header.height) > 0


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF____WEBP", b"BM", b"GIF89a"]),
)
def test_rubbish_raises_nothing(rubbish: bytes, start: bytes) -> None:
    header = read_header(io.BytesIO(start + rubbish))
    assert header is None or min(header.width, header.height) > 0


def test_a_progressive_jpeg_with_much_before_its_size() -> None:
    plain = encoded("JPEG", (123, 45), progressive=True)
    # By hand: not every version of Pillow writes that much before a progressive picture.
    exif = b"\xff\xe1" + (60_008).to_bytes(2, "big") + b"Exif\0\0" + bytes(60_000)
    comment = b"\xff\xfe" + (60_002).to_bytes(2, "big") + b"x" * 60_000
    content = plain[:2] + exif + comment + plain[2:]
    filled = content[:2] + b"\xff\xff" + content[2:]  # fill bytes before a marker
    for file in (content, filled):
        header = read_header(io.BytesIO(file))
        assert header is not None
        assert (header.width, header.height) == (123, 45)


def test_a_jpeg_of_empty_segments_ends() -> None:
    assert read_header(io.BytesIO(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000)) is None


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    header = read_header(io.BytesIO(encoded("JPEG", (20, 10), exif=exif)))
    assert header is not None
    assert header.rotated is (2 <= orientation <= 8)
    assert (header.width, header.height) == (20, 10)


@given(st.binary(max_size=60))
def test_a_damaged_exif_block_is_no_rotation(rubbish: bytes) -> None:
    block = b"Exif\0\0II*\0" + rubbish
    file = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + encoded("JPEG", (20, 10))[2:]
    header = read_header(io.BytesIO(file))
    assert header is not None
    assert (header.width, header.height) == (20, 10)


def test_a_bitmap_stored_from_the_top_and_an_old_one() -> None:
    newer = b"BM" + bytes(12) + struct.pack("<Iii", 40, 30, -20) + bytes(20)
    older = b"BM" + bytes(12) + struct.pack("<IHH", 12, 30, 20) + bytes(20)
    for file in (newer, older):
        header = read_header(io.BytesIO(file))
        assert header is not None
        assert (header.width, header.height) == (30, 20)
