"""The queue, the history, going on with a run, and installing sd-scripts."""

from __future__ import annotations

import os
import re
import shutil

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
    screen.expect("#run").to_contain_text("#3 cleo (flux): waiting")
    screen.shot("40-waiting")
    other.until_step(2)
    other.expect("#status strong").to_contain_text("ada")
    other.expect("#queue label").to_have_count(3)

    other("#queue-up").click()
    assert other.refusal() == "Choose an entry of the queue first."
    entry(other, 3).click()
    other("#queue-up").click()
    screen.expect("#queue label >> nth=1").to_contain_text("#3 cleo (flux): waiting")
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


@pytest.mark.skipif(os.name == "nt", reason="what stands in for git is a script")
def test_installing_is_shown_to_everybody_and_its_failure_explained(serve, look, tmp_path):
    """Git waits until both have seen that it is at work, and then finds no network."""
    git = tmp_path / "bin/git"
    git.parent.mkdir()
    go_on = tmp_path / "go-on"
    git.write_text(
        f"#!/bin/sh\ncase \"$*\" in *clone*|*fetch*|*init*) while [ ! -e '{go_on}' ]; do sleep 0.1; done;;"
        f" *) exec '{shutil.which('git')}' \"$@\";; esac\necho 'fatal: unable to access it' >&2\nexit 128\n",
        encoding="utf-8",
    )
    git.chmod(0o755)
    paths = os.pathsep.join([str(git.parent), os.environ["PATH"]])
    server = serve("--no-browser", PATH=paths, CINDERLORA_SD_SCRIPTS=str(tmp_path / "sd-scripts"))
    screen, other = look(server), look(server, locale="de-DE")
    screen.expect("#rehearsal input").not_to_be_checked()
    screen.choose("dataset", "elena (14 pictures)")
    screen("#install").click()
    screen.expect("#installation").to_contain_text(re.compile(r"sd-scripts is being installed\.Step \d of \d+: "))
    other.expect("#installation").to_contain_text(re.compile(r"sd-scripts wird installiert\.Schritt \d von \d+: "))
    screen.shot("43-installing")
    go_on.touch()
    screen.expect('#installation [data-code^="install_"]').to_contain_text("unable to access it")
    other.expect('#installation [data-code^="install_"]').to_be_visible()
    screen.shot("44-not-installed")
    assert not (tmp_path / "sd-scripts").exists()
    assert "Traceback" not in server.log, server.log
