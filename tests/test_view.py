"""A run's own view of a data set: names that sd-scripts cannot misread, and the way back from them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora.dataset import Dataset, Picture, Subset, dataset_view, source_of
from cinderlora.errors import SettingError
from cinderlora.names import is_plain_file_name

NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=60).filter(lambda n: n not in {".", ".."})
ENDINGS = st.sampled_from([".png", ".PNG", ".Jpg", ".jpeg", ".webp", ".bmp"])


def shot(name: str, caption: str | None = None, folder: str = "data", **facts: int) -> Picture:
    size = {"width": 640, "height": 640, "seen": (640, 640)} | facts
    path = Path("/home/anna/secret") / folder / name
    return Picture(path=path, format="PNG", caption=caption, **size)  # type: ignore[arg-type]


def flat(*pictures: Picture) -> Dataset:
    path = Path("/home/anna/secret/data")
    return Dataset(path=path, subsets=(Subset(folder=path, pictures=pictures),))


def test_a_flat_folder() -> None:
    dataset = flat(shot("elena_1.png", "elena, smiling"), shot("elena_10.PNG"), shot("a_b_c_d_e.Jpg", ""))
    view = dataset_view(dataset, "elena")
    assert [(link.source, link.target) for link in view.links] == [
        (dataset.pictures[0].path, "dataset/elena/001-elena_1.png"),
        (dataset.pictures[1].path, "dataset/elena/002-elena_10.png"),
        (dataset.pictures[2].path, "dataset/elena/003-a_b_c_d_e.jpg"),
    ]
    assert view.files == {
        "dataset/elena/001-elena_1.txt": "elena, smiling\n",
        "dataset/elena/002-elena_10.txt": "elena\n",
        "dataset/elena/003-a_b_c_d_e.txt": "elena\n",
    }
    assert [(s.folder, s.repeats, s.class_tokens) for s in view.subsets] == [("dataset/elena", None, "elena")]
    assert view == dataset_view(dataset, "elena")


def test_folders_with_repeats() -> None:
    path = Path("/home/anna/secret/data")
    subsets = [
        Subset(folder=path / "10_Elena woman", repeats=10, class_tokens="Elena woman", pictures=(shot("a.png"),)),
        Subset(folder=path / "5_garden", repeats=5, class_tokens="garden", pictures=(shot("a.png"),)),
        Subset(folder=path / "5_GARDEN", repeats=5, class_tokens="GARDEN", pictures=(shot("b.png", "elena out"),)),
        Subset(folder=path / "2_", repeats=2, pictures=(shot("b.png"),)),
    ]
    view = dataset_view(Dataset(path=path, subsets=tuple(subsets)), "elena", ".caption", under="view")
    assert [(s.folder, s.repeats, s.class_tokens) for s in view.subsets] == [
        ("view/10_Elena-woman", 10, "Elena woman"),
        ("view/5_garden", 5, "elena"),
        ("view/5_GARDEN-2", 5, "elena"),
        ("view/2_elena", 2, "elena"),
    ]
    assert view.files == {
        "view/10_Elena-woman/001-a.caption": "Elena woman\n",
        "view/5_garden/002-a.caption": "elena\n",
        "view/5_GARDEN-2/003-b.caption": "elena out\n",
        "view/2_elena/004-b.caption": "elena\n",
    }
    assert view.caption_extension == ".caption"


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        (None, "elena\n"),
        ("", "elena\n"),
        (" \n \n", "elena\n"),
        ("\n \n  late, {a|b}\nsecond\n\n", "  late, {a|b}\nsecond\n"),
        ("one", "one\n"),
    ],
)
def test_what_a_caption_becomes(caption: str | None, text: str) -> None:
    view = dataset_view(flat(shot("a.png", caption)), "elena")
    assert list(view.files.values()) == [text]


@given(names=st.lists(st.tuples(NAMES, ENDINGS), min_size=1, max_size=8), trigger=NAMES)
def test_any_names_become_safe_ones(names: list[tuple[str, str]], trigger: str) -> None:
    pictures = [shot(name + ending) for name, ending in names]
    view = dataset_view(flat(*pictures), trigger)
    targets = [PurePosixPath(link.target) for link in view.links]
    stems = [target.stem.casefold() for target in targets]
    assert len({*stems}) == len(stems)
    assert not any(one != other and other.startswith(one) for one in stems for other in stems)
    assert {f"{target.with_suffix('.txt')}" for target in targets} == set(view.files)
    for target, picture in zip(targets, pictures, strict=True):
        top, folder, name = target.parts
        assert top == "dataset"
        assert is_plain_file_name(folder)
        assert target.suffix == picture.path.suffix.lower()
        assert not re.search(r"[\s<>:\"'\\|?*\[\]{}%$`;&()]", name)
        assert name.isprintable()
        assert len(name.encode()) <= 220  # the trainer appends up to 25 for a cache
        assert "secret" not in str(target)
        # The caption's fallback goes by the last four "_": it must never be needed.
        assert view.files[str(target.with_suffix(".txt"))]
        assert source_of(view.links, str(target)) == picture.path


@pytest.mark.parametrize("trigger", ["../../x", "con", "  ", "💥", "a/b", ".", "x" * 500, "CON.txt", "-rf"])
def test_a_trigger_word_that_is_no_folder_name(trigger: str) -> None:
    (subset,) = dataset_view(flat(shot("a.png")), trigger).subsets
    top, folder = subset.folder.split("/")
    assert top == "dataset"
    assert is_plain_file_name(folder)


def test_pictures_that_cannot_be_read_are_left_out() -> None:
    view = dataset_view(flat(shot("a.png"), shot("bad.png", width=0, height=0), shot("c.png")), "elena")
    assert [link.source.name for link in view.links] == ["a.png", "c.png"]


def test_the_way_back_from_what_the_trainer_prints() -> None:
    pictures = [shot(f"elena_{n}.png") for n in range(1200)]
    links = dataset_view(flat(*pictures), "elena").links
    assert links[0].target == "dataset/elena/0001-elena_0.png"
    back = pictures[10].path
    for printed in (
        "dataset/elena/0011-elena_10.png",
        "/runs/1/dataset/elena/0011-elena_10_0640x0640_sd3.npz",
        "C:\\runs\\1\\dataset\\elena\\0011-elena_10.txt",
        "0011-elena_10_sd3_te.npz",
    ):
        assert source_of(links, printed) == back
    assert source_of(links, "0011-other.png") is None
    assert source_of(links, "") is None


def test_an_impossible_caption_extension() -> None:
    with pytest.raises(SettingError):
        dataset_view(flat(shot("a.png")), "elena", "/../../x")
