"""How long a list of many runs takes. Prints a table; asserts nothing.

python benchmarks/history.py [RUNS]

The runs are copies of a real rehearsal's folder, each with its own name, time and id. Each figure is measured in a
process of its own. "first" is without the index, as after the cache was emptied; "again" is with it. The bare reading
that they are compared with lists the folder, reads launch.json and state.json of each run, and parses them.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cinderlora
from cinderlora.demo import write_dataset
from cinderlora.sync import launch, runs

BARE = """
import json, os, time
begun = time.perf_counter()
found = []
with os.scandir(FOLDER) as entries:
    for entry in entries:
        with open(entry.path + "/launch.json", "rb") as file:
            launch = json.load(file)
        with open(entry.path + "/state.json", "rb") as file:
            found.append((launch["created"], launch["name"], json.load(file)["state"]))
found.sort(reverse=True)
took = time.perf_counter() - begun
"""
LISTED = """
import time, cinderlora.running
begun = time.perf_counter()
found = cinderlora.running.runs(FOLDER)
rows = [(run.name, run.model_type, run.created, run.state, run.seconds) for run in found]
took = time.perf_counter() - begun
"""
LOSSES = LISTED.replace("run.seconds)", "run.seconds, run.figures.loss)")
FILTERED = LISTED.replace("runs(FOLDER)", "runs(FOLDER, state='failed', name='elena*', since=0, limit=20)")


def measured(script: str, folder: Path, times: int) -> float:
    """The median of the milliseconds that a script says it took."""
    program = f"FOLDER = {str(folder)!r}\n{script}\nprint(took)"
    took = []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        took.append(1000 * float(done.stdout))
    return statistics.median(took)


def make_runs(folder: Path, count: int) -> None:
    """Copies of an ended rehearsal."""
    write_dataset(folder / "elena")
    sdxl = cinderlora.Registry.from_installed()["sdxl"]
    job = sdxl.job(
        name="elena", trigger="elena", dataset=folder / "elena", output=folder / "loras", resolution=64, steps=200
    )
    with launch(sdxl.plan(job, cinderlora.SdScripts.rehearsal()), runs=folder / "one") as run:
        run.wait()
    log, now = (run.folder / "output.log").read_bytes(), time.time()
    record = json.loads((run.folder / "launch.json").read_bytes())
    names = ["launch.json", "state.json", "run.toml", "elena_dataset.toml", "elena_kohya_training.toml"]
    texts = {name: (run.folder / name).read_bytes() for name in names}
    for number in range(count):
        created = now - 60.0 * (count - number)
        title = time.strftime("%Y%m%d-%H%M%S", time.localtime(created))
        path = folder / "runs" / f"{title}-elena{number}-sdxl"
        path.mkdir(parents=True)
        texts["launch.json"] = json.dumps(
            record | {"id": f"{number:016x}", "name": f"elena{number}", "created": created}, indent=1
        ).encode()
        for name, text in texts.items():
            (path / name).write_bytes(text)
        (path / "output.log").write_bytes(log)
    print(f"{count} runs; each has a log of {len(log) / 1000:.0f} kB and records of "
          f"{sum(len(texts[name]) for name in names[:2]) / 1000:.1f} kB")  # fmt: skip


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        make_runs(folder, count)
        time.sleep(2.5)  # what changed just now is not kept
        where, cache = folder / "runs", folder / "cache"
        bare = measured(BARE, where, 5)
        print(f"{'bare reading':44}{bare:8.0f} ms")

        def show(what: str, took: float) -> None:
            print(f"{what:44}{took:8.0f} ms   {took / bare:5.2f} x")

        show("cinderlora.runs, first", measured(LISTED, where, 1))
        show("cinderlora.runs, again", measured(LISTED, where, 9))
        show("failed ones of a name, the newest 20", measured(FILTERED, where, 9))
        show("with the last loss of each, first", measured(LOSSES, where, 1))
        show("with the last loss of each, again", measured(LOSSES, where, 9))
        size = sum(path.stat().st_size for path in cache.rglob("*.json"))
        print(f"the index: {size / 1e6:.1f} MB")
        shutil.rmtree(cache)
        begun = time.perf_counter()
        found = runs(where)
        print(f"in this process, first: {1000 * (time.perf_counter() - begun):.0f} ms for {len(found)} runs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
