"""The fault suite: real process trees, killed, starved and lied to; each case counts what it tried, survived and lost.

    pytest -m faults tests/faults                            the short form
    CINDERLORA_FAULTS=full pytest -m faults tests/faults     the numbers that the project vouches for
    CINDERLORA_FAULTS_SEED=4711 ...                          the same random instants again

The seed is printed above the tests, the numbers below.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FULL = os.environ.get("CINDERLORA_FAULTS") == "full"
_SEED = "CINDERLORA_FAULTS_SEED"
_PROPERTY = "fault"


def _fixtures_of(folder: str) -> ModuleType:
    path = Path(__file__).parents[1] / folder / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_fixtures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_running = _fixtures_of("running")
make_plan, registry, run_folders = _running.make_plan, _running.registry, _running.run_folders
still_running, untimed = _running.still_running, _running.untimed


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed before the workers are started: they have the environment from here."""
    os.environ.setdefault(_SEED, str(random.randrange(10**6)))


def pytest_report_header(config: pytest.Config) -> str:
    form = "full" if FULL else "short"
    return f"faults: {form} form, {_SEED}={os.environ[_SEED]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.keywords:
            item.add_marker(pytest.mark.timeout(7200 if FULL else 1200))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the cases counted, from all workers."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if not rows:
        return
    terminalreporter.section(f"faults, {_SEED}={os.environ[_SEED]}")
    terminalreporter.line(f"{'':<58}{'tried':>7}{'survived':>10}{'lost':>6}")
    for case, tried, survived, note in sorted(rows):
        terminalreporter.line(f"{case:<58}{tried:>7}{survived:>10}{tried - survived:>6}   {note}".rstrip())


class Tally:
    """Counts the trials of one case."""

    def __init__(self) -> None:
        self.case = ""
        self.tried = self.survived = 0
        self.note = ""
        self._lost: list[str] = []

    def trials(self, case: str, short: int, full: int) -> Iterator[int]:
        """So many trials, numbered; one that is not counted as survived is lost."""
        self.case = case
        for n in range(full if FULL else short):
            self.tried += 1
            yield n

    def count(self, survived: bool, why: str = "") -> None:
        """Count one trial's outcome."""
        if survived:
            self.survived += 1
        else:
            self._lost.append(why)

    def check(self) -> None:
        """Fail where a trial was lost."""
        assert self.survived == self.tried, "\n".join(self._lost)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """To count with; the numbers are printed at the end, and what was lost fails the test."""
    counted = Tally()
    yield counted
    record_property(_PROPERTY, (counted.case, counted.tried, counted.survived, counted.note))
    counted.check()


@pytest.fixture
def full() -> bool:
    """Whether the full form is asked for."""
    return FULL


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of a test's own, the same ones for the same seed."""
    return random.Random(f"{os.environ[_SEED]} {request.node.name}")


# ---- namespaces ----------------------------------------------------------------------------------------------------


def _namespace(*options: str) -> list[str]:
    for more in (["--map-root-user"], []):
        argv = [shutil.which("unshare") or "unshare", "--mount", *more, *options]
        probe = [*argv, "mount", "-t", "tmpfs", "none", "/mnt"]
        try:
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return argv
        except OSError:
            break
    pytest.skip("no namespaces here")


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """What starts a program where it may mount disks of its own."""
    return _namespace()


@pytest.fixture(scope="session")
def own_processes() -> list[str]:
    """What starts a program that no process but its own descendants is there for: it can end no other."""
    return _namespace("--pid", "--fork", "--mount-proc")


# ---- front ends ------------------------------------------------------------------------------------------------------

# A program that has everything imported and forks a front end for each line it reads: a kill then hits the launch and
# not the imports.
_NURSERY = """
import json, os, signal, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from cinderlora import Plan, Registry, Stage, sync
from cinderlora.errors import CinderloraError
import ctypes, cinderlora.adapter, cinderlora.running.run, cinderlora.serial

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
registry = Registry()
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    plan = Plan(
        name="elena", model_type="toy", output=Path(order["output"]), lora="cg_elena.safetensors",
        stages=[Stage(name="train", argv=[sys.executable, "-I", "-S", "-u", "trainer.py"])],
        files={"trainer.py": order["script"]}, zero_at_start=["lora_up"],
    )
    said = "over"
    try:
        time.sleep(max(0.0, order["at"] - time.time()))
        with sync.launch(plan, runs=order["runs"], detach=order["detach"], registry=registry) as run:
            said = run.folder.name
            for event in run:
                pass
    except CinderloraError as error:
        said = error.code
    finally:
        Path(order["answer"]).write_text(said)
        os._exit(0)
"""


class Nursery:
    """Starts front ends in milliseconds, each in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self._answers = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._said() == "ready"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, plan: Any, runs: Path, *, detach: bool = False, at: float = 0.0) -> tuple[int, Path]:
        """A front end that launches a plan at a time and follows it; its pid, and the file it leaves its answer in."""
        self._count += 1
        answer = self._answers / f"answer-{self._count}"
        order = {
            "output": str(plan.output),
            "script": plan.files["trainer.py"],
            "runs": str(runs),
            "detach": detach,
            "at": at,
            "answer": str(answer),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._said()), answer

    def close(self) -> None:
        """End it; its front ends go on."""
        self._process.communicate()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """Starts front ends."""
    started = Nursery(tmp_path)
    yield started
    started.close()
