"""Launching: what is laid out, what is refused, who looks after a run and who does not."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import cinderlora
from cinderlora import (
    Failed,
    Finished,
    LaunchFailed,
    Link,
    Plan,
    Progress,
    Registry,
    RunNotFound,
    Stage,
    Started,
    StillRunning,
    TrainingStopped,
    attach,
    launch,
    runs,
)
from cinderlora.running import supervisor

Planner = Callable[..., Plan]
ENDLESS = """
    step = 0
    while True:
        step += 1
        bar(step, 100000)
        time.sleep(0.01)
"""


def everything(folder: Path) -> list[str]:
    """All that lies in a folder, by relative name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.anyio
async def test_a_training_from_start_to_end(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    plan = make_plan()
    async with launch(plan, runs=run_folders, registry=registry) as run:
        with pytest.raises(StillRunning):
            _ = run.result
        events = [event async for event in run]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert run.result == events[-1].result
    assert run.result.lora == plan.output / plan.lora
    assert run.result.steps == 4
    assert [path.name for path in run.result.checkpoints] == ["cg_elena-step00000002.safetensors"]
    assert [path.name for path in run.result.samples] == ["cg_elena_000002_00_20260101000000_42.png"]
    assert run.state == "finished"
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))
    assert all(event.time is not None for event in events), "seen as they happened"


