"""Stopping: the whole tree, from anywhere, and an honest report of what it took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import attrs
import psutil
import pytest

import cinderlora
from cinderlora import (
    Failed,
    Plan,
    Progress,
    Registry,
    RunNotFound,
    Stage,
    StillRunning,
    Stopped,
    TrainingStopped,
    Warned,
    attach,
    launch,
    runs,
    sync,
)
from cinderlora.running.base import is_save_due

Planner = Callable[..., Plan]
ProcessesOf = Callable[[Any], list[psutil.Process]]

ENDLESS = """
    step = 0
    while True:
        step += 1
        bar(step, 100000)
        time.sleep(0.01)
"""
# A child that cannot be asked: it says that it is ready, then ignores the signal.
DEAF = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "


async def training(run: cinderlora.Run) -> None:
    """Wait until the trainer has said that it trains."""
    async for event in run.events():
        if isinstance(event, Progress):
            return


@pytest.mark.anyio
async def test_stop_in_the_middle_of_a_loop(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: ProcessesOf
) -> None:
    reports, events = [], []
    async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
        async for event in run:
            events.append(event)
            if isinstance(event, Progress) and not reports:
                reports.append(await run.stop(by="Kim"))
    assert isinstance(events[-1], Stopped)
    assert events[-1].by == "Kim"
    assert still_running(run) == []
    (report,) = reports
    assert report.state == run.state == "stopped"
    assert len(report.asked) == 1
    assert report.forced == report.left == ()
    assert report.seconds < 5
    assert json.loads((run.folder / "state.json").read_text())["exit_code"] == -signal.SIGTERM
    with pytest.raises(TrainingStopped) as caught:
        _ = run.result
    assert "Kim" in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "escape",
    [
        pytest.param("pass", id="in the group"),
        pytest.param("os.setpgid(0, 0)", id="in a group of its own"),
        pytest.param("os.setsid()", id="in a session of its own"),
        pytest.param("os.setsid(); os.fork() and os._exit(0)", id="with no parent either"),
        pytest.param(
            "os.setsid(); os.fork() and os._exit(0); 'again' in sys.argv or "
            "os.execve(sys.executable, [sys.executable, '-u', '-c', open('away.py').read(), 'again'], {})",
            id="with no environment either",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to the supervisor"),
        ),
    ],
)
async def test_no_process_is_left(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: ProcessesOf, escape: str
) -> None:
    script = f"""
        import subprocess
        code = {DEAF + escape + "; print('away', os.getpid(), flush=True); time.sleep(1000)"!r}
        open("away.py", "w").write(code)
        child = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE)
        word = b"deaf"
        while word == b"deaf":
            word, _, pid = child.stdout.readline().strip().partition(b" ")
        assert word == b"away"
        say("away %d" % int(pid))
    """
    plan = make_plan(textwrap.dedent(script) + textwrap.dedent(ENDLESS))
    async with launch(plan, runs=run_folders, registry=registry) as run:
        async for event in run.events():
            if getattr(event, "text", "").startswith("away "):
                away = psutil.Process(int(event.text.split()[1]))
                break
        await training(run)
        report = await run.stop(grace=0.5)
    assert still_running(run) == []
    assert not away.is_running() or away.status() == psutil.STATUS_ZOMBIE
    assert run.state == "stopped"
    assert len(report.asked) == 2
    assert len(report.forced) == 1
    assert "python" in report.forced[0].name
    assert report.seconds >= 0.5


@pytest.mark.anyio
async def test_a_trainer_that_does_not_listen(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: ProcessesOf
) -> None:
    plan = make_plan("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(ENDLESS))
    async with launch(plan, runs=run_folders, registry=registry) as run:
        await training(run)
        report = await run.stop(grace=0.2)
    assert [ended.pid for ended in report.forced] == [ended.pid for ended in report.asked]
    assert run.state == "stopped"
    assert still_running(run) == []


@pytest.mark.anyio
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="strays are found by /proc")
async def test_what_forks_itself_away_is_given_the_time_too(
    make_plan: Planner, registry: Registry, run_folders: Path, tmp_path: Path
) -> None:
    """One look may find neither the parent, which has gone, nor the child, which was not there yet."""
    hops = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
os.setsid()
until = time.monotonic() + 1
while time.monotonic() < until:
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
open({str(tmp_path / "left in peace")!r}, "w").close()
"""
    script = f"""
        import subprocess
        child = subprocess.Popen([sys.executable, "-S", "-u", "-c", {hops!r}], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"deaf\\n"
    """
    plan = make_plan(textwrap.dedent(script) + textwrap.dedent(ENDLESS))
    async with launch(plan, runs=run_folders, registry=registry) as run:
        await training(run)
        report = await run.stop(grace=30)
    assert (report.state, report.forced, report.left) == ("stopped", (), ())
    assert (tmp_path / "left in peace").exists()


