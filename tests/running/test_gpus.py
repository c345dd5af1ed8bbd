"""Which GPUs a run gets, and trainings of several processes: their launcher, their output, their end."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import (
    CheckpointSaved,
    Launcher,
    LaunchFailed,
    Log,
    Plan,
    Progress,
    Registry,
    SdScripts,
    Stage,
    attach,
    launch,
    sync,
)
from cinderlora.cli import main
from cinderlora.running.devices import placed, recorded_gpus

Planner = Callable[..., Plan]

# As torch's launcher does it: each process in a session of its own, the first of them with the bar.
LAUNCHER = """
import subprocess, sys
ranks = [subprocess.Popen([sys.executable, "-I", "-S", "-u", "trainer.py", str(rank)], start_new_session=True)
         for rank in range(int(sys.argv[1]))]
sys.exit(max(abs(rank.wait()) for rank in ranks))
"""
RANK = """
if sys.argv[1:] and sys.argv[1] != "0":
    say("loading the model")
    time.sleep({waits})
    sys.exit(0)
"""


@pytest.fixture
def spread(make_plan: Planner) -> Planner:
    """A plan of several processes, of which all but the first end after a while."""

    def make(script: str = "train()", waits: float = 0, **changes: Any) -> Plan:
        plan = make_plan(RANK.format(waits=waits) + script, **changes)
        argv = (sys.executable, "-I", "-S", "launcher.py", "{processes}", "{port}", "{braces}")
        stage = attrs.evolve(plan.stages[0], launcher=Launcher(argv=argv))
        return attrs.evolve(plan, stages=[stage], files={**plan.files, "launcher.py": LAUNCHER})

    return make


# ---- what a plan is launched as --------------------------------------------------------------------------------------


def test_one_gpu_is_one_process(spread: Planner) -> None:
    plan = spread()
    assert placed(plan) == plan
    found = placed(plan, [2])
    assert found.argv == plan.argv and found.stages[0].processes == 1
    assert found.stages[0].env == {"CUDA_VISIBLE_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_several_gpus_are_as_many_processes(spread: Planner) -> None:
    found = placed(spread(), (1, "GPU-8932f937-d72c"))
    assert found.stages[0].env["CUDA_VISIBLE_DEVICES"] == "1,GPU-8932f937-d72c"
    assert found.stages[0].processes == 2 and not found.assists
    *_, processes, port, untouched = found.argv
    assert processes == "2" and 1024 <= int(port) < 1 << 16 and untouched == "{braces}"
    assert recorded_gpus({"env": found.stages[0].env, "processes": 2}) == (1, "GPU-8932f937-d72c")
    assert recorded_gpus({"env": found.stages[0].env, "processes": 1}) is None


def test_a_stage_that_prepares_stays_one_process(spread: Planner) -> None:
    caching, training = Stage(name="cache", argv=["cache"]), spread().stages[0]
    found = placed(attrs.evolve(spread(), stages=[caching, training]), [0, 1]).stages
    assert found[0].argv == ("cache",) and found[0].processes == 1
    assert [stage.env["CUDA_VISIBLE_DEVICES"] for stage in found] == ["0,1", "0,1"]


@pytest.mark.parametrize(("rank", "address"), [(0, "10.0.0.2"), (1, "node-2.lan:29555"), (2, "[fe80::1]:1")])
def test_several_machines(spread: Planner, rank: int, address: str) -> None:
    plan = spread()
    words = ("{processes}", "{machines}", "{machine_rank}", "{address}", "{port}")
    stage = attrs.evolve(plan.stages[0], launcher=Launcher(argv=words))
    found = placed(attrs.evolve(plan, stages=[stage]), [0, 1], machines=3, machine_rank=rank, main_address=address)
    host, port = {0: ("10.0.0.2", "29500"), 1: ("node-2.lan", "29555"), 2: ("[fe80::1]", "1")}[rank]
    assert found.argv == ("6", "3", str(rank), host, port)
    assert found.assists == (rank > 0) and found.stages[0].processes == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"gpus": []}, "launch_gpus_none"),
        ({"gpus": [-1]}, "launch_gpu_name"),
        ({"gpus": [True]}, "launch_gpu_name"),
        ({"gpus": ["0"]}, "launch_gpu_name"),
        ({"gpus": ["GPU-1,2"]}, "launch_gpu_name"),
        ({"gpus": "0,1"}, "launch_gpu_name"),
        ({"gpus": [0, 1, 0]}, "launch_gpu_twice"),
        ({"machines": 0}, "launch_machines"),
        ({"machines": 2, "machine_rank": 2}, "launch_machines"),
        ({"machines": 2, "machine_rank": -1}, "launch_machines"),
        ({"machines": 2}, "launch_address_missing"),
        ({"machines": 2, "main_address": "--help"}, "launch_address"),
        ({"machines": 2, "main_address": "node:65536"}, "launch_address"),
        ({"machines": 2, "main_address": "node:x"}, "launch_address"),
    ],
)
def test_what_cannot_be_is_refused(spread: Planner, tmp_path: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(LaunchFailed) as refused, sync.launch(spread(), runs=tmp_path / "runs", **options):
        raise AssertionError("it was launched")
    assert refused.value.code == code and refused.value.fix
    assert not (tmp_path / "runs").exists()


@given(st.text(max_size=20))
def test_any_address_is_taken_or_refused(address: str) -> None:
    stage = Stage(name="train", argv=["x"], launcher=Launcher(argv=["{address}", "{port}"]))
    plan = Plan(name="a", model_type="toy", output=Path("out"), lora="a.safetensors", stages=[stage])
    with suppress(LaunchFailed):
        host, port = placed(plan, machines=2, main_address=address).argv
        assert host in address and not host.startswith("-") and 0 < int(port) < 1 << 16


def test_a_trainer_that_knows_no_launcher_has_one_gpu(make_plan: Planner) -> None:
    assert placed(make_plan(), [0]).argv == make_plan().argv
    for options in ({"gpus": [0, 1]}, {"machines": 2, "main_address": "node"}):
        with pytest.raises(LaunchFailed) as refused:
            placed(make_plan(), **options)
        assert refused.value.code == "launch_one_process"


def test_a_gpu_that_is_not_there(spread: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = ModuleType("pynvml")
    library.NVMLError = RuntimeError
    library.nvmlInit = library.nvmlShutdown = lambda: None
    library.nvmlDeviceGetCount = lambda: 2
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert placed(spread(), [0, 1]).stages[0].processes == 2
    with pytest.raises(LaunchFailed, match=r"There is no GPU 2. This machine has: 0, 1."):
        placed(spread(), [0, 2])


# ---- sd-scripts ------------------------------------------------------------------------------------------------------


def sd3(pictures: Path, **settings: Any) -> Any:
    small: dict[str, Any] = {"resolution": 128, "repeats": 1, "batch_size": 1, "steps": 8}
    job: dict[str, Any] = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": pictures / "out"}
    return Registry.from_installed()["sd3"].job(**job | small | settings)


@pytest.fixture
def checkout(tmp_path: Path) -> SdScripts:
    folder = tmp_path / "sd {port} scripts"
    folder.mkdir()
    for name in ("train_network.py", "sd3_train_network.py"):
        (folder / name).touch()
    return SdScripts(folder, python=sys.executable)


def test_sd_scripts_is_run_by_its_own_accelerate(pictures: Path, checkout: SdScripts) -> None:
    plan = Registry.from_installed()["sd3"].plan(sd3(pictures), checkout)
    assert placed(plan, [0]).argv == plan.argv
    argv = placed(plan, [0, 1]).argv
    assert argv[:4] == (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu")
    assert argv[-3:] == (str(checkout.path / "sd3_train_network.py"), "--config_file", "elena_kohya_training.toml")
    flags = dict(zip(argv[4:-3:2], argv[5:-3:2], strict=True))
    assert int(flags.pop("--main_process_port")) > 1024
    assert flags == {
        "--num_processes": "2",
        "--num_machines": "1",
        "--machine_rank": "0",
        "--main_process_ip": "127.0.0.1",
        "--gpu_ids": "all",
        "--mixed_precision": "bf16",
        "--dynamo_backend": "no",
        "--num_cpu_threads_per_process": "1",
    }


def test_several_machines_cache_in_memory(pictures: Path, checkout: SdScripts) -> None:
    adapter = Registry.from_installed()["sd3"]
    with pytest.raises(LaunchFailed) as refused:
        placed(adapter.plan(sd3(pictures), checkout), machines=2, main_address="node")
    assert refused.value.code == "caches_on_disk" and "cache_latents_to_disk" in refused.value.fix
    in_memory = {"cache_latents_to_disk": False, "cache_text_encoder_outputs_to_disk": False}
    plan = adapter.plan(sd3(pictures, extra=in_memory), checkout)
    assert "--num_machines" in placed(plan, machines=2, main_address="node").argv


def test_a_recording_of_two_processes(data: Path, pictures: Path, checkout: SdScripts) -> None:
    """Both print; the bar and what follows from it are one's."""
    log = (data / "ranks/output.log").read_bytes()
    adapter = Registry.from_installed()["sd3"]
    events = list(adapter.events([log]))
    losses = {event.step: event.loss for event in events if isinstance(event, Progress) and event.step}
    refreshes = re.findall(rb"(\d)/8 \[[^\]]*avr_loss=([0-9.]+)", log)
    assert losses == {int(step): float(loss) for step, loss in refreshes} and list(losses) == list(range(1, 9))
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [4, 8, 8]
    assert adapter.diagnose([log], 0) is None
    report = adapter.check(sd3(pictures), checkout, gpus=[0, 1])
    printed = {name: int(n) for name, n in re.findall(r"num (batches|epochs?)[^:]*: (\d+)", log.decode())}
    assert (report.steps_per_epoch, report.epochs) == (printed["batches"], printed["epochs"])


