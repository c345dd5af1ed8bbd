"""Trainings from the browser: rehearsed on real folders, through all that happens to browsers and servers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

STEP = re.compile(r"Step (\d+)/(\d+) \((\d+)%\)")


def test_from_a_data_set_to_its_lora(serve, look):
    server = serve(CINDERLORA_REHEARSE="slow@0.01")
    screen = look(server)
    screen.expect("#run").to_contain_text("Nothing has been trained here yet.")
    screen.shot("01-first-look")
    screen.choose("dataset", "elena (14 pictures)")
    for field in ("character-name", "trigger-word"):
        screen.expect_field(field).to_have_value("elena")
    screen.expect("#rehearsal input").to_be_checked()
    screen.advanced()
    screen.fill(steps=200, save_every=100, sample_every=50)
    screen.expect("#problems").to_contain_text("14 pictures, 200 steps")
    screen.shot("02-ready")
    screen.start()

    screen.until_step(60)
    screen.expect("#status").to_contain_text(re.compile(r"elena \(flux, rehearsal\):\s+training"))
    screen.expect("#status").to_contain_text(re.compile(r"Loss 0\.\d{4} · .*left"))
    assert STEP.search(screen("#status").inner_text())
    screen.expect("#newest-sample img >> nth=0").to_be_visible()
    screen.expect("#loss-curve .lt-curve").to_be_visible()
    screen.expect("#log pre").to_contain_text("epoch 1/")
    screen.expect("#phases").to_contain_text("Loading models")
    screen.expect("#queue").to_contain_text("#1 elena (flux): training")
    screen.shot("03-training")

    screen.until_state("finished")
    screen.expect("#status").to_contain_text("Step 200/200 (100%)")
    screen.expect("#progress").to_have_attribute("aria-valuenow", "100")
    screen.expect("#samples img").to_have_count(4)
    for step in (50, 100, 150, 200):
        screen.expect("#samples").to_contain_text(f"Step {step}")
    assert screen("#samples img").evaluate_all("all => all.every(image => image.naturalWidth > 0)")
    lora = Path(screen.field("result").input_value())
    assert lora.is_file() and lora.is_relative_to(server.folder / "loras")
    screen.expect("#stop").to_be_disabled()
    screen.expect("#queue-panel").to_contain_text("The queue is empty.")
    screen.page.get_by_role("button", name="History").click()
    screen.expect("#history").to_contain_text(re.compile(r"elena \(flux\): finished · 200/200"))
    screen.shot("04-finished")
    assert "Traceback" not in server.log, server.log


def test_reloads_and_second_tabs_see_the_same_and_can_stop_it(serve, look):
    server = serve(CINDERLORA_REHEARSE="slow@0.05")
    screen = look(server)
    screen.wish(2000, save_every=15)
    screen.expect("#stop").to_be_disabled()
    screen.start()
    screen.until_step(20)
    screen.page.reload()
    screen.until_step(20)
    assert screen.first_step == 1
    screen.expect("#log pre").to_contain_text("epoch 1/")
    screen.expect("#phases").to_contain_text("Loading models")
    screen.shot("05-after-a-reload")

    other = look(server, beside=screen)
    other.until_step(20)
    assert other.first_step == 1
    other.expect("#queue").to_contain_text("#1 elena (flux): training")
    other("#stop").click()
    for each in (other, screen):
        each.until_state("stopped")
        each.expect("#status").to_contain_text("Stopped by: web")
        each.expect("#stop").to_be_disabled()
        each.expect("#resume").to_be_visible()
    screen.shot("06-stopped")
    assert [run.state for run in server.runs] == ["stopped"]
    assert "Traceback" not in server.log, server.log


def test_a_server_that_is_killed_and_started_again_in_mid_run(serve, look):
    server = serve(CINDERLORA_REHEARSE="slow@0.05")
    screen = look(server, lost=True)
    screen.wish(300, save_every=100, sample_every=100)
    screen.start()
    screen.until_step(10)
    server.kill()
    screen.shot("07-server-gone")
    server.start()
    assert [run.state for run in server.runs] == ["running"]
    screen.page.reload()
    screen.until_step(11)
    assert screen.first_step == 1
    screen.until_state("finished")
    screen.expect("#status").to_contain_text("Step 300/300 (100%)")
    assert screen.first_step == 1
    screen.expect("#samples img").to_have_count(3)
    assert Path(screen.field("result").input_value()).is_file()
    assert [run.state for run in server.runs] == ["finished"]
    assert "Traceback" not in server.log, server.log


def test_a_failure_is_explained_and_tried_again_with_what_mends_it(serve, look):
    server = serve(CINDERLORA_REHEARSE="oom@5")
    screen = look(server, lost=True)
    screen.wish(100)
    screen.start()
    screen.until_state("failed")
    screen.expect("#diagnosis").to_contain_text("The GPU ran out of memory")
    screen.expect("#diagnosis pre").to_contain_text("torch.OutOfMemoryError")
    screen.expect("#try-again").to_contain_text(re.compile(r"Apply and try again: .+ = "))
    changes = server.runs[0].status.diagnosis.changes
    screen.shot("08-failed")

    # Whatever filled the card's memory is gone.
    server.kill()
    server.start(CINDERLORA_REHEARSE="")
    screen.page.reload()
    screen.until_state("failed")
    screen("#try-again").click()
    screen.until_state("finished")
    newest, failed = server.runs
    assert (newest.state, failed.state) == ("finished", "failed")
    assert newest.job == failed.job.evolve(**changes)
    assert newest.job != failed.job
    assert "Traceback" not in server.log, server.log


def test_an_adapter_that_is_installed_beside_it_appears_with_all_it_has(serve, look, tmp_path):
    package = Path(__file__).parents[2] / "cinderlora-lumina/src/cinderlora_lumina"
    site = tmp_path / "site"
    shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "cinderlora_lumina-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cinderlora-lumina\nVersion: 0.1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[cinderlora]\nlumina = cinderlora_lumina\n", encoding="utf-8")
    server = serve(PYTHONPATH=str(site))
    screen = look(server)
    screen.choose("model-type", "Lumina Image 2")
    screen.expect_field("preset").to_have_value(re.compile(r"^8 GB, slower \("))
    marked, *others = screen.options("preset")
    assert marked.startswith("8 GB, slower (suggested") and others == ["12 GB", "16 GB", "24 GB and more"]
    screen.choose("preset", "24 GB and more")
    screen.expect_field("steps").to_have_value("2000")
    screen.advanced()
    screen.expect_field("network-dim").to_have_value("32")
    screen.expect("#component-gemma2").to_contain_text("Gemma 2 (2B)")
    screen.expect("#component-model").to_contain_text("Lumina transformer")
    screen.expect("#component-t5xxl").to_be_hidden()
    screen.shot("09-an-adapter-beside-it")
    screen.choose("dataset", "elena (14 pictures)")
    screen.fill(steps=20)
    screen.expect("#problems").to_contain_text("20 steps")
    screen.start()
    screen.until_state("finished")
    screen.expect("#status").to_contain_text("elena (lumina, rehearsal)")
    assert "Traceback" not in server.log, server.log
