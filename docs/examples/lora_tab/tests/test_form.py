"""What the form says of what is wished, before anything is started. Nothing is started in this file."""

from __future__ import annotations

import re
import shutil

import pytest

from cinderlora.models.hollow import write_hollow
from cinderlora.testing import sample_header

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

WRONG = {
    "dataset-path": [
        ("/etc", "folder_not_allowed"),
        ("../../etc", "folder_not_allowed"),
        ("file:///etc", "folder_not_allowed"),
        ("{datasets}/../../../../../etc", "folder_not_allowed"),
        ("{datasets}/nobody", "dataset_not_found"),
        ("{datasets}/void", "dataset_empty"),
        ("{datasets}/elena/elena_01.png", "dataset_not_found"),
    ],
    "character-name": [("", "name_missing"), ("../elena", "name_unsafe")],
    "trigger-word": [("", "trigger_missing")],
    "steps": [("0", "setting_range"), ("-3", "setting_range"), ("1.5", "setting_type")],
    "network-dim": [("0", "setting_range")],
    "repeats": [("0", "setting_range")],
    "save-every": [("-1", "setting_range")],
    "sample-every": [("-1", "setting_range")],
    "sample-prompt": [("# elena", "prompt_form"), ("elena\n--w 9999", "prompt_form")],
    "learning-rate": [("fast", "setting_type"), ("-1", "setting_range"), ("0", "learning_rate_zero")],
}
"""Field, what is typed, and the code of what is said of it."""


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_explained_and_the_start_refused(form, look, field):
    datasets = form.folder / "datasets"
    (datasets / "void").mkdir(exist_ok=True)
    screen = look(form)
    screen.wish(500, sample_every=250)
    right = screen.field(field).input_value()
    for value, code in WRONG[field]:
        screen.fill(**{field: value.format(datasets=datasets)})
        problem = f'#problems .lt-error[data-code="{code}"]'
        screen.expect(problem).to_be_visible()
        message, fix = screen(f"{problem} > *").all_inner_texts()
        assert len(message) > 10
        assert len(fix) > 10
        screen.expect("#problems").to_contain_text("The errors above are in the way of the start.")
        screen.start()
        assert message in screen.refusal()
        assert not form.entries
        screen.shot(f"10-wrong-{field}")
        screen.fill(**{field: right})
        screen.expect(problem).to_have_count(0)


def test_what_a_real_training_lacks_is_said_for_each_component(look, form):
    screen = look(form)
    screen.wish(500)
    screen("#rehearsal input").uncheck()
    screen.expect('#problems [data-code="trainer_not_found"]').to_be_visible()
    screen.expect('#problems [data-code="component_missing"]').to_have_count(4)
    screen.expect("#install").to_be_visible()
    screen.shot("11-nothing-is-installed")
    screen.choose("model-type", "Stable Diffusion XL")
    screen.expect('#problems [data-code="component_missing"]').to_have_count(1)
    screen.start()
    assert "sd-scripts" in screen.refusal()
    assert not form.entries


def test_a_button_applies_what_mends_a_problem(look, form):
    screen = look(form)
    screen.wish(500)
    screen.advanced()
    screen.fill(learning_rate="0")
    screen.expect('[data-code="learning_rate_zero"]').to_be_visible()
    button = screen("#problems button")
    assert button.inner_text() == "Apply: Learning rate = unset"
    button.click()
    screen.expect_field("learning_rate").to_have_value("")
    screen.expect("#problems").to_contain_text("Nothing is in the way of the start.")

    # Prodigy finds its own rate and wants 1.
    screen.choose("model-type", "Stable Diffusion 3")
    screen.expect_field("steps").to_have_value("1000")
    screen.fill(learning_rate="1e-4")
    screen.expect('[data-code="learning_rate_low"]').to_be_visible()
    screen.shot("12-a-fix-to-apply")
    screen("#problems button").click()
    screen.expect_field("learning_rate").to_have_value("1.0")
    screen.expect('[data-code="learning_rate_low"]').to_have_count(0)


def test_presets_of_the_type_with_the_one_for_this_machine_marked(look, form):
    screen = look(form)
    marked, *others = screen.options("preset")
    assert marked == "8 GB, slowest; T5 in FP8 (suggested for this machine)"
    assert others == ["10 GB, slower; T5 in FP8", "12 GB, slower", "16 GB", "24 GB and more"]
    screen.choose("preset", "24 GB and more")
    screen.expect_field("steps").to_have_value("2000")
    screen.advanced()
    screen.expect_field("network_dim").to_have_value("32")
    for role in ("model", "clip_l", "t5xxl", "ae"):
        screen.expect(f"#component-{role}").to_be_visible()
    screen.expect("#component-clip_g").to_be_hidden()

    screen.choose("model-type", "Stable Diffusion XL")
    screen.expect_field("preset").to_have_value(re.compile("^8 GB"))
    screen.expect_field("network_dim").to_have_value("8")
    for role in ("clip_l", "t5xxl", "ae"):
        screen.expect(f"#component-{role}").to_be_hidden()
    screen.expect("#component-vae").to_contain_text("(optional)")


