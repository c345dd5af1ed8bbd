"""What is wrong with the pictures of a data set: by their headers, their bytes, and by decoding them."""

from __future__ import annotations

import io
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cinderlora.dataset import bucket_plan, inspect_dataset, size_problems
from cinderlora.dataset.alike import look_of
from cinderlora.demo import write_dataset

Draw = Callable[..., Path]


@pytest.fixture
def elena(tmp_path: Path, draw: Draw) -> Path:
    """A data set with nothing wrong."""
    for n in range(12):
        draw(tmp_path / "elena" / f"elena_{n:02}.png", (160, 160))
    return tmp_path / "elena"


def add(folder: Path, name: str, image: Image.Image, kind: str | None = None, **options: Any) -> Path:
    """A picture with a caption."""
    path = folder / name
    image.save(path, kind, **options)
    path.with_suffix(".txt").write_text("elena, one more")
    return path


def found(folder: Path, *, decode: bool = True) -> dict[str, tuple[str, ...]]:
    """What is wrong, by code, with the names."""
    problems = inspect_dataset(folder, trigger="elena", decode=decode).problems
    return {problem.code: problem.params.get("names", ()) for problem in problems}


def noise(size: tuple[int, int] = (160, 160), mode: str = "RGB") -> Image.Image:
    """A picture that looks like no other, and is large as a file."""
    dots = Image.frombytes("RGB", (8, 8), os.urandom(192)).resize(size, Image.Resampling.NEAREST)
    return Image.blend(dots, Image.effect_noise(size, 80).convert("RGB"), 0.2).convert(mode)


# ---- by the header ---------------------------------------------------------------------------------------------------