class Card(ModuleType):
    """NVIDIA's library where one card is, as far as it is asked: whose memory it says is held, and for how long after
    they have ended. No machine of the suite has one."""

    class NVMLError(Exception):
        pass

    def __init__(self, pid: int, lags: float) -> None:
        super().__init__("pynvml")
        self._process, self._lags = psutil.Process(pid), lags
        self._gone: float | None = None

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, card: int) -> list[SimpleNamespace]:
        if self._gone is None and not self._process.is_running():
            self._gone = time.monotonic()
        held = self._gone is None or time.monotonic() - self._gone < self._lags
        return [SimpleNamespace(pid=self._process.pid, usedGpuMemory=8 << 30)] if held else []


@pytest.mark.anyio
@pytest.mark.parametrize(("lags", "released"), [(0.0, True), (0.3, True), (3600.0, False)])
async def test_the_memory_of_the_card_is_seen_free_again(
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    lags: float,
    released: bool,
) -> None:
    """The driver takes its time to say so; where it never does, that is said."""
    monkeypatch.setattr("cinderlora.running.stopping._RELEASE_LIMIT", 5.0 if released else 0.2)
    async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
        await training(run)
        trainer = json.loads((run.folder / "state.json").read_text())["trainer"]["pid"]
        monkeypatch.setitem(sys.modules, "pynvml", Card(trainer, lags))
        report = await run.stop()
    assert (report.state, report.gpu_released) == ("stopped", released)
    assert report.seconds >= (lags if released else 0.2)


