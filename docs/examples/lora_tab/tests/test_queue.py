"""The queue, the history, and going on with a run."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def entry(screen, number: int):
    return screen("#queue label").filter(has_text=f"#{number} ")


def test_several_people_use_one_queue(serve, look):
    server = serve("--rehearsal", CINDERLORA_REHEARSE="slow@0.05")
    screen = look(server)
    other = look(server)
    screen.wish(4000)
    for number, name in enumerate(("ada", "ben", "cleo"), 1):
        screen.fill(character_name=name)
        screen.expect("#problems").to_contain_text("Nothing is in the way")
        screen.start()
        screen.expect("#queue").to_contain_text(f"#{number} {name} (flux)")
        # Until it is answered, Start cannot be pressed again.
        screen.expect("#run").to_contain_text("Step " if number == 1 else f"#{number} {name} (flux): waiting")
    screen.expect("#run").to_contain_text("#3 cleo (flux): waiting")
    screen.shot("40-waiting")
    other.until_step(2)
    other.expect("#status strong").to_contain_text("ada")
    other.expect("#queue label").to_have_count(3)

    other("#queue-up").click()
    assert other.refusal() == "Choose an entry of the queue first."
    entry(other, 3).click()
    other("#queue-up").click()
    for each in (screen, other):  # a row that moves is not to be clicked
        each.expect("#queue label >> nth=1").to_contain_text("#3 cleo (flux): waiting")
    entry(other, 2).click()
    other("#queue-hold").click()
    screen.expect("#queue").to_contain_text("#2 ben (flux): held")
    other("#queue-hold").click()
    screen.expect("#queue").to_contain_text("#2 ben (flux): waiting")
    other("#queue-remove").click()
    screen.expect("#queue label").to_have_count(2)
    other("#queue-remove").click()
    assert other.refusal() == "Choose an entry of the queue first."
    entry(other, 1).click()
    other("#queue-remove").click()
    assert other.refusal() == "Entry 1 is being trained. Stop it first."

    other("#queue-pause").click()
    screen.expect("#queue-note").to_contain_text("The queue stands still.")
    other.shot("41-queue-paused")
    screen.page.reload()
    screen.until_step(2)
    screen("#stop").click()
    screen.until_state("stopped")
    screen.expect("#queue label").to_have_count(1)
    screen("#queue-continue").click()
    other.expect("#queue").to_contain_text("#3 cleo (flux): training")
    assert [(each.name, each.state) for each in server.entries] == [("ada", "stopped"), ("cleo", "running")]
    assert "Traceback" not in server.log, server.log


def test_an_old_run_is_looked_at_while_one_trains_and_gone_on_with(serve, look):
    server = serve("--rehearsal", CINDERLORA_REHEARSE="slow@0.03")
    screen = look(server)
    screen.wish(2000, save_every=20, sample_every=20)
    screen.start()
    screen.until_step(45)
    screen("#stop").click()
    screen.until_state("stopped")
    saved = int(screen("#status").inner_text().partition("Step ")[2].partition("/")[0]) // 20 * 20

    screen.fill(character_name="ben", steps=4000)
    screen.expect("#problems").to_contain_text("4000 steps")
    screen.start()
    screen.until_step(5)
    screen.expect("#status strong").to_contain_text("ben")
    screen("#history-panel > button").click()
    old = screen("#history label").filter(has_text="elena (flux): stopped")
    screen.expect("#history label").to_have_count(3)  # a row that moves is not to be clicked
    old.click()
    screen.until_state("stopped")
    screen.expect("#status strong").to_contain_text("elena")
    screen.expect("#samples img").to_have_count(saved // 20)
    assert screen.first_step == 1
    screen.shot("42-an-old-run")

    screen("#resume").click()
    screen.expect("#run").to_contain_text(re.compile(r"elena \(flux\): waiting"))
    screen("#history label").first.click()
    screen.expect("#status strong").to_contain_text("ben")
    screen("#stop").click()
    screen.expect("#status strong").to_contain_text("elena")  # what trains now
    screen.until_step(saved + 5)
    screen.expect("#status").to_contain_text("/2000 (")
    assert screen.first_step > saved
    assert "Traceback" not in server.log, server.log