def test_a_picture_under_another_ending(elena: Path) -> None:
    add(elena, "really_jpeg.png", noise(), "JPEG")
    add(elena, "really_gif.jpg", noise(mode="L"), "GIF")
    dataset = inspect_dataset(elena, trigger="elena", decode=True)
    (problem,) = dataset.problems
    assert (problem.code, problem.severity) == ("image_mislabelled", "warning")
    assert problem.params["names"] == ("really_gif.jpg (GIF)", "really_jpeg.png (JPEG)")
    assert len(dataset.sizes) == 14


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_turned_by_exif_in_every_format(elena: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    add(elena, f"phone.{kind.lower()}", noise(), exif=exif)
    expected = {} if orientation == 1 else {"image_rotated": (f"phone.{kind.lower()}",)}
    assert found(elena, decode=False) == expected
    assert found(elena) == expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_pictures(elena: Path, kind: str) -> None:
    add(elena, f"moves.{kind.lower()}", noise(), save_all=True, append_images=[noise(), noise()])
    add(elena, f"still.{kind.lower()}", noise(), save_all=True)
    for decode in (False, True):
        assert found(elena, decode=decode) == {"image_animated": (f"moves.{kind.lower()}",)}


def test_a_cameras_picture_with_a_preview_is_not_animated(elena: Path) -> None:
    add(elena, "camera.jpg", noise(), "MPO", save_all=True, append_images=[noise((40, 40))])
    with Image.open(elena / "camera.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2
    assert found(elena) == {}


def test_greyscale_of_16_bits_turns_white(elena: Path) -> None:
    deep = Image.frombytes("I;16", (160, 160), os.urandom(160 * 160 * 2))
    path = add(elena, "deep.png", deep)
    add(elena, "shallow.png", noise(mode="L"))
    with Image.open(path) as image:
        white = sum(value == 255 for value in image.convert("RGB").tobytes()) / (3 * 160 * 160)
    assert white > 0.98
    assert found(elena, decode=False) == {"image_grey16": ("deep.png",)}


def test_a_picture_that_pillow_refuses(elena: Path) -> None:
    """A header is enough for that: 200 million pixels, and hardly a byte of them."""
    size = struct.pack(">II", 20_000, 10_000) + b"\x08\x02\0\0\0"
    chunk = b"IHDR" + size
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (elena / "bomb.png").write_bytes(content)
    (elena / "bomb.txt").write_text("elena")
    for decode in (False, True):
        dataset = inspect_dataset(elena, trigger="elena", decode=decode)
        assert [(p.code, p.severity, p.params["names"]) for p in dataset.problems] == [
            ("image_too_large", "error", ("bomb.png",))
        ]


# ---- by decoding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_pictures_that_end_too_early(elena: Path, kind: str) -> None:
    path = add(elena, f"cut.{kind.lower()}", noise())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert found(elena, decode=False) == {}
    dataset = inspect_dataset(elena, trigger="elena", decode=True)
    assert [(p.code, p.severity) for p in dataset.problems] == [("image_unreadable", "error")]
    assert {p.path.name: p.decoded for p in dataset.pictures}[path.name] is False
    assert len(dataset.sizes) == 12


def test_only_pixels_that_can_be_seen_through_count(elena: Path) -> None:
    opaque, clear = noise().convert("RGBA"), noise().convert("RGBA")
    clear.putpixel((3, 3), (9, 9, 9, 0))
    add(elena, "opaque.png", opaque)
    add(elena, "clear.png", clear)
    also = noise().convert("RGBA")
    also.putalpha(Image.linear_gradient("L").resize(also.size))
    add(elena, "soft.webp", also, lossless=True)
    palette = noise().quantize(200)
    add(elena, "palette.png", palette, transparency=palette.getpixel((0, 0)))
    add(elena, "unused.png", noise().quantize(200), transparency=255)
    quick = inspect_dataset(elena, trigger="elena")
    assert quick.problems == ()
    assert {p.path.name for p in quick.pictures if p.transparent is None} == {
        "opaque.png", "clear.png", "soft.webp", "palette.png", "unused.png",
    }  # fmt: skip
    assert found(elena) == {"image_transparent": ("clear.png", "palette.png", "soft.webp")}


def test_progress_is_told_for_each_picture_in_this_thread(elena: Path) -> None:
    told: list[tuple[int, int]] = []
    threads: set[int] = set()

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        threads.add(threading.get_ident())

    (elena / "bad.png").write_bytes(b"no picture")
    inspect_dataset(elena, decode=True, progress=progress)
    assert told == [(n, 12) for n in range(1, 13)]
    assert threads == {threading.get_ident()}


def test_progress_can_end_the_work(elena: Path) -> None:
    def enough(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        inspect_dataset(elena, decode=True, progress=enough)
    assert threading.active_count() == before


# ---- the same, and nearly the same -----------------------------------------------------------------------------------


def test_copies_are_found_without_decoding(elena: Path) -> None:
    shutil.copy(elena / "elena_00.png", elena / "again.png")
    shutil.copy(elena / "elena_00.png", elena / "once_more.png")
    for name in ("again", "once_more"):
        (elena / f"{name}.txt").write_text("elena, another caption")
    for decode in (False, True):
        dataset = inspect_dataset(elena, trigger="elena", decode=decode)
        assert [(p.code, p.params["names"], p.params["count"]) for p in dataset.problems] == [
            ("image_duplicate", ("again.png = elena_00.png = once_more.png",), 1)
        ]
        assert [[path.name for path in group] for group in dataset.duplicates] == [
            ["again.png", "elena_00.png", "once_more.png"]
        ]
        assert {p.path.name for p in dataset.pictures if p.problems == ("image_duplicate",)} == {
            "again.png", "elena_00.png", "once_more.png",
        }  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(at=st.integers(60, 160 * 160 * 3 - 1))
def test_one_byte_makes_another_picture(tmp_path: Path, at: int) -> None:
    Image.frombytes("RGB", (160, 160), bytes(160 * 160 * 3)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[at] ^= 1
    (tmp_path / "b.bmp").write_bytes(content)
    assert inspect_dataset(tmp_path).duplicates == ()


def test_copies_in_folders_with_repeats(tmp_path: Path, draw: Draw) -> None:
    first = draw(tmp_path / "10_elena" / "a.png")
    (tmp_path / "3_elena woman").mkdir()
    shutil.copy(first, tmp_path / "3_elena woman" / "b.png")
    assert inspect_dataset(tmp_path).duplicates == ((first, tmp_path / "3_elena woman" / "b.png"),)


def test_one_character_in_many_poses_is_not_nearly_the_same(tmp_path: Path) -> None:
    """The demo's pictures are of one girl drawn in one style; scaled and saved anew they are still themselves."""
    originals = [path for path in write_dataset(tmp_path) if path.suffix == ".png"]
    assert inspect_dataset(tmp_path, trigger="elena", decode=True).alike == ()
    for n, path in enumerate(originals):
        with Image.open(path) as image:
            half = image.convert("RGB").resize((image.width // 2, image.height // 2))
        out = io.BytesIO()
        half.save(out, "JPEG", quality=(90, 60, 40)[n % 3])
        (tmp_path / f"copy_of_{path.stem}.jpg").write_bytes(out.getvalue())
    dataset = inspect_dataset(tmp_path, decode=True)
    assert sorted([path.stem for path in group] for group in dataset.alike) == [
        [f"copy_of_{path.stem}", path.stem] for path in originals
    ]


def test_plain_pictures_differ_by_their_colour() -> None:
    plain = {colour: look_of(Image.new("RGB", (64, 64), colour)) for colour in ("red", "green", "black", "white")}
    for colour, look in plain.items():
        assert [other for other in plain if look.near(plain[other])] == [colour]


# ---- by the bucket ---------------------------------------------------------------------------------------------------


def test_pictures_of_which_much_is_cut_off(elena: Path, draw: Draw) -> None:
    draw(elena / "wide.png", (900, 600))
    dataset = inspect_dataset(elena, trigger="elena")
    square = bucket_plan(dataset.sizes, resolution=160, enable=False)
    (problem,) = size_problems(dataset, square)
    assert (problem.code, problem.params["names"], problem.params["percent"]) == ("image_cut", ("wide.png",), 25)
    assert square.fits[-1] is not None and square.fits[-1].cut == pytest.approx(1 / 3, abs=0.01)
