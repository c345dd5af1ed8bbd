"""Following: every follower sees the same stream, whenever it comes, and the outcome is what the facts say."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cinderlora
from cinderlora import (
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    Log,
    Plan,
    Progress,
    Registry,
    RunNotFound,
    SampleSaved,
    Started,
    Stopped,
    TrainingFailed,
    Warned,
    attach,
    launch,
    sync,
)
from cinderlora.running import supervisor
from cinderlora.running.folding import LOG_LINES, Status, fold, fold_all

Planner = Callable[..., Plan]
Untimed = Callable[[list[Event]], list[Event]]


def run_of(plan: Plan, folder: Path, registry: Registry) -> tuple[sync.Run, list[Event]]:
    with sync.launch(plan, runs=folder, registry=registry) as run:
        return run, list(run)


SLOWLY = """
    for step in range(1, 41):
        bar(step, 40, "%.3g" % (1 / step))
        time.sleep(0.005)
        if step % 8 == 0:
            sample(step, prompts=2)
            save("cg_elena-step%08d.safetensors" % step)
    save("cg_elena.safetensors")
    say("model saved.")
    say("no newline at the end", end="")
"""


@pytest.mark.anyio
async def test_all_followers_see_the_same(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed
) -> None:
    streams: list[list[Event]] = []

    async def follow(run: cinderlora.Run, delay: float) -> None:
        await anyio.sleep(delay)
        streams.append([event async for event in run.events()])

    async with launch(make_plan(SLOWLY), runs=run_folders, registry=registry) as run:
        async with anyio.create_task_group() as group:
            for delay in (0, 0.05, 0.15):
                group.start_soon(follow, run, delay)
        streams.append([event async for event in run])
    shutil.rmtree(run.result.lora.parent)  # as when it has been moved since
    streams.append([event async for event in attach(run.folder, registry=registry)])
    first = untimed(streams[0])
    assert all(untimed(stream) == first for stream in streams)
    assert [e.step for e in first if isinstance(e, Progress)] == list(range(1, 41))
    assert [(e.step, e.index) for e in first if isinstance(e, SampleSaved)] == [
        (step, index) for step in (8, 16, 24, 32, 40) for index in (0, 1)
    ]
    assert [e.step for e in first if isinstance(e, CheckpointSaved)] == [8, 16, 24, 32, 40, 40]
    assert isinstance(first[0], Started)
    assert isinstance(first[-1], Finished)
    assert [e.text for e in first if isinstance(e, Log)][-1] == "no newline at the end"
    assert all(event.time is None for event in streams[-1][1:-1]), "nobody knows any more when it was seen"


def test_going_on_from_where_one_was(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed
) -> None:
    run, events = run_of(make_plan(), run_folders, registry)
    for n, event in enumerate(events):
        rest = list(sync.attach(run.folder, since=event.seq, registry=registry))
        assert untimed(rest) == untimed(events[n + 1 :])
        assert untimed(list(run.events(since=event.seq))) == untimed(rest)


@pytest.mark.anyio
async def test_what_is_written_is_seen_at_once(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    plan = make_plan("say('hello'); state()\nwhile not os.path.exists('go'): time.sleep(0.01)")
    async with launch(plan, runs=run_folders, registry=registry) as run:
        async for event in run:
            if isinstance(event, Log):
                assert event.text == "hello"
                assert run.status.log == ("hello",)
                (run.folder / "go").touch()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("pass", "no_lora_written"),
        ("lora(up=0.0)", "nothing_learned"),
        ("lora(up=float('nan'))", "nan_loss"),
        ("lora(up=float('inf'))", "nan_loss"),
        ("lora(keep=100)", "no_lora_written"),
        ("lora(); sys.exit(1)", "unknown"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed"),
        ("raise MemoryError", "host_out_of_memory"),
        ("say('torch.OutOfMemoryError: CUDA out of memory.'); sys.exit(1)", "cuda_out_of_memory"),
    ],
)
def test_a_run_that_failed_never_looks_finished(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed, script: str, code: str
) -> None:
    run, events = run_of(make_plan(script), run_folders, registry)
    assert isinstance(events[-1], Failed)
    assert run.state == run.status.state == "failed"
    with pytest.raises(TrainingFailed) as caught:
        _ = run.result
    assert caught.value.diagnosis == events[-1].diagnosis == run.status.diagnosis
    assert untimed(list(sync.attach(run.folder, registry=registry))) == untimed(events)
    assert events[-1].diagnosis.code == code


def test_a_lora_from_an_earlier_run_is_none_of_this_run(
    make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    run, _ = run_of(make_plan(), run_folders, registry)
    assert run.state == "finished"
    run, events = run_of(make_plan("say('model saved.')"), run_folders, registry)
    assert run.state == "failed"
    assert not [event for event in events if isinstance(event, SampleSaved | CheckpointSaved)]


def test_an_announced_checkpoint_that_is_not_there_is_not_told(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed
) -> None:
    script = "say('saving checkpoint: %s' % (out + '/cg_elena-step00000001.safetensors')); bar(1, 4); train()"
    run, events = run_of(make_plan(script), run_folders, registry)
    saved = [event.path.name for event in events if isinstance(event, CheckpointSaved)]
    assert saved == ["cg_elena-step00000002.safetensors", "cg_elena.safetensors"]
    assert untimed(list(sync.attach(run.folder, registry=registry))) == untimed(events)


@pytest.mark.anyio
async def test_a_long_log_is_read_in_pieces(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    script = "for step in range(20000): bar(step, 20000, step)\nlora()"
    run, events = run_of(make_plan(script), run_folders, registry)
    assert (run.folder / "output.log").stat().st_size > 1_000_000
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        again = [event async for event in attach(run.folder, registry=registry)]
        group.cancel_scope.cancel()
    assert len(again) == len(events)
    assert turns > 10, "others had their turn meanwhile"


def test_a_run_of_a_type_that_is_no_longer_installed(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed
) -> None:
    run, events = run_of(make_plan(), run_folders, registry)
    assert untimed(list(sync.attach(run.folder, registry=Registry()))) == untimed(events)


def test_steps_go_on_after_a_resume(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    run, events = run_of(make_plan(first_step=100), run_folders, registry)
    assert [event.first_step for event in events if isinstance(event, Started)] == [100]
    assert [event.step for event in events if isinstance(event, Progress)] == [101, 102, 103, 104]
    assert [event.step for event in events if isinstance(event, SampleSaved)] == [102]
    assert run.result.steps == 104


def test_the_status_is_the_events_folded(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    script = "for n in range(300): say('line %d' % n)\ntrain()"
    run, events = run_of(make_plan(script), run_folders, registry)
    start = Status(folder=run.folder, name="elena", model_type="toy", total=4)
    folded = functools.reduce(fold, [event for event in events if event.seq is not None], start)
    assert fold_all(start, [event for event in events if event.seq is not None]) == folded
    assert folded == run.status == cinderlora.status(run.folder, registry=registry)
    assert folded.state == "finished"
    assert (folded.step, folded.total, folded.loss) == (4, 4, 0.25)
    assert len(folded.log) == LOG_LINES
    assert folded.log[-1] == "model saved."
    assert folded.sample == run.result.samples[-1]
    assert [path.name for path in folded.checkpoints] == ["cg_elena-step00000002.safetensors", "cg_elena.safetensors"]
    assert folded.result == run.result
    assert folded.seq == events[-1].seq
    assert folded.started is not None
    assert folded.ended is not None


@pytest.mark.anyio
async def test_asking_for_the_status_while_it_runs(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    plan = make_plan("bar(1, 4)\nsay('')\nwhile not os.path.exists('go'): time.sleep(0.01)\ntrain()")
    async with launch(plan, runs=run_folders, registry=registry) as run:
        while run.status.step != 1:  # noqa: ASYNC110 - as a front end that polls
            await anyio.sleep(0.01)
        status = run.status
        assert (status.state, status.phase, status.total, status.ended) == ("running", "training", 4, None)
        (run.folder / "go").touch()
    assert run.status.state == "finished"


@pytest.mark.anyio
async def test_silence_is_told_once_and_live_only(
    make_plan: Planner, registry: Registry, run_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinderlora.running.follow._STALLED", 0.08)
    async with launch(make_plan("time.sleep(0.3); train()"), runs=run_folders, registry=registry) as run:
        events = [event async for event in run]
    warnings = [event for event in events if isinstance(event, Warned)]
    assert [(event.code, event.seq) for event in warnings] == [("stalled", None)]
    assert warnings[0].time is not None
    assert warnings[0].message
    assert not [event async for event in attach(run.folder, registry=registry) if isinstance(event, Warned)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ("bar(1, 4)", True),  # 0.8 seconds a step, as its bar says
        ("say('\\rsteps:  25%|###   | 1/4 [10:00<30:00, 600.00s/it, avr_loss=0.5]')", False),
        ("say('Loading VAE from vae.safetensors')", False),
        ("bar(1, 4)\nsay('\\nsaving checkpoint: %s/cg_elena-step00000001.safetensors' % out)", False),
    ],
    ids=["between steps", "between slow steps", "loading", "saving"],
)
async def test_how_long_silence_may_last_depends_on_what_goes_on(
    make_plan: Planner, registry: Registry, run_folders: Path, monkeypatch: pytest.MonkeyPatch, said: str, warned: bool
) -> None:
    monkeypatch.setattr("cinderlora.running.follow._STALLED_IN_STEPS", 0.08)
    monkeypatch.setattr("cinderlora.running.follow._STEPS", 0.1)
    async with launch(make_plan(f"{said}\ntime.sleep(0.3); sys.exit(1)"), runs=run_folders, registry=registry) as run:
        warnings = [event.code async for event in run if isinstance(event, Warned)]
    assert warnings == (["stalled"] if warned else [])


@pytest.fixture
def supervised(ended_run: Path) -> Iterator[None]:
    """Somebody looks after the run, as far as anybody can see: nobody takes it over."""
    lock = supervisor.take_lock(str(ended_run))
    assert lock is not None
    yield
    os.close(lock)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def ended_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with records of a run that has ended; they may be spoiled."""
    folder: Path = tmp_path_factory.mktemp("ended") / "run"
    folder.mkdir()
    stage = {"name": "train", "argv": ["python"], "env": {}, "cwd": "."}
    launch = {
        "id": "0123456789abcdef", "name": "e", "model_type": "toy", "created": 0, "output": str(folder / "out"),
        "lora": "e.safetensors", "stages": [stage], "steps": 4, "first_step": 0, "publish": None, "warnings": [],
        "zero_at_start": [], "rehearsal": False,
    }  # fmt: skip
    me = {"pid": os.getpid(), "start": supervisor.start_of(os.getpid())}
    state = {
        "state": "ended", "supervisor": me, "trainer": me, "started": 1, "stage": 0, "files": [], "ended": 2,
        "exit_code": 1, "stopped_by": None, "log_length": 3, "lora": {"exists": True}, "partial": ["x.partial"],
        "published": {"a": "b"}, "publish_problem": "", "seconds": 1.5,
    }  # fmt: skip
    (folder / "output.log").write_text("a\nb\n")
    for name, record in (("launch.json", launch), ("state.json", state), ("launch.sound", launch)):
        (folder / name).write_text(json.dumps(record))
    (folder / "state.sound").write_text(json.dumps(state))
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_record_says_there_is_an_answer(
    ended_run: Path, supervised: None, registry: Registry, data: st.DataObject
) -> None:
    """And none of the processes that it names is touched."""
    for name in ("launch", "state"):
        record = json.loads((ended_run / f"{name}.sound").read_text())
        for key in data.draw(st.sets(st.sampled_from(sorted(record)), max_size=2)):
            record[key] = data.draw(JSON)
        (ended_run / f"{name}.json").write_text(json.dumps(record))
    try:
        run = sync.attach(ended_run, registry=registry)
    except RunNotFound:
        return
    assert run.state in {"running", "finished", "failed", "stopped", "lost"}
    assert run.status.state in {"running", "finished", "failed", "stopped", "lost"}
    if run.state == "running":
        return
    events = list(run)
    assert isinstance(events[-1], Finished | Failed | Stopped)
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert run.stop().already_ended
    cinderlora.to_json(run.status)


