"""German, by the browser's language and by the switch: everything that is said, problems too."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cinderlora import Registry

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

HERE = Path(__file__).parents[1]


def sayings(language: str) -> dict[tuple[str, ...], str]:
    """All that the tab says in a language, by key; of what is filled in, the part before it."""
    said: dict[tuple[str, ...], str] = {}

    def gather(table: dict, *keys: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                gather(value, *keys, key)
            else:
                said[*keys, key] = value.partition("{")[0].strip(" .,:(")

    gather(tomllib.loads((HERE / f"{language}.toml").read_text(encoding="utf-8")))
    return said


def english(text: str) -> list[str]:
    """What of the English texts is in a German page."""
    german = sayings("de")
    words = {words for key, words in sayings("en").items() if words != german[key]}
    for adapter in Registry.from_installed().values():
        words |= {
            info.label["en"] for info in adapter.settings() if info.label["en"].lower() != info.label["de"].lower()
        }
    ours = {words for words in german.values() if words}
    words = {word for word in words if len(word) > 3 and word not in ours}
    return [line for line in text.splitlines() if any(re.search(rf"\b{re.escape(word)}\b", line) for word in words)]


def text_of(screen) -> str:
    """All that can be read on a page, but for what the trainer says and for Gradio's own buttons on pictures."""
    text = screen.page.evaluate(
        """() => {
            const said = [...document.querySelectorAll("pre")];
            said.forEach(element => element.hidden = true);
            const text = document.body.innerText;
            said.forEach(element => element.hidden = false);
            return text;
        }"""
    )
    placeholders = screen("[placeholder]").evaluate_all("all => all.map(element => element.placeholder)")
    labels = screen("#run [aria-label], #language [aria-label], pre[aria-label], svg[aria-label]")
    return "\n".join([text, *placeholders, *labels.evaluate_all("all => all.map(element => element.ariaLabel)")])


def test_both_languages_say_the_same():
    assert sayings("en").keys() == sayings("de").keys()
    for language in ("en", "de"):
        text = (HERE / f"{language}.toml").read_text(encoding="utf-8")
        assert re.findall(r"^(\S+) = ", text, re.MULTILINE) == re.findall(
            r"^(\S+) = ", (HERE / "en.toml").read_text(encoding="utf-8"), re.MULTILINE
        )


def test_the_browsers_language_and_the_switch(look, form):
    assert form.ask("/", Accept_Language="de-AT,de;q=0.9,en;q=0.8")[2]["location"] == "/de/"
    assert form.ask("/", Accept_Language="fr-FR,fr;q=0.9,de;q=0.8,en;q=0.7")[2]["location"] == "/de/"
    for others in ("en-GB,en;q=0.9,de;q=0.8", "fr", "", "*", ";;,,"):
        assert form.ask("/", Accept_Language=others)[2]["location"] == "/en/", others
    screen = look(form, locale="de-DE", lost=True)
    screen.expect("#start").to_have_text("Training starten")
    assert screen.page.evaluate("document.documentElement.lang") == "de"
    screen.page.get_by_role("link", name="English").click()
    screen.expect("#start").to_have_text("Start training")
    assert screen.page.evaluate("document.documentElement.lang") == "en"
    screen.page.get_by_role("link", name="Deutsch").click()
    screen.expect("#start").to_have_text("Training starten")
    screen.expect('#language [aria-current="true"]').to_have_text("Deutsch")


def test_the_german_form_and_its_problems(look, form):
    screen = look(form, locale="de-DE")
    screen.expect("#problems").to_contain_text("Zuerst einen Datensatz wählen.")
    screen.start()
    assert screen.refusal().startswith("Es ist kein Datensatz gewählt.")
    screen.wish(500, sample_every=250)
    screen.fill(character_name="", learning_rate="0", repeats=0, sample_prompt="# elena")
    screen("#rehearsal input").uncheck()
    for code in ("name_missing", "setting_range", "prompt_form", "learning_rate_zero", "trainer_not_found"):
        screen.expect(f'#problems [data-code="{code}"]').to_be_visible()
    screen.expect("#problems").to_contain_text("Die Fehler oben stehen dem Start im Weg.")
    screen.expect("#problems").to_contain_text("Anwenden: Lernrate = nicht gesetzt")
    screen.expect("#install").to_have_text("sd-scripts installieren")
    text = text_of(screen)
    assert "Charakter-Name fehlt" in text
    assert not english(text), english(text)
    screen.shot("20-german-problems")


def test_the_german_presets(look, form):
    """The names that adapters give to their presets are English; those of the adapters that ship are known here."""
    adapters = Registry.from_installed()
    titles = {preset.title for adapter in adapters.values() for preset in adapter.presets.values()}
    known = {key[1] for key in sayings("de") if key[0] == "preset_title"}
    assert known == {title for title in titles if not re.fullmatch(r"\d+ GB(; T5 in FP8)?", title)}
    screen = look(form, locale="de-DE")
    offered = screen.options("preset")
    assert offered[0] == "8 GB, am langsamsten; T5 in FP8 (Vorschlag für diesen Rechner)"
    assert offered[-1] == "24 GB und mehr"
    assert not english("\n".join(offered))


def test_a_german_training_and_its_failure(serve, look):
    server = serve(CINDERLORA_REHEARSE="oom@150,slow@0.03")
    screen = look(server, locale="de-DE", color_scheme="dark")
    screen.wish(200, sample_every=20, save_every=20)
    screen.start()
    screen.until_step(25)
    screen.expect("#status").to_contain_text(re.compile(r"elena \(flux, Probe\):\s+trainiert"))
    screen.expect("#status").to_contain_text(
        re.compile(r"Step \d+/200 \(\d+%\)( · Testbilder \d+/\d+)? · Loss 0\.\d{4} · noch .*s")
    )
    screen.expect("#newest-sample").to_be_visible()
    text = text_of(screen)
    assert not english(text), english(text)
    screen.shot("21-german-training-dark")
    screen.until_state("gescheitert")
    screen.shot("22-german-failure-dark")
    screen.expect("#diagnosis").to_contain_text("Der Speicher der GPU ist voll")
    screen.expect("#try-again").to_contain_text("Anwenden und nochmal: ")
    screen("#history-panel > button").click()
    screen.expect("#history").to_contain_text("elena (flux): gescheitert")
    text = text_of(screen)
    assert not english(text), english(text)
    assert "Traceback" not in server.log, server.log