def test_data_sets_are_found_again_and_chosen_by_path(look, form, demo):
    screen = look(form)
    before = screen.options("dataset")
    assert "elena (14 pictures)" in before
    screen.expect("#dataset").to_contain_text(f"{len(before)} found in {form.folder / 'datasets'}")
    ida = form.folder / "datasets/ida"
    shutil.copytree(demo, ida)
    next(ida.glob("*.txt")).unlink()
    screen("#dataset-refresh").click()
    screen.expect("#dataset").to_contain_text(f"{len(before) + 1} found in")
    screen.choose("dataset", "ida (14 pictures, some without a caption)")
    screen.expect_field("character_name").to_have_value("ida")
    screen.fill(dataset_path=str(form.folder / "datasets/elena"))
    screen.expect_field("character_name").to_have_value("elena")
    screen.expect("#problems").to_contain_text("14 pictures")
    shutil.rmtree(ida)
    screen("#dataset-refresh").click()
    screen.expect("#dataset").to_contain_text(f"{len(before)} found in")


def test_who_has_no_pictures_gets_some(serve, look):
    server = serve()
    shutil.rmtree(server.folder / "datasets")
    screen = look(server)
    screen.expect("#dataset").to_contain_text("0 found in")
    screen.expect("#problems").to_contain_text("Choose a data set to begin with.")
    screen("#demo-pictures").click()
    screen.expect_field("dataset").to_have_value("elena (14 pictures)")
    screen.expect_field("character_name").to_have_value("elena")
    screen.expect("#problems").to_contain_text("14 pictures, 1500 steps")
    screen.expect("#demo-pictures").to_be_hidden()
    assert not server.log


def test_refresh_checks_again_what_lies_on_the_disk(look, form, demo):
    """Even where nothing on the page changes by it: a data set that is given by its path is in no list."""
    ida = form.folder / "datasets/deeper/ida"
    shutil.copytree(demo, ida)
    screen = look(form)
    screen.advanced()
    screen.fill(dataset_path=str(ida))
    screen.expect("#problems").to_contain_text("14 pictures")
    for left in (13, 12, 11):
        next(ida.glob("*.png")).unlink()
        screen("#dataset-refresh").click()
        screen.expect("#problems").to_contain_text(f"{left} pictures")
    shutil.rmtree(ida.parent)
    screen("#models-refresh").click()
    screen.expect('#problems [data-code="dataset_not_found"]').to_be_visible()


def test_a_choice_may_go_while_a_question_about_it_is_on_its_way(look, form, demo):
    ida = form.folder / "datasets/ida"
    shutil.copytree(demo, ida)
    screen = look(form)
    screen.choose("dataset", "ida (14 pictures)")
    screen.expect("#problems").to_contain_text("14 pictures, 1500 steps")
    held = []

    def is_about_ida(request) -> bool:
        values = (request.post_data_json or {}).get("data", ()) if request.method == "POST" else ()
        return len(values) > 10 and str(ida) in values

    def hold(route) -> None:
        held.append(route) if is_about_ida(route.request) else route.continue_()

    with screen.page.expect_request(is_about_ida):
        screen.page.route("**/gradio_api/*/*", hold)
        screen.fill(steps=700)
    shutil.rmtree(ida)
    screen("#dataset-refresh").click()
    screen.expect_field("dataset").to_have_value("")
    assert held
    for route in held:
        route.continue_()
    screen.expect("#problems").to_contain_text("Choose a data set to begin with.")
    screen.start()
    assert screen.refusal().startswith("No data set is chosen.")


def test_models_are_found_again(look, form):
    models = form.root / "comfy/models"
    screen = look(form)
    screen.advanced()
    assert screen.options("component-model") == ["none"]
    files = [write_hollow(models / f"{name}.safetensors", sample_header("flux_dev").tensors) for name in ("a", "b")]
    screen("#models-refresh").click()
    screen.expect_field("component-model").to_have_value(re.compile(r"^a\.safetensors \("))

    screen.choose("component-model", re.compile(r"^b\."))
    files.append(write_hollow(models / "c.safetensors", sample_header("flux_dev").tensors))
    screen("#models-refresh").click()
    screen.field("component-model").click()
    screen.expect('[role="option"]').to_have_count(4)
    screen.field("component-model").press("Escape")
    screen.expect_field("component-model").to_have_value(re.compile(r"^b\.safetensors \("))
    for file in files:
        file.unlink()
    screen("#models-refresh").click()
    screen.expect_field("component-model").to_have_value("none")
