"""A data set's own file, in sd-scripts' form: what a run takes from it, and mistakes in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toml
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import Registry, SdScripts, inspect_dataset
from cinderlora.dataset import Dataset
from cinderlora.dataset.own_file import understood
from cinderlora.errors import JobRefused
from cinderlora.types import Settings

Draw = Callable[..., Path]
TWO = """
[general]
resolution = 768
caption_extension = ".caption"
enable_bucket = true
shuffle_caption = false

[[datasets]]
batch_size = 2

  [[datasets.subsets]]
  image_dir = "portraits"
  num_repeats = 10
  class_tokens = "elena woman"

  [[datasets.subsets]]
  image_dir = "full body"
  num_repeats = 4
  caption_extension = ".txt"
"""


@pytest.fixture
def sets(tmp_path: Path, draw: Draw) -> Path:
    """Two folders with pictures, ten and two; the first one's captions are called .caption."""
    for n in range(10):
        file = draw(tmp_path / "portraits" / f"{n}.png", (128, 128)).with_suffix(".txt")
        file.rename(file.with_suffix(".caption"))
        if n < 2:
            draw(tmp_path / "full body" / f"{n}.jpg", (128, 192))
    return tmp_path


def described(folder: Path, text: str | bytes, **options: Any) -> Dataset:
    path = folder / "elena.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return inspect_dataset(path, trigger="elena", **options)


def test_two_folders_each_with_repeats_and_captions_of_its_own(sets: Path) -> None:
    dataset = described(sets, TWO)
    assert (dataset.layout, dataset.path) == ("file", sets / "elena.toml")
    assert [(s.folder, s.repeats, s.class_tokens, s.caption_extension, len(s.pictures)) for s in dataset.subsets] == [
        (sets / "portraits", 10, "elena woman", ".caption", 10),
        (sets / "full body", 4, "", ".txt", 2),
    ]
    assert dataset.captions == 12
    assert dataset.repeats(1) == (10,) * 10 + (4,) * 2
    assert dataset.problems == ()
    assert dict(dataset.asks) == {
        "resolution": (768,),
        "batch_size": (2,),
        "enable_bucket": (True,),
        "shuffle_caption": (False,),
    }
    assert dataset.shown(dataset.pictures[0].path) == "portraits/0.png"


