"""The real sd-scripts, driven from job to LoRA, stopped, and made to fail.

Runs where `CINDERLORA_SD_SCRIPTS` names a checkout, `CINDERLORA_SD_SCRIPTS_PYTHON` its interpreter, and
`CINDERLORA_SD_SCRIPTS_BENCH` a folder with checkpoints small enough for a CPU: `models/` (sd3_tiny, flux_tiny,
sdxl_random, clip_l, clip_g, t5xxl, ae, all .safetensors) and `tokenizers/`, sd-scripts' tokenizer cache. They are
large: one at a time, `pytest -n0 -m sd_scripts`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import psutil
import pytest

import cinderlora
from cinderlora import CheckpointSaved, Failed, Finished, Plan, Progress, Registry, SampleSaved, SdScripts, Stopped
from cinderlora.models.headers import read_header
from cinderlora.sync import launch
from cinderlora.types import Link

CHECKOUT = os.environ.get("CINDERLORA_SD_SCRIPTS")
PYTHON = os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON")
BENCH = Path(os.environ.get("CINDERLORA_SD_SCRIPTS_BENCH", "nowhere"))
FAILURES = Path(__file__).parent / "data" / "failures"
NEEDED = {
    "sd3": {"model": "sd3_tiny", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"},
    "flux": {"model": "flux_tiny", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "ae"},
    "sdxl": {"model": "sdxl_random"},
}

pytestmark = [
    pytest.mark.sd_scripts,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts"),
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


@pytest.fixture(scope="module")
def trainer() -> SdScripts:
    return SdScripts(CHECKOUT or "", python=PYTHON)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def models_of(model_type: str) -> dict[str, Path]:
    models = {role: BENCH / f"models/{name}.safetensors" for role, name in NEEDED[model_type].items()}
    missing = [path.name for path in models.values() if not path.exists()]
    if missing:
        pytest.skip(f"CINDERLORA_SD_SCRIPTS_BENCH has no {', '.join(missing)}")
    return models


def small_job(registry: Registry, model_type: str, pictures: Path, output: Path, **options):
    settings = {
        "preset": "16gb",
        "steps": 8,
        "save_every": 4,
        "sample_every": 4,
        "sample_steps": 2,
        "resolution": 128,
        "network_dim": 4,
        "optimizer": "AdamW",  # there is no bitsandbytes without CUDA
        "blocks_to_swap": 0,
        "fp8_base": False,
        "batch_size": 1,
    } | options
    extra = {"tokenizer_cache_dir": str(BENCH / "tokenizers"), **settings.pop("extra", {})}
    models = models_of(model_type) | settings.pop("models", {})
    job = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": output, "models": models}
    return registry[model_type].job(**job, extra=extra, **settings)


def run(registry, job, trainer, tmp_path, stop_at: int | None = None):
    events, plan = [], registry[job.model_type].plan(job, trainer)
    with launch(plan, runs=tmp_path / "runs") as training:
        for event in training:
            events.append(event)
            if stop_at is not None and isinstance(event, Progress) and event.step == stop_at:
                training.stop(by="the test")
    return events, training


def processes_of(folder: Path) -> list[psutil.Process]:
    """What still runs for a run: by its working folder, where the trainer and its workers are started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def left_behind(folder: Path) -> list[psutil.Process]:
    """What is left of a run that ended by itself: its supervisor ends a moment after it wrote that down."""
    return psutil.wait_procs(processes_of(folder), timeout=10)[1]


