"""musubi-tuner's own scripts, on models small enough for a CPU: a minute and a half on two cores.

CINDERLORA_MUSUBI_TUNER=FOLDER CINDERLORA_MUSUBI_TUNER_PYTHON=PYTHON pytest -m musubi
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from cinderlora_musubi.planning import Scripts
from cinderlora_musubi.tuner import MusubiTuner

from cinderlora import CheckpointSaved, Finished, Phase, Progress, Resumption, SampleSaved
from cinderlora.sync import launch

CHECKOUT = os.environ.get("CINDERLORA_MUSUBI_TUNER", "")
PYTHON = os.environ.get("CINDERLORA_MUSUBI_TUNER_PYTHON", "")
SMALL = Path(__file__).parent / "small_models.py"

pytestmark = [
    pytest.mark.musubi,
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="CINDERLORA_MUSUBI_TUNER and its _PYTHON name none"),
    pytest.mark.timeout(600),
]


def small(*argv: str | Path) -> str:
    """The output of small_models.py under the trainer's Python."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([f"{CHECKOUT}/src", os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([PYTHON, SMALL, *argv], env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def real_models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    small("make", folder)
    return {
        role: folder / f"{name}.safetensors" for role, name in [("model", "z_image"), ("qwen3", "qwen3"), ("vae", "ae")]
    }


@pytest.fixture
def real_tuner(tmp_path) -> MusubiTuner:
    """The checkout, with an interpreter that makes models small before it runs a script."""
    python = tmp_path / "small-models"
    more = os.environ.get("PYTHONPATH", "")
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{more}"\nexec "{PYTHON}" "{SMALL}" "$@"\n')
    python.chmod(0o755)
    return MusubiTuner(CHECKOUT, python=python)


@pytest.mark.parametrize("script", ["latents", "captions", "training"])
def test_what_is_read_of_a_script_is_what_its_parser_has(zimage, script):
    name = getattr(Scripts.of(zimage.type), script)
    told = json.loads(small("arguments", Path(CHECKOUT) / "src/musubi_tuner" / name).splitlines()[-1])
    read = MusubiTuner(CHECKOUT).arguments(name)
    assert read.complete and set(read) == set(told)
    for key, (action, kind, nargs, choices) in told.items():
        found = read[key]
        assert (found["action"], found["type"], found["nargs"]) == (action, kind, nargs), key
        assert found["choices"] == choices or "choices" in found.get("unknown", ()), key
    assert set(MusubiTuner.rehearsal().arguments(name)) == set(told) - {"help"}, (
        "the arguments that the package brings are another version's"
    )


def test_a_training_from_pictures_to_a_lora_and_on(
    zimage, make_job, registry, real_models, real_tuner, pictures, tmp_path
):
    before = sorted(pictures.iterdir())
    job = make_job(preset="24gb", models=real_models, optimizer="AdamW", author="it's me", save_state=True)
    with launch(zimage.plan(job, real_tuner), runs=tmp_path / "runs", registry=registry) as run:
        events = list(run)
    assert isinstance(events[-1], Finished) and run.result.steps == 4
    phases = [event.name for event in events if isinstance(event, Phase)]
    assert phases[:4] == ["loading", "caching_latents", "loading", "caching_text_encoders"]
    # The last epoch's end is a time for samples, too.
    assert [event.step for event in events if isinstance(event, SampleSaved)] == [2, 4, 4]
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [2, 4, 4]
    assert sorted(pictures.iterdir()) == before
    # As `run.resume_plan()` has it, which would look into the model files, and those are no Z-Image's.
    weights = Resumption(run=run.folder, path=run.result.lora, kind="weights", step=4)
    plan = zimage.plan(job.evolve(steps=6), real_tuner, weights)
    with launch(plan, runs=tmp_path / "runs", registry=registry) as again:
        steps = [event.step for event in again if isinstance(event, Progress)]
    assert again.result.steps == steps[-1] == 6
