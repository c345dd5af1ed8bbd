"""The contact sheet: a card for every picture, the frame of its bucket, what is wrong in colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cinderlora.dataset import Dataset, bucket_plan, contact_sheet, inspect_dataset

Draw = Callable[..., Path]
FRAME, ERROR, WARNING = (0x1F, 0x8F, 0xFF), (0xC8, 0x32, 0x2B), (0xB8, 0x6E, 0x00)


def colours(sheet: Image.Image, colour: tuple[int, int, int], box: tuple[int, int, int, int] | None = None) -> int:
    """How many pixels have exactly this colour."""
    found = (sheet.crop(box) if box else sheet).getcolors(1 << 24) or []
    return next((count for count, seen in found if seen == colour), 0)


def sheet_of(folder: Path, resolution: int = 256, **options: object) -> Image.Image:
    dataset = inspect_dataset(folder, trigger="elena", decode=True)
    return contact_sheet(dataset, bucket_plan(dataset.sizes, resolution=resolution), **options)  # type: ignore[arg-type]


@pytest.fixture
def elena(tmp_path: Path, draw: Draw) -> Path:
    """A data set with nothing wrong."""
    for n in range(10):
        draw(tmp_path / "elena" / f"elena_{n}.png", (256, 256))
    return tmp_path / "elena"


LEGEND = 110
"""Pixels: above it is the heading with the colours explained."""


def test_nothing_is_marked_where_nothing_is_wrong(elena: Path) -> None:
    sheet = sheet_of(elena)
    cards = (0, LEGEND, *sheet.size)
    assert colours(sheet, ERROR, cards) == colours(sheet, WARNING, cards) == 0
    assert colours(sheet, FRAME, cards) > 10 * 4 * 200


def test_errors_and_warnings_have_their_colours(elena: Path) -> None:
    (elena / "elena_3.png").write_bytes(b"no picture")
    red = sheet_of(elena)
    (elena / "elena_4.txt").unlink()
    both = sheet_of(elena)
    cards = (0, LEGEND, *red.size)
    assert colours(red, ERROR, cards) > 1000 and colours(red, WARNING, cards) == 0
    assert colours(both, ERROR, cards) == colours(red, ERROR, cards)
    assert colours(both, WARNING, cards) > 1000


def test_the_frame_is_where_the_trainer_cuts(tmp_path: Path) -> None:
    """A picture of 300 x 256 at 256 pixels: the bucket is as wide as high, 22 pixels go on either side."""
    folder = tmp_path / "one"
    folder.mkdir()
    picture = Image.new("RGB", (300, 256), "white")
    picture.paste("lime", (0, 0, 300, 256))
    picture.save(folder / "a.png")
    dataset = inspect_dataset(folder)
    plan = bucket_plan(dataset.sizes, resolution=256, enable=False)
    fit = plan.fits[0]
    assert fit is not None and (fit.resized, fit.bucket) == ((300, 256), (256, 256))
    sheet = contact_sheet(dataset, plan)
    kept, dark = colours(sheet, (0, 255, 0)), colours(sheet, (0, 102, 0))
    assert dark / (kept + dark + colours(sheet, FRAME, (0, LEGEND, *sheet.size))) == pytest.approx(44 / 300, abs=0.02)


@pytest.mark.parametrize("count", [1, 7, 61, 241])
def test_sheets_of_many_pictures_stay_small(tmp_path: Path, draw: Draw, count: int) -> None:
    for n in range(count):
        draw(tmp_path / f"{n:04}.png", (8, 8))
    sheet = contact_sheet(inspect_dataset(tmp_path))
    assert sheet.width <= 3700
    assert sheet.height <= 6000


@pytest.mark.slow
def test_where_there_are_too_many_those_with_problems_are_shown(tmp_path: Path, draw: Draw) -> None:
    picture = draw(tmp_path / "a.png", (8, 8))
    for n in range(1600):
        (tmp_path / f"{n:04}.png").hardlink_to(picture)
        (tmp_path / f"{n:04}.txt").write_text("elena")
    (tmp_path / "zzz.png").write_bytes(b"no picture")
    sheet = contact_sheet(inspect_dataset(tmp_path))
    assert sheet.height <= 11_000
    assert colours(sheet, ERROR, (0, LEGEND, *sheet.size)) > 200


def test_progress_language_and_hostile_texts(elena: Path) -> None:
    (elena / "elena_1.txt").write_text("\x1b[31m elena " + "wide " * 50_000)
    (elena / ("x" * 200 + ".png")).write_bytes((elena / "elena_0.png").read_bytes())
    told: list[tuple[int, int]] = []
    english = sheet_of(elena, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 11) for n in range(1, 12)]
    assert sheet_of(elena, language="de").tobytes() != english.tobytes()


def test_a_data_set_without_pictures_is_a_heading() -> None:
    sheet = contact_sheet(Dataset(path=Path("/nowhere/elena")))
    assert sheet.height < 200


def test_a_frame_of_less_than_a_pixel(tmp_path: Path) -> None:
    """Pictures so narrow that their thumbnail is a line."""
    for n, size in enumerate([(1, 9), (64, 9000), (9000, 64), (2, 2)]):
        Image.new("RGB", size, "lime").save(tmp_path / f"{n}.png")
    dataset = inspect_dataset(tmp_path)
    for options in ({"enable": False}, {"no_upscale": False}, {"no_upscale": True}):
        plan = bucket_plan(dataset.sizes, resolution=64, minimum=64, **options)  # type: ignore[arg-type]
        assert contact_sheet(dataset, plan).width > 0


def test_names_in_japanese_are_written_where_the_system_can(tmp_path: Path) -> None:
    from cinderlora.dataset.sheet import _EASTERN, _named

    if not any(_named(name, 14) for name in _EASTERN):
        pytest.skip("no font for Japanese here")

    def drawn(name: str) -> bytes:
        folder = tmp_path / name / "elena"
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
        return contact_sheet(inspect_dataset(folder)).tobytes()

    assert drawn("エレナ") != drawn("ナレエ")  # boxes for what a font does not have are all alike