@pytest.mark.parametrize("model_type", NEEDED)
def test_from_pictures_to_a_lora(registry, trainer, pictures, tmp_path, model_type):
    output = tmp_path / "loras ü"
    steps = 4 if model_type == "sdxl" else 8
    options = {"steps": steps, "save_every": steps // 2, "sample_every": steps // 2}
    options |= {"author": "Kim ü", "comment": "for the book"}
    job = small_job(registry, model_type, pictures, output, **options)
    report = registry[model_type].check(job, trainer)
    assert not report.errors
    assert (report.images, report.steps_per_epoch, report.checkpoints, report.samples) == (6, 60, 2, 2)
    events, training = run(registry, job, trainer, tmp_path)

    assert isinstance(events[-1], Finished), events[-1]
    losses = {e.step: e.loss for e in events if isinstance(e, Progress) and e.step}
    assert list(losses) == list(range(1, steps + 1))
    assert all(loss is not None for loss in losses.values())
    on_disk = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    said = {e.path for e in events if isinstance(e, (CheckpointSaved, SampleSaved))}
    assert {path.relative_to(output).as_posix() for path in said} == on_disk
    assert training.result.lora == output / "cg_elena.safetensors"
    assert (training.result.steps, training.result.loss) == (steps, losses[steps])
    assert {e.step for e in events if isinstance(e, SampleSaved)} == {steps // 2, steps}
    about = read_header(training.result.lora).metadata
    assert (about["modelspec.trigger_phrase"], about["modelspec.author"]) == ("elena", "Kim ü")
    assert re.fullmatch(r"for the book; cinderlora .*, preset 16gb", about["ss_training_comment"])
    # The buckets that were planned are the ones that were made; nothing lies beside the person's pictures.
    log = (training.folder / "output.log").read_text(encoding="utf-8")
    assert "bucket 0: resolution (128, 128), count: 60" in log
    assert not list(pictures.glob("*.npz"))
    again = list(cinderlora.sync.attach(training.folder))
    assert [(type(e), e.seq) for e in again] == [(type(e), e.seq) for e in events]

    # The same plan, started by hand.
    ours = output.rename(tmp_path / "ours")
    printed = by_hand(registry[model_type].plan(job, trainer), tmp_path / "by hand")
    assert {int(step): float(loss) for step, loss in TRAINING_BAR.findall(printed) if int(step)} == losses
    assert files_in(output) == files_in(ours)
    assert tensors(output / "cg_elena.safetensors") == tensors(ours / "cg_elena.safetensors")


TRAINING_BAR = re.compile(rb"\rsteps: [^|]*\|[^|]*\| ([0-9]+)/[0-9]+ \[[^]]*avr_loss=([^]]+)\]")


def by_hand(plan: Plan, folder: Path) -> bytes:
    """What the trainer prints when somebody starts a plan's command line among its files."""
    for name, text in plan.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for link in plan.links:
        (folder / link.target).symlink_to(link.source)
    stage = plan.stages[-1]
    environment = {**os.environ, **stage.env}
    return subprocess.run(
        stage.argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    ).stdout


def files_in(folder: Path) -> set[str]:
    """The names of all files, without the time that is in a sample's."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {re.sub(r"_[0-9]{14}_", "_", name) for name in names}


def tensors(lora: Path) -> bytes:
    """The tensors' bytes: the header has times in it."""
    data = lora.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_stopped_on_the_way_it_leaves_no_process_and_no_half_file(registry, trainer, pictures, tmp_path):
    job = small_job(registry, "sd3", pictures, tmp_path / "out", steps=3000, save_every=50, sample_every=0)
    events, training = run(registry, job, trainer, tmp_path, stop_at=20)
    assert isinstance(events[-1], Stopped)
    assert events[-1].by == "the test"
    assert processes_of(training.folder) == []
    assert not (tmp_path / "out/cg_elena.safetensors").exists()


def broken(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"models": {"model": "NOWHERE"}}, "model_file_missing"),
        ({"models": {"model": "TRUNCATED"}}, "model_file_truncated"),
        ({"models": {"model": "RUBBISH"}}, "model_file_unreadable"),
        ({"models": {"t5xxl": "NOWHERE"}}, "model_file_missing"),
        ({"models": {"model": "flux_tiny"}}, "wrong_architecture"),
        ({"models": {"clip_g": "t5xxl"}}, "component_not_loaded"),
        ({"optimizer": "AdamW8bit"}, "missing_package"),
        ({"optimizer": "NoSuchOptimizer"}, "bad_setting"),
        ({"learning_rate": 1e30, "sample_every": 0}, "nan_loss"),
    ],
    ids=str,
)
def test_a_failure_is_diagnosed(registry, trainer, pictures, tmp_path, options, code):
    options = options | {"models": files_for("sd3", options.get("models", {}), tmp_path)}
    job = small_job(registry, "sd3", pictures, tmp_path / "out", **options)
    events, _ = run(registry, job, trainer, tmp_path)
    assert_explained(events[-1], code)


