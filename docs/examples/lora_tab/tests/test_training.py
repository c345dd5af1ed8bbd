"""Trainings from the browser: rehearsed on real folders, through all that happens to browsers and servers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

STEP = re.compile(r"Step (\d+)/(\d+) \((\d+)%\)")


def choose(page: Page, field: str, option: str) -> None:
    """From a drop-down, as somebody with a mouse does."""
    page.locator(f"#{field} input").click()
    page.get_by_role("option", name=option).click()


def fill(page: Page, **fields: object) -> None:
    for name, value in fields.items():
        page.locator(f"#{name.replace('_', '-')}").locator("input, textarea").first.fill(str(value))


def advanced(page: Page) -> None:
    page.get_by_role("button", name=re.compile("Advanced|Erweitert")).click()


def wish(page: Page, steps: int, every: int | None = None) -> None:
    """The demo's character, with so many steps; samples and checkpoints every so many."""
    from playwright.sync_api import expect

    choose(page, "dataset", "elena (14 pictures)")
    expect(page.locator("#trigger-word input, #trigger-word textarea")).to_have_value("elena")
    fill(page, steps=steps)
    if every is not None:
        advanced(page)
        fill(page, save_every=every, sample_every=every)
    expect(page.locator("#problems")).to_contain_text(f"{steps} steps")


def until_step(page: Page, step: int) -> None:
    page.wait_for_function(
        "step => Number((document.querySelector('#status')?.innerText.match(/Step (\\d+)/) ?? [0, 0])[1]) >= step",
        arg=step,
    )


