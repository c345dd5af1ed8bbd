"""How quick and how small running a plan is. Prints a table; asserts nothing.

python benchmarks/running.py
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import psutil

from cinderlora import Component, Log, ModelType, Plan, Registry, Stage, attach, hookimpl, launch
from cinderlora.running import supervisor
from cinderlora.running.follow import Follower

# Says the time at which it writes each line; otherwise a training bar at ten steps a second.
TRAINER = """
import sys, time
steps = int(sys.argv[1])
for step in range(steps):
    sys.stdout.write("\\rsteps: %3d%%|###   | %d/%d [00:01<00:09,  1.25it/s, avr_loss=%.4f]" % (
        step * 100 // steps, step, steps, 1 / (step + 1)))
    if step % 3 == 0:
        sys.stdout.write("\\nwritten at %.6f\\n" % time.time())
    sys.stdout.flush()
    time.sleep(0.1)
"""


class Toy:
    @hookimpl
    def model_type(self) -> ModelType:
        return ModelType(name="toy", title="Toy", script="", network_module="", components=[Component("model")])


def plan(output: Path, steps: int) -> Plan:
    return Plan(
        name="elena",
        model_type="toy",
        output=output,
        lora="cg_elena.safetensors",
        stages=[Stage(name="train", argv=[sys.executable, "trainer.py", str(steps)])],
        files={"trainer.py": TRAINER},
    )


def show(what: str, value: str, wanted: str) -> None:
    print(f"{what:<58}{value:>14}   {wanted}")


async def starting(folder: Path, registry: Registry) -> None:
    """From `launch` to the trainer's pid on record, in a warm program."""
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        async with launch(plan(folder / "out", 0), runs=folder / "runs", registry=registry) as run:
            took.append(time.perf_counter() - begun)
        record = json.loads((run.folder / "state.json").read_text())
        assert record["trainer"]["pid"]
    del took[0]
    show("launch to the trainer's pid on record, median", f"{statistics.median(took) * 1000:.0f} ms", "<= 80 ms")
    show("launch to the trainer's pid on record, slowest of 19", f"{max(took) * 1000:.0f} ms", "")


async def following(folder: Path, registry: Registry) -> None:
    """The delay of lines, and what following costs, at ten steps a second."""
    delays = []
    me = psutil.Process()
    async with launch(plan(folder / "out", 150), runs=folder / "runs", registry=registry) as run:
        await anyio.sleep(0.5)
        looking_after = psutil.Process(json.loads((run.folder / "state.json").read_text())["supervisor"]["pid"])
        memory = 0
        begun, cpu = time.perf_counter(), sum(me.cpu_times()[:2])
        cpu_there = sum(looking_after.cpu_times()[:2])
        async for event in run:
            if isinstance(event, Log) and event.text.startswith("written at "):
                delays.append(time.time() - float(event.text.split()[-1]))
                if len(delays) == 45:  # it has begun to look at the GPU memory by then
                    memory = looking_after.memory_info().rss
                    cpu_there = sum(looking_after.cpu_times()[:2]) - cpu_there
        seconds = time.perf_counter() - begun
        cpu = sum(me.cpu_times()[:2]) - cpu
    late = statistics.quantiles(delays[5:], n=20)[-1]
    show("supervisor's resident memory", f"{memory / 1e6:.1f} MB", "<= 15 MB")
    show("supervisor's share of a core", f"{cpu_there / seconds:.2%}", "")
    show("line written to its event, 95 of 100 within", f"{late * 1000:.0f} ms", "<= 80 ms")
    show("following at 10 steps/s, share of a core", f"{cpu / seconds:.2%}", "<= 2 %")


async def many_following(folder: Path, registry: Registry) -> None:
    """What fifty followers in one program cost together, at ten steps a second."""
    me = psutil.Process()
    async with launch(plan(folder / "out", 150), runs=folder / "many", registry=registry) as run:
        await anyio.sleep(0.5)

        async def follow() -> None:
            async for _ in attach(run.folder, registry=registry):
                pass

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(follow)
            await anyio.sleep(2)
            begun, cpu = time.perf_counter(), sum(me.cpu_times()[:2])
            await anyio.sleep(10)
            seconds, cpu = time.perf_counter() - begun, sum(me.cpu_times()[:2]) - cpu
    show("50 followers at 10 steps/s, share of a core", f"{cpu / seconds:.2%}", "<= 10 %")


async def stopping(folder: Path, registry: Registry) -> None:
    """From the end of an obedient trainer to the end of `stop`; and for one that does not listen, beyond its grace."""
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    for what, code, grace in (("obedient", "", 10.0), ("disobedient", deaf, 0.5)):
        took = []
        for _ in range(7):
            trained = plan(folder / "out", 1000)
            trained = attrs.evolve(trained, files={"trainer.py": code + TRAINER})
            async with launch(trained, runs=folder / "stopped", registry=registry) as run:
                async for event in run:
                    if isinstance(event, Log):
                        break
                report = await run.stop(grace=grace)
                assert bool(report.forced) == bool(code)
                took.append(report.seconds - (grace if code else 0.0))
        wanted = "<= 1 s beyond its grace" if code else "<= 300 ms, SIGTERM and exit included"
        show(f"stop of a trainer that is {what}, slowest of 7", f"{max(took) * 1000:.0f} ms", wanted)


async def attaching(folder: Path, registry: Registry) -> None:
    """A run with a million refreshes of the bar behind it."""
    run = attach(next(iter((folder / "runs").iterdir())), registry=registry)
    bar = "\rsteps: %3d%%|#####     | %d/1000000 [02:11<2:19:00,  1.25it/s, avr_loss=%.4f]"
    log = "".join(bar % (n // 10000, n, 1 / (n + 1)) for n in range(1_000_000)).encode() + b"\n"
    (run.folder / "output.log").write_bytes(log)
    record = json.loads((run.folder / "state.json").read_text())
    supervisor.write_whole(str(run.folder), supervisor.STATE, {**record, "log_length": len(log)})
    del log  # or its 80 MB would hide what following takes
    me = psutil.Process()
    before = me.memory_info().rss
    begun, count = time.perf_counter(), 0
    async for _ in attach(run.folder, registry=registry):
        count += 1
    seconds = time.perf_counter() - begun
    show("attaching behind 1,000,000 refreshes, all events", f"{count / seconds:,.0f} /s", ">= 100,000 /s")
    show("  memory that this took", f"{(me.memory_info().rss - before) / 1e6:.1f} MB", "flat")
    begun = time.perf_counter()
    assert attach(run.folder, registry=registry).status.step == 999_999
    show("status behind 1,000,000 refreshes", f"{time.perf_counter() - begun:.1f} s", "")


def looking_at_a_lora(folder: Path) -> None:
    size = 200_000_000
    header = json.dumps({"a.lora_up": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    path = folder / "lora.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x12\x3c" * (size // 2))
    begun = time.perf_counter()
    assert supervisor.lora_facts(str(path), None, ["lora_up"])["finite"]
    show("looking through a LoRA", f"{size / 1e6 / (time.perf_counter() - begun):,.0f} MB/s", ">= 200 MB/s")


def polling(folder: Path, registry: Registry) -> None:
    """One look of a follower where nothing is new."""
    run = attach(next(iter((folder / "runs").iterdir())), registry=registry)
    idle = Follower(run._folder, registry["toy"])
    begun = time.perf_counter()
    for _ in range(1000):
        idle._log_length()
        run._folder.state()
    show("one look where nothing is new", f"{(time.perf_counter() - begun) * 1000:.0f} µs", "")


async def main() -> None:
    registry = Registry()
    registry.register(Toy(), name="toy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for measure in (starting, following, many_following, stopping, attaching):
            await measure(folder, registry)
        others: list[Callable[[], None]] = [lambda: polling(folder, registry), lambda: looking_at_a_lora(folder)]
        for other in others:
            other()


if __name__ == "__main__":
    anyio.run(main)