def test_folders_start_at_the_file_and_may_be_absolute(
    sets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    table = {"datasets": [{"subsets": [{"image_dir": str(sets / "portraits")}, {"image_dir": "full body"}]}]}
    dataset = described(sets, toml.dumps(table))
    assert [s.folder.name for s in dataset.subsets] == ["portraits", "full body"]
    assert [p.code for p in dataset.problems] == ["caption_other_extension"]  # nothing says .caption now
    assert dataset.problems[0].changes == {"caption_extension": ".caption"}
    assert described(sets, toml.dumps(table), caption_extension=".caption").captions == 10


def test_without_repeats_the_settings_decide(sets: Path) -> None:
    dataset = described(sets, '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "full body"\n')
    assert dataset.subsets[0].repeats is None
    assert dataset.repeats(7) == (7, 7)


def test_a_run_trains_on_what_the_file_tells(sets: Path, tmp_path: Path) -> None:
    described(sets, TWO)
    sdxl = Registry.from_installed()["sdxl"]
    small = {"resolution": 512, "batch_size": 1, "steps": 10}
    job = sdxl.job(name="elena", trigger="elena", dataset=sets / "elena.toml", output=tmp_path / "out", **small)
    plan = sdxl.plan(job, SdScripts.rehearsal())
    written = toml.loads(plan.files["elena_dataset.toml"])
    assert [(s["num_repeats"], s["class_tokens"]) for s in written["datasets"][0]["subsets"]] == [
        (10, "elena woman"),
        (4, "elena"),
    ]
    assert written["general"]["caption_extension"] == ".txt"  # the view has captions of one ending
    assert len(plan.links) == 12
    assert all(text == "elena, smiling\n" for name, text in plan.files.items() if name.startswith("dataset/"))
    report = sdxl.check(job, SdScripts.rehearsal())
    assert report.errors == ()
    assert (report.images, report.steps_per_epoch) == (12, 108)
    told = {p.params["setting"]: p for p in report.warnings if p.code == "dataset_setting_differs"}
    assert {name: dict(p.changes) for name, p in told.items()} == {
        "resolution": {"resolution": 768},
        "batch_size": {"batch_size": 2},
    }
    cured = job.evolve(**{k: v for p in told.values() for k, v in p.changes.items()})
    again = sdxl.check(cured, SdScripts.rehearsal())
    assert not [p for p in again.problems if p.code == "dataset_setting_differs"]
    assert (report.seconds_at(2.5), again.steps_per_epoch) == (25, 54)


def test_several_resolutions_are_no_setting(sets: Path) -> None:
    text = """
[[datasets]]
resolution = 512
[[datasets.subsets]]
image_dir = "portraits"
[[datasets]]
resolution = [768, 1024]
[[datasets.subsets]]
image_dir = "full body"
"""
    from cinderlora.dataset import difference_problems

    dataset = described(sets, text)
    (problem,) = difference_problems(dataset, Settings(resolution=512))
    assert problem.params["asked"] == ["512", "768x1024"]
    assert problem.changes == {}
    assert "768x1024" in problem.message


def subset(more: str, folder: str = "portraits") -> str:
    return f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{folder}"\ncaption_extension = ".caption"\n{more}'


@pytest.mark.parametrize(
    ("text", "code", "severity", "said"),
    [
        (b"\xff\xfe[\0", "file_unreadable", "error", "elena.toml"),
        ("[[datasets]\n", "file_unreadable", "error", "line 1"),
        (b"#" * (1 << 20) + b"\n" + TWO.encode(), "file_unreadable", "error", "1048576"),
        ("a = " + "[" * 3000, "file_unreadable", "error", "elena.toml"),
        ("", "dataset_table_missing", "error", "[[datasets]]"),
        ("[[datasets]]\nbatch_size = 1\n", "dataset_table_missing", "error", "[[datasets]] 1, [[datasets.subsets]]"),
        (
            "[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 3\n",
            "dataset_table_missing",
            "error",
            "[[datasets]] 1, [[datasets.subsets]] 1, image_dir",
        ),
        ("datasets = 3\n", "config_value", "error", "[[datasets]]"),
        (subset('num_repeats = "10"'), "config_value", "error", "[[datasets.subsets]] 1, num_repeats is '10'"),
        (subset("num_repeats = true"), "config_value", "error", "num_repeats is True"),
        (subset("image_dir = 7").replace('image_dir = "portraits"\n', ""), "config_value", "error", "image_dir is 7"),
        ("[general]\nresolution = [1, 2, 3]\n" + subset(""), "config_value", "error", "[general], resolution"),
        (subset("batch_size = 1"), "config_key_unknown", "warning", "[[datasets.subsets]] 1, batch_size"),
        (subset("num_repeat = 10"), "config_key_unknown", "warning", "num_repeats"),
        (subset("", "nowhere"), "dataset_folder_missing", "error", "nowhere"),
        (subset("", "elena.toml"), "dataset_folder_missing", "error", "elena.toml"),
        (subset("", "a\\u0000b"), "dataset_folder_missing", "error", "a?b"),
        (subset("", "empty"), "dataset_folder_empty", "warning", "empty"),
        (subset("num_repeats = 0"), "dataset_folder_off", "warning", "portraits"),
        (
            subset('[[datasets.subsets]]\nimage_dir = "./portraits"\n'),
            "dataset_folder_twice",
            "warning",
            "[[datasets.subsets]] 2",
        ),
        (subset("is_reg = true"), "dataset_form_unsupported", "error", "is_reg"),
        (subset('metadata_file = "x.json"'), "dataset_form_unsupported", "error", "metadata_file"),
        (subset('conditioning_data_dir = "x"'), "dataset_form_unsupported", "error", "conditioning_data_dir"),
        (subset('image_dir = "portraits"'), "file_unreadable", "error", "overwrite"),
        (subset("").replace(".caption", ".png"), "caption_extension", "error", ".png"),
        (subset("keep_tokens = 1\nalpha_mask = true"), "dataset_keys_ignored", "warning", "alpha_mask, keep_tokens"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(
    sets: Path, text: str | bytes, code: str, severity: str, said: str
) -> None:
    (sets / "empty").mkdir()
    problems = [p for p in described(sets, text).problems if p.code == code]
    assert problems, [p.code for p in described(sets, text).problems]
    assert problems[0].severity == severity
    assert said in problems[0].message + problems[0].fix
    assert problems[0].text("de").message != problems[0].message


@pytest.mark.parametrize("key", ["is_reg = false", "keep_tokens = 0", "caption_prefix = ''", "random_crop = false"])
def test_what_changes_nothing_is_not_told(sets: Path, key: str) -> None:
    assert described(sets, subset(key)).problems == ()


def test_a_file_with_errors_is_not_trained_on(sets: Path) -> None:
    described(sets, subset("is_reg = true"))
    sdxl = Registry.from_installed()["sdxl"]
    job = sdxl.job(name="elena", trigger="elena", dataset=sets / "elena.toml", output=sets / "out")
    with pytest.raises(JobRefused) as refused:
        sdxl.plan(job, SdScripts.rehearsal())
    assert [p.code for p in refused.value.problems] == ["dataset_form_unsupported", "dataset_empty"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes among its files")
def test_no_file_at_all(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("pipe.toml", "gone.toml"):
        (problem,) = inspect_dataset(tmp_path / name).problems
        assert problem.code == "dataset_not_found"


def test_a_folder_that_is_called_like_a_file(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "elena.toml" / "a.png")
    assert inspect_dataset(tmp_path / "elena.toml").layout == "flat"


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.one_of(
    st.sampled_from(
        ["image_dir", "num_repeats", "caption_extension", "class_tokens", "resolution", "is_reg", "batch_size",
         "metadata_file", "face_crop_aug_range", "validation_split", "subsets", "datasets", "general"]
    ),
    st.text(max_size=5),
)  # fmt: skip
TABLES = st.dictionaries(KEYS, VALUES, max_size=5)


@given(
    general=st.one_of(TABLES, VALUES),
    datasets=st.one_of(
        VALUES, st.lists(st.one_of(VALUES, st.builds(lambda table, subsets: {**table, "subsets": subsets}, TABLES,
                                                     st.one_of(VALUES, st.lists(TABLES, max_size=3)))), max_size=3)
    ),
)  # fmt: skip
def test_any_content_is_understood_or_named(general: Any, datasets: Any) -> None:
    file = understood({"general": general, "datasets": datasets}, Path("/data/elena.toml"))
    for part in file.subsets:
        assert isinstance(part.folder, Path)
        assert part.repeats is None or (type(part.repeats) is int and part.repeats > 0)
        assert type(part.class_tokens) is str
        assert part.caption_extension is None or part.caption_extension.startswith(".")
    for problem in file.problems:
        assert problem.message.isprintable()
        assert problem.fix or problem.code in {"config_value", "config_key_unknown"}
    wanted = datasets if isinstance(datasets, list) else []
    count = sum(len(d["subsets"]) for d in wanted if isinstance(d, dict) and isinstance(d.get("subsets"), list))
    assert len(file.subsets) <= count