def files_for(model_type: str, wanted: dict[str, str], tmp_path: Path) -> dict[str, Path]:
    """Model files: one of the bench by its name, one that is cut short, one that is none, one that is not there."""
    files = {}
    for role, file in wanted.items():
        whole = BENCH / f"models/{NEEDED[model_type][role]}.safetensors"
        match file:
            case "TRUNCATED":
                with whole.open("rb") as start:
                    files[role] = broken(tmp_path, "half.safetensors", start.read(1 << 20))
            case "RUBBISH":
                files[role] = broken(tmp_path, "rubbish.safetensors", b"\xff" * 4096)
            case "NOWHERE":
                files[role] = tmp_path / "nowhere.safetensors"
            case _:
                files[role] = BENCH / f"models/{file}.safetensors"
    return files


def assert_explained(event, code: str) -> None:
    assert isinstance(event, Failed), event
    found = event.diagnosis
    assert found.code == code, found
    assert found.cause and found.fix and found.evidence


# ---- failures behind the plan's back: most of these no plan would let through ----


def edited(plan: Plan, ending: str, old: str, new: str) -> Plan:
    """The plan with something changed in the one file whose name ends like that."""
    (name,) = [name for name in plan.files if name.endswith(ending)]
    assert old in plan.files[name]
    return attrs.evolve(plan, files={**plan.files, name: plan.files[name].replace(old, new)})


def started_as(plan: Plan, *argv: str) -> Plan:
    """The plan with another command line."""
    return attrs.evolve(plan, stages=[attrs.evolve(plan.stages[-1], argv=argv)])


def launched(plan: Plan) -> Plan:
    """The plan as people start it who follow sd-scripts' own documentation."""
    python, *rest = plan.argv
    return started_as(plan, python, "-m", "accelerate.commands.launch", "--cpu", *rest)


def put(plan: Plan, target: str, data: bytes) -> Plan:
    """The plan with a file of these bytes in its view of the data set."""
    source = plan.output.parent / "put" / Path(target).name
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(data)
    links = [link for link in plan.links if link.target != target]
    return attrs.evolve(plan, links=[*links, Link(source=source, target=target)])


LATENTS = "dataset/elena/001-elena_00_0128x0128_sd3.npz"
OUTPUTS = "dataset/elena/001-elena_00_sd3_te.npz"


def an_archive() -> bytes:
    """As sd-scripts keeps its caches."""
    archive = io.BytesIO()
    np.savez(archive, latents_16x16=np.zeros((16, 16, 16), np.float32))
    return archive.getvalue()


Spoil = Callable[[Plan], Plan]


def data_set(old: str, new: str) -> Spoil:
    return lambda plan: edited(plan, "_dataset.toml", old, new)


def training(old: str, new: str) -> Spoil:
    return lambda plan: edited(plan, "_training.toml", old, new)


def also(lines: str) -> Spoil:
    return training("network_dim = 4\n", f"network_dim = 4\n{lines}\n")