@pytest.mark.anyio
async def test_what_is_laid_out(make_plan: Planner, registry: Registry, run_folders: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bild ä.png"
    picture.write_bytes(b"png")
    plan = make_plan(links=[Link(picture, "data/elena/bild ä.png")])
    configs = tmp_path / "config" / "training_configs"
    async with launch(plan, runs=run_folders, configs=configs, registry=registry) as run:
        pass
    assert re.fullmatch(r"\d{8}-\d{6}-elena-toy", run.folder.name)
    assert everything(run.folder) == [
        "data",
        "data/elena",
        "data/elena/bild ä.png",
        "elena_dataset.toml",
        "launch.json",
        "output.log",
        "state.json",
        "supervisor.lock",
        "trainer.py",
    ]
    assert (run.folder / "data/elena/bild ä.png").readlink() == picture
    assert stat.S_IMODE((run.folder / "launch.json").stat().st_mode) == 0o600
    assert everything(configs) == ["elena_dataset.toml"]
    assert (configs / "elena_dataset.toml").read_text() == "[general]\n"


@pytest.mark.anyio
async def test_where_links_are_not_allowed_there_are_hard_links_or_copies(
    make_plan: Planner, registry: Registry, run_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "not here")

    picture = tmp_path / "a.png"
    picture.write_bytes(b"png")
    plan = make_plan(links=[Link(picture, "data/a.png")])
    monkeypatch.setattr(os, "symlink", refuse)
    async with launch(plan, runs=run_folders, registry=registry) as run:
        pass
    assert (run.folder / "data/a.png").samefile(picture)
    assert not (run.folder / "data/a.png").is_symlink()
    monkeypatch.setattr(os, "link", refuse)
    async with launch(plan, runs=run_folders, registry=registry) as run:
        pass
    assert (run.folder / "data/a.png").read_bytes() == b"png"
    assert not (run.folder / "data/a.png").samefile(picture)


@pytest.mark.anyio
async def test_runs_of_one_second_get_folders_of_their_own(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    folders = []

    async def one(output: Path) -> None:
        async with launch(make_plan("pass", output=output), runs=run_folders, registry=registry) as run:
            folders.append(run.folder)

    async with anyio.create_task_group() as group:
        for n in range(4):
            group.start_soon(one, run_folders.parent / str(n))
    assert len(set(folders)) == 4
    assert {run.folder for run in runs(run_folders, registry=registry)} == set(folders)


@pytest.mark.anyio
async def test_one_lora_is_written_by_one_training(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    plan = make_plan(ENDLESS)
    async with launch(plan, runs=run_folders, registry=registry, detach=True) as first:
        pass
    before = everything(run_folders)
    for killed in (None, "supervisor"):
        if killed:
            await _kill(first, killed)
        with pytest.raises(LaunchFailed) as caught:
            async with launch(plan, runs=run_folders.parent / "other runs", registry=registry):
                pass
        assert caught.value.code == "launch_lora_taken"
        assert str(first.folder) in str(caught.value)
        assert str(plan.output / plan.lora) in str(caught.value)
    assert everything(run_folders) == before, "nothing is left of the second one"
    assert not (run_folders.parent / "other runs").exists()
    async with launch(make_plan(ENDLESS, lora="cg_other.safetensors"), runs=run_folders, registry=registry) as other:
        await other.stop()
    await _kill(first, "trainer")
    async with launch(make_plan(), runs=run_folders, registry=registry) as second:
        pass
    assert second.state == "finished", "the dead hold nothing"
    assert [name for name in everything(plan.output) if name.startswith(".")] == []


async def _kill(run: cinderlora.Run, who: str) -> None:
    record = json.loads((run.folder / "state.json").read_text())[who]
    psutil.Process(record["pid"]).kill()
    while supervisor.is_running(record):  # noqa: ASYNC110 - another process
        await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_lock_that_cannot_be_made_keeps_nobody_from_training(
    make_plan: Planner, registry: Registry, run_folders: Path, tmp_path: Path
) -> None:
    plan = make_plan()
    plan.output.mkdir()
    treasure = tmp_path / "treasure"
    treasure.write_text("mine")
    (plan.output / ".cg_elena.safetensors.run").symlink_to(treasure)
    async with launch(plan, runs=run_folders, registry=registry) as run:
        pass
    assert run.state == "finished"
    assert treasure.read_text() == "mine"


@pytest.mark.anyio
async def test_a_run_folder_that_is_removed(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: Callable[[Any], list[psutil.Process]]
) -> None:
    """The training is left alone, also by the block that looks after it, and can still be stopped from there."""
    script = f"say('ready')\nwhile not os.path.exists({str(run_folders.parent / 'go')!r}): time.sleep(0.01)\ntrain()"
    plan = make_plan(script)
    kept = run_folders.parent / "launch.json"
    with pytest.raises(RunNotFound) as caught:  # noqa: PT012
        async with launch(plan, runs=run_folders, registry=registry) as run:
            async for event in run:
                if getattr(event, "text", "") == "ready":
                    state = json.loads((run.folder / "state.json").read_text())
                    pid, supervisor = state["trainer"]["pid"], state["supervisor"]["pid"]
                    shutil.rmtree(run.folder)
    assert caught.value.code == "run_removed"
    assert str(pid) in str(caught.value)
    for ask in (lambda: run.state, lambda: run.status, lambda: run.result):
        with pytest.raises(RunNotFound):
            ask()
    with pytest.raises(RunNotFound):
        await run.wait()
    assert psutil.Process(pid).is_running()
    (run_folders.parent / "go").touch()
    while psutil.pid_exists(pid) or psutil.pid_exists(supervisor):  # noqa: ASYNC110
        await anyio.sleep(0.01)
    assert (plan.output / plan.lora).is_file()

    async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry, detach=True) as run:
        shutil.copy(run.folder / "launch.json", kept)
    shutil.rmtree(run.folder)
    assert (await run.stop()).state == "lost"
    run.folder.mkdir()
    shutil.copy(kept, run.folder / "launch.json")
    assert still_running(run) == []
    shutil.rmtree(run.folder)


@pytest.mark.anyio
async def test_a_clock_that_is_set_back(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any]
) -> None:
    """What the run writes is dated before its start then, and what was there is dated after."""
    script = """
        ago = time.time() - 7200
        say("running training / 学習開始")
        for step in (1, 2):
            bar(step, 2)
            sample(step)
            save("cg_elena-step%08d.safetensors" % step)
            for folder, _, names in os.walk(out):
                for name in names:
                    if "0%d" % step in name and "old" not in name:
                        os.utime(os.path.join(folder, name), (ago, ago))
        save("cg_elena.safetensors")
        os.utime(out + "/cg_elena.safetensors", (ago, ago))
        say("model saved.")
        bar(2, 2, "0.25")
    """
    plan = make_plan(script)
    (plan.output / "sample").mkdir(parents=True)
    soon = time.time() + 7200
    for name in ("cg_elena.safetensors", "cg_elena-step00000007.safetensors", "sample/cg_elena_000002_00_old_42.png"):
        (plan.output / name).write_bytes(b"old")
        os.utime(plan.output / name, (soon, soon))
    async with launch(plan, runs=run_folders, registry=registry) as run:
        live = [event async for event in run]
    assert run.state == "finished"
    assert [path.name for path in run.result.checkpoints] == [f"cg_elena-step0000000{n}.safetensors" for n in (1, 2)]
    assert [path.name for path in run.result.samples] == [f"cg_elena_00000{n}_00_20260101000000_42.png" for n in (1, 2)]
    assert untimed([event async for event in attach(run.folder, registry=registry)]) == untimed(live)
    assert run.result.seconds is not None
    assert 0 <= run.result.seconds < 60


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["Élena エレナ 🦊", "el'ena $HOME `id` ;&", "a" * 100])
async def test_names_of_all_kinds(make_plan: Planner, registry: Registry, run_folders: Path, name: str) -> None:
    plan = make_plan(name=name)
    async with launch(plan, runs=run_folders, registry=registry) as run:
        pass
    assert run.result.lora.is_file()
    assert attach(run.folder, registry=registry).name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"name": ""},
        {"name": "a/b"},
        {"name": "nul\0"},
        {"model_type": ".."},
        {"lora": "../cg_elena.safetensors"},
        {"files": {"../x.toml": ""}},
        {"files": {"/etc/x.toml": ""}},
        {"files": {"a//b": ""}},
        {"files": {"": ""}},
        {"files": {"./x": ""}},
        {"files": {"a\0b": ""}},
        {"files": {"state.json": ""}},
        {"files": {"Launch.JSON": ""}},
        {"files": {"output.log/x": ""}},
        {"links": [Link(Path(sys.executable), "../python")]},
        {"links": [Link(Path(sys.executable), "a"), Link(Path(sys.executable), "a/b")]},
        {"configs": ["not_a_file_of_the_plan.toml"]},
    ],
    ids=str,
)
@pytest.mark.anyio
async def test_a_plan_never_reaches_out_of_its_run_folder(
    make_plan: Planner, run_folders: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(LaunchFailed) as caught:
        async with launch(make_plan(**changes), runs=run_folders):
            pass
    assert caught.value.code in {"launch_name", "launch_path"}
    assert caught.value.fix
    assert everything(tmp_path) == []


def _a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("launch_trainer_missing", lambda tmp: {"stages": [Stage(name="train", argv=["/no/such/python"])]}),
        ("launch_trainer_missing", lambda tmp: {"stages": [Stage(name="train", argv=[str(_a_file(tmp))])]}),
        ("launch_trainer_failed", lambda tmp: {"stages": [Stage(name="train", argv=[sys.executable], cwd="/nowhere")]}),
        ("launch_source_missing", lambda tmp: {"links": [Link(tmp / "gone.png", "gone.png")]}),
        ("launch_source_missing", lambda tmp: {"links": [Link(Path("relative.png"), "relative.png")]}),
        ("output_not_writable", lambda tmp: {"output": _a_file(tmp) / "out"}),
    ],
)
@pytest.mark.anyio
async def test_a_start_that_fails_leaves_nothing_behind(
    make_plan: Planner, run_folders: Path, tmp_path: Path, code: str, refused: Callable[[Path], dict[str, Any]]
) -> None:
    plan = make_plan(**refused(tmp_path))
    before = everything(tmp_path)
    with pytest.raises(LaunchFailed) as caught:
        async with launch(plan, runs=run_folders, configs=tmp_path / "configs"):
            pass
    assert caught.value.code == code
    assert caught.value.message
    assert caught.value.text("de").message != caught.value.message
    assert everything(tmp_path) == before


