"""Queues with real processes: what is run, in which order, where, and what becomes of what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack, suppress

import attrs
import psutil
import pytest

import cinderlora
from cinderlora import Link, Problem, Queue, QueueError, Registry, SdScripts, UnknownName, sync, to_json
from cinderlora.queues.base import put_in
from cinderlora.queues.freezing import freeze
from cinderlora.queues.store import Store
from cinderlora.running import starting

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


def until(condition, seconds=20.0):
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def states(queue):
    return {entry.name: entry.state for entry in queue.entries()}


def supervisors_of(folder):
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[-3:] == ["-m", "cinderlora.queues", str(folder)]:
                found.append(process)
    return found


# ---- running ---------------------------------------------------------------------------------------------------------


def test_making_a_queue_and_looking_at_it_writes_nothing(folder):
    queue = sync.Queue(folder, gpus="all")
    assert queue.entries() == () and not queue.is_running and queue.status().is_idle
    assert list(queue.watch()) == []
    assert not folder.exists()


def test_jobs_run_one_after_the_other_in_their_order(folder, make_plan, notes):
    queue = sync.Queue(folder, gpus=[0, 1, 5], gpus_per_job=2)
    for name in ("a", "b", "c"):
        queue.add(make_plan(name), start=name == "c")
    assert sync.Queue(folder).settings.gpus == (0, 1, 5)  # on record
    queue.wait()
    assert {gpus for *_, gpus in notes.lines()} == {"0,1"}
    assert [(word, name) for word, name, *_ in notes.lines()] == [
        (word, name) for name in ("a", "b", "c") for word in ("began", "ended")
    ]
    entries = queue.entries()
    assert [(entry.id, entry.name, entry.state) for entry in entries] == [
        (1, "a", "finished"),
        (2, "b", "finished"),
        (3, "c", "finished"),
    ]
    for entry in entries:
        assert sync.attach(entry.run, registry=Registry()).result.lora == entry.lora
    until(lambda: not queue.is_running and not supervisors_of(folder))


def test_the_queue_outlives_the_program_that_filled_it(folder, make_plan, notes, go, tmp_path):
    plans = tmp_path / "plans.json"
    plans.write_text(json.dumps([to_json(make_plan("a", "wait")), to_json(make_plan("b"))]))
    script = """
        import json, os, signal, sys
        from pathlib import Path
        from cinderlora import sync
        from cinderlora.serial import read_plan
        queue = sync.Queue(sys.argv[1])
        for plan in json.loads(Path(sys.argv[2]).read_text()):
            queue.add(read_plan(plan))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(folder), str(plans)], check=False)
    assert killed.returncode == -signal.SIGKILL
    go("a")
    queue = sync.Queue(folder)
    queue.wait()
    assert states(queue) == {"a": "finished", "b": "finished"}


@pytest.mark.faults
def test_what_is_added_while_the_last_one_ends_is_run(folder, make_plan):
    queue = sync.Queue(folder)
    for number in range(5):
        entry = queue.add(make_plan(f"job{number}"))
        until(lambda entry=entry: queue.entry(entry.id).is_ended)  # the supervisor is about to go, or has gone
    assert set(states(queue).values()) == {"finished"}