PROVOKED: dict[str, Spoil] = {
    "dataset-type": data_set("[\n    128,\n    128,\n]", '"128,128"'),
    "dataset-key": data_set("batch_size = 1", "batch_size = 1\nno_such_key = 3"),
    "dataset-without-folder": data_set('image_dir = "dataset/elena"\n', ""),
    "dataset-syntax": data_set("batch_size = 1", "batch_size = = 1"),
    "dataset-without-datasets": lambda plan: attrs.evolve(
        plan, files={**plan.files, "elena_dataset.toml": plan.files["elena_dataset.toml"].partition("[[datasets]]")[0]}
    ),
    "dataset-config-missing": training('dataset_config = "elena_dataset.toml"', 'dataset_config = "nowhere.toml"'),
    "config-syntax": training("network_dim = 4", "network_dim = = 4"),
    "config-missing": lambda plan: started_as(plan, *plan.argv[:-1], "nowhere.toml"),
    "config-is-a-folder": lambda plan: started_as(
        attrs.evolve(plan, files={**plan.files, "folder.toml/x": ""}), *plan.argv[:-1], "folder.toml"
    ),
    "flag-unknown": lambda plan: started_as(plan, *plan.argv, "--no_such_flag", "3"),
    "flag-value": lambda plan: started_as(plan, *plan.argv, "--network_dim", "abc"),
    "no-torch": lambda plan: started_as(plan, sys.executable, *plan.argv[1:]),
    "launched": lambda plan: launched(data_set("batch_size = 1", "batch_size = = 1")(plan)),
    "caption-empty": lambda plan: attrs.evolve(plan, files={**plan.files, "dataset/elena/003-elena_02.txt": ""}),
    "t5xxl-missing": lambda plan: edited(plan, "_training.toml", "t5xxl = ", "no_t5xxl = "),
    "no-modules": also('network_args = ["train_block_indices=none"]'),
    "prompts-missing": also('sample_prompts = "nowhere.txt"'),
    "swap-too-many": also("blocks_to_swap = 20"),
    "swap-with-offload": also("blocks_to_swap = 1\ncpu_offload_checkpointing = true"),
    "model-is-a-folder": lambda plan: edited(
        plan, "_training.toml", f'"{BENCH}/models/sd3_tiny.safetensors"', f'"{BENCH}/models"'
    ),
    "module-of-another": training('"networks.lora_sd3"', '"networks.lora_flux"'),
    "learning-rate-0": training("learning_rate = 0.0001", "learning_rate = 0.0"),
    "memory": lambda plan: started_as(plan, "sh", "-c", 'ulimit -v 2097152; exec "$@"', "sh", *plan.argv),
    "picture-rubbish": lambda plan: put(plan, plan.links[-1].target, b"\x89PNG rubbish"),
    "cache-truncated": lambda plan: put(plan, LATENTS, an_archive()[:1000]),
    "cache-rubbish": lambda plan: put(plan, LATENTS, b"\xff" * 5000),
    "cache-empty": lambda plan: put(plan, LATENTS, b""),
    "text-cache-truncated": lambda plan: put(plan, OUTPUTS, an_archive()[:1000]),
    "text-cache-rubbish": lambda plan: put(plan, OUTPUTS, b"\xff" * 5000),
}
"""What to do to a plan; tests/data/failures has what comes of it, under the same names. `fp16` is only there: a picture
takes the VAE three minutes in 16-bit floats on a CPU."""


def assert_diagnosed(name: str, event) -> None:
    """The diagnosis is what `tests/data/failures` has under that name; of paths, the ends are the same."""
    truth = json.loads((FAILURES / "truth.json").read_text(encoding="utf-8"))[name]
    assert isinstance(event, Failed), event
    found = event.diagnosis
    assert (event.exit_code, found.code) == (truth["exit_code"], truth["code"]), found
    assert found.changes == truth["changes"]
    assert all(str(found.params[param]).endswith(value) for param, value in truth["params"].items()), found
    assert found.cause and found.fix and found.evidence


def short_job(registry, pictures, tmp_path, model_type="sd3", **options):
    return small_job(registry, model_type, pictures, tmp_path / "out", steps=2, save_every=0, sample_every=0, **options)


@pytest.mark.parametrize("name", PROVOKED)
def test_a_provoked_failure_is_diagnosed(registry, trainer, pictures, tmp_path, name):
    plan = registry["sd3"].plan(short_job(registry, pictures, tmp_path), trainer)
    with launch(PROVOKED[name](plan), runs=tmp_path / "runs") as training:
        *_, last = training
    assert_diagnosed(name, last)


# ---- the other two scripts fail in their own words ----


def as_it_is(plan: Plan) -> Plan:
    return plan


def without_pictures(plan: Plan) -> Plan:
    return attrs.evolve(plan, links=())


def on_a_full_card(plan: Plan) -> Plan:
    """The bench raises CUDA's out-of-memory error at the first step."""
    stage = attrs.evolve(plan.stages[-1], env={**plan.stages[-1].env, "WORKBENCH_OOM_AT": "1"})
    return attrs.evolve(plan, stages=[stage])


def with_a_cut_picture(plan: Plan) -> Plan:
    link = plan.links[-1]
    return put(plan, link.target, link.source.read_bytes()[:200])