def test_check_counts_what_several_gpus_take(pictures: Path, checkout: SdScripts) -> None:
    adapter, job = Registry.from_installed()["sd3"], sd3(pictures, steps=30, gradient_accumulation=2)
    alone, both, four = (adapter.check(job, checkout, gpus=gpus) for gpus in (None, [0, 1], [0, 1, 2, 3]))
    assert [(r.processes, r.steps_per_epoch, r.epochs) for r in (alone, both, four)] == [
        (1, 3, 10),
        (2, 2, 15),
        (4, 1, 30),
    ]
    assert [p.changes for r in (alone, both) for p in r.warnings if p.code == "several_gpus"] == [{"steps": 15}]
    assert adapter.check(job, checkout, machines=4).processes == 4
    for options in ({"gpus": []}, {"gpus": ["all"]}, {"machines": 0}):
        report = adapter.check(job, checkout, **options)
        assert {"launch_gpus_none", "launch_gpu_name", "launch_machines"} & {p.code for p in report.errors}
    assert "launch_one_process" in {p.code for p in adapter.check(job, SdScripts.rehearsal(), gpus=[0, 1]).errors}


def test_the_command_line(
    pictures: Path,
    checkout: SdScripts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    job = ["-t", "sd3", "-n", "elena", "-d", str(pictures), "-o", str(tmp_path / "out"), "--json"]
    real = ["--trainer", str(checkout.path), "--python", sys.executable]
    assert main(["check", *job, *real, "--gpus", "0, GPU-1", "--machines", "2"]) == 2  # there are no models
    report = json.loads(capsys.readouterr().out)["report"]
    assert report["processes"] == 4 and "several_gpus" in {problem["code"] for problem in report["problems"]}
    assert main(["train", *job, "--rehearsal", "--gpus", "1", "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["stages"][0]["env"]["CUDA_VISIBLE_DEVICES"] == "1"
    for gpus in ("", "0,0", "first", "0,1"):
        assert main(["train", *job, "--rehearsal", "--gpus", gpus]) == 2
        assert "launch_" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_training_of_two_processes(spread: Planner, registry: Registry, run_folders: Path) -> None:
    plan = spread("say(os.environ['CUDA_VISIBLE_DEVICES'])\ntrain()")
    async with launch(plan, runs=run_folders, registry=registry, gpus=[3, 1]) as run:
        events = [event async for event in run]
    assert run.state == "finished"
    said = [event.text for event in events if isinstance(event, Log)]
    assert "loading the model" in said and "3,1" in said
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [2, 4]


def test_nothing_is_left_when_only_the_launcher_dies(
    spread: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: Callable[[Any], list[psutil.Process]],
) -> None:
    with sync.launch(
        spread("bar(1, 4)\ntime.sleep(100)", 100), runs=run_folders, registry=registry, gpus=[0, 1]
    ) as run:
        for event in run:
            if isinstance(event, Progress):
                psutil.Process(json.loads((run.folder / "state.json").read_text())["trainer"]["pid"]).kill()
    assert run.state == "failed" and not still_running(run)


def test_a_stop_ends_all_processes(
    spread: Planner,
    registry: Registry,
    run_folders: Path,
    still_running: Callable[[Any], list[psutil.Process]],
) -> None:
    plan = spread("say('begun')\nbar(1, 4)\ntime.sleep(100)", 100)
    with sync.launch(plan, runs=run_folders, registry=registry, gpus=[0, 1]) as run:
        for event in run:
            if isinstance(event, Progress):
                while len(still_running(run)) < 3:  # the launcher and both of its own: the bar is the first one's
                    time.sleep(0.01)
                report = run.stop(grace=5)
    assert run.state == "stopped" and len(report.asked) >= 3 and not report.forced and not still_running(run)


def test_a_machine_that_takes_part_needs_no_lora(spread: Planner, registry: Registry, run_folders: Path) -> None:
    with (
        sync.launch(spread("time.sleep(0.3)\ntrain()"), runs=run_folders, registry=registry) as main,
        sync.launch(
            spread("say('here')"), runs=run_folders, registry=registry, machines=2, machine_rank=1, main_address="node"
        ) as assisting,
    ):
        pass
    assert (main.state, assisting.state) == ("finished", "finished")
    with sync.launch(
        spread("sys.exit(1)"), runs=run_folders, registry=registry, machines=2, machine_rank=1, main_address="node"
    ) as failed:
        pass
    assert failed.state == "failed"


@pytest.mark.skipif(os.name != "posix", reason="there is no wait4")
def test_how_much_memory_it_took(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    with sync.launch(make_plan("train()"), runs=run_folders, registry=registry) as small:
        pass
    with sync.launch(make_plan("held = b'x' * (200 << 20)\ntrain()"), runs=run_folders, registry=registry) as large:
        pass
    peaks = small.result.ram_peak_bytes, large.result.ram_peak_bytes
    assert peaks[0] is not None and peaks[1] is not None
    assert 190 << 20 < peaks[1] - peaks[0] < 230 << 20
    assert attach(large.folder, registry=registry).result.ram_peak_bytes == peaks[1]
    assert json.loads((large.folder / "state.json").read_text())["max_rss_bytes"] == peaks[1]