@pytest.mark.anyio
async def test_runs_folder_that_cannot_be_written(make_plan: Planner, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed) as caught:
        async with launch(make_plan(), runs=_a_file(tmp_path) / "runs"):
            pass
    assert caught.value.code == "launch_runs_folder"
    assert everything(tmp_path) == ["file"]


@pytest.mark.anyio
async def test_left_normally_the_block_waits(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    async with launch(make_plan("time.sleep(0.15); train()"), runs=run_folders, registry=registry) as run:
        pass
    assert run.state == "finished"


@pytest.mark.anyio
async def test_left_by_an_exception_the_block_stops_the_run(
    make_plan: Planner, registry: Registry, run_folders: Path, still_running: Callable[[Any], list[psutil.Process]]
) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
            async for event in run:
                if isinstance(event, Progress):
                    _ = 1 / 0
    assert run.state == "stopped"
    assert still_running(run) == []
    with pytest.raises(TrainingStopped):
        _ = run.result


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0, 0.02, 0.3], ids=["before it starts", "while it starts", "while it trains"])
async def test_cancelled_it_stops_the_run(
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    seconds: float,
    still_running: Callable[[Any], list[psutil.Process]],
) -> None:
    with anyio.move_on_after(seconds) as scope:
        async with launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
            async for _ in run:
                pass
    assert scope.cancelled_caught
    assert seconds < 0.3 or len(runs(run_folders, registry=registry)) == 1
    for run in runs(run_folders, registry=registry):
        assert run.state == "stopped"
        assert still_running(run) == []


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.3])
def test_asyncio_cancels_by_ways_of_its_own(
    make_plan: Planner,
    registry: Registry,
    run_folders: Path,
    seconds: float,
    still_running: Callable[[Any], list[psutil.Process]],
) -> None:
    async def main() -> None:
        async with asyncio.timeout(seconds), launch(make_plan(ENDLESS), runs=run_folders, registry=registry) as run:
            async for _ in run:
                pass

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    for run in runs(run_folders, registry=registry):
        assert run.state == "stopped"
        assert still_running(run) == []


