"""Going on with a training: from what, for how many steps, and where its files end up.

With the rehearsal, and with small trainers where something has to go wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cinderlora
from cinderlora import (
    Adapter,
    CheckpointSaved,
    Finished,
    Job,
    JobRefused,
    Plan,
    Progress,
    Registry,
    SampleSaved,
    SdScripts,
    Started,
    StillRunning,
    TrainingFailed,
    TrainingStopped,
    Warned,
    sync,
)
from cinderlora.running import supervisor
from cinderlora.serial import read_toml

Planner = Callable[..., Plan]
LORA = "cg_elena.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def codes(events: list[cinderlora.Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]


def last_step(events: list[cinderlora.Event]) -> tuple[int, int]:
    steps = [(event.step, event.total) for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps)
    return steps[-1]


# ---- names -----------------------------------------------------------------------------------------------------------

STEPS = st.integers(0, 10**9)


@given(step=STEPS, done=STEPS, stem=st.sampled_from(["cg_elena", "a-step00000001", "step", "ü_000004_"]))
def test_steps_in_names_are_counted_in_all(step: int, done: int, stem: str) -> None:
    name = supervisor.published_name(f"{stem}-step{step:08d}.safetensors", stem, done)
    assert name == f"{stem}-step{step + done:08d}.safetensors"
    name = supervisor.published_name(f"sample/{stem}_{step:06d}_00_20260101000000_42.png", stem, done)
    assert name == f"sample/{stem}_{step + done:06d}_00_20260101000000_42.png"


def test_what_is_named_by_epochs_says_after_which_step() -> None:
    name = supervisor.published_name("cg_elena-000001.safetensors", "cg_elena", 8)
    assert name == "cg_elena-after00000008-000001.safetensors"
    name = supervisor.published_name("sample/cg_elena_e000001_00_2026_42.png", "cg_elena", 8)
    assert name == "sample/cg_elena_after000008_e000001_00_2026_42.png"


@given(
    rests=st.lists(st.text("step0123456789²٣_e.-", min_size=1, max_size=12), unique=True, min_size=2, max_size=8),
    sample=st.booleans(),
)
def test_whatever_the_names_are_they_stay_in_their_folder(rests: list[str], sample: bool) -> None:
    begins = "sample/cg_elena_" if sample else "cg_elena-"
    for rest in rests:
        name = supervisor.published_name(begins + rest, "cg_elena", 8)
        assert name.startswith(begins)
        assert name.count("/") == begins.count("/")


# ---- putting files into place ----------------------------------------------------------------------------------------


@pytest.fixture(params=["links", "no links between folders", "no links"])
def linking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems of three kinds."""
    link = os.link

    def refuse(source: str, target: str) -> None:
        if request.param == "no links" or Path(source).parent != Path(target).parent:
            raise OSError(18, "Invalid cross-device link")
        link(source, target)

    if request.param != "links":
        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


def test_a_file_is_put_whole_and_over_no_other(tmp_path: Path, linking: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "out").mkdir()
    source, target = tmp_path / "run/a", tmp_path / "out/b"
    source.write_bytes(b"new" * 100_000)
    os.utime(source, (1_000_000, 2_000_000))
    (tmp_path / "out/.b.mark").write_bytes(b"left by one that was killed")
    assert supervisor.put(str(source), str(target), "mark")
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mtime == 2_000_000
    assert source.samefile(target) is (linking == "links")
    if linking == "links":
        assert supervisor.put(str(source), str(target), "mark"), "it is there already"
    target.unlink()
    target.write_bytes(b"old")
    assert not supervisor.put(str(source), str(target), "mark")
    assert target.read_bytes() == b"old"
    assert supervisor.put(str(source), str(target), "mark", replace=True)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]


def test_where_there_is_no_room_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"new")
    target.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        supervisor.put(str(source), str(target), "mark", replace=True)
    assert contents(tmp_path) == {"a": b"new", "b": b"old"}


@given(kept=st.integers(0, 200))
def test_what_is_cut_off_is_not_whole(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut", numbered=True)
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for name, whole in (
        ("a.safetensors", struct.pack("<Q", len(header)) + header + bytes(8)),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(20) + b"\0\0\0\0IEND\xaeB`\x82"),
    ):
        path = folder / name
        path.write_bytes(whole[:kept])
        assert supervisor.is_whole(str(path)) is (kept >= len(whole))