@pytest.mark.anyio
async def test_without_a_card_nothing_is_said_of_its_memory(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
        await training(run)
        report = await run.stop()
    assert report.gpu_released is None


@pytest.mark.anyio
async def test_a_trainer_that_takes_its_leave_is_given_the_time(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    script = """
        def leave(*_):
            time.sleep(0.3)
            say("goodbye")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
    """
    plan = make_plan(textwrap.dedent(script) + textwrap.dedent(ENDLESS))
    async with launch(plan, runs=run_folders, registry=registry) as run:
        await training(run)
        report = await run.stop()
    assert report.forced == ()
    assert run.state == "stopped"
    assert "goodbye" in run.status.log[-1]


@pytest.mark.anyio
async def test_a_launcher_that_starts_its_trainer_again(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: ProcessesOf
) -> None:
    script = """
        signal.signal(signal.SIGTERM, lambda *_: None)
        import subprocess
        while True:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            bar(1, 100)
            say("")
            child.wait()
    """
    async with launch(make_plan(script), runs=run_folders, registry=registry) as run:
        await training(run)
        await run.stop(grace=0.5)
    assert still_running(run) == []
    assert run.state == "stopped"


@pytest.mark.anyio
async def test_what_is_half_written_is_named_so(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any]
) -> None:
    script = """
        save("cg_elena-step00000002.safetensors")
        sample(2)
        bar(2, 4)
        lora("cg_elena-step00000004.safetensors", keep=50)
        lora(keep=100)
        open(out + "/sample/cg_elena_000004_00_20260101000000_42.png", "wb").write(b"\\x89PNG")
        lora("somebody_elses.safetensors", keep=50)
        bar(4, 4)
    """
    plan = make_plan(textwrap.dedent(script) + textwrap.dedent(ENDLESS))
    plan.output.mkdir()
    (plan.output / "cg_elena-step00000008.safetensors").write_bytes(b"half, and from before")
    async with launch(plan, runs=run_folders, registry=registry) as run:
        async for event in run.events():
            if isinstance(event, Progress) and event.step == 4:
                break
        report = await run.stop()
        live = [event async for event in run]
    names = [
        "cg_elena-step00000004.safetensors.partial",
        "cg_elena.safetensors.partial",
        "sample/cg_elena_000004_00_20260101000000_42.png.partial",
    ]
    assert report.partial == tuple(plan.output / name for name in names)
    assert all(path.is_file() for path in report.partial)
    assert (await run.stop()).partial == report.partial
    assert sorted(path.name for path in plan.output.glob("*.safetensors")) == [
        "cg_elena-step00000002.safetensors",
        "cg_elena-step00000008.safetensors",
        "somebody_elses.safetensors",
    ]
    warned = [event for event in live if isinstance(event, Warned)]
    assert [event.code for event in warned] == ["files_partial"]
    assert all(name in warned[0].message for name in names)
    assert [path.name for path in run.status.checkpoints] == ["cg_elena-step00000002.safetensors"]
    assert untimed([event async for event in attach(run.folder, registry=registry)]) == untimed(live)


@pytest.mark.anyio
async def test_a_stop_that_waits_for_a_checkpoint(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    script = """
        for step in range(1, 5):
            bar(step, 8)
            while not os.path.exists("go%d" % step): time.sleep(0.01)
            save("cg_elena-step%08d.safetensors" % step)
            say("saving state at step %d" % step)
            time.sleep(0.1)
            open(out + "/state%d" % step, "w").close()
        bar(5, 8)
        time.sleep(100)
    """
    plan = make_plan(script)
    async with launch(plan, runs=run_folders, registry=registry, detach=True) as run:
        pass
    (run.folder / "go1").touch()
    async for event in run.events():
        if isinstance(event, Progress) and event.step == 2:
            break
    with anyio.move_on_after(0.2) as scope:
        await run.stop(after="checkpoint")
    assert scope.cancelled_caught
    assert run.state == "running", "called off"
    (run.folder / "go2").touch()
    reports = []

    async def stop() -> None:
        reports.append(await run.stop(after="checkpoint"))

    async with anyio.create_task_group() as group:
        async for event in run.events():
            if isinstance(event, Progress) and event.step == 3:
                group.start_soon(stop)
                await anyio.sleep(0.2)
                assert reports == [], "the checkpoints before it are none to wait for"
                (run.folder / "go3").touch()
    assert reports[0].state == run.state == "stopped"
    assert [path.name for path in run.status.checkpoints][-1] == "cg_elena-step00000003.safetensors"
    assert (plan.output / "state3").exists(), "what is saved with it is waited for, too"
    assert not (plan.output / "cg_elena-step00000004.safetensors").exists()


@pytest.mark.anyio
async def test_a_stop_that_waits_for_a_checkpoint_that_does_not_come(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    settings = "[job.settings]\nsave_every = 2\nsteps = 4\n"
    plan = make_plan("bar(3, 4)\nsay('')\nwhile not os.path.exists('go'): time.sleep(0.01)\ntrain()")
    async with launch(
        attrs.evolve(plan, files={**plan.files, "run.toml": settings}), runs=run_folders, registry=registry
    ) as run:
        await training(run)
        with pytest.raises(StillRunning) as caught:
            await run.stop(after="checkpoint")
        assert caught.value.code == "no_checkpoint_due"
        assert run.folder.name in str(caught.value)
        assert run.state == "running"
        (run.folder / "go").touch()
    assert run.state == "finished"
    assert (await run.stop(after="checkpoint")).already_ended

    async with launch(plan, runs=run_folders, registry=registry) as run:  # whose settings nobody knows
        (run.folder / "go").touch()
        assert (await run.stop(after="checkpoint")).state in {"finished", "stopped"}


def test_whether_a_checkpoint_is_due() -> None:
    def due(step: int, total: int | None = 10, **settings: Any) -> bool:
        return is_save_due(cinderlora.Settings(**settings), step, total)

    assert [due(step, save_every=4) for step in (0, 3, 4, 7, 8, 10)] == [True, True, True, True, False, False]
    assert not due(5, save_every=5), "the last step's is the end's"
    assert due(9, None, save_every=5)
    assert not due(0)
    assert not due(0, save_every=0)
    assert due(9, extra={"save_every_n_epochs": 1})


@pytest.mark.anyio
async def test_stopping_what_has_ended_is_harmless(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    async with launch(make_plan(), runs=run_folders, registry=registry) as run:
        await run.wait()
        report = await run.stop()
        assert report.already_ended
        assert report.state == "finished"
        assert report.asked == ()
    assert run.state == "finished"
    assert not (run.folder / "stop.json").exists()


@pytest.mark.anyio
async def test_several_may_stop_at_once_and_the_first_counts(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
        await training(run)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(attach(run.folder, registry=registry).stop)
        assert (await run.stop()).already_ended
    assert run.state == "stopped"


@pytest.mark.anyio
async def test_a_stop_does_not_change_how_a_run_had_ended(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """The trainer fails first, and what is left of its group takes a while: the stop comes too late to be the cause."""
    script = f"""
        import subprocess
        child = subprocess.Popen([sys.executable, "-u", "-c", {DEAF + "time.sleep(1000)"!r}], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"deaf\\n"
        sys.exit(3)
    """
    async with launch(make_plan(script), runs=run_folders, registry=registry) as run:
        trainer = json.loads((run.folder / "state.json").read_text())["trainer"]["pid"]
        while psutil.pid_exists(trainer) and psutil.Process(trainer).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        await anyio.sleep(0.1)  # the supervisor is told by the system, at once; it says so nowhere yet
        report = await run.stop(grace=0.1)
    assert report.state == run.state == "failed"


@pytest.mark.anyio
async def test_no_later_stage_is_started(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    polite = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('ready', flush=True); "
    stages = [Stage(name="cache", argv=[sys.executable, "-c", polite + "time.sleep(99)"]), *make_plan().stages]
    async with launch(make_plan(stages=stages), runs=run_folders, registry=registry) as run:
        async for event in run:
            if getattr(event, "text", "") == "ready":
                await run.stop()
    assert run.state == "stopped"
    assert (run.folder / "output.log").read_text() == "ready\n"


@pytest.mark.parametrize("mark", [None, "", 0, [], {}])
def test_a_record_without_a_mark_is_no_run(tmp_path: Path, mark: Any) -> None:
    """It would be the mark of all processes that have none."""
    record = {"id": mark, "name": "e", "model_type": "toy", "lora": "e", "output": "/", "created": 0, "stages": []}
    (tmp_path / "launch.json").write_text(json.dumps(record))
    with pytest.raises(RunNotFound):
        attach(tmp_path)


def test_looking_at_a_run_runs_no_program_that_it_names(tmp_path: Path, registry: Registry) -> None:
    """A run folder may come from anybody."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/was-here'\n")
    program.chmod(0o755)
    folder = tmp_path / "run"
    folder.mkdir()
    stage = {"name": "train", "argv": [str(program)], "env": {}, "cwd": "."}
    record = {"id": "0123456789abcdef", "name": "e", "model_type": "toy", "lora": "e.safetensors", "stages": [stage]}
    (folder / "launch.json").write_text(
        json.dumps({**record, "output": str(tmp_path), "created": 0, "zero_at_start": []})
    )
    nobody = {"pid": 1, "start": "long ago"}
    state = {"state": "running", "supervisor": nobody, "trainer": nobody, "started": 0, "stage": 0, "files": []}
    (folder / "state.json").write_text(json.dumps({**state, "before": None}))
    run = sync.attach(folder, registry=registry)
    assert isinstance(list(run)[-1], Failed)
    assert run.state == "lost"
    assert not (tmp_path / "was-here").exists()


# ---- front ends come and go ------------------------------------------------------------------------------------------

FRONT_END = """
import sys
sys.path[:0] = {path!r}
import anyio
import cinderlora
from cinderlora import Plan, Registry, Stage

async def main():
    registry = Registry()
    plan = Plan(
        name="elena", model_type="toy", output={output!r}, lora="cg_elena.safetensors",
        stages=[Stage(name="train", argv=[sys.executable, "-I", "-S", "-u", "trainer.py"])],
    files={{"trainer.py": {script!r}}},
    )
    async with cinderlora.launch(plan, runs={runs!r}, detach={detach}, registry=registry) as run:
        print(run.folder, flush=True)
        async for event in run:
            pass

anyio.run(main, backend={backend!r})
"""


def front_end(
    plan: Plan, runs_folder: Path, *, detach: bool, backend: str = "asyncio"
) -> tuple[subprocess.Popen[str], Path]:
    """Another program that launches a plan, with a process group of its own like a terminal's job."""
    source = FRONT_END.format(
        path=sys.path,
        output=str(plan.output),
        script=plan.files["trainer.py"],
        runs=str(runs_folder),
        detach=detach,
        backend=backend,
    ).replace(f"output={str(plan.output)!r}", f"output=__import__('pathlib').Path({str(plan.output)!r})")
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize(
    ("number", "detach"), [(signal.SIGHUP, True), (signal.SIGTERM, True), (signal.SIGKILL, False)], ids=str
)
def test_a_run_outlives_its_front_end(
    make_plan: Planner, registry: Registry, run_folders: Path, number: int, detach: bool
) -> None:
    plan = make_plan("bar(1, 4)\nwhile not os.path.exists('go'): time.sleep(0.01)\ntrain()")
    process, folder = front_end(plan, run_folders, detach=detach)
    os.killpg(process.pid, number)
    assert process.wait() == -number
    process.communicate()
    run = sync.attach(folder, registry=registry)
    assert run.state == "running"
    (folder / "go").touch()
    run.wait()
    assert run.state == "finished"
    assert [other.folder for other in runs(run_folders, registry=registry)] == [folder]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM], ids=str)
def test_a_front_end_that_is_told_to_go_stops_what_it_looks_after(
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: ProcessesOf,
    number: int,
    backend: str,
) -> None:
    """Then it goes as it would have."""
    process, folder = front_end(make_plan(ENDLESS), run_folders, detach=False, backend=backend)
    os.killpg(process.pid, number)
    assert process.wait() == -number
    process.communicate()
    run = attach(folder, registry=registry)
    assert run.state == "stopped"
    assert still_running(run) == []


def test_a_programs_own_handling_of_signals_is_left_alone(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    came = []
    handlers = [lambda *_: came.append(1), signal.SIG_IGN]
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    try:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), handlers, strict=True):
            signal.signal(number, handler)
        with sync.launch(make_plan(), runs=run_folders, registry=registry) as run:
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == handlers
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert came == [1]
        assert run.state == "finished"
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        with (
            sync.launch(make_plan(), runs=run_folders, registry=registry),
            sync.launch(make_plan(lora="b.safetensors"), runs=run_folders, registry=registry),
        ):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        with sync.launch(make_plan(), runs=run_folders, registry=registry, detach=True):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])


@pytest.mark.anyio
async def test_a_front_end_that_stands_still_holds_nothing_up(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """There is no pipe that could run full."""
    process, folder = front_end(make_plan("say('x' * 1000000)\ntrain()"), run_folders, detach=True)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        run = attach(folder, registry=registry)
        await run.wait()
        assert run.state == "finished"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_interrupting_a_front_end_stops_the_run(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: ProcessesOf
) -> None:
    process, folder = front_end(make_plan(ENDLESS), run_folders, detach=False)
    while not (folder / "output.log").stat().st_size:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    run = attach(folder, registry=registry)
    assert run.state == "stopped"
    assert still_running(run) == []
