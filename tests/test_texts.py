"""Every code has a text in both languages, with the same parameters."""

from __future__ import annotations

import ast
import pickle
import string
from pathlib import Path

import pytest

import cinderlora
from cinderlora import CinderloraError, Diagnosis, Problem, TrainingFailed, UnknownName
from cinderlora.errors import JobRefused
from cinderlora.texts import catalogue, text_of

EN, DE = catalogue("en"), catalogue("de")
PACKAGES = [p for p in Path(cinderlora.__file__).parent.parent.iterdir() if p.name.startswith("cinderlora")]


def sentences(entry: dict, key: str) -> list[str]:
    value = entry.get(key, [])
    return [value] if isinstance(value, str) else value


def parameters(entry: dict) -> set[str]:
    texts = [*sentences(entry, "message"), *sentences(entry, "fix")]
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


def codes_in_source() -> set[str]:
    """The first argument of everything that is called like an error, a problem or a diagnosis."""
    found = set()
    for package in PACKAGES:
        for file in package.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    is_ours = name in {"Problem", "Diagnosis"} or is_error(name)
                    if is_ours and isinstance(node.args[0].value, str):
                        found.add(node.args[0].value)
    return found


def is_error(name: str) -> bool:
    value = getattr(cinderlora, name, None)
    return isinstance(value, type) and issubclass(value, CinderloraError)


def test_both_languages_have_the_same_codes():
    assert set(EN) == set(DE)


@pytest.mark.parametrize("code", sorted(EN))
def test_both_languages_use_the_same_parameters(code):
    assert parameters(EN[code]) == parameters(DE.get(code, {})), code
    assert sentences(EN[code], "message")


def test_every_code_has_a_text():
    codes = codes_in_source()
    assert len(codes) > 30
    assert codes - set(EN) == set()


def test_a_sentence_without_its_parameter_is_left_out():
    assert text_of("preset_unknown", {"name": "x", "model_type": "flux", "nearest": None, "known": ["16gb"]}, "en") == (
        "There is no preset x for flux.",
        "Known: 16gb.",
    )


def test_parameters_are_no_templates():
    text = text_of("name_unsafe", {"name": "{0.__class__} {known}"}, "en")
    assert text is not None and "{0.__class__} {known}" in text.message


def test_an_error_speaks_both_languages():
    error = UnknownName("model_type_unknown", name="flx", nearest="flux", known=["flux"])
    assert "flux" in str(error) and error.text("de").message == "Es gibt keinen Model-Typ flx."
    assert error.text("xx") == error.text("en")


def test_a_plugins_own_code_keeps_its_own_words():
    problem = Problem("studio_rule", message="Not at night.", fix="Come back at 8.")
    assert problem.text("de") == ("Not at night.", "Come back at 8.")
    diagnosis = Diagnosis(code="studio_rule", cause="Too hot.")
    assert diagnosis.text("de").message == "Too hot." == TrainingFailed(diagnosis).message


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("preset_unknown", name="x", model_type="flux"),
        JobRefused((Problem("name_missing"), Problem("trigger_missing"))),
        TrainingFailed(Diagnosis(code="disk_full", evidence=["No space left"])),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_can_be_pickled(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.code == error.code
