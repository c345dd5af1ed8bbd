"""Buckets, batches and epochs: what sd-scripts itself answered, and what must hold for any sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora.dataset import bucket_plan
from cinderlora.errors import SettingError

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


@pytest.mark.parametrize(
    ("accumulation", "steps", "per_epoch", "epochs"),
    [(1, 8, 6, 2), (4, 5, 2, 3), (1, 4, 6, 1)],
    ids=["sd3-complete", "sd3-accumulation", "sdxl-complete"],
)
def test_what_real_trainings_printed(accumulation: int, steps: int, per_epoch: int, epochs: int) -> None:
    """Six pictures of 128 pixels: "bucket 0: resolution (128, 128), count: 6", "num batches per epoch: 6"."""
    plan = bucket_plan([(128, 128)] * 6, resolution=128, no_upscale=False, minimum=64, maximum=256)
    assert [(bucket.resolution, bucket.count) for bucket in plan.buckets] == [((128, 128), 6)]
    assert (plan.batches, plan.mean_ar_error) == (6, 0.0)
    assert plan.steps_per_epoch(accumulation) == per_epoch
    assert plan.epochs(steps, accumulation) == epochs


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