def test_each_gpu_has_a_job_of_its_own(folder, make_plan, notes, go, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8932f937")
    queue = sync.Queue(folder)
    for name in ("a", "b", "c"):
        queue.add(make_plan(name, "wait"), start=name == "c")
    until(lambda: len(notes.began()) == 2)
    assert {entry.name: entry.gpus for entry in queue.entries()} == {"a": (2,), "b": ("GPU-8932f937",), "c": ()}
    go("b")
    until(lambda: len(notes.began()) == 3)
    go("a"), go("c")
    queue.wait()
    where = {name: gpus for word, name, _, gpus in notes.lines() if word == "began"}
    assert where == {"a": "2", "b": "GPU-8932f937", "c": "GPU-8932f937"}


@pytest.mark.faults
def test_too_few_gpus_pause_the_queue(folder, make_plan, notes, monkeypatch):
    with pytest.raises(QueueError, match="Each job is to have 2 GPUs"):
        Queue(folder, gpus=[0], gpus_per_job=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    queue = sync.Queue(folder, gpus_per_job=2)
    queue.add(make_plan("a"))
    queue.wait()
    status = queue.status()
    assert status.paused and status.problem.code == "queue_gpus_few" and status.entries[0].state == "waiting"
    sync.Queue(folder, gpus_per_job=1).start()
    queue.wait()
    assert states(queue) == {"a": "finished"} and not queue.status().paused


# ---- failures --------------------------------------------------------------------------------------------------------


def test_a_failed_job_stops_the_queue_where_it_is_to(folder, make_plan):
    queue = sync.Queue(folder, stop_on_failure=True)
    queue.add(make_plan("a", "fail"), start=False)
    queue.add(make_plan("b"))
    queue.wait()
    status = queue.status()
    assert states(queue) == {"a": "failed", "b": "waiting"}
    assert status.paused and status.problem == Problem("queue_paused_by_failure", {"entry": 1, "name": "a"})
    queue.add(make_plan("c"))  # adding does not undo a pause
    assert not queue.is_running
    queue.start()
    queue.wait()
    assert states(queue) == {"a": "failed", "b": "finished", "c": "finished"}


def test_what_cannot_be_started_fails_and_the_rest_goes_on(folder, make_plan, pictures, notes):
    sources = sorted(pictures.glob("*.png"))
    links = [Link(path, f"dataset/{path.name}") for path in sources[:3]]
    queue = sync.Queue(folder)
    queue.add(make_plan("gone", links=links), start=False)
    queue.add(make_plan("fine"), start=False)
    sources[1].unlink(), sources[2].unlink()
    changed = queue.add(make_plan("changed", links=links[:1]), start=False)
    with sources[0].open("ab") as file:
        file.write(b"more")
    nowhere = make_plan("nowhere")
    nowhere = attrs.evolve(nowhere, stages=[attrs.evolve(nowhere.stages[0], argv=["/no/such/python"])])
    queue.add(nowhere)
    queue.wait()
    found = {entry.name: (entry.state, entry.problem and entry.problem.code) for entry in queue.entries()}
    assert found == {
        "gone": ("failed", "queue_file_missing"),
        "fine": ("finished", None),
        "changed": ("failed", "queue_file_changed"),
        "nowhere": ("failed", "launch_trainer_missing"),
    }
    assert queue.entry(1).problem.params == {"path": str(sources[1]), "others": 1}
    assert notes.began() == ["fine"] and queue.entry(1).run is None
    again = queue.retry(changed.id)  # with the picture as it is now
    queue.wait()
    assert queue.entry(again.id).state == "finished" and again.retry_of == changed.id


@pytest.mark.faults
def test_a_full_or_missing_disk_costs_no_job(folder, make_plan, tmp_path):
    (tmp_path / "file").write_text("")
    queue = sync.Queue(folder)
    queue.add(make_plan("a"), start=False, runs=tmp_path / "file/runs")
    queue.add(make_plan("b"))
    queue.wait()
    assert states(queue) == {"a": "waiting", "b": "waiting"}
    assert queue.status().problem.code == "launch_runs_folder"
    (tmp_path / "file").unlink()
    queue.start()
    queue.wait()
    assert states(queue) == {"a": "finished", "b": "finished"}


def test_out_of_memory_is_tried_again_once_with_the_diagnosis_own_change(folder, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("CINDERLORA_REHEARSE", "oom@1")
    adapter = Registry.from_installed()["flux"]
    job = adapter.job(
        name="elena",
        trigger="elena",
        dataset=pictures,
        output=tmp_path / "out",
        resolution=64,
        batch_size=2,
        steps=2,
        sample_every=0,
        save_every=0,
    )
    queue = sync.Queue(folder, retry_out_of_memory=True)
    queue.add(job, SdScripts.rehearsal())
    (pictures / "elena_01.txt").write_text("elena, changed since")
    queue.wait()
    first, second = queue.entries()
    assert (first.state, second.state) == ("failed", "failed")  # and no third
    assert second.retry_of == first.id and second.changes
    before, after = queue.plan(first.id), queue.plan(second.id)
    view = [name for name in before.files if name.startswith("dataset/")]
    assert after.links == before.links and all(after.files[name] == before.files[name] for name in view)
    differing = queue.outcomes()[1].settings
    assert {name: differing[name] for name in second.changes} == dict(second.changes)


@pytest.mark.faults
def test_a_run_that_was_removed_is_lost_and_the_queue_goes_on(folder, make_plan, notes, go):
    queue = sync.Queue(folder)
    queue.add(make_plan("a", "wait"), start=False)
    queue.add(make_plan("b"))
    until(lambda: queue.entry(1).state == "running")
    queue.entry(1).run.rename(folder / "elsewhere")
    until(lambda: queue.entry(2).is_ended)
    assert states(queue) == {"a": "lost", "b": "finished"}
    go("a")


# ---- changing the queue ----------------------------------------------------------------------------------------------


def test_holding_moving_removing(folder, make_plan, notes):
    queue = sync.Queue(folder)
    for name in ("a", "b", "c", "d", "e"):
        queue.add(make_plan(name), start=False, hold=name == "e")
    queue.hold(2)
    queue.move(4, to=1)
    queue.move(3, before=1)
    queue.remove(1)
    assert [(entry.name, entry.state) for entry in queue.entries()] == [
        ("d", "waiting"),
        ("c", "waiting"),
        ("b", "held"),
        ("e", "held"),
    ]
    queue.start()
    queue.wait()
    assert notes.began() == ["d", "c"]
    queue.release(2)
    queue.wait()
    assert notes.began() == ["d", "c", "b"]
    assert queue.add(make_plan("f"), start=False).id == 6  # a number is never given twice
    queue.remove(6)
    assert queue.add(make_plan("g"), start=False).id == 7


def test_what_is_impossible_is_refused(folder, make_plan, go):
    queue = sync.Queue(folder)
    queue.add(make_plan("a", "wait"))
    queue.add(make_plan("b"), hold=True)
    until(lambda: queue.entry(1).state == "running")
    for impossible in (
        lambda: queue.hold(1),
        lambda: queue.release(1),
        lambda: queue.move(1, to=1),
        lambda: queue.move(2, before=1),
        lambda: queue.retry(1),
        lambda: queue.stop(2),
    ):
        with pytest.raises(QueueError) as error:
            impossible()
        assert error.value.code == "queue_entry_state"
    with pytest.raises(QueueError, match="Entry 1 is running"):
        queue.remove(1)
    with pytest.raises(UnknownName, match="no entry 9"):
        queue.hold(9)
    with pytest.raises(QueueError, match="will write the same LoRA"):
        queue.add(make_plan("b"))
    go("a")


def test_a_job_is_stopped_and_the_next_one_started(folder, make_plan, notes):
    queue = sync.Queue(folder)
    queue.add(make_plan("a", "wait"), start=False)
    queue.add(make_plan("b"))
    until(lambda: notes.began() == ["a"])
    report = queue.stop(1, by="the test")
    assert report.state == "stopped" and not report.left
    queue.wait()
    assert states(queue) == {"a": "stopped", "b": "finished"}
    assert queue.stop(1).already_ended
    queue.remove(1)
    assert states(queue) == {"b": "finished"}


@pytest.mark.faults
def test_programs_change_a_queue_at_the_same_time(folder, make_plan, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(to_json(make_plan("a"))))
    script = """
        import json, sys, attrs
        from pathlib import Path
        from cinderlora import sync
        from cinderlora.serial import read_plan
        plan = read_plan(json.loads(Path(sys.argv[2]).read_text()))
        queue = sync.Queue(sys.argv[1])
        for number in range(10):
            entry = queue.add(attrs.evolve(plan, lora=f"{sys.argv[3]}-{number}.safetensors"), start=False)
            queue.move(entry.id, to=1)
            queue.hold(entry.id)
            if number % 2:
                queue.remove(entry.id)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), str(folder), str(plan)]
    programs = [subprocess.Popen([*argv, str(number)]) for number in range(3)]
    assert [program.wait(60) for program in programs] == [0, 0, 0]
    entries = sync.Queue(folder).entries()
    assert len(entries) == 15 == len({entry.id for entry in entries})
    assert {entry.state for entry in entries} == {"held"}
    assert sorted(entry.lora.name for entry in entries) == sorted(
        f"{p}-{n}.safetensors" for p in range(3) for n in range(0, 10, 2)
    )


@pytest.mark.faults
def test_only_one_supervisor_works_off_a_queue(folder, make_plan, notes, go):
    sync.Queue(folder).add(make_plan("a", "wait"), start=False)
    argv = [sys.executable, "-P", "-m", "cinderlora.queues", str(folder)]
    starts = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    said = sorted(start.communicate(timeout=60)[0].strip() for start in starts)
    assert said == ["locked", "locked", "started"]
    go("a")
    sync.Queue(folder).wait()
    assert notes.began() == ["a"]


# ---- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("instant", ["nothing", "laying out", "laid out", "started", "ended"])
def test_a_start_that_somebody_was_killed_in_is_gone_on_with(folder, make_plan, notes, instant):
    queue = sync.Queue(folder)
    plan = make_plan("a")
    entry = queue.add(plan, start=False)
    store = Store(folder)
    entry = attrs.evolve(entry, state="starting", run_id="0123456789abcdef")
    with store.changing():
        put_in(store, entry, freeze(plan).text(), store.settings())
    runs = entry.runs
    if instant == "laying out":
        (runs / f".20260101-a-toy.{entry.run_id}").mkdir(parents=True)
    elif instant == "laid out":
        runs.mkdir(parents=True)
        starting._lay_out(plan, runs, ExitStack(), entry.run_id)
    elif instant in {"started", "ended"}:
        run = starting.begin(plan, runs, None, entry.run_id)
        if instant == "ended":
            sync.attach(run, registry=Registry()).wait()
    queue.start()
    queue.wait()
    assert notes.began() == ["a"] and states(queue) == {"a": "finished"}
    assert [path.name for path in runs.iterdir()] == [queue.entry(1).run.name]


@pytest.mark.faults
def test_a_killed_supervisors_runs_are_taken_over(folder, make_plan, notes, go):
    queue = sync.Queue(folder)
    queue.add(make_plan("a", "wait"), start=False)
    queue.add(make_plan("b"))
    until(lambda: queue.entry(1).state == "running")
    for process in supervisors_of(folder):
        process.kill()
        process.wait(10)
    assert not queue.is_running and states(queue) == {"a": "running", "b": "waiting"}
    go("a")
    until(lambda: queue.entry(1).state == "finished")  # told from the run itself: nobody is there to record it
    assert queue.status().is_idle  # nobody will start b
    queue.start()
    queue.wait()
    assert notes.began() == ["a", "b"] and states(queue) == {"a": "finished", "b": "finished"}


@pytest.mark.faults
def test_files_that_are_no_entries_are_put_aside(folder, make_plan):
    queue = sync.Queue(folder)
    for name in ("a", "b", "c"):
        queue.add(make_plan(name), start=False)
    entries = folder / "entries"
    record = json.loads((entries / "1.json").read_text())
    (entries / "1.json").write_text(json.dumps(record)[:-20])
    (entries / "2.json").write_text(json.dumps({**json.loads((entries / "2.json").read_text()), "id": 3}))
    (entries / "7.json").write_text("[" * 100_000)
    (entries / "8.json").write_bytes(b"\xff" * 2_000_000)
    (entries / "evil.json").write_text("{}")
    (folder / "queue.json").write_text('{"gpus": 3')
    (folder / "plans/3.json").write_text("null")
    good = queue.add(make_plan("d"))
    assert good.id == 9
    queue.wait()
    assert states(queue) == {"c": "failed", "d": "finished"}
    assert queue.entry(3).problem.code == "plan_unreadable"
    names = {path.name.rpartition(".")[0] for path in queue.status().put_aside}
    assert names >= {"1.json", "2.json", "7.json", "8.json", "evil.json"}


def test_a_folder_that_cannot_be_written_is_said(tmp_path, make_plan):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match=r"cannot be changed: Not a directory"):
        sync.Queue(tmp_path / "file/queue").add(make_plan("a"))


# ---- looking ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_watching(folder, make_plan, go):
    queue = cinderlora.Queue(folder)
    queue.add(make_plan("a", "wait"), start=False)
    queue.add(make_plan("b"), hold=True)
    queue.add(make_plan("c"))
    seen = []
    async for entry in queue.watch():
        seen.append((entry.name, entry.state))
        if entry.state == "running" and entry.name == "a":
            queue.remove(2)
            break
    async for entry in queue.watch(forever=True):
        if entry.name == "a":
            go("a")
            break
    watching = queue.watch()
    async for entry in watching:
        seen.append((entry.name, entry.state))
    assert seen[0][0] == "a" and ("b", "held") in seen
    assert {("a", "finished"), ("c", "finished")} <= set(seen)
    assert [entry async for entry in watching] == []
    await queue.wait()
    report = await queue.stop(1)
    assert report.already_ended


def test_the_removed_come_as_removed(folder, make_plan):
    queue = sync.Queue(folder)
    queue.add(make_plan("a"), start=False)
    watching = queue.watch(forever=True)
    assert next(watching).state == "waiting"
    queue.remove(1)
    assert next(watching).state == "removed"


def test_the_status_is_json_and_has_the_progress(folder, pictures, tmp_path):
    adapter = Registry.from_installed()["sdxl"]
    job = adapter.job(
        name="elena", trigger="elena", dataset=pictures, output=tmp_path / "out", resolution=64, steps=300
    ).evolve(sample_every=0, save_every=0)
    queue = sync.Queue(folder)
    queue.add(job, SdScripts.rehearsal())
    queue.add(job.evolve(name="other"), SdScripts.rehearsal(), hold=True)

    def progress():
        return queue.status().entries[0].status

    until(lambda: progress() is not None and (progress().step or 0) > 1)
    record = json.loads(json.dumps(to_json(queue.status())))
    assert record["is_running"] and record["entries"][0]["status"]["step"] > 1
    assert record["entries"][1]["status"] is None
    queue.stop(1, grace=0)
