"""One job in many."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import Job, SettingError, Settings
from cinderlora.names import is_plain_file_name
from cinderlora.types import SETTINGS


def job(name: str = "elena", **settings: Any) -> Job:
    return Job(
        model_type="flux", name=name, trigger="elena", dataset="d", output="o", settings=Settings(steps=9, **settings)
    )


def names(*jobs: Job) -> list[str]:
    return [job.name for job in jobs]


def test_all_combinations_each_with_a_name_that_tells():
    jobs = job().sweep(network_dim=[8, 16, 32], seed=(1, 2))
    assert names(*jobs) == [f"elena-dim{dim}-seed{seed}" for dim in (8, 16, 32) for seed in (1, 2)]
    assert [(j.settings.network_dim, j.settings.seed, j.settings.steps) for j in jobs[:2]] == [(8, 1, 9), (8, 2, 9)]
    assert {j.trigger for j in jobs} == {"elena"} and len({j.lora_name for j in jobs}) == 6
    assert job().sweep() == (job(),)


@pytest.mark.parametrize(
    ("setting", "values", "expected"),
    [
        ("learning_rate", [1e-4, 5e-5, 0.5, 1.0], ["lr1e-4", "lr5e-5", "lr0.5", "lr1"]),
        ("optimizer", ["AdamW8bit", "a/b c"], ["optimizer-AdamW8bit", "optimizer-a_b_c"]),
        ("flip_aug", [True, False], ["flip_aug-on", "flip_aug-off"]),
        ("network_alpha", [None, 8], ["alpha-unset", "alpha8"]),
        ("network_args", [["conv_dim=4", "x=1"], []], ["args-conv_dim_4+x_1", "args-none"]),
        ("extra", [{"noise_offset": 0.05}, {}], ["noise_offset0.05", "no-extra"]),
        ("comment", ["ä", "ö", "Ö"], ["comment-_", "comment-_.2", "comment-_.3"]),
        ("lr_scheduler", ["cosine", "Cosine"], ["scheduler-cosine", "scheduler-Cosine.2"]),
    ],
)
def test_names(setting, values, expected):
    assert names(*job().sweep(**{setting: values})) == [f"elena-{part}" for part in expected]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"network_dum": [1]}, "setting_unknown"),
        ({"name": ["a", "b"]}, "setting_unknown"),
        ({"seed": []}, "sweep_empty"),
        ({"seed": 1}, "sweep_values"),
        ({"optimizer": "AdamW"}, "sweep_values"),
        ({"extra": {"a": 1}}, "sweep_values"),
        ({"seed": [1, 2, 1]}, "sweep_twice"),
        ({"seed": ["1"]}, "setting_type"),
    ],
)
def test_what_makes_no_sweep_is_refused(values, code):
    with pytest.raises(SettingError) as error:
        job().sweep(**values)
    assert error.value.code == code


VALUES = {
    "int": st.integers(0, 10**6),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "str": st.text(max_size=200),
    "strs": st.lists(st.text(max_size=40), max_size=3).map(tuple),
    "table": st.dictionaries(st.text(max_size=9), st.text(max_size=9) | st.integers(), max_size=2),
}


def _as_told(value: object) -> str:
    return repr(value + 0.0) if isinstance(value, float) else repr(value)  # 0.0 and -0.0 are one value


@given(st.data())
def test_every_name_is_a_file_of_its_own(data):
    own = sorted(SETTINGS.keys() - {"output_prefix"})  # one that is no file name is for `check` to refuse
    chosen = data.draw(st.lists(st.sampled_from(own), min_size=1, max_size=3, unique=True))
    values = {
        name: data.draw(st.lists(VALUES[SETTINGS[name].kind], min_size=1, max_size=3, unique_by=_as_told))
        for name in chosen
    }
    jobs = job(output_prefix="cg_").sweep(**values)
    assert all(is_plain_file_name(j.name) and is_plain_file_name(f"{j.lora_name}.safetensors") for j in jobs)
    assert len({j.name.casefold() for j in jobs}) == len(jobs)
    for one in jobs:
        assert all(getattr(one.settings, name) in [v if v != [] else () for v in values[name]] for name in chosen)
