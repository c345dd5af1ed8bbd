"""Reading a data set and saying what is wrong with it: real files, through the public face."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cinderlora.dataset import bucket_plan, inspect_dataset, list_datasets, size_problems
from cinderlora.dataset.check import has_trigger
from cinderlora.errors import SettingError

ON_POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
Draw = Callable[..., Path]


def encoded(kind: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def elena(tmp_path: Path, draw: Draw) -> Path:
    """A data set with nothing wrong."""
    for n in range(12):
        draw(tmp_path / "elena" / f"elena_{n:02}.png")
    return tmp_path / "elena"


def problems(path: Path, **options: object) -> dict[str, dict[str, object]]:
    return {p.code: dict(p.params) for p in inspect_dataset(path, trigger="elena", **options).problems}  # type: ignore[arg-type]


# ---- layouts ---------------------------------------------------------------------------------------------------------


def test_a_good_data_set(elena: Path) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in elena.iterdir())
    dataset = inspect_dataset(elena, trigger="elena", decode=True)
    assert dataset.problems == ()
    assert (len(dataset.pictures), dataset.captions, len(dataset.subsets)) == (12, 12, 1)
    first = dataset.pictures[0]
    assert (first.path, first.format, first.width, first.height) == (elena / "elena_00.png", "PNG", 640, 640)
    assert (first.caption_path, first.caption, first.line) == (elena / "elena_00.txt", *["elena, smiling"] * 2)
    assert dataset.subsets[0].repeats is None
    assert dataset.repeats(10) == (10,) * 12
    assert sorted((p.name, p.stat().st_mtime_ns) for p in elena.iterdir()) == before


def test_a_relative_path_becomes_absolute(elena: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elena.parent)
    dataset = inspect_dataset(elena.name)
    assert dataset.path == elena
    assert all(p.path.is_absolute() for p in dataset.pictures)


def test_folders_with_repeats(tmp_path: Path, draw: Draw) -> None:
    for n in range(6):
        draw(tmp_path / "10_elena woman" / f"{n}.png")
        draw(tmp_path / "3_elena" / f"{n}.jpg", (512, 768))
    draw(tmp_path / "loose.png")
    draw(tmp_path / "0_off/x.png")
    draw(tmp_path / "rejected/x.png")
    (tmp_path / "5_empty").mkdir()
    dataset = inspect_dataset(tmp_path, trigger="elena")
    assert [(s.folder.name, s.repeats, s.class_tokens, len(s.pictures)) for s in dataset.subsets] == [
        ("10_elena woman", 10, "elena woman", 6),
        ("3_elena", 3, "elena", 6),
    ]
    assert dataset.repeats(7) == (10,) * 6 + (3,) * 6
    assert dataset.sizes == ((640, 640),) * 6 + ((512, 768),) * 6
    assert [(p.code, p.params["names"]) for p in dataset.problems] == [("image_loose", ("loose.png",))]


def test_file_names_in_any_case(elena: Path, draw: Draw) -> None:
    draw(elena / "a.Png", caption=None)
    (elena / "A.TXT").write_text("elena, any case")
    draw(elena / "b.JPEG")
    dataset = inspect_dataset(elena, trigger="elena")
    assert dataset.problems == ()
    assert {p.path.name: p.line for p in dataset.pictures}["a.Png"] == "elena, any case"


def test_another_caption_extension(elena: Path) -> None:
    for file in elena.glob("*.txt"):
        file.rename(file.with_suffix(".caption"))
    assert inspect_dataset(elena, trigger="elena", caption_extension=".caption").problems == ()
    assert inspect_dataset(elena, trigger="elena", caption_extension="caption").caption_extension == ".caption"
    (problem,) = inspect_dataset(elena, trigger="elena").problems
    assert (problem.code, problem.params["count"], problem.params["there"]) == (
        "caption_other_extension",
        12,
        ".caption",
    )
    cured = inspect_dataset(elena, trigger="elena", **problem.changes)
    assert cured.problems == () and cured.captions == 12


@pytest.mark.parametrize("extension", ["", ".", "/../../x", ".png", ".npz", ".a/b", "*", ".txt\n", ".\0", "x" * 200])
def test_an_impossible_caption_extension(elena: Path, extension: str) -> None:
    (problem,) = inspect_dataset(elena, caption_extension=extension).problems
    assert (problem.code, problem.severity) == ("caption_extension", "error")
    with pytest.raises(SettingError):
        list_datasets(elena, caption_extension=extension)


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "file", "null", "empty"])
def test_no_data_set(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (problem,) = inspect_dataset(tmp_path / ("nul\0" if kind == "null" else kind)).problems
    assert problem.severity == "error"
    assert problem.code == ("dataset_empty" if kind == "empty" else "dataset_not_found")
    assert problem.text("de").message.startswith("Kein gültiges Dataset")
    assert problem.fix


def test_the_folder_above_was_chosen(elena: Path) -> None:
    (problem,) = (p for p in inspect_dataset(elena.parent).problems if p.severity == "error")
    assert (problem.code, problem.params["folders"]) == ("dataset_empty", (elena.name,))
    assert elena.name in problem.fix


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ""),
        (b"<html>not found</html>", " (HTML)"),
        (encoded("PNG", (50, 50))[:20], ""),
        (encoded("TIFF", (9, 9)), " (TIFF)"),
        (encoded("AVIF", (9, 9)), " (AVIF)"),
    ],
    ids=["empty", "HTML", "PNG", "TIFF", "AVIF"],
)
def test_what_is_no_picture(elena: Path, content: bytes, said: str) -> None:
    (elena / "bad.png").write_bytes(content)
    (elena / "bad.txt").write_text("elena")
    dataset = inspect_dataset(elena, trigger="elena")
    (problem,) = dataset.problems
    assert (problem.code, problem.severity) == ("image_unreadable", "error")
    assert problem.params["names"] == (f"bad.png{said}",)
    assert "bad.png" in str(problem)
    assert "bad.png" in problem.text("de").message
    assert [p.path.name for p in dataset.pictures if p.problems] == ["bad.png"]


def test_a_truncated_picture_is_found_by_decoding(elena: Path) -> None:
    file = elena / "elena_03.png"
    noise = Image.effect_noise((640, 640), 90)
    noise.save(file)
    file.write_bytes(file.read_bytes()[:-2000])
    assert problems(elena) == {}
    found = inspect_dataset(elena, trigger="elena", decode=True)
    assert [(p.code, p.params["names"]) for p in found.problems] == [("image_unreadable", ("elena_03.png",))]
    assert len(found.sizes) == 11


def test_decoding_needs_the_extra_and_nothing_else_does(elena: Path) -> None:
    """In a Python without Pillow (a module that is None cannot be imported)."""
    code = f"""
