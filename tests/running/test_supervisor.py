"""The supervisor: what it records, what it survives, what it finds in a LoRA file."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cinderlora import Failed, Finished, Plan, Registry, Stage, Stopped, attach, launch, sync
from cinderlora.running import supervisor

Planner = Callable[..., Plan]


def state_of(run: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((run.folder / "state.json").read_text())
    return state


def ran(plan: Plan, folder: Path, registry: Registry) -> sync.Run:
    """A run of a plan, when it has ended."""
    with sync.launch(plan, runs=folder, registry=registry) as run:
        pass
    return run


# ---- starting and recording ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_it_runs_on_the_trainers_own_python(
    make_plan: Planner, registry: Registry, run_folders: Path, version: str
) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"there is no working python{version} on the path")
    script = """
        if sys.platform == "linux":
            say(str(os.path.samefile("/proc/%d/exe" % state()["supervisor"]["pid"], sys.executable)))
        train()
    """
    run = ran(make_plan(script, python=python), run_folders, registry)
    assert run.state == "finished"
    if sys.platform == "linux":
        assert (run.folder / "output.log").read_text(encoding="utf-8").startswith("True\n")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("train()", 0),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("1 / 0", 1),
    ],
)
def test_it_records_how_the_trainer_ended(
    make_plan: Planner, registry: Registry, run_folders: Path, script: str, code: int
) -> None:
    state = state_of(run := ran(make_plan(script), run_folders, registry))
    assert state["exit_code"] == code
    assert state["log_length"] == (run.folder / "output.log").stat().st_size
    assert state["stopped_by"] is None
    assert state["started"] <= state["ended"]
    assert ("oom_kills" in state) is (supervisor.oom_kills() is not None)
    while supervisor.is_running(state["supervisor"]):
        time.sleep(0.01)  # it goes as soon as it has written this


def test_what_the_trainer_finds(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    """A session of its own, nothing open but its log, no signal ignored, even where we ignore some."""
    script = """
        print(json.dumps({
            "session": os.getsid(0) == os.getpid(),
            "fds": sorted(int(n) for n in os.listdir("/dev/fd") if os.path.exists("/dev/fd/" + n)),
            "ignored": [n for n in (1, 2, 3, 15) if signal.getsignal(n) is signal.SIG_IGN],
            "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "input": sys.stdin.read(),
            "here": os.getcwd(),
            "added": os.environ["ADDED"],
        }))
    """
    stage = Stage(name="train", argv=[sys.executable, "trainer.py"], env={"ADDED": "ü=1"})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = ran(make_plan(script, stages=[stage]), run_folders, registry)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGINT, before[1])
    found = json.loads((run.folder / "output.log").read_text())
    assert found == {
        "session": True,
        "fds": [0, 1, 2],
        "ignored": [],
        "blocked": 0,
        "input": "",
        "here": str(run.folder),
        "added": "ü=1",
    }


def test_stages_run_one_after_the_other(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    def stage(name: str, code: str) -> Stage:
        return Stage(name=name, argv=[sys.executable, "-c", code])

    train = make_plan().stages[0]
    run = ran(make_plan(stages=[stage("cache", "print('cached')"), train]), run_folders, registry)
    assert run.state == "finished"
    assert (run.folder / "output.log").read_text(encoding="utf-8").startswith("cached\nrunning training")
    run = ran(make_plan(stages=[stage("cache", "raise SystemExit(7)"), train]), run_folders, registry)
    assert state_of(run)["exit_code"] == 7
    assert (run.folder / "output.log").read_text() == ""


def test_a_later_stage_that_cannot_be_started(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    vanishing = run_folders.parent / "trainer"
    vanishing.write_text("#!/bin/sh\n")
    vanishing.chmod(0o755)
    stages = [
        Stage(name="cache", argv=[sys.executable, "-c", f"import os; os.unlink({str(vanishing)!r})"]),
        Stage(name="train", argv=[str(vanishing)]),
    ]
    run = ran(make_plan(stages=stages), run_folders, registry)
    assert state_of(run)["exit_code"] == 127
    assert "No such file" in (run.folder / "output.log").read_text()


def test_it_ends_what_is_left_of_the_trainers_group(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: Callable[[Any], list[psutil.Process]]
) -> None:
    script = """
        import subprocess
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        train()
    """
    run = ran(make_plan(script), run_folders, registry)
    assert run.state == "finished"
    assert still_running(run) == []


def test_files_that_were_moved_away_are_on_record(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    script = """
        for step in range(2):
            save("cg_elena-step%08d.safetensors" % step)
            sample(step)
            while not any(("step%08d" % step) in name for name in state()["files"]):
                time.sleep(0.02)
            os.unlink(out + "/cg_elena-step%08d.safetensors" % step)
        lora()
        lora("cg_elena2-step00000001.safetensors")
    """
    run = ran(make_plan(script), run_folders, registry)
    files = state_of(run)["files"]
    assert [name for name in files if not name.startswith("sample/")] == [
        "cg_elena-step00000000.safetensors",
        "cg_elena-step00000001.safetensors",
        "cg_elena.safetensors",
    ]
    assert len([name for name in files if name.startswith("sample/")]) == 2


# ---- surviving -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_it_is_deaf_to_polite_signals(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    script = """
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            os.kill(state()["supervisor"]["pid"], number)
        train()
    """
    async with launch(make_plan(script), runs=run_folders, registry=registry) as run:
        pass
    assert run.state == "finished"


@pytest.mark.anyio
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_supervisor_that_was_killed_is_replaced(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any], stopped: bool
) -> None:
    plan = make_plan("bar(1, 4)\nsay('')\nwhile not os.path.exists('go'): time.sleep(0.02)\ntrain()")
    async with launch(plan, runs=run_folders, registry=registry, detach=True) as run:
        pass
    await _killed(state_of(run)["supervisor"]["pid"])
    assert run.state == "running", "the trainer goes on"
    again = attach(run.folder, registry=registry)
    assert state_of(run)["supervisor"]["pid"] != state_of(run)["trainer"]["pid"]
    if stopped:
        assert (await again.stop(by="Kim")).state == "stopped"
    (run.folder / "go").touch()
    events = [event async for event in again]
    state = state_of(run)
    assert state["exit_code"] is None
    if stopped:
        assert isinstance(events[-1], Stopped)
    else:
        assert isinstance(events[-1], Failed)
        assert events[-1].diagnosis.code == "run_lost"
        assert str(plan.output / plan.lora) in events[-1].diagnosis.fix, "it looks complete"
        assert state["lora"]["trained"]
        assert run.state == run.status.state == "lost"
    assert untimed(events) == untimed([event async for event in attach(run.folder, registry=registry)])


@pytest.mark.anyio
@pytest.mark.parametrize(("steps", "state"), [((4, 4), "finished"), ((2, 4), "lost")])
async def test_a_lora_says_whether_its_training_was_through(
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    untimed: Callable[..., Any],
    steps: tuple[int, int],
    state: str,
) -> None:
    """Nobody learns the exit code of a trainer that outlived its supervisor; the LoRA is written last."""
    script = f"""
        bar(1, 4)
        say('')
        while not os.path.exists('go'): time.sleep(0.02)
        train()
        lora(steps={steps})
    """
    async with launch(make_plan(script), runs=run_folders, registry=registry, detach=True) as run:
        pass
    await _killed(state_of(run)["supervisor"]["pid"])
    again = attach(run.folder, registry=registry)
    (run.folder / "go").touch()
    events = [event async for event in again]
    assert run.state == run.status.state == state
    assert isinstance(events[-1], Finished if state == "finished" else Failed)
    if state == "finished":
        assert again.result.steps == 4
        assert state_of(run)["exit_code"] is None
    assert untimed(events) == untimed([event async for event in attach(run.folder, registry=registry)])


@pytest.mark.anyio
async def test_supervisors_that_do_not_last(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    plan = make_plan("while not os.path.exists('go'): time.sleep(0.02)\ntrain()\nlora(steps=(4, 4))")
    async with launch(plan, runs=run_folders, registry=registry, detach=True) as run:
        pass
    pids = set()
    for _ in range(3):
        pids.add(state_of(run)["supervisor"]["pid"])
        await _killed(state_of(run)["supervisor"]["pid"])
        assert attach(run.folder, registry=registry).state == "running"
    assert len(pids) == 3
    (run.folder / "go").touch()
    await run.wait()
    assert run.state == "finished"


def test_another_training_of_the_same_folder_whose_name_begins_alike(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """As in a sweep. Its files, half-written ones too, are none of this run's."""
    script = """
        others = ["cg_elena-dim8.safetensors", "cg_elena-dim8-step00000002.safetensors"]
        own = ["cg_elena-step00000002.safetensors", "cg_elena-000001.safetensors"]
        for name in others + own:
            lora(name)
        lora("cg_elena-dim8-step00000004.safetensors", keep=20)
        lora("cg_elena-step00000004.safetensors", keep=20)
        os.makedirs(out + "/sample")
        for name in ("cg_elena_b_000002_00_20260101000000_1.png", "cg_elena_e000001_00_20260101000000_1.png"):
            open(out + "/sample/" + name, "wb").write(b"\\0\\0\\0\\0IEND\\xaeB`\\x82")
        sys.exit(1)
    """
    with sync.launch(make_plan(script), runs=run_folders, registry=registry) as run:
        pass
    state = state_of(run)
    assert state["files"] == [
        "cg_elena-000001.safetensors",
        "cg_elena-step00000002.safetensors",
        "sample/cg_elena_e000001_00_20260101000000_1.png",
    ]
    assert state["partial"] == ["cg_elena-step00000004.safetensors.partial"]


