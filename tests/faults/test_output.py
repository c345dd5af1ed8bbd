"""Trainers that print too much, too long, nothing any more, or no text at all; and many who follow."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import cinderlora
from cinderlora import Event, Finished, Log, Plan, Registry, Warned, attach, sync

pytestmark = [pytest.mark.faults]

Planner = Callable[..., Plan]


class Memory:
    """The most memory that this process takes above what it took, looked at ten times a second."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._before = self._me.memory_info().rss
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, self._me.memory_info().rss - self._before)


def test_without_a_newline(tally: Any, make_plan: Planner, registry: Registry, run_folders: Path, full: bool) -> None:
    size = 100_000_000 if full else 20_000_000
    script = f"for n in range({size // 100_000}): sys.stdout.write('x' * 100000)\nsay('')\ntrain()"
    for _ in tally.trials(f"{size // 10**6} MB without a newline", 1, 1):
        with Memory() as memory, sync.launch(make_plan(script), runs=run_folders, registry=registry) as run:
            longest = max(len(event.text) for event in run if isinstance(event, Log))
        tally.count(run.state == "finished" and longest <= 1 << 16 and memory.most < 60e6, f"{run!r} {memory.most}")
        tally.note = f"{memory.most / 1e6:.0f} MB of memory"


def test_much_output(tally: Any, make_plan: Planner, registry: Registry, run_folders: Path, full: bool) -> None:
    size = 1_000_000_000 if full else 40_000_000
    script = (
        f"line = 'y' * 99 + '\\n'\nfor n in range({size // 100_000}): sys.stdout.write(line * 1000)\nsay('')\ntrain()"
    )
    for _ in tally.trials(f"{size // 10**6} MB of output", 1, 1):
        warnings, last = [], None
        with Memory() as memory, sync.launch(make_plan(script), runs=run_folders, registry=registry) as run:
            for last in run:
                if isinstance(last, Warned):
                    warnings.append(last.code)
        good = isinstance(last, Finished) and memory.most < 60e6 and warnings == (["log_large"] if full else [])
        tally.count(good, f"{run!r} {memory.most} {warnings}")
        tally.note = f"{memory.most / 1e6:.0f} MB of memory"


def test_bytes_that_are_no_text(
    tally: Any, chance: random.Random, make_plan: Planner, registry: Registry, run_folders: Path, untimed: Any
) -> None:
    for n in tally.trials("invalid UTF-8", 3, 30):
        seed, size = chance.randrange(10**6), chance.choice([1000, 100_000, 1_000_000])
        script = f"""
            import random
            sys.stdout.buffer.write(random.Random({seed}).randbytes({size}))
            say("", end="\\r\\n")
            train()
        """
        with sync.launch(make_plan(script), runs=run_folders, registry=registry) as run:
            live = list(run)
        same = untimed(live) == untimed(list(run.events()))
        tally.count(run.state == "finished" and same, f"trial {n}, {seed}, {size}: {run!r}, the same for all: {same}")


def test_a_trainer_that_closes_its_output(
    tally: Any, make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    script = "say('the last word')\nos.close(1); os.close(2)\nlora()\ntime.sleep(0.2)\nos._exit(0)"
    for n in tally.trials("child closing its stdout", 2, 20):
        with sync.launch(make_plan(script), runs=run_folders, registry=registry) as run:
            texts = [event.text for event in run if isinstance(event, Log)]
        tally.count(run.state == "finished" and texts == ["the last word"], f"trial {n}: {run!r} {texts}")


FOLLOWER = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from cinderlora import Registry, sync
for event in sync.attach(sys.argv[2], registry=Registry()):
    print(event.seq, flush=True)
"""


def test_fifty_followers(
    tally: Any,
    chance: random.Random,
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    untimed: Callable[[list[Event]], list[Event]],
) -> None:
    """Fifty in this process that come at any time, from the start or from where they were; and others that stand still
    or are killed."""
    import json

    script = "for step in range(1, 201): bar(step, 200, '%.3g' % (1 / step)); time.sleep(0.01)\ntrain()"
    for n in tally.trials("50 followers at once, 2 of them killed, 1 standing still", 1, 5):
        with sync.launch(make_plan(script), runs=run_folders, registry=registry, detach=True) as run:
            pass
        argv = [sys.executable, "-c", FOLLOWER, json.dumps(sys.path), str(run.folder)]
        others = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(3)]
        streams: list[tuple[int, list[Event]]] = []

        async def follow(run: cinderlora.Run, delay: float, since: int, streams: Any = streams) -> None:
            await anyio.sleep(delay)
            streams.append((since, [event async for event in run.events(since=since)]))

        async def all_of_them(folder: Path = run.folder, others: Any = others, follow: Any = follow) -> None:
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    since = chance.choice([-1, 0, 10_000, 100_000])
                    where = attach(folder, registry=registry)
                    group.start_soon(follow, where, chance.uniform(0, 2), since)
                await anyio.sleep(1)
                others[0].send_signal(signal.SIGSTOP)
                for other in others[1:]:
                    other.kill()

        anyio.run(all_of_them)
        others[0].kill()
        for other in others:
            other.communicate()
        whole = untimed(list(sync.attach(run.folder, registry=registry)))
        same = all(
            untimed(stream) == [event for event in whole if event.seq is not None and event.seq > since]
            for since, stream in streams
        )
        tally.count(run.state == "finished" and len(streams) == 50 and same, f"trial {n}: {run!r}, the same: {same}")