OF_OTHER_SCRIPTS: dict[str, tuple[dict, Spoil, str]] = {
    "flux-model-missing": ({"models": {"model": "NOWHERE"}}, as_it_is, "model_file_missing"),
    "flux-model-truncated": ({"models": {"model": "TRUNCATED"}}, as_it_is, "model_file_truncated"),
    "flux-model-rubbish": ({"models": {"model": "RUBBISH"}}, as_it_is, "model_file_unreadable"),
    "flux-model-is-sd3": ({"models": {"model": "sd3_tiny"}}, as_it_is, "wrong_architecture"),
    "flux-t5xxl-missing": ({"models": {"t5xxl": "NOWHERE"}}, as_it_is, "model_file_missing"),
    "flux-ae-truncated": ({"models": {"ae": "TRUNCATED"}}, as_it_is, "model_file_truncated"),
    "flux-no-ae": ({}, training("\nae = ", "\nno_ae = "), "component_missing"),
    "flux-module-of-another": ({}, training('"networks.lora_flux"', '"networks.lora"'), "wrong_network_module"),
    "flux-swap-too-many": ({}, also("blocks_to_swap = 20"), "bad_setting"),
    "flux-shuffled": ({}, data_set("batch_size = 1", "batch_size = 1\nshuffle_caption = true"), "conflicting_settings"),
    "flux-warm-up": ({}, also("lr_warmup_steps = 1"), "conflicting_settings"),
    "flux-no-pictures": ({}, without_pictures, "dataset_empty"),
    "flux-picture-cut": ({}, with_a_cut_picture, "image_unreadable"),
    "flux-8bit": ({"optimizer": "AdamW8bit"}, as_it_is, "missing_package"),
    "flux-nan": ({"learning_rate": 1e30}, as_it_is, "nan_loss"),
    "flux-card-full": ({}, on_a_full_card, "cuda_out_of_memory"),
    "sdxl-model-missing": ({"models": {"model": "NOWHERE"}}, as_it_is, "model_file_missing"),
    "sdxl-model-truncated": ({"models": {"model": "TRUNCATED"}}, as_it_is, "model_file_truncated"),
    "sdxl-model-rubbish": ({"models": {"model": "RUBBISH"}}, as_it_is, "model_file_unreadable"),
    "sdxl-model-is-flux": ({"models": {"model": "flux_tiny"}}, as_it_is, "wrong_architecture"),
    "sdxl-no-pictures": ({}, without_pictures, "dataset_empty"),
    "sdxl-picture-cut": ({}, with_a_cut_picture, "image_unreadable"),
    "sdxl-text-encoder-cached": ({}, training("network_train_unet_only = true\n", ""), "conflicting_settings"),
    "sdxl-module-of-another": ({}, training('"networks.lora"', '"networks.lora_flux"'), "nothing_to_train"),
    "sdxl-8bit": ({"optimizer": "AdamW8bit"}, as_it_is, "missing_package"),
    "sdxl-nan": ({"learning_rate": 1e30}, as_it_is, "nan_loss"),
    "sdxl-card-full": ({}, on_a_full_card, "cuda_out_of_memory"),
}


@pytest.mark.parametrize("name", OF_OTHER_SCRIPTS)
def test_a_failure_of_another_script_is_diagnosed(registry, trainer, pictures, tmp_path, name):
    model_type = name.partition("-")[0]
    options, spoil, code = OF_OTHER_SCRIPTS[name]
    models = files_for(model_type, options.get("models", {}), tmp_path)
    job = short_job(registry, pictures, tmp_path, model_type, **options | {"models": models})
    with launch(spoil(registry[model_type].plan(job, trainer)), runs=tmp_path / "runs") as training:
        *_, last = training
    assert_explained(last, code)


def test_a_network_module_that_is_not_there(registry, trainer, pictures, tmp_path):
    job = short_job(registry, pictures, tmp_path)
    nowhere = job.evolve(network_module="networks.nope")
    assert [p.code for p in registry["sd3"].check(nowhere, trainer).errors] == ["network_module_missing"]
    plan = training('"networks.lora_sd3"', '"networks.nope"')(registry["sd3"].plan(job, trainer))
    with launch(plan, runs=tmp_path / "runs") as run:
        *_, last = run
    assert isinstance(last, Failed)
    assert (last.diagnosis.code, last.diagnosis.params["module"]) == ("wrong_network_module", "networks.nope")


