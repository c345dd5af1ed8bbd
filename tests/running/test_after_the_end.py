"""What is done with a finished LoRA, and who is told of the end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from cinderlora import Failed, Finished, Job, Registry, SdScripts, Warned, hookimpl, sync
from cinderlora.serial import read_plan, to_json

LORA = "cg_elena.safetensors"


def ended(plan, runs):
    with sync.launch(plan, runs=runs) as run:
        return list(run), run


@pytest.mark.parametrize("hard_links", [False, True])
def test_the_lora_is_copied_and_its_type_is_written_beside_it(make_plan, run_folders, tmp_path, hard_links):
    folders = [tmp_path / "ComfyUI ü/loras", tmp_path / "backup"]
    old = tmp_path / "backup" / LORA
    old.parent.mkdir()
    old.write_bytes(b"of an earlier training")
    plan = make_plan(copy_to=folders, hard_links=hard_links, models_sidecar=True)
    events, run = ended(plan, run_folders)
    assert isinstance(events[-1], Finished)
    assert not [event for event in events if isinstance(event, Warned)]
    result = run.result
    assert result.copies == tuple(folder / LORA for folder in folders)
    for copy in result.copies:
        assert copy.read_bytes() == result.lora.read_bytes()
        assert copy.samefile(result.lora) == hard_links
        assert sorted(path.name for path in copy.parent.iterdir()) == ["cg_elena.models", LORA]
    for lora in (result.lora, *result.copies):
        assert lora.with_suffix(".models").read_text(encoding="utf-8") == "type=toy\n"


def test_a_folder_that_takes_no_copy_is_told_of_and_harms_nothing(make_plan, run_folders, tmp_path):
    file = tmp_path / "a file"
    file.touch()
    events, run = ended(make_plan(copy_to=[file / "below", tmp_path / "good"]), run_folders)
    assert isinstance(events[-1], Finished)
    (warned,) = (event for event in events if isinstance(event, Warned))
    assert (warned.code, warned.params["folder"]) == ("not_copied", str(file / "below"))
    assert run.result.copies == (tmp_path / "good" / LORA,)


def test_of_a_training_that_failed_nothing_is_copied(make_plan, run_folders, tmp_path):
    plan = make_plan("train(2); sys.exit(3)", copy_to=[tmp_path / "copies"], models_sidecar=True)
    events, _ = ended(plan, run_folders)
    assert isinstance(events[-1], Failed)
    assert not (tmp_path / "copies").exists()


def test_without_the_settings_nothing_lies_beside_the_lora(make_plan, run_folders):
    _, run = ended(make_plan(), run_folders)
    assert run.result.copies == ()
    assert not run.result.lora.with_suffix(".models").exists()
    assert not (run.folder / "run_finished.log").exists()


class Teller:
    @hookimpl
    def run_finished(self, run):
        raise AssertionError


def test_a_job_says_it_and_the_queue_keeps_it(tmp_path, pictures):
    registry = Registry.from_installed(disable=[])
    adapter = registry["sdxl"]
    job = adapter.job(
        name="elena",
        trigger="elena",
        dataset=pictures,
        output=tmp_path / "out",
        copy_to=[str(tmp_path / "copies")],
        models_sidecar=True,
    )
    plan = adapter.plan(job, SdScripts.rehearsal())
    assert (plan.copy_to, plan.models_sidecar, plan.hard_links) == ((tmp_path / "copies",), True, False)
    assert not plan.tells
    assert "copy_to" not in plan.files["elena_kohya_training.toml"]
    assert read_plan(to_json(plan)) == plan
    registry.register(Teller(), name="teller")
    assert adapter.plan(job, SdScripts.rehearsal()).tells


def test_folders_are_meant_from_where_the_job_was_made(pictures, tmp_path, monkeypatch):
    """A queue starts trainings from somewhere else, and so may whoever repeats one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    adapter = Registry.from_installed()["sdxl"]
    small = {"resolution": 64, "steps": 2, "sample_every": 0, "save_every": 0}
    job = adapter.job(name="elena", trigger="elena", dataset=pictures, output="out", copy_to=["copies"], **small)
    assert job.settings.copy_to == (str(tmp_path / "copies"),)
    queue = sync.Queue(tmp_path / "queue")
    changed = job.evolve(copy_to=["others"], output="elsewhere")
    entry = queue.add(changed, SdScripts.rehearsal(), runs=tmp_path / "runs")
    queue.wait()
    run = sync.attach(queue.entry(entry.id).run)
    assert run.result.lora == tmp_path / "elsewhere" / LORA
    assert run.result.copies == (tmp_path / "others" / LORA,)
    assert run.job.settings.copy_to == (str(tmp_path / "others"),)


