"""How quick a queue goes on, and what it costs while it waits. Prints a table; asserts nothing.

python benchmarks/queues.py [JOBS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from cinderlora import Plan, Stage, to_json
from cinderlora.sync import Queue

# Says when it began, and leaves a LoRA; the last one stays for a while.
TRAINER = """
import json, os, struct, sys, time
began = time.time()
name, out, stays = sys.argv[1:4]
data = struct.pack("<2f", 0.5, 0.5)
header = json.dumps({"lora_up": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
time.sleep(float(stays))
with open(os.path.join(out, name + ".safetensors"), "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header + data)
with open(os.path.join(out, name + ".began"), "w") as file:
    file.write("%.6f" % began)
"""


def plan(name: str, out: Path, stays: float) -> Plan:
    return Plan(
        name=name,
        model_type="toy",
        output=out,
        lora=f"{name}.safetensors",
        stages=[Stage(name="train", argv=[sys.executable, "-I", "-S", "trainer.py", name, str(out), str(stays)])],
        files={"trainer.py": TRAINER},
    )


def supervisor_of(folder: Path) -> psutil.Process:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[-3:] == ["-m", "cinderlora.queues", str(folder)]:
                return process
    raise LookupError(folder)


def main(jobs: int) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out"
        out.mkdir()
        queue = Queue(folder / "queue")
        begun = time.perf_counter()
        for number in range(jobs):
            queue.add(plan(f"job{number}", out, 0.2), start=False, runs=folder / "runs")
        added = (time.perf_counter() - begun) / jobs
        begun = time.perf_counter()
        queue.start()
        started = time.perf_counter() - begun
        queue.wait()
        ended = {entry.name: entry.ended for entry in queue.entries()}
        gaps = [float((out / f"job{n}.began").read_text()) - (ended[f"job{n - 1}"] or 0.0) for n in range(1, jobs)]
        print(f"adding a job                         {1000 * added:6.1f} ms")
        print(f"starting the queue                   {1000 * started:6.1f} ms")
        typical, longest = 1000 * statistics.median(gaps), 1000 * max(gaps)
        print(f"hand-over, end to next trainer       {typical:6.1f} ms, at most {longest:.1f} ms")

        for number in range(500):
            queue.add(plan(f"more{number}", out, 20.0), start=False, hold=number > 0, runs=folder / "runs")
        queue.start()
        time.sleep(4)
        process = supervisor_of(queue.folder)
        before, begun = sum(process.cpu_times()[:2]), time.perf_counter()
        time.sleep(5)
        used = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - begun)
        memory = process.memory_info().rss / 2**20
        begun = time.perf_counter()
        entries = Queue(queue.folder).entries()
        listed = time.perf_counter() - begun
        begun = time.perf_counter()
        to_json(queue.status())
        asked = time.perf_counter() - begun
        print(f"supervisor with {len(entries)} entries, one running: {100 * used:.2f} % of one core, {memory:.0f} MiB")
        print(f"listing them                         {1000 * listed:6.1f} ms")
        print(f"status as JSON, asked the first time {1000 * asked:6.1f} ms")
        queue.pause()
        queue.stop(jobs + 1, grace=0)
        queue.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