def test_a_full_card_is_diagnosed(registry, trainer, pictures, tmp_path):
    """The bench raises CUDA's error with its real wording; what to change follows from the settings."""
    plan = registry["sd3"].plan(short_job(registry, pictures, tmp_path), trainer)
    with launch(on_a_full_card(plan), runs=tmp_path / "runs") as training:
        *_, last = training
    assert isinstance(last, Failed)
    assert (last.diagnosis.code, last.diagnosis.params["total"]) == ("cuda_out_of_memory", "23.64 GiB")
    assert last.diagnosis.changes == {"fp8_base": True}


MISTAKEN = {
    "vae-is-a-clip": ("sd3", {"vae": "clip_l"}),
    "clip-l-is-a-vae": ("sd3", {"clip_l": "ae"}),
    "clip-g-is-a-clip-l": ("sd3", {"clip_g": "clip_l"}),
    "t5xxl-is-a-vae": ("sd3", {"t5xxl": "ae"}),
    "flux-ae-is-a-clip": ("flux", {"ae": "clip_l"}),
    "flux-text-encoders-swapped": ("flux", {"clip_l": "t5xxl", "t5xxl": "clip_l"}),
}
"""A component's file given for another: what `check` refuses, and sd-scripts finds out after loading."""


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_file_given_for_another_component(registry, trainer, pictures, tmp_path, name):
    model_type, files = MISTAKEN[name]
    models = {role: BENCH / f"models/{file}.safetensors" for role, file in files.items()}
    job = short_job(registry, pictures, tmp_path, model_type, models=models)
    refused = [p.params["path"] for p in registry[model_type].check(job, trainer).errors if p.code == "wrong_component"]
    assert refused == [str(path) for path in models.values()]
    events, _ = run(registry, job, trainer, tmp_path)
    assert_diagnosed(name, events[-1])


SCALED = """
import sys
import torch
from safetensors.torch import load_file, save_file

source, target, prefix = sys.argv[1:]
tensors = {prefix + "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
for name, weight in load_file(source).items():
    tensors[name] = weight
    if name.startswith(prefix) and weight.ndim > 1:
        linear = weight.ndim == 2 and "embed" not in name
        scale = weight.float().abs().max() / torch.finfo(torch.float8_e4m3fn).max if linear else torch.ones(1)
        tensors[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
        tensors[name.removesuffix("weight") + "scale_weight"] = scale.reshape(1)
save_file(tensors, target)
"""


@pytest.mark.parametrize(("role", "prefix"), [("model", "model.diffusion_model."), ("t5xxl", "")])
def test_scaled_fp8_is_refused_since_the_trainer_would_not(registry, trainer, pictures, tmp_path, role, prefix):
    """sd-scripts ignores the scales, says nothing, and trains on weights that are wrong by orders of magnitude: on
    the base model the loss is about 1e9 instead of 1, on T5 not even the loss tells.
    """
    scaled = tmp_path / f"{role}_fp8_scaled.safetensors"
    subprocess.run([str(trainer.python), "-c", SCALED, models_of("sd3")[role], scaled, prefix], check=True)
    job = short_job(registry, pictures, tmp_path, models={role: scaled})
    assert [p.code for p in registry["sd3"].check(job, trainer).errors] == ["model_fp8_scaled"]
    events, training = run(registry, job, trainer, tmp_path)
    assert isinstance(events[-1], Finished)
    assert (training.result.loss > 1000) is (role == "model")


def test_a_data_set_that_is_gone_is_diagnosed_though_the_exit_code_is_0(registry, trainer, pictures, tmp_path):
    plan = registry["sd3"].plan(small_job(registry, "sd3", pictures, tmp_path / "out"), trainer)
    with launch(attrs.evolve(plan, links=()), runs=tmp_path / "runs") as training:
        *_, last = training
    assert isinstance(last, Failed)
    assert (last.exit_code, last.diagnosis.code) == (0, "dataset_empty")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("through", [lambda plan: plan, launched], ids=["direct", "accelerate"])
def test_a_trainer_that_was_killed_is_diagnosed(registry, trainer, pictures, tmp_path, number, through):
    job = small_job(registry, "sd3", pictures, tmp_path / "out", steps=3000, save_every=0, sample_every=0)
    with launch(through(registry["sd3"].plan(job, trainer)), runs=tmp_path / "runs") as training:
        for event in training:
            if isinstance(event, Progress) and event.step == 2:
                record = json.loads((training.folder / "state.json").read_text())
                process = psutil.Process(record["trainer"]["pid"])
                (process if through is not launched else process.children()[0]).send_signal(number)
    assert isinstance(event, Failed)
    assert event.exit_code == (1 if through is launched else -number)
    assert (event.diagnosis.code, event.diagnosis.params["signal"]) == ("killed", number.name)
    assert left_behind(training.folder) == []