def test_a_folder_for_copies_in_a_job_file_is_meant_from_there(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    file = tmp_path / "jobs/elena.toml"
    for settings in ('copy_to = ["../copies", "~/x"]', '[settings]\ncopy_to = ["../copies", "~/x"]'):
        file.write_text(f'type = "sdxl"\nname = "elena"\ndataset = "d"\noutput = "o"\n{settings}\n', encoding="utf-8")
        job = Job.load(file)
        assert [Path(folder).resolve() for folder in job.settings.copy_to] == [tmp_path / "copies", Path.home() / "x"]
        job.save(tmp_path / "saved.toml")
        assert Job.load(tmp_path / "saved.toml").settings.copy_to == job.settings.copy_to


PLUGIN = """
import cinderlora
from pathlib import Path

@cinderlora.hookimpl
def run_finished(run):
    print("told of", run.state, flush=True)
    with open(Path(__file__).with_name("told.txt"), "a", encoding="utf-8") as file:
        file.write(f"{run.name} {run.state}\\n")
    {then}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs plugins with the given last lines, by their entry points, for processes to come."""

    def install(**plugins: str) -> Path:
        site = tmp_path / "site"
        info = site / "tellers-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tellers\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"{name} = {name}" for name in plugins]
        (info / "entry_points.txt").write_text("\n".join(["[cinderlora]", *lines, ""]), encoding="utf-8")
        for name, then in plugins.items():
            (site / f"{name}.py").write_text(PLUGIN.replace("{then}", then), encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        return site / "told.txt"

    return install


def wait_for_telling(run):
    """Until the process that tells of this run's end has ended."""
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-2:] == ["cinderlora.running.telling", str(run.folder)]:
                process.wait(60)
        except psutil.Error:
            continue


def await_supervisor(run):
    """The supervisor starts the telling, then ends."""
    for process in psutil.process_iter():
        try:
            if str(run.folder) in process.cmdline() and any("supervisor.py" in part for part in process.cmdline()):
                process.wait(60)
        except psutil.Error:
            continue


@pytest.mark.parametrize(("script", "state"), [("train()", "finished"), ("sys.exit(3)", "failed")])
def test_plugins_are_told_of_the_end_once_and_harm_nothing(make_plan, run_folders, installed, script, state):
    told = installed(tellera="raise ValueError('no network')", tellerb="raise SystemExit(4)")
    events, run = ended(make_plan(script, tells=True), run_folders)
    await_supervisor(run)
    wait_for_telling(run)
    assert told.read_text(encoding="utf-8").splitlines() == [f"elena {state}"] * 2
    log = (run.folder / "run_finished.log").read_text(encoding="utf-8")
    assert log.count(f"told of {state}") == 2
    assert "run_finished of tellers 1.0 failed:" in log
    assert "ValueError: no network" in log
    assert sync.attach(run.folder).state == state
    assert [event.seq for event in sync.attach(run.folder)] == [event.seq for event in events]


def test_a_run_whose_supervisor_was_killed_is_told_of_too(make_plan, run_folders, installed):
    told = installed(teller="pass")
    plan = make_plan("bar(1, 4)\nwhile not os.path.exists('go'): time.sleep(0.02)\ntrain()", tells=True)
    with sync.launch(plan, runs=run_folders, detach=True) as run:
        pass
    supervisor = json.loads((run.folder / "state.json").read_text(encoding="utf-8"))["supervisor"]["pid"]
    process = psutil.Process(supervisor)
    process.kill()
    process.wait(60)
    again = sync.attach(run.folder)
    (run.folder / "go").touch()
    again.wait()
    await_supervisor(run)
    wait_for_telling(run)
    assert told.read_text(encoding="utf-8") == f"elena {again.state}\n"
