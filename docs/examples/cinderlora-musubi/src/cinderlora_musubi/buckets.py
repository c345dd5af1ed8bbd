"""Which bucket each picture goes to: the arithmetic of musubi-tuner (`BucketSelector`, 30c658c4). Pure.

Unlike sd-scripts it has steps of 16 pixels for all its image models, no smallest and largest side to choose, and picks
among resolutions from half the side upwards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cinderlora.dataset.buckets import Bucket, BucketPlan, Fit

__all__ = ["STEP", "plan"]

STEP = 16
"""Pixels: what the sides of a bucket are multiples of."""

Size = tuple[int, int]


def plan(
    sizes: Sequence[Size],
    *,
    resolution: int,
    repeats: Sequence[int],
    batch_size: int,
    enable: bool,
    no_upscale: bool,
) -> BucketPlan:
    """Sort pictures of these (width, height) into buckets. `repeats` has one number for each."""
    offered = _offered(resolution) if enable else [(resolution, resolution)]
    fits = [_fit(size, offered, resolution**2 if enable and no_upscale else 0) for size in sizes]
    counts: Counter[Size] = Counter()
    for fit, times in zip(fits, repeats, strict=True):
        if fit is not None:
            counts[fit.bucket] += times
    good = [fit for fit in fits if fit is not None]
    return BucketPlan(
        resolution=(resolution, resolution),
        buckets=tuple(Bucket(size, count) for size, count in sorted(counts.items())),
        fits=tuple(fits),
        batches=sum(math.ceil(count / batch_size) for count in counts.values()),
        mean_ar_error=sum(abs(fit.ar_error) for fit in good) / len(good) if good else 0.0,
        crop_loss=sum(fit.cut for fit in good) / len(good) if good else 0.0,
    )


def _offered(resolution: int) -> list[Size]:
    area = resolution**2
    smallest = resolution // 2 - resolution // 2 % STEP
    sizes = set()
    for width in range(max(smallest, STEP), resolution + STEP, STEP):
        height = area // width - area // width % STEP
        if height:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def _fit(size: Size, offered: Sequence[Size], kept_below: int) -> Fit | None:
    """Where a picture goes: to the offered size of the nearest aspect ratio. One of no more pixels than `kept_below`
    keeps its own size, cut to whole steps. None where that leaves nothing of it."""
    width, height = size
    ratio = width / height
    if width * height <= kept_below:
        bucket = (width - width % STEP, height - height % STEP)
        if not min(bucket):
            return None
    else:
        bucket = min(offered, key=lambda b: abs(b[0] / b[1] - ratio))  # of two that are as near, the first
    scale = max(bucket[0] / width, bucket[1] / height)
    resized = (int(width * scale + 0.5), int(height * scale + 0.5))
    return Fit(bucket, resized, bucket[0] / bucket[1] - ratio)