@pytest.fixture
def small_memory():
    """A control group whose processes have 512 MB of memory together, less than any training takes."""
    folders = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}
    for folder, limit in folders.items():
        group = Path(folder, f"cinderlora-{os.getpid()}")
        try:
            group.mkdir()
            try:
                (group / limit).write_text(str(2**29))
            except OSError:
                group.rmdir()
                continue
        except OSError:
            continue
        yield group
        group.rmdir()  # which only works where nothing runs in it any more
        return
    pytest.skip("no control group with little memory can be made here")


@pytest.mark.parametrize("through", [lambda plan: plan, launched], ids=["direct", "accelerate"])
def test_what_the_kernel_ends_for_lack_of_memory_is_told_from_other_ends(
    registry, trainer, pictures, tmp_path, small_memory, through
):
    plan = through(registry["sd3"].plan(short_job(registry, pictures, tmp_path), trainer))
    join = f'echo $$ > {small_memory}/cgroup.procs; exec "$@"'
    with launch(started_as(plan, "sh", "-c", join, "sh", *plan.argv), runs=tmp_path / "runs") as training:
        *_, last = training
    assert isinstance(last, Failed)
    assert (last.exit_code, last.diagnosis.code) == (1 if through is launched else -9, "host_out_of_memory")
    assert "oom_kill" in last.diagnosis.evidence[-1]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB: less than one LoRA."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_diagnosed(registry, trainer, pictures, tmp_path, small_disk):
    job = small_job(registry, "sd3", pictures, small_disk, sample_every=0)
    events, _ = run(registry, job, trainer, tmp_path)
    assert isinstance(events[-1], Failed)
    assert events[-1].diagnosis.code == "disk_full"
    assert not [e for e in events if isinstance(e, CheckpointSaved)]


def test_a_picture_that_cannot_be_read_is_named(registry, trainer, pictures, tmp_path):
    job = small_job(registry, "sd3", pictures, tmp_path / "out")
    plan = registry["sd3"].plan(job, trainer)
    # Behind the check's back, as a disk error would.
    victim = pictures / "elena_02.png"
    data = victim.read_bytes()
    victim.write_bytes(data[: len(data) // 3])
    with launch(plan, runs=tmp_path / "runs") as training:
        *_, last = training
    assert isinstance(last, Failed)
    assert last.diagnosis.code == "image_unreadable"
    assert "elena_02" in last.diagnosis.cause
    shutil.rmtree(training.folder)


@pytest.mark.parametrize("model_type", NEEDED)
def test_stopped_and_resumed(registry, trainer, pictures, tmp_path, model_type):
    """Stopped behind its first checkpoint, it goes on from the state saved there and reaches the full count."""
    output = tmp_path / "out"
    settings = {"steps": 6, "save_every": 2, "sample_every": 0, "save_state": True}
    job = small_job(registry, model_type, pictures, output, **settings)
    with launch(registry[model_type].plan(job, trainer), runs=tmp_path / "runs") as training:
        for event in training:
            if isinstance(event, CheckpointSaved):
                training.stop()
    assert isinstance(event, Stopped)
    assert processes_of(training.folder) == []
    saved = {path.name: path.read_bytes() for path in output.glob("*.safetensors")}
    assert "cg_elena-step00000002.safetensors" in saved
    assert "cg_elena.safetensors" not in saved

    with training.resume() as rest:
        events = list(rest)
    assert isinstance(events[-1], Finished), events[-1]
    steps = [e.step for e in events if isinstance(e, Progress) and e.step]
    assert (steps[-1], rest.result.steps, rest.result.lora) == (6, 6, output / "cg_elena.safetensors")
    assert min(steps) >= 2
    assert rest.result.lora.exists()
    for name, data in saved.items():
        assert (output / name).read_bytes() == data, f"{name} was overwritten"
    assert left_behind(rest.folder) == []
