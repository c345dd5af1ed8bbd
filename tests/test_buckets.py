"""Buckets, batches and epochs: what sd-scripts itself answered, and what must hold for any sizes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora.dataset import Dataset, Picture, Subset, bucket_plan
from cinderlora.errors import SettingError
from cinderlora.sd_scripts.config import job_buckets
from cinderlora.types import Job, Settings

SIZES = st.lists(st.tuples(st.integers(1, 20000), st.integers(1, 20000)), max_size=12)
OPTIONS = ("repeats", "batch_size", "enable", "no_upscale", "step", "minimum", "maximum")


def test_the_answers_of_sd_scripts(data: Path) -> None:
    """`buckets.json`: random settings and sizes, and what sd-scripts' own classes (v0.10.1) made of them. Fits are
    [bucket, resized], null where it fails; an error is a failed assertion on the range of buckets."""
    cases = json.loads((data / "buckets.json").read_text(encoding="utf-8"))
    assert len(cases) == 100
    for case in cases:
        resolution = case["resolution"]
        options = {name: case[name] for name in OPTIONS}
        asked = tuple(resolution) if isinstance(resolution, list) else resolution
        sizes = [tuple(size) for size in case["sizes"]]
        if "error" in case:
            with pytest.raises(SettingError, match="resolution"):
                bucket_plan(sizes, resolution=asked, **options)
            continue
        plan = bucket_plan(sizes, resolution=asked, **options)
        assert [fit and [list(fit.bucket), list(fit.resized)] for fit in plan.fits] == case["fits"], case
        assert plan.unfit == tuple(i for i, fit in enumerate(case["fits"]) if fit is None)
        assert [[list(bucket.resolution), bucket.count] for bucket in plan.buckets] == case["buckets"], case
        assert plan.batches == case["batches"]
        assert plan.mean_ar_error == pytest.approx(case["mean_ar_error"], rel=1e-9, abs=1e-12)


CAPTURES = Path(__file__).parent / "data" / "captures"


def printed(capture: str) -> str:
    """What a recording's log says, with rich's wrapping undone."""
    log = (CAPTURES / capture / "output.log").read_text(encoding="utf-8", errors="replace")
    return " ".join(re.sub(r"\w+\.py:\d+", "", log).split())


@pytest.mark.parametrize("capture", sorted(path.parent.name for path in CAPTURES.glob("*/output.log")))
def test_what_real_trainings_printed(capture: str) -> None:
    """Every recording is of six pictures of 128 pixels, less those that it is about."""
    log = printed(capture)
    general = tomllib.loads((CAPTURES / capture / "dataset.toml").read_text())["general"]
    plan = bucket_plan(
        [(128, 128)] * int("0" + "".join(re.findall(r"(\d+) train images with repeats", log))),
        resolution=general["resolution"] if isinstance(general["resolution"], int) else 128,
        batch_size=general["batch_size"],
        no_upscale=False,
        minimum=general["min_bucket_reso"],
        maximum=general["max_bucket_reso"],
    )
    buckets = re.findall(r"bucket \d+: resolution \((\d+), (\d+)\), count: (\d+)", log)
    assert [(*bucket.resolution, bucket.count) for bucket in plan.buckets] == [tuple(map(int, b)) for b in buckets]
    if "mean ar error" in log and capture != "sd3-fail-corrupt-image":  # one of its pictures has no size
        assert float(re.findall(r"mean ar error \(without repeats\): ([\d.]+)", log)[0]) == plan.mean_ar_error
    steps = re.findall(r"total optimization steps / 学習ステップ数: (\d+)", log)
    if steps:
        accumulation = int(re.findall(r"gradient accumulation steps / \S+ = (\d+)", log)[0])
        assert [str(plan.batches)] == re.findall(r"num batches per epoch / 1epochのバッチ数: (\d+)", log)
        assert [str(plan.epochs(int(steps[0]), accumulation))] == re.findall(r"num epochs / epoch数: (\d+)", log)


@pytest.mark.parametrize(
    ("upscale", "resolution", "buckets"),
    [
        (False, 1024, {(832, 1216): 1, (512, 768): 1, (1024, 1024): 1}),
        (True, 1024, {(832, 1216): 2, (1024, 1024): 1}),
        (True, 768, {(640, 896): 2, (768, 768): 1}),
    ],
)
def test_a_portrait_that_may_be_enlarged_keeps_its_form(
    upscale: bool, resolution: int, buckets: dict[tuple[int, int], int]
) -> None:
    """sd-scripts' own limit of 1024 pixels a side would leave 704 x 1024 of a portrait at 1024 pixels."""
    settings = Settings(resolution=resolution, enable_bucket=True, bucket_no_upscale=not upscale)
    job = Job(model_type="sdxl", name="a", trigger="a", dataset="a", output="a", settings=settings)
    sizes = [(832, 1216), (512, 768), (1024, 1024)]
    pictures = [Picture(path=Path(f"/{i}.png"), width=w, height=h, seen=(w, h)) for i, (w, h) in enumerate(sizes)]
    dataset = Dataset(path=Path("/"), subsets=(Subset(folder=Path("/"), pictures=tuple(pictures)),))
    assert {b.resolution: b.count for b in job_buckets(job, dataset).buckets} == buckets


@given(
    sizes=SIZES,
    resolution=st.sampled_from([512, 768, 1024, (832, 1216)]),
    step=st.sampled_from([32, 64, 128]),
    no_upscale=st.booleans(),
    counted=st.tuples(st.integers(1, 30), st.integers(1, 8)),
)
def test_every_picture_is_in_one_bucket(
    sizes: list[tuple[int, int]],
    resolution: int | tuple[int, int],
    step: int,
    no_upscale: bool,
    counted: tuple[int, int],
) -> None:
    repeats, batch_size = counted
    options = {"step": step, "no_upscale": no_upscale, "repeats": repeats, "batch_size": batch_size, "maximum": 2048}
    plan = bucket_plan(sizes, resolution=resolution, **options)
    fits = [fit for fit in plan.fits if fit]
    assert len(plan.fits) == len(sizes)
    assert sum(bucket.count for bucket in plan.buckets) == repeats * len(fits)
    assert [bucket.resolution for bucket in plan.buckets] == sorted({fit.bucket for fit in fits})
    pictures = len(fits) * repeats
    assert pictures / batch_size <= plan.batches <= pictures / batch_size + len(plan.buckets)
    assert 0 <= plan.crop_loss < 1
    for size, fit in zip(sizes, plan.fits, strict=True):
        if fit is None:
            assert no_upscale
            continue
        assert all(side > 0 and side % step == 0 for side in fit.bucket)
        assert all(cut <= whole for cut, whole in zip(fit.bucket, fit.resized, strict=True))
        if no_upscale:
            assert all(resized <= original for resized, original in zip(fit.resized, size, strict=True))


def test_repeats_of_each_picture_and_no_pictures() -> None:
    plan = bucket_plan([(512, 512), (512, 768)], resolution=512, repeats=[3, 10], batch_size=4)
    assert [(bucket.resolution, bucket.count) for bucket in plan.buckets] == [((384, 576), 10), ((512, 512), 3)]
    assert plan.batches == 3 + 1
    nothing = bucket_plan([], resolution=512)
    assert (nothing.buckets, nothing.batches, nothing.steps_per_epoch(), nothing.epochs(1500)) == ((), 0, 0, 0)