def until_state(page: Page, state: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#status strong")).to_contain_text(f": {state}", timeout=90_000)


def first_step(page: Page) -> int:
    """Where the curve begins."""
    return int(page.locator("#loss-curve svg text").nth(2).text_content() or "")


def test_from_a_data_set_to_its_lora(serve, look, shot):
    from playwright.sync_api import expect

    server = serve(CINDERLORA_REHEARSE="slow@0.01")
    page = look(server)
    expect(page.locator("#run")).to_contain_text("Nothing has been trained here yet.")
    shot(page, "01-first-look")
    choose(page, "dataset", "elena (14 pictures)")
    for field in ("character-name", "trigger-word"):
        expect(page.locator(f"#{field}").locator("input, textarea")).to_have_value("elena")
    expect(page.locator("#rehearsal input")).to_be_checked()
    advanced(page)
    fill(page, steps=200, save_every=100, sample_every=50)
    expect(page.locator("#problems")).to_contain_text("14 pictures, 200 steps")
    shot(page, "02-ready")
    page.locator("#start").click()

    until_step(page, 60)
    expect(page.locator("#status")).to_contain_text(re.compile(r"elena \(flux, rehearsal\):\s+training"))
    expect(page.locator("#status")).to_contain_text(re.compile(r"Loss 0\.\d{4} · .*left"))
    assert STEP.search(page.locator("#status").inner_text())
    expect(page.locator("#newest-sample img").first).to_be_visible()
    expect(page.locator("#loss-curve svg")).to_be_visible()
    expect(page.locator("#log pre")).to_contain_text("epoch 1/")
    expect(page.locator("#phases")).to_contain_text("Loading models")
    expect(page.locator("#queue")).to_contain_text("#1 elena (flux): training")
    shot(page, "03-training")

    until_state(page, "finished")
    expect(page.locator("#status")).to_contain_text("Step 200/200 (100%)")
    expect(page.locator("#progress")).to_have_attribute("aria-valuenow", "100")
    expect(page.locator("#samples img")).to_have_count(4)
    for step in (50, 100, 150, 200):
        expect(page.locator("#samples")).to_contain_text(f"Step {step}")
    assert page.locator("#samples img").evaluate_all("all => all.every(image => image.naturalWidth > 0)")
    lora = Path(page.locator("#result").locator("input, textarea").input_value())
    assert lora.is_file() and lora.is_relative_to(server.folder / "loras")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#queue-panel")).to_contain_text("The queue is empty.")
    page.get_by_role("button", name="History").click()
    expect(page.locator("#history")).to_contain_text(re.compile(r"elena \(flux\): finished · 200/200"))
    shot(page, "04-finished")
    assert "Traceback" not in server.log, server.log


def test_reloads_and_second_tabs_see_the_same_and_can_stop_it(serve, look, shot):
    from playwright.sync_api import expect

    server = serve(CINDERLORA_REHEARSE="slow@0.05")
    page = look(server)
    wish(page, 2000)
    expect(page.locator("#stop")).to_be_disabled()
    page.locator("#start").click()
    until_step(page, 20)
    page.reload()
    until_step(page, 20)
    assert first_step(page) == 1
    expect(page.locator("#log pre")).to_contain_text("epoch 1/")
    expect(page.locator("#phases")).to_contain_text("Loading models")
    shot(page, "05-after-a-reload")

    other = look(server, beside=page)
    until_step(other, 20)
    assert first_step(other) == 1
    expect(other.locator("#queue")).to_contain_text("#1 elena (flux): training")
    other.locator("#stop").click()
    for each in (other, page):
        until_state(each, "stopped")
        expect(each.locator("#status")).to_contain_text("Stopped by: web")
        expect(each.locator("#stop")).to_be_disabled()
        expect(each.locator("#resume")).to_be_visible()
    shot(page, "06-stopped")
    assert [run.state for run in server.runs] == ["stopped"]
    assert "Traceback" not in server.log, server.log


def test_a_server_that_is_killed_and_started_again_in_mid_run(serve, look, shot):
    from playwright.sync_api import expect

    server = serve(CINDERLORA_REHEARSE="slow@0.05")
    page = look(server, lost=True)
    wish(page, 600, every=200)
    page.locator("#start").click()
    until_step(page, 10)
    server.kill()
    shot(page, "07-server-gone")
    server.start()
    assert [run.state for run in server.runs] == ["running"]
    page.reload()
    until_step(page, 11)
    assert first_step(page) == 1
    until_state(page, "finished")
    expect(page.locator("#status")).to_contain_text("Step 600/600 (100%)")
    assert first_step(page) == 1
    expect(page.locator("#samples img")).to_have_count(3)
    assert Path(page.locator("#result").locator("input, textarea").input_value()).is_file()
    assert [run.state for run in server.runs] == ["finished"]
    assert "Traceback" not in server.log, server.log


def test_a_failure_is_explained_and_tried_again_with_what_mends_it(serve, look, shot):
    from playwright.sync_api import expect

    server = serve(CINDERLORA_REHEARSE="oom@5")
    page = look(server, lost=True)
    wish(page, 100)
    page.locator("#start").click()
    until_state(page, "failed")
    expect(page.locator("#diagnosis")).to_contain_text("The GPU ran out of memory")
    expect(page.locator("#diagnosis pre")).to_contain_text("torch.OutOfMemoryError")
    again = page.locator("#try-again")
    expect(again).to_contain_text(re.compile(r"Apply and try again: .+ = "))
    changes = server.runs[0].status.diagnosis.changes
    shot(page, "08-failed")

    # Whatever filled the card's memory is gone.
    server.kill()
    server.start(CINDERLORA_REHEARSE="")
    page.reload()
    until_state(page, "failed")
    again.click()
    until_state(page, "finished")
    newest, failed = server.runs
    assert (newest.state, failed.state) == ("finished", "failed")
    assert newest.job == failed.job.evolve(**changes)
    assert newest.job != failed.job
    assert "Traceback" not in server.log, server.log


def test_an_adapter_that_is_installed_beside_it_appears_with_all_it_has(serve, look, shot, tmp_path):
    from playwright.sync_api import expect

    package = Path(__file__).parents[2] / "cinderlora-lumina/src/cinderlora_lumina"
    site = tmp_path / "site"
    shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "cinderlora_lumina-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cinderlora-lumina\nVersion: 0.1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[cinderlora]\nlumina = cinderlora_lumina\n", encoding="utf-8")
    server = serve(PYTHONPATH=str(site))
    page = look(server)
    choose(page, "model-type", "Lumina Image 2")
    page.locator("#preset input").click()
    for preset in ("16 GB", "12 GB", "8 GB, slower", "24 GB and more"):
        expect(page.get_by_role("option", name=re.compile(f"^.?\\s*{re.escape(preset)}"))).to_be_visible()
    page.get_by_role("option", name="24 GB and more").click()
    expect(page.locator("#steps input")).to_have_value("2000")
    advanced(page)
    expect(page.locator("#network-dim").locator("input, textarea")).to_have_value("32")
    expect(page.locator("#component-gemma2")).to_contain_text("Gemma 2 (2B)")
    expect(page.locator("#component-model")).to_contain_text("Lumina transformer")
    expect(page.locator("#component-t5xxl")).to_be_hidden()
    shot(page, "09-an-adapter-beside-it")
    choose(page, "dataset", "elena (14 pictures)")
    fill(page, steps=20)
    expect(page.locator("#problems")).to_contain_text("20 steps")
    page.locator("#start").click()
    until_state(page, "finished")
    expect(page.locator("#status")).to_contain_text("elena (lumina, rehearsal)")
    assert "Traceback" not in server.log, server.log
