"""Entries, settings and plans as records; which GPUs are next. Pure, but for files that are read."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cinderlora import ConfigError, Entry, Link, Plan, Problem, Resumption, Stage, to_json
from cinderlora.queues.entries import QueueSettings, entry_record, in_order, read_entry, read_settings, settings_record
from cinderlora.queues.freezing import Frozen, freeze, job_of
from cinderlora.queues.slots import free_slot, machine_gpus
from cinderlora.queues.store import Store
from cinderlora.serial import identity, read_plan, toml_text

texts = st.text(max_size=20)
words = st.text(string.ascii_letters + "äü0", min_size=1, max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
params = st.dictionaries(words, plain | st.lists(texts, max_size=3), max_size=3)
paths = texts.filter(lambda text: "\0" not in text).map(lambda text: Path("/x") / text)
problems = st.builds(Problem, texts, params, message=words)
plans = st.builds(
    Plan,
    name=texts,
    model_type=texts,
    output=paths,
    lora=texts,
    stages=st.lists(
        st.builds(
            Stage,
            name=texts,
            argv=st.lists(texts, min_size=1, max_size=3),
            env=st.dictionaries(words, texts, max_size=2),
            cwd=texts,
        ),
        min_size=1,
        max_size=2,
    ),
    files=st.dictionaries(words, texts, max_size=3),
    links=st.lists(st.builds(Link, paths, texts), max_size=3),
    configs=st.lists(texts, max_size=2),
    steps=st.none() | st.integers(0, 10**6),
    publish=st.none() | paths,
    resumed_from=st.none()
    | st.builds(Resumption, run=paths, path=paths, kind=st.sampled_from(["state", "weights"]), step=st.integers()),
    warnings=st.lists(problems, max_size=2),
    rehearsal=st.booleans(),
)
entries = st.builds(
    Entry,
    id=st.integers(1, 10**9),
    name=texts,
    model_type=texts,
    state=st.sampled_from(["waiting", "held", "running", "finished", "failed", "stopped", "lost"]),
    added=st.floats(0, 1e12),
    lora=paths,
    steps=st.none() | st.integers(),
    runs=paths,
    configs=st.none() | paths,
    run=st.none() | paths,
    run_id=st.none() | texts,
    gpus=st.lists(st.integers() | texts, max_size=2),
    started=st.none() | st.floats(0, 1e12),
    retry_of=st.none() | st.integers(),
    changes=params,
    problem=st.none() | st.builds(Problem, texts, params),
)
json_values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


def through_json(value):
    return json.loads(json.dumps(value))


@given(plans)
def test_a_plan_comes_back_equal(plan):
    assert read_plan(through_json(to_json(plan))) == plan
    assert Frozen.read(freeze(plan).text()).plan == plan


@given(plans, st.data())
def test_a_plan_that_was_tampered_with_is_refused_or_a_plan(plan, data):
    record = through_json(to_json(plan))
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(json_values)
    try:
        read = read_plan(record)
    except ConfigError:
        return
    assert read_plan(through_json(to_json(read))) == read


@given(json_values)
def test_what_is_no_plan_is_refused(value):
    with pytest.raises(ConfigError, match="The plan cannot be read"):
        read_plan(value)


@given(entries)
def test_an_entry_comes_back_equal(entry):
    assert read_entry(through_json(entry_record(entry))) == entry


@given(entries, st.data())
def test_a_record_that_was_tampered_with_is_an_entry_or_refused(entry, data):
    record = through_json(entry_record(entry))
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(json_values)
    try:
        read = read_entry(record)
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    assert entry_record(read).keys() == record.keys()


@given(
    st.builds(
        QueueSettings,
        gpus=st.just("all") | st.lists(st.integers() | texts, max_size=3).map(tuple),
        gpus_per_job=st.integers(1, 8),
        paused=st.booleans(),
        problem=st.none() | st.builds(Problem, texts, params),
        order=st.lists(st.integers()),
        next_id=st.integers(1),
    )
)
@example(QueueSettings(gpus=("all",)))
def test_settings_come_back_equal(settings):
    assert read_settings(through_json(settings_record(settings))) == settings


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_an_entry_or_none(tmp_path_factory, content):
    store = Store(tmp_path_factory.getbasetemp() / "hostile")
    with store.changing():
        (store.folder / "entries/1.json").write_bytes(content)
        (store.folder / "queue.json").write_bytes(content)
    assert store.entries() == {} and store.settings() == QueueSettings()


# ---- what a plan works on --------------------------------------------------------------------------------------------


def test_what_changes_after_freezing_is_told(tmp_path, make_plan):
    pictures = [tmp_path / f"{n}.png" for n in range(3)]
    for picture in pictures:
        picture.write_bytes(b"picture")
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"model")
    plan = make_plan(
        "a",
        links=[Link(picture, picture.name) for picture in pictures],
        files={"run.toml": f"[files.model]\npath = '{model}'\n[job.settings]\nsteps = 3\n"},
    )
    frozen = Frozen.read(freeze(plan).text())
    assert frozen.problem() is None
    model.write_bytes(b"another")
    assert frozen.problem() == Problem("queue_file_changed", {"path": str(model), "others": None})
    for picture in pictures[:2]:
        picture.unlink()
    assert frozen.problem() == Problem("queue_file_missing", {"path": str(pictures[0]), "others": 1})
    assert freeze(plan).problem() is None
    assert job_of(plan).settings.steps == 3 and job_of(make_plan("b")) is None


def test_a_model_that_is_a_folder_is_looked_at_file_by_file(tmp_path, make_plan):
    folder = tmp_path / "sdxl"
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_bytes(b"model")
    frozen = freeze(make_plan("a", files={"run.toml": toml_text({"files": {"model": identity(folder)}})}))
    assert frozen.problem() is None
    changed = folder / "unet/model.safetensors"
    changed.write_bytes(b"another")
    assert frozen.problem() == Problem("queue_file_changed", {"path": str(changed), "others": None})


# ---- order and GPUs --------------------------------------------------------------------------------------------------


def entry(number, state="waiting", **values):
    return Entry(id=number, name="a", model_type="t", state=state, added=0.0, lora="l", runs="r", **values)


def test_the_order_is_that_of_a_list():
    shown = in_order(
        [
            entry(1),
            entry(2, "held"),
            entry(3, "failed", ended=9.0),
            entry(4, "running"),
            entry(5, "finished", ended=8.0),
        ],
        [2, 77],
    )
    assert [one.id for one in shown] == [5, 3, 4, 2, 1]


@given(
    st.lists(st.integers(0, 9), unique=True).map(tuple),
    st.integers(1, 3),
    st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=4),
)
def test_nobody_gets_a_gpu_that_another_one_has(machine, per_job, taken):
    slot = free_slot("all", per_job, machine, taken)
    free = [gpu for gpu in machine if not any(gpu in other for other in taken)]
    if not machine:
        assert slot == (None if taken else ())
    elif slot is None:
        assert len(free) < per_job
    else:
        assert len(slot) == per_job and set(slot) <= set(free)


def test_the_gpus_of_this_process():
    assert machine_gpus({"CUDA_VISIBLE_DEVICES": "1, GPU-8932f937,0"}) == (1, "GPU-8932f937", 0)
    assert machine_gpus({"CUDA_VISIBLE_DEVICES": "0,-1,2"}) == (0,)
    assert machine_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