@pytest.mark.parametrize(
    "text",
    ['{"a":' * 100_000, "[" * 100_000, '{"files": [' + '"x",' * 3_000_000 + '"x"]}', '{"pid": ' + "9" * 10_000 + "}"],
    ids=["deep", "deep list", "large", "a long number"],
)
def test_a_record_that_is_none_of_ours_takes_no_time(ended_run: Path, registry: Registry, text: str) -> None:
    for name in ("launch", "state"):
        (ended_run / f"{name}.json").write_text((ended_run / f"{name}.sound").read_text())
    (ended_run / "state.json").write_text(text)
    run = sync.attach(ended_run, registry=registry)
    assert run.state == "lost"
    assert isinstance(list(run)[-1], Failed)
    (ended_run / "launch.json").write_text(text)
    with pytest.raises(RunNotFound):
        sync.attach(ended_run, registry=registry)


def test_a_log_that_grows_very_large(
    make_plan: Planner, registry: Registry, run_folders: Path, untimed: Untimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinderlora.running.follow._LARGE_LOG", 100_000)
    run, events = run_of(make_plan("for n in range(3000): say('line %d %s' % (n, 'x' * 90))"), run_folders, registry)
    (place,) = [n for n, event in enumerate(events) if isinstance(event, Warned)]
    assert isinstance(events[place], Warned)
    assert events[place].code == "log_large"
    assert str(run.folder / "output.log") in events[place].message
    seqs = [event.seq for event in events if event.seq is not None]
    assert seqs == sorted(set(seqs))
    assert seqs[place - 1] <= 100_000 * 1024 < seqs[place + 1]
    assert untimed(list(run.events())) == untimed(events)


def test_a_state_that_is_removed_after_the_start(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    run, _ = run_of(make_plan(), run_folders, registry)
    while supervisor.is_supervised(str(run.folder)):
        time.sleep(0.01)
    (run.folder / "state.json").unlink()
    record = json.loads((run.folder / "launch.json").read_text())
    (run.folder / "launch.json").write_text(json.dumps({**record, "created": time.time() + 3600}))
    again = sync.attach(run.folder, registry=registry)
    assert again.state == "lost", "a clock that was set back keeps nothing starting for an hour"
    assert [type(event) for event in again] == [Started, Failed]


def test_damaged_records_are_no_end(make_plan: Planner, registry: Registry, run_folders: Path) -> None:
    """After a power cut a record may be empty: the run is lost, and says so."""
    run, _ = run_of(make_plan(), run_folders, registry)
    while supervisor.is_supervised(str(run.folder)):  # it goes as soon as it has written its last
        time.sleep(0.01)
    for damaged in ("", "{", "[]", "{}", '{"state": "ended"}'):
        (run.folder / "state.json").write_text(damaged)
        record: dict[str, Any] = json.loads((run.folder / "launch.json").read_text())
        (run.folder / "launch.json").write_text(json.dumps({**record, "created": 0}))
        again = sync.attach(run.folder, registry=registry)
        assert again.state == "lost"
        events = list(again)
        assert isinstance(events[-1], Failed)
        assert events[-1].diagnosis.code == "run_lost"