@pytest.mark.anyio
async def test_detached_it_goes_on(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with launch(make_plan(ENDLESS), runs=run_folders, detach=True, registry=registry) as run:
            _ = 1 / 0
    plan = make_plan(ENDLESS, output=run_folders.parent / "elsewhere")
    async with launch(plan, runs=run_folders, detach=True, registry=registry) as other:
        pass
    for each in (run, other):
        async for event in each:
            if isinstance(event, Progress):
                break
        assert each.state == "running"
        assert (await each.stop()).state == "stopped"


@pytest.mark.anyio
async def test_leaving_a_loop_loses_nothing(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Callable[..., Any]
) -> None:
    async with launch(make_plan(), runs=run_folders, registry=registry) as run:
        events = []
        while not events or not isinstance(events[-1], Finished | Failed):
            async for event in run:
                events.append(event)
                break
    assert untimed(events) == untimed([event async for event in attach(run.folder, registry=registry)])
    assert [event async for event in run] == []


@pytest.mark.anyio
async def test_runs_are_listed_newest_first(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    assert runs(run_folders, registry=registry) == []
    launched = []
    for script in ("train()", "sys.exit(3)", ENDLESS):
        async with launch(make_plan(script), runs=run_folders, detach=True, registry=registry) as run:
            launched.append(run.folder)
            if script is not ENDLESS:
                await run.wait()
    (run_folders / "notes").mkdir()
    (run_folders / "broken").mkdir()
    (run_folders / "broken" / "launch.json").write_text('{"id": 1}')
    (run_folders / ".half-done").mkdir()
    found = runs(run_folders, registry=registry)
    assert [run.folder for run in found] == launched[::-1]
    assert [run.state for run in found] == ["running", "failed", "finished"]


def test_no_run_there(tmp_path: Path) -> None:
    (tmp_path / "launch.json").write_text("[]")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunNotFound) as caught:
            attach(folder)
        assert caught.value.code == "run_not_found"
    with pytest.raises(RunNotFound):
        cinderlora.status(tmp_path)
