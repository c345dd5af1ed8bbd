"""What cinderlora adds to a training with the real sd-scripts: time of pairs, the same plan by hand and launched.

    python benchmarks/overhead.py [PAIRS] [STEPS]

Needs what tests/test_sd_scripts.py needs. Each pair runs the same command line and files, once started by hand with
its output to a file, once by `launch` with a follower; which one comes first alternates. Prints the trainer's own time
of both, and the CPU time of this process and of the supervisor while it was launched, as shares of the trainer's.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from cinderlora import Plan, Registry, SdScripts
from cinderlora.sync import launch
from cinderlora.testing import draw_pictures

BENCH = Path(os.environ.get("CINDERLORA_SD_SCRIPTS_BENCH", "nowhere"))


def a_plan(folder: Path, steps: int) -> Plan:
    sd3 = Registry.from_installed()["sd3"]
    names = {"model": "sd3_tiny", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"}
    job = sd3.job(
        name="elena",
        trigger="elena",
        dataset=draw_pictures(folder / "pictures", count=6),
        output=folder / "out",
        models={role: BENCH / f"models/{name}.safetensors" for role, name in names.items()},
        steps=steps,
        resolution=64,
        network_dim=4,
        optimizer="AdamW",
        sample_every=0,
        save_every=0,
        extra={"tokenizer_cache_dir": str(BENCH / "tokenizers")},
    )
    trainer = SdScripts(os.environ["CINDERLORA_SD_SCRIPTS"], python=os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON"))
    return sd3.plan(job, trainer)


def by_hand(plan: Plan, folder: Path) -> tuple[float, float]:
    """Seconds of wall time and of CPU time."""
    for name, text in plan.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for link in plan.links:
        (folder / link.target).symlink_to(link.source)
    plan.output.mkdir(exist_ok=True)
    before, start = os.times(), time.perf_counter()
    with (folder / "output.log").open("wb") as log:
        stage = plan.stages[0]
        subprocess.run(stage.argv, cwd=folder, env={**os.environ, **stage.env}, stdout=log, stderr=log, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, spent


class Supervisor(threading.Thread):
    """Looks at a run's supervisor as long as it lives, since nothing tells of its CPU time afterwards."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.spent = self.own = 0.0  # seconds of CPU time: the supervisor's, and what looking took here
        self._process = psutil.Process(json.loads((folder / "state.json").read_text())["supervisor"]["pid"])

    def run(self) -> None:
        with contextlib.suppress(psutil.Error):
            while True:
                times = self._process.cpu_times()
                self.spent, self.own = times.user + times.system, time.thread_time()
                time.sleep(0.05)


def launched(plan: Plan, folder: Path) -> tuple[float, float]:
    """Seconds of wall time, and of CPU time of this process, which follows, and of the supervisor."""
    before, start = time.process_time(), time.perf_counter()
    with launch(plan, runs=folder) as run:
        events = iter(run)
        next(events)  # when that comes, the supervisor is on record
        supervisor = Supervisor(run.folder)
        supervisor.start()
        for _ in events:
            pass
    took = time.perf_counter() - start
    assert run.result.lora.exists()
    supervisor.join()
    return took, time.process_time() - before - supervisor.own + supervisor.spent


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    ratios, shares = [], []
    for number in range(pairs):
        hand = ours = (0.0, 0.0)
        for turn in (number, number + 1):
            with tempfile.TemporaryDirectory() as name:
                plan = a_plan(Path(name), steps)
                (Path(name) / "run").mkdir()
                if turn % 2:
                    ours = launched(plan, Path(name) / "run")
                else:
                    hand = by_hand(plan, Path(name) / "run")
        ratios.append(ours[0] / hand[0])
        shares.append(ours[1] / hand[1])
        print(f"pair {number + 1}: by hand {hand[0]:.2f} s, launched {ours[0]:.2f} s, x{ratios[-1]:.4f}")
    print(f"median of {pairs} pairs: launched takes x{statistics.median(ratios):.4f} (goal <= 1.01)")
    share = statistics.median(shares)
    print(f"CPU time of following and supervising, share of the trainer's: {share:.2%} (goal <= 0.5 %)")


if __name__ == "__main__":
    main()
