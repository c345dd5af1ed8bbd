"""Which bucket each picture goes to, and what that makes of a training: the arithmetic of sd-scripts.

Checked against its own `BucketManager` and `make_buckets` (48d368fa, v0.10.1) on many thousand sizes; the suite keeps
some of those answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen

from cinderlora.errors import SettingError

__all__ = ["Bucket", "BucketPlan", "Fit", "bucket_plan"]

Size = tuple[int, int]


@frozen
class Bucket:
    """Pictures that are trained at one size."""

    resolution: Size
    """(width, height) in pixels."""
    count: int
    """Pictures in it, repeats included."""


@frozen
class Fit:
    """What becomes of one picture: it is scaled to `resized`, then cut to `bucket`, both (width, height) in pixels."""

    bucket: Size
    resized: Size
    ar_error: float
    """How far the bucket's aspect ratio is from the picture's; signed, width by height."""

    @property
    def cut(self) -> float:
        """The share of the picture's area that is cut off, 0 to 1."""
        return 1 - (self.bucket[0] * self.bucket[1]) / (self.resized[0] * self.resized[1])


@frozen
class BucketPlan:
    """How sd-scripts will sort the pictures, and the length of an epoch that follows."""

    resolution: Size
    """(width, height) that was asked for."""
    buckets: tuple[Bucket, ...]
    """Those that have pictures, by width, then height."""
    fits: tuple[Fit | None, ...]
    """For each size that was given, in that order; None where sd-scripts fails on it: it is too small or too narrow."""
    batches: int
    """Batches per epoch: a bucket's last one may be partial."""
    mean_ar_error: float
    """The mean of `abs(ar_error)` without repeats, as sd-scripts prints it."""
    crop_loss: float
    """The mean share of a picture that is cut off, 0 to 1, without repeats."""

    @property
    def unfit(self) -> tuple[int, ...]:
        """The places, in what was given, of the sizes that sd-scripts fails on."""
        return tuple(i for i, fit in enumerate(self.fits) if fit is None)

    def steps_per_epoch(self, gradient_accumulation: int = 1, processes: int = 1) -> int:
        """Optimizer steps per pass over the data set; the last one may have fewer batches. Several processes take
        turns at the batches, each with as many (accelerate fills up what is missing)."""
        return math.ceil(math.ceil(self.batches / processes) / gradient_accumulation)

    def epochs(self, steps: int, gradient_accumulation: int = 1, processes: int = 1) -> int:
        """Passes over the data set for so many steps, the last one perhaps partial; 0 where there are no pictures."""
        per_epoch = self.steps_per_epoch(gradient_accumulation, processes)
        return math.ceil(steps / per_epoch) if per_epoch else 0


def bucket_plan(
    sizes: Sequence[Size],
    *,
    resolution: int | Size,
    repeats: int | Sequence[int] = 1,
    batch_size: int = 1,
    enable: bool = True,
    no_upscale: bool = True,
    step: int = 64,
    minimum: int = 256,
    maximum: int = 1024,
) -> BucketPlan:
    """Sort pictures of these (width, height) into buckets, as sd-scripts would.

    `repeats` is one number, or one per size. `enable`, `no_upscale`, `step`, `minimum` and `maximum` are its
    `enable_bucket`, `bucket_no_upscale`, `bucket_reso_steps`, `min_bucket_reso` and `max_bucket_reso`, with its
    defaults for the last three. Raises `SettingError` where the resolution is outside of minimum and maximum, or leaves
    no bucket: sd-scripts stops there, even with `no_upscale`, which otherwise ignores the two.
    """
    wanted = (resolution, resolution) if isinstance(resolution, int) else resolution
    if not enable:
        fits = [_nearest(size, [wanted]) for size in sizes]
    else:
        low, high = minimum - minimum % step, maximum + -maximum % step
        if not low <= min(wanted) <= max(wanted) <= high or not (no_upscale or step <= min(low, *wanted)):
            raise SettingError("bucket_range", resolution="x".join(map(str, wanted)), minimum=low, maximum=high)
        if no_upscale:
            fits = [_shrunk(size, wanted[0] * wanted[1], step) for size in sizes]
        else:
            offered = _offered(wanted[0] * wanted[1], low, high, step)
            fits = [_nearest(size, offered) for size in sizes]

    times = [repeats] * len(sizes) if isinstance(repeats, int) else repeats
    counts: dict[Size, int] = {}
    for fit, n in zip(fits, times, strict=True):
        if fit:
            counts[fit.bucket] = counts.get(fit.bucket, 0) + n
    good = [fit for fit in fits if fit]
    return BucketPlan(
        resolution=wanted,
        buckets=tuple(Bucket(size, count) for size, count in sorted(counts.items())),
        fits=tuple(fits),
        batches=sum(math.ceil(count / batch_size) for count in counts.values()),
        mean_ar_error=math.fsum(abs(fit.ar_error) for fit in good) / len(good) if good and enable else 0.0,
        crop_loss=math.fsum(fit.cut for fit in good) / len(good) if good else 0.0,
    )


def _offered(area: int, low: int, high: int, step: int) -> list[Size]:
    """The resolutions to choose from where pictures may be enlarged: of about the area, sides in steps, in order."""
    side = int(math.sqrt(area) // step) * step
    sizes = {(side, side)}
    for width in range(low, high + 1, step):
        height = min(high, area // width // step * step)
        if height >= low:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def _nearest(size: Size, offered: Sequence[Size]) -> Fit | None:
    """Scale until the offered resolution of the nearest aspect ratio is covered; the same resolution comes first."""
    width, height = size
    ratio = width / height
    bucket = size if size in offered else min(offered, key=lambda b: abs(b[0] / b[1] - ratio))
    scale = bucket[1] / height if ratio > bucket[0] / bucket[1] else bucket[0] / width
    return Fit(bucket, (_rounded(width * scale), _rounded(height * scale)), bucket[0] / bucket[1] - ratio)


def _shrunk(size: Size, area: int, step: int) -> Fit | None:
    """Scale down to the area where the picture is larger, then cut both sides to whole steps."""
    width, height = size
    ratio = width / height
    resized = size
    if width * height > area:
        wide = math.sqrt(area * ratio)
        high = area / wide
        # One side becomes a whole number of steps: the one whose bucket comes nearer to the picture's aspect ratio.
        w, h = _stepped(wide, step), _stepped(high, step)
        by_width, by_height = (w, _stepped(w / ratio, step)), (_stepped(h * ratio, step), h)
        if not by_width[1] or not by_height[1]:
            return None  # sd-scripts divides by zero here
        if abs(by_width[0] / by_width[1] - ratio) < abs(by_height[0] / by_height[1] - ratio):
            resized = (w, _rounded(w / ratio))
        else:
            resized = (_rounded(h * ratio), h)
    bucket = (resized[0] - resized[0] % step, resized[1] - resized[1] % step)
    return Fit(bucket, resized, bucket[0] / bucket[1] - ratio) if min(bucket) > 0 else None


def _rounded(x: float) -> int:
    return int(x + 0.5)


def _stepped(x: float, step: int) -> int:
    whole = _rounded(x)
    return whole - whole % step
