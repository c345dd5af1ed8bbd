"""Any folder of files is read as a data set, and left as it was; folders of data sets; what names can mix up."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cinderlora import to_json
from cinderlora.dataset import bucket_plan, contact_sheet, dataset_view, inspect_dataset, list_datasets

Draw = Callable[..., Path]
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12)
ENDINGS = st.sampled_from(
    ["", ".png", ".JPG", ".webp", ".bmp", ".txt", ".caption", ".TXT", ".npz", ".toml", ".heic", "_0064x0064_sd3.npz"]
)


def encoded(kind: str, size: tuple[int, int], end: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, kind)
    return out.getvalue()[:end]


CONTENTS = st.one_of(
    st.binary(max_size=64),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.builds(
        encoded,
        st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]),
        st.tuples(st.integers(1, 90), st.integers(1, 90)),
        st.integers(1, 4000),
    ),
)
FILES = st.tuples(st.sampled_from(["", "10_elena", "3_", "x"]), NAMES, ENDINGS)


def snapshot(root: Path) -> dict[str, object]:
    """Every file with its content, every folder, and when they were changed."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    tree=st.dictionaries(FILES, CONTENTS, max_size=8),
    extension=st.sampled_from([".txt", ".caption", "TXT"]),
    trigger=st.one_of(st.none(), st.text(max_size=6)),
)
def test_any_tree_is_read_and_left_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[tuple[str, str, str], bytes],
    extension: str,
    trigger: str | None,
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for (folder, name, ending), content in tree.items():
        (root / folder).mkdir(exist_ok=True)
        path = root / folder / (name + ending)
        if name + ending not in {".", ".."} and not path.exists():
            path.write_bytes(content)
    before = snapshot(root)
    for decode in (False, True):
        dataset = inspect_dataset(root, trigger=trigger, caption_extension=extension, decode=decode)
        assert len(dataset.pictures) == len({p.path for p in dataset.pictures})
        assert len(dataset.sizes) == len(dataset.repeats(2)) <= len(dataset.pictures)
        codes = {problem.code for problem in dataset.problems}
        assert bool(dataset.pictures) != ("dataset_empty" in codes)
        assert {code for p in dataset.pictures for code in p.problems} <= codes
        for problem in dataset.problems:
            assert problem.message.isprintable()
            assert problem.message != problem.code
        assert len(dataset_view(dataset, trigger or "elena").links) == len(dataset.sizes)
        assert json.loads(json.dumps(to_json(dataset)))
        plan = bucket_plan(dataset.sizes, resolution=64, minimum=64, no_upscale=False)
        assert contact_sheet(dataset, plan).mode == "RGB"
    list_datasets(root)
    assert snapshot(root) == before


# ---- what sd-scripts by itself would mix up --------------------------------------------------------------------------


def test_captions_and_cached_sizes_of_others(tmp_path: Path, draw: Draw) -> None:
    """In a run every picture has a caption of its own and a name like no other; told is what plain sd-scripts does."""
    for n in range(10):
        draw(tmp_path / f"elena_{n}.png", (64, 64))
    draw(tmp_path / "face_12_20_64_64.png", (64, 64), None)
    (tmp_path / "face.txt").write_text("elena, the whole picture")
    for name in ("walk_1", "walk_10", "done"):
        draw(tmp_path / f"{name}.png", (64, 64))
    for cache in ("walk_10_0640x0640_sd3.npz", "done_0640x0640_flux.npz", "done_sd3_te.npz"):
        (tmp_path / cache).write_bytes(b"x")
    found = {p.code: p.params["names"] for p in inspect_dataset(tmp_path, trigger="elena").problems}
    assert found["caption_lent"] == ("face_12_20_64_64.png (face.txt)",)
    assert found["caption_missing"] == ("face_12_20_64_64.png",)
    assert found["cache_lent"] == ("walk_1.png",)
    assert set(found) == {"caption_lent", "caption_missing", "caption_stray", "cache_lent", "caches_found"}


def test_some_captions_of_another_ending(tmp_path: Path, draw: Draw) -> None:
    """The cure is proposed only where it would give more captions than there are now."""
    for n in range(12):
        file = draw(tmp_path / f"{n:02}.png", (64, 64)).with_suffix(".txt")
        file.rename(file.with_suffix(".cap" if n < 3 else ".txt"))
    (problem,) = inspect_dataset(tmp_path, trigger="elena").problems
    assert (problem.code, problem.params["count"], dict(problem.changes)) == ("caption_other_extension", 3, {})


# ---- a folder of data sets -------------------------------------------------------------------------------------------


def test_the_dataset_generators_folder(tmp_path: Path, draw: Draw) -> None:
    """ComfyUI's output/character_training: a folder for each character, named after it as far as a folder can be, with
    the name itself in metadata.json; `temp` has what earlier data sets of the same names were moved to."""
    made = tmp_path / "Elena_Warrior_"
    for name in ("00_base_image", "01_front_neutral", "10_closeup_face"):
        draw(made / f"{name}.png", caption="Elena Warrior!, front view")
    (made / "metadata.json").write_text('{"character_name": "Elena Warrior!", "views": []}')
    draw(tmp_path / "temp" / "max_20260101_120000" / "00_base_image.png")
    draw(tmp_path / "max" / "10_max detective" / "a.png")
    (entry, second) = list_datasets(tmp_path)
    assert (entry.name, entry.state, entry.pictures, entry.trigger) == ("Elena_Warrior_", "ready", 3, "Elena Warrior!")
    assert (second.name, second.state, second.trigger) == ("max", "ready", "max detective")
    assert {p.code for p in inspect_dataset(entry.path, trigger=entry.trigger).problems} == {"few_pictures"}


@pytest.mark.parametrize(
    "note",
    [b"", b"[]", b'{"character_name": 3}', b'{"character_name": "a\\nb"}', b"[" * 100_000, b"\xff", b"x" * (1 << 21)],
    ids=["empty", "list", "number", "two lines", "deep", "not UTF-8", "long"],
)
def test_a_note_of_another_form(tmp_path: Path, draw: Draw, note: bytes) -> None:
    draw(tmp_path / "elena" / "a.png")
    (tmp_path / "elena" / "metadata.json").write_bytes(note)
    assert [(e.name, e.trigger) for e in list_datasets(tmp_path)] == [("elena", "elena")]