@pytest.fixture
def resumed(make_plan: Planner, tmp_path: Path) -> Planner:
    """Makes plans of a training that goes on at step 8, beside what an earlier one left."""
    out = tmp_path / "out"
    (out / "sample").mkdir(parents=True)
    for name in (LORA, "cg_elena-step00000002.safetensors", "cg_elena-step00000008.safetensors"):
        (out / name).write_bytes(b"earlier " + name.encode())

    def make(script: str = "train()", **changes: Any) -> Plan:
        plan = make_plan(f"out = 'output'\n{script}", output=Path("output"))
        return attrs.evolve(plan, publish=out, first_step=8, steps=12, **changes)

    return make


def test_the_files_of_a_resumed_training(
    resumed: Planner, registry: Registry, run_folders: Path, tmp_path: Path, untimed: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    before = contents(out)
    with sync.launch(resumed(), runs=run_folders, registry=registry) as run:
        events = list(run)
    own = run.folder / "output"
    assert isinstance(events[0], Started)
    assert (events[0].output, events[0].first_step) == (out, 8)
    assert last_step(events) == (12, 12)
    assert [(e.path, e.step) for e in events if isinstance(e, CheckpointSaved)] == [
        (own / "cg_elena-step00000002.safetensors", 10),
        (own / LORA, 12),
    ]
    assert [(e.path, e.step) for e in events if isinstance(e, SampleSaved)] == [
        (own / "sample/cg_elena_000002_00_20260101000000_42.png", 10)
    ]
    result = run.result
    assert result.lora == out / LORA
    assert result.checkpoints == (out / "cg_elena-step00000010.safetensors",)
    assert result.samples == (out / "sample/cg_elena_000010_00_20260101000000_42.png",)
    after = contents(out)
    assert {name: after[name] for name in before if name != LORA} == {n: d for n, d in before.items() if n != LORA}
    assert after[LORA] == (own / LORA).read_bytes() != before[LORA]
    assert sorted(set(after) - set(before)) == [str(p.relative_to(out)) for p in (*result.checkpoints, *result.samples)]
    shutil.rmtree(out)
    shutil.rmtree(own)
    assert untimed(list(sync.attach(run.folder, registry=registry))) == untimed(events)


def test_a_checkpoint_that_is_there_stays(
    resumed: Planner, registry: Registry, run_folders: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "out/cg_elena-step00000010.safetensors"
    taken.write_bytes(b"somebody's")
    with sync.launch(resumed(), runs=run_folders, registry=registry) as run:
        events = list(run)
    assert taken.read_bytes() == b"somebody's"
    assert run.result.checkpoints == (run.folder / "output/cg_elena-step00000002.safetensors",)
    assert run.result.lora == tmp_path / "out" / LORA
    assert codes(events) == []


ENDINGS = {
    "stopped": "train(); save('cg_elena-step00000004.safetensors', keep=100); say(''); bar(4, 4)\ntime.sleep(60)",
    "crashed": "train(); save('cg_elena-step00000004.safetensors', keep=100); sys.exit(1)",
    "not a number": "train(); lora(up=float('nan'))",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_training_that_did_not_finish_puts_what_is_complete(
    ending: str, resumed: Planner, registry: Registry, run_folders: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = contents(out)
    with sync.launch(resumed(ENDINGS[ending]), runs=run_folders, registry=registry) as run:
        for event in run:
            if ending == "stopped" and isinstance(event, CheckpointSaved) and event.path.name == LORA:
                run.stop(by="me")
    with pytest.raises(TrainingStopped if ending == "stopped" else TrainingFailed):
        _ = run.result
    after = contents(out)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == [
        "cg_elena-step00000010.safetensors",
        "sample/cg_elena_000010_00_20260101000000_42.png",
    ]


def test_files_that_cannot_be_put_there_are_told(
    resumed: Planner, registry: Registry, run_folders: Path, tmp_path: Path, untimed: Callable[..., Any]
) -> None:
    plan = resumed("while not os.path.exists('go'): time.sleep(0.01)\ntrain()")
    with sync.launch(plan, runs=run_folders, registry=registry) as run:
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").write_text("no folder")
        (run.folder / "go").touch()
        events = list(run)
    assert isinstance(events[-1], Finished)
    assert events[-1].result.lora == run.folder / "output" / LORA
    assert isinstance(events[-2], Warned)
    assert events[-2].code == "not_published"
    assert str(run.folder / "output") in events[-2].message
    assert untimed(list(sync.attach(run.folder, registry=registry))) == untimed(events)


@pytest.mark.parametrize("output", ["../out", "output/../../out"])
def test_an_output_outside_of_the_run_folder_is_refused(
    output: str, make_plan: Planner, registry: Registry, run_folders: Path
) -> None:
    plan = attrs.evolve(make_plan(), output=Path(output))
    with pytest.raises(cinderlora.LaunchFailed) as refused, sync.launch(plan, runs=run_folders, registry=registry):
        pass
    assert refused.value.code == "launch_path"


# ---- resuming, with the rehearsal ------------------------------------------------------------------------------------


@pytest.fixture
def flux(registry: Registry) -> Adapter:
    """A model type that the rehearsal can train."""
    import cinderlora_flux

    registry.register(cinderlora_flux, name="flux")
    return registry["flux"]


@pytest.fixture
def job(flux: Adapter, pictures: Path, tmp_path: Path) -> Job:
    return flux.job(
        name="elena",
        trigger="elena",
        dataset=pictures,
        output=tmp_path / "out",
        resolution=64,
        repeats=1,
        network_dim=2,
        steps=12,
        save_every=4,
        sample_every=6,
        save_state=True,
    )


@pytest.fixture
def ended(
    flux: Adapter, registry: Registry, run_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., sync.Run]:
    """Makes a run that has ended, by default in its tenth step."""

    def make(job: Job, act: str = "crash@10") -> sync.Run:
        plan = flux.plan(job, SdScripts.rehearsal())
        if act:
            monkeypatch.setenv("CINDERLORA_REHEARSE", act)
        with sync.launch(plan, runs=run_folders, registry=registry) as run:
            pass
        monkeypatch.delenv("CINDERLORA_REHEARSE", raising=False)
        return run

    return make


def test_from_the_newest_state(job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job)
    assert run.state == "failed"
    before = contents(job.output)
    plan = run.resume_plan()
    assert plan.resumed_from == cinderlora.Resumption(
        run=run.folder, path=job.output / "cg_elena-step00000008-state", kind="state", step=8
    )
    assert (plan.first_step, plan.steps, plan.warnings) == (8, 12, ())
    with run.resume() as more:
        events = list(more)
    assert more.folder.parent == run.folder.parent
    assert codes(events) == []
    assert last_step(events) == (12, 12)
    assert more.result.steps == 12
    after = contents(job.output)
    assert {name: after[name] for name in before} == before
    new = {name.partition("_2026")[0] for name in set(after) - set(before)}
    assert {"cg_elena-step00000012.safetensors", LORA} <= new
    training = read_toml(more.folder / "elena_kohya_training.toml")["training"]
    assert training["resume"] == str(job.output / "cg_elena-step00000008-state")
    assert training["seed"] == 42
    assert (training["initial_step"], training["max_train_steps"], training["output_dir"]) == (0, 4, "output")
    assert read_toml(more.folder / "run.toml")["resumed_from"]["step"] == 8
    with pytest.raises(JobRefused) as refused:
        more.resume_plan()
    assert refused.value.code == "resume_done"


@pytest.mark.anyio
async def test_the_async_face(job: Job, ended: Callable[..., sync.Run], registry: Registry, tmp_path: Path) -> None:
    run = cinderlora.attach(ended(job).folder, registry=registry)
    async with run.resume(runs=tmp_path / "others", configs=tmp_path / "configs", detach=True) as more:
        assert more.folder.parent == tmp_path / "others"
        events = [event async for event in more]
    assert isinstance(events[-1], Finished)
    assert more.result.lora == job.output / LORA
    assert (tmp_path / "configs/elena_kohya_training.toml").is_file()
    with pytest.raises(JobRefused):
        async with more.resume():
            pass


def test_from_weights_alone(job: Job, ended: Callable[..., sync.Run], untimed: Callable[..., Any]) -> None:
    run = ended(job.evolve(save_state=False))
    plan = run.resume_plan()
    assert plan.resumed_from is not None
    assert plan.resumed_from.kind == "weights"
    assert plan.resumed_from.path == job.output / "cg_elena-step00000008.safetensors"
    with run.resume() as more:
        events = list(more)
    assert codes(events) == ["resume_weights_only"]
    assert events[1].seq == 1, "after the start, for every follower"
    assert untimed(list(sync.attach(more.folder, registry=more._registry))) == untimed(events)
    assert last_step(events) == (12, 12)
    training = read_toml(more.folder / "elena_kohya_training.toml")["training"]
    assert training["network_weights"] == str(job.output / "cg_elena-step00000008.safetensors")
    assert training["seed"] == 42 + 8, "not the same pictures and noise over again"
    assert "initial_step" not in training
    assert "resume" not in training


def test_resumed_again_and_again(
    job: Job, ended: Callable[..., sync.Run], monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    run = ended(job.evolve(steps=24))
    for done, act in ((8, "crash@6"), (12, "crash@5"), (16, "")):
        before = contents(job.output)
        monkeypatch.setenv("CINDERLORA_REHEARSE", act)
        assert run.resume_plan().first_step == done
        with run.resume() as run:
            events = list(run)
        assert last_step(events)[1] == 24
        after = contents(job.output)
        assert {name: after[name] for name in before} == before
    assert run.result.steps == 24
    names = sorted(path.name for path in job.output.glob("*.safetensors"))
    assert names == [*(f"cg_elena-step{step:08d}.safetensors" for step in range(4, 25, 4)), LORA]
    samples = sorted(path.name.split("_")[2] for path in (job.output / "sample").iterdir())
    assert samples == ["000006", "000022"]


def test_a_finished_training_can_go_on_for_more_steps(job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job, act="")
    lora = (job.output / LORA).read_bytes()
    for steps in (None, 12, 10):
        with pytest.raises(JobRefused) as refused:
            run.resume_plan(steps=steps)
        assert refused.value.code == "resume_done"
    with run.resume(steps=16) as more:
        events = list(more)
    assert last_step(events) == (16, 16)
    assert more.result.lora == job.output / LORA
    assert (job.output / LORA).read_bytes() != lora
    assert read_toml(more.folder / "run.toml")["job"]["settings"]["steps"] == 16


def test_a_finished_training_without_states_goes_on_from_its_lora(job: Job, ended: Callable[..., sync.Run]) -> None:
    plan = ended(job.evolve(save_state=False, save_every=0), act="").resume_plan(steps=16)
    assert plan.resumed_from is not None
    assert (plan.resumed_from.path, plan.resumed_from.step) == (job.output / LORA, 12)


def test_one_that_was_ended_before_it_wrote_the_lora(job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job.evolve(save_every=6), act="disk_full@12")
    assert run.state == "failed"
    plan = run.resume_plan()
    assert (plan.first_step, plan.steps) == (6, 12)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_one_whose_machine_went_down(
    job: Job, flux: Adapter, registry: Registry, run_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CINDERLORA_REHEARSE", "hang@10")
    plan = flux.plan(job, SdScripts.rehearsal())
    with sync.launch(plan, runs=run_folders, registry=registry, detach=True) as run:
        for event in run:
            if isinstance(event, Progress) and event.step == 9:
                break
    monkeypatch.delenv("CINDERLORA_REHEARSE")
    record = json.loads((run.folder / "state.json").read_text())
    for process in (record["supervisor"], record["trainer"]):
        os.kill(process["pid"], signal.SIGKILL)
        while supervisor.is_running(process):  # a kill takes a moment on a busy machine
            time.sleep(0.01)
    with sync.attach(run.folder, registry=registry).resume() as more:
        pass
    assert run.state == "lost"
    assert more.result.steps == 12
    assert read_toml(more.folder / "run.toml")["resumed_from"]["kind"] == "state"


# ---- half-written and others' files ----------------------------------------------------------------------------------


def cut(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])


def nan(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-4] + struct.pack("<f", float("nan")))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no train_state": lambda state: (state / "train_state.json").unlink(),
    "half a train_state": lambda state: cut(state / "train_state.json", 10),
    "a train_state of another": lambda state: (state / "train_state.json").write_text('{"current_step": 6}'),
    "an empty optimizer": lambda state: cut(state / "optimizer.bin", 0),
    "half an optimizer": lambda state: cut(state / "optimizer.bin", 1000),
    "no scheduler": lambda state: (state / "scheduler.bin").unlink(),
    "no random states": lambda state: (state / "random_states_0.pkl").unlink(),
    "no weights": lambda state: (state / "model.safetensors").unlink(),
    "half the weights": lambda state: cut(state / "model.safetensors", 5000),
    "not a number": lambda state: nan(state / "model.safetensors"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_half_written_state_is_passed_over(damage: str, job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job)
    DAMAGES[damage](job.output / "cg_elena-step00000008-state")
    plan = run.resume_plan()
    assert plan.resumed_from is not None
    assert plan.resumed_from.path.name == "cg_elena-step00000004-state"
    known = damage != "no train_state"  # without it, nobody can say whose it is
    assert [problem.code for problem in plan.warnings] == ["resume_incomplete"] * known
    DAMAGES[damage](job.output / "cg_elena-step00000004-state")
    plan = run.resume_plan()
    assert plan.resumed_from is not None
    assert plan.resumed_from.path.name == "cg_elena-step00000008.safetensors"
    cut(plan.resumed_from.path, 3000)
    plan = run.resume_plan()
    assert plan.resumed_from is not None
    assert plan.resumed_from.path.name == "cg_elena-step00000004.safetensors"
    plan.resumed_from.path.unlink()
    with pytest.raises(JobRefused) as refused:
        run.resume_plan()
    assert refused.value.code == "nothing_to_resume"


def test_files_of_another_training_are_not_taken(job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job)
    other = job.output / "cg_elena-step00000010-state"
    shutil.copytree(job.output / "cg_elena-step00000008-state", other)
    (other / "train_state.json").write_text('{"current_epoch": 2, "current_step": 10}')
    assert run.resume_plan().first_step == 10
    for when in (time.time() - 3600, time.time() + 3600):
        os.utime(other / "train_state.json", (when, when))
        assert run.resume_plan().first_step == 8


# ---- what is refused, and what is told -------------------------------------------------------------------------------


def test_a_run_that_goes_on_is_refused(resumed: Planner, registry: Registry, run_folders: Path) -> None:
    with sync.launch(resumed("time.sleep(60)"), runs=run_folders, registry=registry) as run:
        with pytest.raises(StillRunning) as refused:
            run.resume_plan()
        assert refused.value.code == "resume_running"
        run.stop()


def test_a_rehearsal_goes_on_as_one(job: Job, ended: Callable[..., sync.Run], tmp_path: Path) -> None:
    with pytest.raises(JobRefused) as refused:
        ended(job).resume_plan(trainer=SdScripts(tmp_path))
    assert refused.value.code == "resume_rehearsal"


def test_what_will_be_different_is_told(job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job.evolve(extra={"lr_scheduler": "cosine", "max_train_epochs": 4}))
    record = (run.folder / "run.toml").read_text(encoding="utf-8")
    assert 'kind = "rehearsal"' in record
    (run.folder / "run.toml").write_text(record.replace('kind = "rehearsal"', 'kind = "rehearsal"\ncommit = "0123"'))
    plan = run.resume_plan()
    assert [problem.code for problem in plan.warnings] == ["resume_scheduler"]
    assert plan.steps == 24, "four epochs of six steps"
    assert "max_train_epochs" not in plan.files["elena_kohya_training.toml"]
    with run.resume() as more:
        events = list(more)
    assert codes(events) == ["resume_scheduler"]
    assert last_step(events) == (24, 24)


def test_a_data_set_that_is_gone(job: Job, ended: Callable[..., sync.Run]) -> None:
    run = ended(job)
    shutil.rmtree(job.dataset)
    with pytest.raises(JobRefused) as refused, run.resume():
        pass
    assert refused.value.code.startswith("dataset")
    assert json.loads((run.folder / "state.json").read_text())["state"] == "ended"
