"""How long it takes to look at a data set of many pictures: their headers and captions; decoding them all, against
nothing but Pillow's decoding on as many threads; and a contact sheet.

    python benchmarks/dataset.py [--pictures 1000] [--side 1024] [--kind png|jpg|webp]

The pictures are noise over a gradient, so that a decoder has work as with photographs; a fiftieth of them are copies.
Each figure is the best of three, and reading is measured in processes of its own, imports and all. The files are in the
system's cache: it is this code that is measured, not the disk.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def make(folder: Path, count: int, side: int, kind: str) -> None:
    """Pictures with captions."""
    from PIL import Image

    grain = Image.effect_noise((side, side), 40).convert("RGB")
    for n in range(count):
        path = folder / f"elena_{n:04}.{kind}"
        if n % 50 == 49:
            shutil.copy(folder / f"elena_{n - 1:04}.{kind}", path)
        else:
            colours = random.Random(n).randbytes(48)
            base = Image.frombytes("RGB", (4, 4), colours).resize((side, side), Image.Resampling.BICUBIC)
            Image.blend(base, grain, 0.15).save(path)
        path.with_suffix(".txt").write_text(f"elena, picture {n}, in a garden, smiling", encoding="utf-8")


def best(call: Callable[[], object], times: int = 3) -> float:
    """Seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def bare(paths: list[Path], threads: int) -> None:
    """Decode, and forget."""
    from PIL import Image

    def load(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load, paths))


def main() -> None:
    """Make the pictures, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--kind", choices=("png", "jpg", "webp"), default="png")
    options = parser.parse_args()

    from cinderlora.dataset import bucket_plan, contact_sheet, inspect_dataset

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.pictures, options.side, options.kind)
        paths = sorted(folder.glob(f"*.{options.kind}"))
        size = sum(path.stat().st_size for path in paths)
        print(f"{len(paths)} {options.kind} pictures of {options.side} px, {size / 1e6:.0f} MB, {threads} threads")

        code = f"from cinderlora import inspect_dataset; inspect_dataset({name!r}, trigger='elena')"
        process = best(lambda: subprocess.run([sys.executable, "-c", code], check=True))
        quick = best(lambda: inspect_dataset(folder, trigger="elena"))
        print(f"sizes, captions and exact copies: {quick:.2f} s; a process for it, imports and all: {process:.2f} s")

        loops, checks = [], []
        for _ in range(3):  # by turns: the machine may not be ours alone
            loops.append(best(lambda: bare(paths, threads), 1))
            checks.append(best(lambda: inspect_dataset(folder, trigger="elena", decode=True), 1))
        loop, check = min(loops), min(checks)
        print(f"decoded by Pillow alone: {loop:.2f} s; with all checks: {check:.2f} s ({check / loop:.2f} times)")

        dataset = inspect_dataset(folder, trigger="elena", decode=True)
        print(f"found: {len(dataset.duplicates)} groups of copies, {len(dataset.alike)} of nearly the same")
        plan = bucket_plan(dataset.sizes, resolution=512)
        print(f"bucket plan: {best(lambda: bucket_plan(dataset.sizes, resolution=512)) * 1000:.1f} ms")
        print(f"contact sheet: {best(lambda: contact_sheet(dataset, plan), 1):.2f} s")


if __name__ == "__main__":
    main()
