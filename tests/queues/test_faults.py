"""A queue whose supervisor is killed again and again: every job is run exactly once, whatever the instant.

The short form runs in CI; CINDERLORA_FAULTS=full is the form of the closing notes. CINDERLORA_FAULTS_SEED=4711 has the
same random instants again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import psutil
import pytest

from cinderlora import LaunchFailed, sync

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.name == "nt", reason="kills by signal"),
    pytest.mark.timeout(3600),
]

JOBS = 500 if os.environ.get("CINDERLORA_FAULTS") == "full" else 50


def supervisors_of(folder):
    """The processes that work off a queue or are about to."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-3:] == ["-m", "cinderlora.queues", str(folder)]:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("gpus", [1, 3])
def test_each_job_is_run_exactly_once_however_often_the_supervisor_is_killed(
    folder, make_plan, notes, monkeypatch, record_property, gpus
):
    seed = int(os.environ.get("CINDERLORA_FAULTS_SEED") or random.randrange(10**6))
    dice = random.Random(seed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    queue = sync.Queue(folder)
    names = [f"job{number}" for number in range(JOBS)]
    for name in names:
        queue.add(make_plan(name), start=False)
    kills = 0
    while not (status := queue.status()).is_idle or any(entry.state == "waiting" for entry in status.entries):
        if not status.is_running:
            try:
                queue.start()
            except LaunchFailed:
                continue  # it was killed before it could answer, as may be
        # By jobs begun rather than by the clock: a quick machine is done before a slow one was killed as often.
        # Some by the clock all the same: while it begins, or between two jobs.
        soon = len(notes.began()) + dice.randrange(1, 5)
        until = time.monotonic() + (dice.uniform(0, 0.5) if dice.random() < 0.3 else 60)
        while len(notes.began()) < soon and queue.status().is_running and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.1))  # the instant, not a wait
        for process in supervisors_of(folder):
            process.send_signal(signal.SIGKILL)
            kills += 1
    began = Counter(notes.began())
    ends = Counter(entry.state for entry in queue.entries())
    # For the table of tests/faults.
    case = f"queue's process killed, {gpus} at once: jobs run exactly once"
    record_property("fault", (case, JOBS, sum(began[name] == 1 for name in names), f"{kills} kills, seed {seed}"))
    assert began == Counter(names)
    assert ends == {"finished": JOBS}
    assert sorted(run.name for run in sync.runs(queue.entry(1).runs)) == sorted(names)
    assert kills > JOBS // 10