@pytest.mark.anyio
async def test_several_find_a_run_without_supervisor(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any]
) -> None:
    """One of them replaces it, and all see the same end, even if it comes while they look."""
    plan = make_plan("bar(1, 4)\nsay('')\ntime.sleep(100)")
    async with launch(plan, runs=run_folders, registry=registry, detach=True) as run:
        pass
    state = state_of(run)
    await _killed(state["supervisor"]["pid"])
    await _killed(state["trainer"]["pid"])
    streams = []

    async def follow() -> None:
        there = await anyio.to_thread.run_sync(lambda: attach(run.folder, registry=registry))
        streams.append([event async for event in there])

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(follow)
    assert all(untimed(stream) == untimed(streams[0]) for stream in streams)
    assert isinstance(streams[0][-1], Failed)
    assert state_of(run)["state"] == "ended"


@pytest.mark.anyio
async def test_after_a_reboot_nothing_claims_to_be_running(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    """Other processes have the pids by then: here this one."""
    async with launch(make_plan("train()"), runs=run_folders, registry=registry) as run:
        pass
    while supervisor.is_supervised(str(run.folder)):  # noqa: ASYNC110 - another process
        await anyio.sleep(0.01)
    record = state_of(run)
    me = supervisor.start_of(os.getpid())
    assert me is not None
    before = {"pid": os.getpid(), "start": "0123abcd" + me[8:]}
    left = ("supervisor", "started", "stage", "files")
    record = {"state": "running", "trainer": before, **{name: record[name] for name in left}}
    (run.folder / "state.json").write_text(json.dumps(record))
    assert [each.state for each in sync.runs(run_folders, registry=registry)] == ["lost"]
    assert isinstance([event async for event in attach(run.folder, registry=registry)][-1], Failed)


@pytest.mark.anyio
async def test_when_the_machine_went_down(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    """Supervisor and trainer are gone, nothing is on record; the folder may be for reading only."""
    plan = make_plan("bar(1, 4)\nsay('')\ntime.sleep(100)")
    async with launch(plan, runs=run_folders, registry=registry, detach=True) as run:
        async for _ in run.events():
            if run.status.step == 1:
                break
    state = state_of(run)
    await _killed(state["supervisor"]["pid"])
    await _killed(state["trainer"]["pid"])
    assert run.state == "lost"
    events = [event async for event in attach(run.folder, registry=registry)]
    assert isinstance(events[-1], Failed)
    assert state_of(run)["state"] == "ended", "put on record by who came by"


async def _killed(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
        await anyio.sleep(0.01)


def test_what_a_process_says_of_itself() -> None:
    env = {**os.environ, "CINDERLORA_RUN_ID": "0123"}
    code = "import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    record = {"pid": child.pid, "start": supervisor.start_of(child.pid)}
    assert supervisor.is_of_run(record, "0123")
    assert not supervisor.is_of_run(record, "4567"), "another run's"
    me = {"pid": os.getpid(), "start": supervisor.start_of(os.getpid())}
    assert not supervisor.is_of_run(me, "0123"), "a stranger"
    child.communicate()
    assert not supervisor.is_of_run(record, "0123")


def test_a_pid_alone_is_not_trusted() -> None:
    me = {"pid": os.getpid(), "start": supervisor.start_of(os.getpid())}
    assert supervisor.is_running(me)
    assert not supervisor.is_running({**me, "start": "another life"})
    child = subprocess.Popen([sys.executable, "-c", ""])
    record = {"pid": child.pid, "start": supervisor.start_of(child.pid)}
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not supervisor.is_running(record), "a zombie"
    child.wait()
    assert not supervisor.is_running(record)


def test_one_run_has_one_supervisor(tmp_path: Path) -> None:
    assert not supervisor.is_supervised(str(tmp_path))
    lock = supervisor.take_lock(str(tmp_path))
    assert lock is not None
    assert supervisor.is_supervised(str(tmp_path))
    assert supervisor.take_lock(str(tmp_path), wait=0.05) is None
    os.close(lock)
    assert not supervisor.is_supervised(str(tmp_path))


# ---- what it finds in a LoRA -----------------------------------------------------------------------------------------

DOWN, UP = "lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape, part) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def facts(tmp_path: Path, content: bytes, zero_at_start: tuple[str, ...] = ("lora_up",)) -> dict[str, Any]:
    path = tmp_path / "cg_elena.safetensors"
    path.write_bytes(content)
    found: dict[str, Any] = supervisor.lora_facts(str(path), None, list(zero_at_start))
    return found


def f32(*values: float) -> tuple[str, list[int], bytes]:
    return "F32", [len(values)], struct.pack(f"<{len(values)}f", *values)


def test_a_good_lora(tmp_path: Path) -> None:
    content = safetensors({DOWN: f32(1, 2), UP: f32(0, 1e-9), "alpha": ("BF16", [], b"\0\x41")}, {"ss_steps": "4"})
    assert facts(tmp_path, content) == {
        "exists": True,
        "fresh": True,
        "complete": True,
        "finite": True,
        "trained": True,
        "all_steps": None,
        "size": len(content),
        "problem": "",
    }


def test_a_lora_that_learned_nothing(tmp_path: Path) -> None:
    content = safetensors({DOWN: f32(1, 2), UP: f32(0, -0.0), "b.lora_up.weight": f32(0)})
    assert facts(tmp_path, content)["trained"] is False
    assert facts(tmp_path, content, ("lora_up", "lora_down"))["trained"] is True
    assert facts(tmp_path, content, ("hada_w2",))["trained"] is None, "nobody knows"
    assert facts(tmp_path, safetensors({}))["trained"] is False


@pytest.mark.parametrize(
    ("said", "all_steps"),
    [(("4", "4"), True), (("5", "4"), True), (("3", "4"), False), (("", "4"), None), (("9" * 5000, "4"), None)],
)
def test_a_lora_that_says_how_many_steps_it_has(tmp_path: Path, said: tuple[str, str], all_steps: bool | None) -> None:
    metadata = dict(zip(("ss_steps", "ss_max_train_steps"), said, strict=True))
    found = facts(tmp_path, safetensors({UP: f32(1)}, metadata))
    assert (found["complete"], found["all_steps"]) == (True, all_steps)
    assert facts(tmp_path, safetensors({UP: f32(1)}, {**metadata, "ss_steps": 4}))["complete"]  # type: ignore[dict-item]


def test_a_lora_that_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "cg_elena.safetensors"
    path.write_bytes(safetensors({UP: f32(1)}))
    before = supervisor.signature(str(path))
    assert not supervisor.lora_facts(str(path), before, [])["fresh"]
    path.write_bytes(safetensors({UP: f32(2)}))
    assert supervisor.lora_facts(str(path), before, [])["fresh"]
    assert supervisor.lora_facts(str(tmp_path / "none"), None, [])["exists"] is False


CUT = safetensors({DOWN: f32(1, 2), UP: f32(3, 4)})


@given(kept=st.integers(0, len(CUT) - 1))
def test_a_lora_that_is_cut_off_anywhere(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = facts(tmp_path_factory.mktemp("cut", numbered=True), CUT[:kept])
    assert not found["complete"]
    assert found["problem"]


@given(header=st.binary(max_size=200), rest=st.binary(max_size=50))
@example(header=b"{}", rest=b"")
@example(header=b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}', rest=b"")
@example(header=b'{"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}', rest=b"1234")
@example(header=b'{"a": 1, "b": 2}', rest=b"")
@example(header=b"[]", rest=b"")
@example(header=b"[" * 100, rest=b"")
def test_whatever_the_file_is_there_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, rest: bytes
) -> None:
    path = tmp_path_factory.mktemp("any", numbered=True)
    for content in (header, struct.pack("<Q", len(header)) + header + rest):
        found = facts(path, content)
        assert found["complete"] or found["problem"]


FORMATS = {"F16": "e", "F32": "f", "F64": "d"}


@given(
    st.sampled_from(["F16", "BF16", "F32", "F64"]),
    st.lists(st.floats(width=16), min_size=1, max_size=40),
)
@example("BF16", [float("-inf")])
@example("BF16", [3.3895313892515355e38])
def test_what_is_not_finite_is_found(dtype: str, values: list[float]) -> None:
    if dtype == "BF16":
        data = b"".join(struct.pack("<f", value)[2:] for value in values)
    else:
        data = struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)
    assert supervisor.has_non_finite(data, dtype) == (not all(math.isfinite(value) for value in values))


@given(st.sampled_from(["F8_E4M3", "F8_E5M2"]), st.binary())
def test_what_is_not_finite_in_eight_bits(dtype: str, data: bytes) -> None:
    not_finite = {0x7F, 0xFF} if dtype == "F8_E4M3" else {b for b in range(256) if b & 0x7C == 0x7C}
    assert supervisor.has_non_finite(data, dtype) == bool(not_finite & set(data))
    assert not supervisor.has_non_finite(data, "I8")


def test_one_bad_number_in_a_large_tensor(tmp_path: Path) -> None:
    many = bytearray(struct.pack("<f", 0.5) * 500_000)
    for at in (0, 499_999, 131072 // 4 - 1, 131072 // 4):
        bad = many[:]
        bad[at * 4 : at * 4 + 4] = struct.pack("<f", math.nan)
        found = facts(tmp_path, safetensors({UP: ("F32", [500_000], bytes(bad))}))
        assert (found["complete"], found["finite"]) == (True, False)
    assert facts(tmp_path, safetensors({UP: ("F32", [500_000], bytes(many))}))["finite"]


def test_the_facts_are_those_of_the_types() -> None:
    from cinderlora import LoraFacts

    assert set(supervisor.lora_facts("/nowhere", None, [])) == {a.name for a in attrs.fields(LoraFacts)}


NVML = """
#include <stdlib.h>
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu, compute; } Info;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **card) { *card = card; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *card, unsigned int *count, Info *infos) {
    Info found[] = {
        {atoi(getenv("OURS")), 6ULL << 30, 0, 0}, {atoi(getenv("SMALL")), 1ULL << 20, 0, 0},
        {atoi(getenv("OTHER")), 3ULL << 30, 0, 0}, {atoi(getenv("COMFYUI")), 5ULL << 29, 0, 0},
        {atoi(getenv("UNTOLD")), ~0ULL, 0, 0},
    };
    for (*count = 0; *count < 5; ++*count) infos[*count] = found[*count];
    return 0;
}
"""
WATCH = """
import sys, time
folder, run_id, seconds = sys.argv[1:]
sys.path.insert(0, folder)
import supervisor
supervisor.CARD_EVERY = 0.01
card, deadline = supervisor.CardMemory(run_id), time.monotonic() + float(seconds)
while not card.others and time.monotonic() < deadline:
    card.watch()
    time.sleep(0.01)
print(card.peak, card.others)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from Linux' /proc")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler for something that answers like NVIDIA's library")
def test_who_else_holds_the_cards_memory(tmp_path: Path) -> None:
    """With a library that has the functions of NVIDIA's, and says that these processes are on the card."""
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=NVML.encode(), check=True)
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "ComfyUI/main.py").write_text("import time; time.sleep(60)")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = {
        "OURS": subprocess.Popen(sleep, env={**os.environ, supervisor.RUN_ID: "ours"}),
        "SMALL": subprocess.Popen(sleep),
        "OTHER": subprocess.Popen(sleep),
        "COMFYUI": subprocess.Popen([sys.executable, tmp_path / "ComfyUI/main.py"]),
        "UNTOLD": subprocess.Popen(sleep),
    }
    try:
        pids = {name: str(process.pid) for name, process in started.items()}
        environment = {**os.environ, **pids, "LD_LIBRARY_PATH": str(tmp_path)}
        folder = str(Path(supervisor.__file__).parent)

        def watched(*arguments: str) -> str:
            command = [sys.executable, "-I", "-c", WATCH, folder, *arguments]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

        python = psutil.Process(started["OTHER"].pid).name()
        others = [f"{python}, process {pids['OTHER']}, 3.0 GB", f"ComfyUI, process {pids['COMFYUI']}, 2.5 GB"]
        assert watched("ours", "30") == f"{6 << 30} {others}"
        assert watched("somebody's", "0.3") == "None []", "its numbers may be another system's"
    finally:
        for process in started.values():
            process.kill()
            process.wait()
