"""A trainer that a plugin brings: found, asked, planned and run as sd-scripts is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cinderlora import (
    Component,
    Finished,
    JobRefused,
    ModelType,
    Phase,
    Plan,
    Problem,
    Registry,
    SdScripts,
    Stage,
    TrainerNotFound,
    TrainingFailed,
    UnknownName,
    hookimpl,
)
from cinderlora.checkouts import Checkout
from cinderlora.dataset import bucket_plan
from cinderlora.sync import launch
from cinderlora.testing import draw_pictures
from cinderlora.trainers import Trainer

# Writes what a LoRA is: one tensor, not zero. The first stage leaves what the second one needs.
PREPARE = "print('preparing', flush=True); open('prepared', 'w').write('3f80')"
TRAIN = """
import json, sys
value = bytes.fromhex(open('prepared').read())[::-1]
header = json.dumps({'a.lora_up': {'dtype': 'BF16', 'shape': [1], 'data_offsets': [0, 2]}}).encode()
print('training', flush=True)
open(sys.argv[1], 'wb').write(len(header).to_bytes(8, 'little') + header + value)
"""


class TwoSteps(Trainer):
    """A trainer that is no checkout of anything: two little programs."""

    kind = "two-steps"

    def __init__(self, path: str | Path = "", *, python: str | Path | None = None) -> None:
        self.path = Path(path)

    @classmethod
    def find(cls, path=None, *, python=None) -> TwoSteps:
        return cls(path or "", python=python)

    @classmethod
    def rehearsal(cls) -> TwoSteps:
        made = cls()
        made.is_rehearsal = True
        return made

    is_rehearsal = False

    def problems(self, model_type, job, args):
        if args.get("nonsense"):
            yield Problem("two_steps_nonsense", message="nonsense is nothing.", fix="Leave it out.")

    def plan(self, model_type, job, dataset, args, resumption=None) -> Plan:
        lora = f"{job.lora_name}.safetensors"
        return Plan(
            name=job.name,
            model_type=model_type.name,
            output=job.output,
            lora=lora,
            stages=[
                Stage(name="preparing", argv=[sys.executable, "-c", PREPARE]),
                Stage(name="training", argv=[sys.executable, "-c", TRAIN, str(job.output / lora)]),
            ],
            files={"run.toml": f'[trainer]\nkind = "{self.kind}"\npath = "{self.path}"\n[job]\ntrigger = "elena"\n'},
            steps=job.settings.steps,
            zero_at_start=model_type.zero_at_start,
            rehearsal=self.is_rehearsal,
        )


class Plugin:
    """A model type and its trainer."""

    def __init__(self, kind: type[Trainer] = TwoSteps) -> None:
        self._kind = kind

    @hookimpl
    def model_type(self) -> ModelType:
        return ModelType(
            name="two",
            title="Two",
            trainer="two-steps",
            script="x.py",
            network_module="x",
            components=[Component("model")],
        )

    @hookimpl
    def trainer(self):
        return self._kind

    @hookimpl
    def parse_progress(self, line, phase):
        return [Phase(line)] if line in {"preparing", "training"} else None


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(Plugin(), name="two")
    return registry


@pytest.fixture
def job(registry, tmp_path):
    return registry["two"].job(
        name="elena", trigger="elena", dataset=draw_pictures(tmp_path / "elena"), output=tmp_path / "out",
        models={"model": tmp_path / "model.safetensors"}, resolution=64, steps=4, save_every=2, sample_every=0,
    )  # fmt: skip


# ---- finding it ----


def test_trainers_are_found_by_their_kind(registry):
    assert registry.trainer("sd-scripts") is SdScripts
    assert registry.trainer("two-steps") is TwoSteps and registry["two"].trainer_type is TwoSteps
    assert isinstance(registry["two"].find_trainer("here"), TwoSteps)
    assert registry["two"].rehearsal().is_rehearsal
    with pytest.raises(UnknownName, match="Did you mean two-steps"):
        registry.trainer("two-step")


def test_a_kind_that_is_taken_stays_with_whoever_had_it_first(registry):
    class Stranger:
        @hookimpl
        def trainer(self):
            return type("Other", (TwoSteps,), {})

    registry.register(Stranger(), name="stranger")
    assert registry.trainer("two-steps") is TwoSteps
    broken = registry.broken["stranger"]
    assert broken.error.code == "trainer_duplicate" and "'two'" in str(broken.error)


def test_a_trainer_hook_that_raises_harms_no_other(registry):
    class Bad:
        @hookimpl
        def trainer(self):
            raise RuntimeError("no disk")

    registry.register(Bad(), name="bad")
    assert registry.trainer("two-steps") is TwoSteps and "no disk" in str(registry.broken["bad"])


def test_a_type_whose_trainer_nobody_brings_says_which_one_is_missing():
    class Alone:
        model_type = Plugin.model_type

    registry = Registry()
    registry.register(Alone(), name="alone")
    with pytest.raises(UnknownName, match="two-steps") as refused:
        registry["two"].find_trainer()
    assert refused.value.code == "trainer_unknown"


# ---- asking it ----


def test_what_a_trainer_does_not_tell_is_not_made_up(registry, job):
    adapter = registry["two"]
    (tmp := job.models["model"].path).write_bytes(b"x")
    report = adapter.check(job, TwoSteps())
    assert tmp.exists() and (report.images, report.checkpoints, report.samples) == (4, 2, 0)
    assert report.steps_per_epoch is report.epochs is report.disk is report.vram is None


def test_buckets_and_settings_are_the_trainers(registry, job):
    class Counts(TwoSteps):
        def completed(self, settings):
            return settings.over(settings)

        def buckets(self, model_type, job, dataset):
            return bucket_plan(dataset.sizes, resolution=64, repeats=3, enable=False)

    report = registry["two"].check(job, Counts())
    assert (report.steps_per_epoch, report.epochs) == (12, 1)


def test_a_trainer_of_another_kind_is_refused_both_ways(registry, job, tmp_path):
    with pytest.raises(JobRefused) as refused:
        registry["two"].plan(job, SdScripts.rehearsal())
    assert refused.value.code == "trainer_of_another_kind"


# ---- running it ----


def test_its_stages_run_one_after_the_other(registry, job, tmp_path):
    with launch(registry["two"].plan(job, TwoSteps()), runs=tmp_path / "runs", registry=registry) as run:
        events = list(run)
    assert [event.name for event in events if isinstance(event, Phase)] == ["preparing", "training"]
    assert isinstance(events[-1], Finished) and run.result.lora.is_file() and not run.result.rehearsal


def test_a_stage_that_fails_is_the_last_one(registry, job, tmp_path):
    import attrs

    plan = registry["two"].plan(job, TwoSteps())
    first = attrs.evolve(plan.stages[0], argv=[sys.executable, "-c", "raise SystemExit('cannot prepare')"])
    plan = attrs.evolve(plan, stages=[first, plan.stages[1]])
    with launch(plan, runs=tmp_path / "runs", registry=registry) as run:
        events = list(run)
    assert not any(isinstance(event, Phase) for event in events)
    with pytest.raises(TrainingFailed):
        _ = run.result


def test_a_trainer_that_says_of_nothing_to_go_on_from_cannot_be_resumed(registry, job, tmp_path):
    with launch(registry["two"].plan(job, TwoSteps()), runs=tmp_path / "runs", registry=registry) as run:
        list(run)
    with pytest.raises(JobRefused) as refused:
        run.resume_plan(steps=8)
    assert refused.value.code == "resume_unsupported" and refused.value.params["trainer"] == "two-steps"


# ---- a checkout ----


class Scripts(Checkout):
    kind = "some-trainer"
    sign = "src/train.py"

    def problems(self, model_type, job, args):
        return self.missing("src/train.py", "src/cache.py")

    def plan(self, model_type, job, dataset, args, resumption=None): ...


@pytest.fixture
def checkout(tmp_path) -> Path:
    (tmp_path / "here/src").mkdir(parents=True)
    (tmp_path / "here/src/train.py").write_text("")
    return tmp_path / "here"


def test_a_checkout_is_found_where_it_is_said_to_be(checkout, tmp_path):
    environ = {"CINDERLORA_SOME_TRAINER": str(checkout), "CINDERLORA_SOME_TRAINER_PYTHON": "/usr/bin/python9"}
    assert Scripts.find(environ=environ) == Scripts(checkout, python="/usr/bin/python9")
    assert Scripts.find(checkout, environ={}) == Scripts(checkout) != Scripts(tmp_path)
    with pytest.raises(TrainerNotFound) as refused:
        Scripts.find(tmp_path / "nowhere", environ={})
    assert refused.value.params["path"] == str(tmp_path / "nowhere")
    assert "CINDERLORA_SOME_TRAINER" in str(refused.value)


def test_what_is_missing_of_a_checkout_is_told_in_both_languages(checkout, tmp_path):
    (nowhere,) = Scripts(tmp_path / "nowhere").missing("src/train.py")
    (no_script,) = Scripts(checkout).missing("src/train.py", "src/cache.py")
    (no_python,) = Scripts(checkout, python="/no/python").missing("src/train.py")
    codes = [problem.code for problem in (nowhere, no_script, no_python)]
    assert codes == ["checkout_not_found", "checkout_script_not_found", "checkout_python_not_found"]
    for problem in (nowhere, no_script, no_python):
        assert "some-trainer" in problem.message and "some-trainer" in problem.text("de").message
    assert not list(Scripts(checkout, python=sys.executable).missing("src/train.py"))


def test_a_checkout_without_a_rehearsal_says_so():
    with pytest.raises(TrainerNotFound, match="some-trainer has no rehearsal"):
        Scripts.rehearsal()


def test_its_own_environment_comes_before_the_python_on_the_path(checkout):
    python = checkout / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    python.parent.mkdir(parents=True)
    python.write_text("")
    assert Scripts(checkout).python == python and Scripts(checkout, python="other").python == Path("other")


COMMON = """
import argparse
def parser():
    made = argparse.ArgumentParser()
    made.add_argument('--a', type=int)
    return made
"""
SCRIPT = """
from parts.common import parser
def main():
    mine = parser()
    mine.add_argument('--b', action='store_true')
    args = mine.parse_args()
    mine.add_argument('--after')
"""


def test_arguments_are_read_from_a_script_below_its_modules(checkout):
    (checkout / "src/parts").mkdir()
    (checkout / "src/parts/common.py").write_text(COMMON)
    (checkout / "src/parts/script.py").write_text(SCRIPT)
    found = Scripts(checkout).arguments("src/parts/script.py", root="src")
    assert set(found) == {"help", "a", "b"} and found.complete and found["a"]["type"] == "int"
    assert Scripts(checkout).arguments("src/train.py") is None
