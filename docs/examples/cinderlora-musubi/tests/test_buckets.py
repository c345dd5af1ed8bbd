"""Buckets, held against musubi-tuner's own `BucketSelector` (30c658c4): 80 of 4000 answers that were compared."""

from __future__ import annotations

import json
from pathlib import Path

from cinderlora_musubi.buckets import STEP, plan

ANSWERS = json.loads((Path(__file__).parent / "recordings/buckets.json").read_text())


def bucket(size, resolution, *, enable=True, no_upscale=True):
    (fit,) = plan(
        [tuple(size)], resolution=resolution, repeats=[1], batch_size=1, enable=enable, no_upscale=no_upscale
    ).fits
    return fit and fit.bucket


def test_every_picture_goes_where_musubi_tuner_puts_it():
    for resolution, size, enable, no_upscale, (width, height) in ANSWERS:
        expected = (width, height) if width and height else None
        assert bucket(size, resolution, enable=enable, no_upscale=no_upscale) == expected, (resolution, size)


def test_what_nothing_is_left_of_has_no_bucket():
    assert bucket((STEP - 1, 400), 512) is None


def test_epochs_count_repeats_and_partial_batches():
    found = plan(
        [(64, 64), (64, 64), (96, 48)], resolution=64, repeats=[3, 2, 1], batch_size=2, enable=True, no_upscale=True
    )
    assert [(b.resolution, b.count) for b in found.buckets] == [((64, 64), 5), ((80, 48), 1)]
    assert found.steps_per_epoch() == 4 and 0 < found.crop_loss < 1


def test_no_side_is_smaller_than_a_bucket_needs():
    for size in [(2000, 100), (100, 2000), (3, 4000), (640, 640)]:
        fit = plan([size], resolution=512, repeats=[1], batch_size=1, enable=True, no_upscale=False).fits[0]
        assert fit.resized[0] >= fit.bucket[0] and fit.resized[1] >= fit.bucket[1]
