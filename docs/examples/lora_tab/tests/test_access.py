"""The tab for everybody: by keyboard alone, on a narrow screen, in light and dark, and by axe's rules."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def tab_to(screen, selector: str) -> None:
    """With the Tab key to an element, which then shows that it has the focus."""
    for _ in range(60):
        screen.page.keyboard.press("Tab")
        if screen.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by Tab")


def test_by_keyboard_from_the_form_to_the_lora_and_by_axe_in_each_state(serve, look):
    server = serve("--rehearsal", CINDERLORA_REHEARSE="slow@0.03")
    screen = look(server)
    keyboard = screen.page.keyboard
    screen.expect("#problems").to_contain_text("Choose a data set")
    screen.assert_accessible()
    tab_to(screen, "#dataset input")
    keyboard.press("ArrowDown")
    screen.page.get_by_role("option", name="elena (14 pictures)").wait_for()
    screen.assert_accessible()
    keyboard.press("Enter")
    screen.expect_field("trigger_word").to_have_value("elena")
    tab_to(screen, "#dataset-path :is(input, textarea)")
    tab_to(screen, "#character-name :is(input, textarea)")
    keyboard.press("Control+A")
    keyboard.type("elena two")
    tab_to(screen, "#model-type input")
    tab_to(screen, "#preset input")
    tab_to(screen, "#steps input")
    keyboard.press("Control+A")
    keyboard.type("200")
    tab_to(screen, "#rehearsal input")
    tab_to(screen, "#advanced > button")
    keyboard.press("Enter")
    tab_to(screen, "#sample-every input")
    keyboard.press("Control+A")
    keyboard.type("50")
    tab_to(screen, "#learning-rate :is(input, textarea)")
    keyboard.type("0")
    screen.expect('#problems [data-code="learning_rate_zero"]').to_be_visible()
    screen.assert_accessible()
    tab_to(screen, "#fix-0, #fix-1")
    keyboard.press("Enter")
    screen.expect("#problems .lt-error").to_have_count(0)
    screen.expect("#problems").to_contain_text("200 steps")
    screen("#character-name").locator(
        "input, textarea"
    ).focus()  # the fixed problem took its button, and the focus, away
    tab_to(screen, "#start")
    keyboard.press("Enter")
    screen.until_step(60)
    screen.expect("#newest-sample").to_be_visible()
    screen.assert_accessible()
    screen.until_state("finished")
    assert screen.field("result").input_value().endswith("cg_elena two.safetensors")
    tab_to(screen, "#open-folder")
    tab_to(screen, "#history-panel > button")
    keyboard.press("Enter")
    screen.expect("#history").to_contain_text("finished")
    screen.assert_accessible()
    screen.page.emulate_media(color_scheme="dark")
    screen.page.reload()
    screen.expect("#samples img >> nth=3").to_be_visible()
    screen.assert_accessible()
    screen.shot("30-finished-dark")


def wide(screen) -> list[str]:
    """What is wider than the screen."""
    return screen.page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
            .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
            .map(element => element.outerHTML.slice(0, 200))"""
    )


@pytest.mark.parametrize("language", ["en-US", "de-DE"])
def test_a_narrow_screen_needs_no_scrolling_sideways(look, form, language):
    screen = look(form, locale=language, viewport={"width": 360, "height": 740})
    assert not wide(screen)
    screen.wish(500, sample_every=250)
    screen.fill(learning_rate="0")
    screen("#rehearsal input").uncheck()
    screen.expect("#install").to_be_visible()
    screen.expect('[data-code="learning_rate_zero"]').to_be_visible()
    assert not wide(screen)
    screen.assert_accessible()
    screen.shot(f"31-narrow-form-{language[:2]}")


def test_a_failed_training_on_a_narrow_screen(serve, look):
    server = serve("--rehearsal", CINDERLORA_REHEARSE="oom@45")
    screen = look(server, viewport={"width": 360, "height": 740})
    screen.wish(100, sample_every=20, save_every=20)
    screen.start()
    screen.until_state("failed")
    screen.expect("#samples img").to_have_count(2)
    screen("#history-panel > button").click()
    screen.expect("#history").to_contain_text(re.compile("failed"))
    assert not wide(screen)
    screen.assert_accessible()
    screen.shot("32-narrow-failed")
    screen.page.emulate_media(color_scheme="dark")
    screen.page.reload()
    screen.until_state("failed")
    screen.assert_accessible()