import sys
sys.modules["PIL"] = None
from cinderlora.dataset import inspect_dataset
from cinderlora.errors import CinderloraError
assert inspect_dataset({str(elena)!r}, trigger="elena").problems == ()
try:
    inspect_dataset({str(elena)!r}, decode=True)
except CinderloraError as error:
    print(error.code, error)
assert not {{"numpy", "torch"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "extra_missing" in done.stdout
    assert "cinderlora[pictures]" in done.stdout


@pytest.mark.parametrize(
    ("caption", "code", "line"),
    [
        (None, "caption_missing", ""),
        ("", "caption_blank", ""),
        (" \n\t\n", "caption_blank", ""),
        ("\n  \r\n elena late \n", "caption_first_line_blank", "elena late"),
        ("elena\nsecond", "caption_several_lines", "elena"),
        ("elena\r\rsecond", "caption_several_lines", "elena"),
        ("a woman in a garden", "caption_without_trigger", "a woman in a garden"),
        ("elenas garden", "caption_without_trigger", "elenas garden"),
        ("\x85el\xe9na".encode("latin-1"), "caption_not_utf8", ""),
        ("elena".encode("utf-16"), "caption_not_utf8", ""),
        ("elena".encode("utf-16-le"), "caption_not_utf8", ""),
        (b"elena " * 300_000, "caption_not_utf8", ""),
        (b"\xef\xbb\xbfelena", None, "elena"),
        ("ELENA, smiling\n\n", None, "ELENA, smiling"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_captions(elena: Path, caption: str | bytes | None, code: str | None, line: str, draw: Draw) -> None:
    draw(elena / "one.png", caption=caption)
    dataset = inspect_dataset(elena, trigger="elena")
    assert {p.path.name: p.line for p in dataset.pictures}["one.png"] == line
    if code is None:
        assert dataset.problems == ()
        return
    (problem,) = dataset.problems
    assert (problem.code, problem.params["count"]) == (code, 1)
    assert str(problem.params["names"][0]).startswith("one.")
    assert problem.severity == ("error" if code == "caption_not_utf8" else "warning")
    assert dataset.captions == 12 + bool(line)


@pytest.mark.parametrize("trigger", ["girl", "Woman", "a man", "1girl", "Mädchen"])
def test_generic_trigger_words(elena: Path, trigger: str) -> None:
    for file in elena.glob("*.txt"):
        file.write_text(f"{trigger}, smiling", encoding="utf-8")
    (problem,) = inspect_dataset(elena, trigger=trigger).problems
    assert (problem.code, problem.severity) == ("trigger_generic", "warning")


def test_a_trigger_word_without_letters_is_not_generic(elena: Path) -> None:
    assert [p.code for p in inspect_dataset(elena, trigger="💥").problems] == ["caption_without_trigger"]


def test_the_trigger_word_as_a_word() -> None:
    assert has_trigger("photo of Elena, smiling", "elena")
    assert has_trigger("ohwx  elena in a garden", "ohwx elena")
    assert has_trigger("写真 (c++) x", "(c++)")
    assert not has_trigger("elenas", "elena")
    assert not has_trigger("anything", "")


def test_what_else_lies_there(elena: Path, draw: Draw) -> None:
    for name in (
        "elena_00_0640x0640_sd3.npz",
        "elena_00_sd3_te.npz",
        "phone.HEIC",
        "notes.txt",
        "readme.md",
        ".hidden.png",
    ):
        (elena / name).write_bytes(b"x")
    draw(elena / "elena_00.jpg", caption=None)
    found = problems(elena)
    assert {code: params["names"] for code, params in found.items()} == {
        "image_same_stem": ("elena_00.jpg", "elena_00.png"),
        "image_format_ignored": ("phone.HEIC",),
        "caption_stray": ("notes.txt",),
        "caches_found": ("elena_00_0640x0640_sd3.npz", "elena_00_sd3_te.npz"),
    }
    assert all(p.severity == "warning" for p in inspect_dataset(elena).problems)


def test_turned_pictures(elena: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (640, 480)).save(elena / "phone.jpg", exif=exif)
    (elena / "phone.txt").write_text("elena")
    assert problems(elena)["image_rotated"]["names"] == ("phone.jpg",)


def test_a_problem_names_a_few_and_counts_all(tmp_path: Path, draw: Draw) -> None:
    for n in range(101):
        draw(tmp_path / f"{n:03}.png", (8, 8), None)
    found = problems(tmp_path)
    assert set(found) == {"many_pictures", "caption_missing"}
    assert found["caption_missing"]["count"] == 101
    assert found["caption_missing"]["names"] == ("000.png", "001.png", "002.png", "003.png", "004.png", "…")
    said = {problem.code: problem.message for problem in inspect_dataset(tmp_path).problems}
    assert said["caption_missing"].endswith(": 000.png, 001.png, 002.png, 003.png, 004.png, … 101 in all.")
    for file in sorted(tmp_path.iterdir())[5:]:
        file.unlink()
    said = {problem.code: problem.message for problem in inspect_dataset(tmp_path).problems}
    assert "few_pictures" in said and said["caption_missing"].endswith("000.png, 001.png, 002.png, 003.png, 004.png.")


def test_small_and_impossible_sizes(elena: Path, draw: Draw) -> None:
    draw(elena / "narrow.png", (40, 900))
    draw(elena / "small.png", (200, 200))
    dataset = inspect_dataset(elena)
    found = size_problems(dataset, bucket_plan(dataset.sizes, resolution=512))
    assert [(p.code, p.severity, p.params["names"]) for p in found] == [
        ("image_unfit", "error", ("narrow.png",)),
        ("image_small", "warning", ("small.png",)),
    ]
    assert all(p.message and p.fix and p.text("de").message != p.message for p in found)


# ---- hostile folders -------------------------------------------------------------------------------------------------


@ON_POSIX
def test_hostile_names(tmp_path: Path) -> None:
    names = [
        "new\nline.png",
        "quo'te\".png",
        "br[ack]*?.png",
        "🙂.png",
        "a\\b.png",
        "\x1b[31m.png",
        "{x}.png",
        "%s.png",
        "-x.png",
    ]
    folder = os.fsencode(tmp_path)
    paths = [folder + b"/" + name for name in (*map(os.fsencode, names), b"bad\xff\xfe.png")]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(encoded("PNG", (64, 64)))
    dataset = inspect_dataset(tmp_path, trigger="elena")
    assert {os.fsencode(p.path) for p in dataset.pictures} == set(paths)
    assert all(p.readable for p in dataset.pictures)
    for problem in dataset.problems:
        for text in (problem.message, *map(str, problem.params.values())):
            assert text.isprintable()
            text.encode()
    assert {dataset.shown(p.path) for p in dataset.pictures} >= {"new?line.png", "bad??.png", "🙂.png"}


@ON_POSIX
def test_links_pipes_and_folders_that_look_like_pictures(elena: Path) -> None:
    (elena / "loop.png").symlink_to(elena / "loop.png")
    (elena / "gone.png").symlink_to(elena / "nothing")
    (elena / "10_loop").symlink_to(elena / "10_loop")
    (elena / "linked.png").symlink_to(elena / "elena_00.png")
    (elena / "folder.png").mkdir()
    os.mkfifo(elena / "pipe.png")
    os.mkfifo(elena / "elena_pipe.txt")
    for decode in (False, True):
        found = problems(elena, decode=decode)
        assert found["image_unreadable"]["names"] == ("gone.png", "loop.png", "pipe.png")
    dataset = inspect_dataset(elena)
    assert {p.path.name for p in dataset.pictures if p.readable} >= {"linked.png"}
    assert len(dataset.sizes) == 13


@ON_POSIX
def test_a_folder_linked_to_itself(tmp_path: Path, draw: Draw) -> None:
    (tmp_path / "10_elena").symlink_to(tmp_path)
    draw(tmp_path / "a.png")
    dataset = inspect_dataset(tmp_path)
    assert len(dataset.pictures) == 1
    assert list_datasets(tmp_path)[0].pictures == 1


# ---- a folder of data sets -------------------------------------------------------------------------------------------


def test_data_sets_for_a_list(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "elena" / "a.png")
    draw(tmp_path / "elena" / "b.png")
    draw(tmp_path / "marco" / "10_marco" / "a.png")
    draw(tmp_path / "marco" / "10_marco" / "b.png", caption=None)
    draw(tmp_path / "nina" / "a.png", caption=None)
    (tmp_path / "old").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "file.txt").write_text("x")
    assert [(e.name, e.path, e.pictures, e.captions, e.state) for e in list_datasets(tmp_path)] == [
        ("elena", tmp_path / "elena", 2, 2, "ready"),
        ("marco", tmp_path / "marco", 2, 1, "partly_captioned"),
        ("nina", tmp_path / "nina", 1, 0, "uncaptioned"),
        ("old", tmp_path / "old", 0, 0, "empty"),
    ]
    assert [e.trigger for e in list_datasets(tmp_path)] == ["elena", "marco", "nina", "old"]
    assert list_datasets(tmp_path / "nothing") == ()
    assert list_datasets(tmp_path / "file.txt") == ()
