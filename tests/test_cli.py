"""The command line, tried as people and programs use it: arguments in, lines, files and exit codes out."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cinderlora
from cinderlora import Config
from cinderlora.cli import main
from cinderlora.cli.app import COMMANDS
from cinderlora.cli.job_options import toml_value
from cinderlora.cli.terminal import clean, duration
from cinderlora.demo import write_dataset
from cinderlora.models import Tensor
from cinderlora.models.hollow import write_hollow
from cinderlora.types import SETTINGS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals are POSIX's")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folders that are nobody's, a place to stand, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path


class Said:
    """What a call of the command line in this process said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code = main([str(argument) for argument in arguments])
        self.out, self.err = capsys.readouterr()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def process(*arguments: object, act: str = "", **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "cinderlora.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environment = {**os.environ, "CINDERLORA_REHEARSE": act}
    return subprocess.Popen(command, env=environment, text=True, encoding="utf-8", **pipes)


def rehearsal(pictures: Path, *more: object) -> list[object]:
    """The arguments of a training of seconds."""
    small = ["--resolution", 64, "--steps", 12, "--save-every", 6, "--sample-every", 6]
    return ["train", "-t", "sdxl", "-n", "elena", "-d", pictures, "-o", "out", "--rehearsal", *small, *more]


def wait_for(stream: Any, text: str) -> list[str]:
    """The lines up to the first one with a text."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} did not come; instead:\n{''.join(lines)}")


def left_of(run: Path) -> list[psutil.Process]:
    """The processes that still work in a run folder: the supervisor goes a moment after its last word."""
    found = []
    for one in psutil.process_iter():
        try:
            if str(run) in " ".join(one.cmdline()) or one.cwd() == str(run):
                found.append(one)
        except psutil.Error:
            continue
    return psutil.wait_procs(found, timeout=10)[1]


# ---- the entry point -------------------------------------------------------------------------------------------------


def test_a_base_install_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("click", "rich"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "pip install 'cinderlora[cli]'" in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], []], ids=str)
def test_a_glance_loads_little(arguments: list[str]) -> None:
    code = f"""
import sys
from cinderlora.cli import main
from cinderlora.cli.app import COMMANDS
assert main({arguments!r}) == 0
print([name for name in ("rich", "anyio", "pluggy", "PIL", "numpy", "cinderlora_flux") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert cinderlora.__version__ in done.stdout or "demo" in done.stdout


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    overview = Said(capsys, "--help").out
    for name in COMMANDS:
        assert f"  {name} " in overview
        said = Said(capsys, name, "--help")
        assert said.code == 0
        assert said.out.startswith(f"Usage: cinderlora {name}")


def test_every_setting_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "train", "--help").out
    for info in SETTINGS.values():
        flag = "--set" if info.kind == "table" else f"--{info.name.replace('_', '-')}"
        assert f" {flag} " in said, flag
        assert info.kind != "bool" or f" / --no-{flag[2:]}" in said


# ---- what bad input gets ---------------------------------------------------------------------------------------------

BAD = {
    "no type": ("model_type_missing", {"-t": None}),
    "mistyped type": ("model_type_unknown", {"-t": "sdlx"}),
    "no name": ("name_missing", {"-n": None}),
    "empty name": ("name_missing", {"-n": ""}),
    "name with a path": ("name_unsafe", {"-n": "../../x"}),
    "name with a control character": ("name_unsafe", {"-n": "a\x1b[31mb"}),
    "empty trigger": ("trigger_missing", {"--trigger": ""}),
    "trigger of two lines": ("trigger_unprintable", {"--trigger": "a\nb"}),
    "no data set": ("dataset_missing", {"-d": None}),
    "data set that is not there": ("dataset_not_found", {"-d": "nowhere"}),
    "data set without pictures": ("dataset_empty", {"-d": "."}),
    "unknown preset": ("preset_unknown", {"-p": "17gb"}),
    "preset of another type": ("preset_of_another_type", {"-p": "flux.toml"}),
    "preset file that is not there": ("file_not_found", {"-p": "nothing.toml"}),
    "unknown setting": ("option_unknown", {"--network-dims": "4"}),
    "setting of the wrong type": ("setting_type", {"--steps": "many"}),
    "setting out of range": ("setting_range", {"--steps": "-1"}),
    "setting that is no choice": ("setting_choice", {"--mixed-precision": "fp12"}),
    "unknown trainer argument": ("argument_unknown", {"--set": "no_such=1"}),
    "trainer argument of the wrong type": ("argument_type", {"--set": "clip_skip=two"}),
    "a secret": ("secret_in_settings", {"--set": "wandb_api_key=abc"}),
    "set without a value": ("option_form", {"--set": "clip_skip"}),
    "unknown role": ("role_unknown", {"-m": "modle=x"}),
    "models folder that is not there": ("folder_not_found", {"--models": "nowhere"}),
    "output that is a file": ("output_not_a_folder", {"-o": "flux.toml"}),
    "output that cannot be written": ("output_not_writable", {"-o": "/proc/x"}),
    "no sd-scripts": ("trainer_not_found", {"--rehearsal": None, "--sd-scripts": "nowhere"}),
    "no model file": ("component_missing", {"--rehearsal": None}),
    "model file that is not there": ("model_file_missing", {"--rehearsal": None, "-m": "model=no.safetensors"}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_its_code_and_starts_nothing(
    case: str, pictures: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, changes = BAD[case]
    Path("flux.toml").write_text('name = "mine"\nmodel_type = "flux"\n', encoding="utf-8")
    options: dict[str, object] = {"-t": "sdxl", "-n": "elena", "-d": pictures, "-o": "out", "--rehearsal": ""}
    options |= changes
    arguments: list[object] = []
    for option, value in options.items():
        if value is not None:
            arguments += [option] if option == "--rehearsal" else [option, value]
    before = sorted(home.rglob("*"))
    said = Said(capsys, "train", *arguments, "--json")
    assert said.code == 2
    error = said.records[-1]["error"]
    assert len(said.records) == 1 or code == "output_not_writable"  # root may write where nothing can be written
    codes = [problem["code"] for problem in error.get("problems", [error])]
    assert code in codes
    assert error["message"]
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "-t", "sdxl", "-n", "", "-d", ".", "--rehearsal"], "Charakter-Name fehlt"),
        (["train", "-t", "sdxl", "-n", "e", "--trigger", "", "-d", ".", "--rehearsal"], "Trigger-Wort fehlt"),
        (["train", "-t", "sdxl", "-n", "e", "-d", ".", "--rehearsal"], "Kein gültiges Dataset"),
        (["check", "-t", "sdxl", "-n", "e", "-d", "."], "Kohya sd-scripts nicht gefunden"),
        (["train", "-t", "sdlx"], "sdxl"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_in_german(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    said = Said(capsys, *arguments)
    assert said.code == 2
    assert said.err.startswith("Fehler [")
    assert text in said.err


def test_mistyped_commands_are_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "trian")
    assert said.code == 2
    assert "Did you mean train?" in said.err
    assert Said(capsys, "parse", "--type", "sd3").code == 2


def test_an_unexpected_error_is_one_line_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CINDERLORA_DISABLE", "flux,sdxl,sd3")
    monkeypatch.setattr(cinderlora.Registry, "from_installed", lambda **_: {}["no"])
    said = Said(capsys, "presets")
    assert said.code == 1
    assert "Traceback" not in said.err
    assert "--debug" in said.err
    with pytest.raises(KeyError):
        main(["--debug", "presets"])


# ---- lists -----------------------------------------------------------------------------------------------------------


def test_presets_and_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    records = Said(capsys, "presets", "flux", "--json").records
    steps = {"8gb": 1500, "10gb": 1500, "12gb": 1500, "16gb": 1500, "24gb": 2000}
    assert [(r["name"], r["settings"]["steps"]) for r in records] == list(steps.items())
    lines = Said(capsys, "presets").out.splitlines()
    assert len(lines) == 1 + 11
    assert all(line == line.rstrip() for line in lines)
    named = {record["name"]: record for record in Said(capsys, "adapters", "--json").records}
    assert named["sd3"]["script"] == "sd3_train_network.py"
    assert named["sd3"]["provider"].startswith("cinderlora ")


def test_broken_plugins_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "plugins" / "broken_pack-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "broken_pack.py").write_text("raise RuntimeError('\\x1b[31mboom')", encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-pack\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[cinderlora]\nbroken = broken_pack\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(info.parent))
    said = Said(capsys, "adapters")
    assert said.code == 0
    assert "broken-pack 1.0" in said.err
    assert "boom" in said.err
    assert "\x1b" not in said.err


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def comfyui(home: Path, data: Path) -> Path:
    """A ComfyUI folder with FLUX in it: true headers, and no data behind them."""
    files = {
        "diffusion_models/flux1-dev.safetensors": ("flux_dev", "BF16"),
        "diffusion_models/flux1-dev-fp8.safetensors": ("flux_dev", "F8_E4M3"),
        "text_encoders/clip_l.safetensors": ("clip_l", "F16"),
        "text_encoders/t5xxl.safetensors": ("t5xxl", "F16"),
        "vae/ae.safetensors": ("flux_ae", "BF16"),
    }
    for name, (header, dtype) in files.items():
        known = json.loads(gzip.decompress((data / f"headers/{header}.json.gz").read_bytes()))
        tensors = {key: Tensor(dtype, tuple(shape)) for key, shape in known["tensors"].items()}
        write_hollow(home / "ComfyUI/models" / name, tensors)
    return home / "ComfyUI"


@pytest.fixture
def checkout(home: Path) -> Path:
    """What looks like sd-scripts."""
    folder = home / "sd scripts"
    folder.mkdir()
    for script in ("train_network.py", "flux_train_network.py", "sd3_train_network.py"):
        (folder / script).touch()
    return folder


def test_models_are_found_in_comfyui(comfyui: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Said(capsys, "models").code == 2
    Config(comfyui=comfyui).save()
    records = Said(capsys, "models", "--type", "flux", "--json").records
    chosen = {record["role"]: Path(record["path"]).name for record in records if record["default"]}
    assert chosen == {
        "model": "flux1-dev-fp8.safetensors",
        "clip_l": "clip_l.safetensors",
        "t5xxl": "t5xxl.safetensors",
        "ae": "ae.safetensors",
    }
    said = Said(capsys, "models")
    assert said.code == 0
    assert "* model" in said.out
    assert "Missing for Stable Diffusion 3" in said.err


def test_a_plan_has_what_was_found_and_what_was_said(
    comfyui: Path, checkout: Path, pictures: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Config(comfyui=comfyui, sd_scripts=checkout, sd_scripts_python=sys.executable, datasets=pictures.parent).save()
    other = comfyui / "models/diffusion_models/flux1-dev.safetensors"
    arguments = [
        "-t",
        "flux",
        "-n",
        "elena",
        "-d",
        pictures.name,
        "-p",
        "16gb",
        "-m",
        f"model={other}",
        "--optimizer",
        "AdamW",
    ]
    changes = ["--no-fp8-base", "--blocks-to-swap", 0, "--network-args", "a=1", "--network-args", "b=2"]
    sets = ["--set", 'sample_sampler="ddim"', "--set", "save_last_n_steps=2"]
    before = sorted(home.rglob("*"))
    said = Said(capsys, "train", *arguments, *changes, *sets, "--dry-run", "--json")
    assert said.code == 0, said.out
    plan = said.records[0]["plan"]
    assert plan["output"] == str(comfyui / "models/loras")
    assert plan["stages"][0]["argv"][:2] == [sys.executable, str(checkout / "flux_train_network.py")]
    training = tomllib_loads(plan["files"]["elena_kohya_training.toml"])["training"]
    assert training["pretrained_model_name_or_path"] == str(other)
    assert training["t5xxl"] == str(comfyui / "models/text_encoders/t5xxl.safetensors")
    assert training["network_args"] == ["a=1", "b=2"]
    assert (training["sample_sampler"], training["save_last_n_steps"]) == ("ddim", 2)
    assert not {"fp8_base", "blocks_to_swap"} & set(training)
    assert training["max_train_steps"] == 1500
    printed = Said(capsys, "train", *arguments, "--dry-run")
    assert "# elena_kohya_training.toml" in printed.out
    assert sorted(home.rglob("*")) == before


def test_check_tells_the_numbers_or_the_errors(
    comfyui: Path, checkout: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Config(comfyui=comfyui, sd_scripts=checkout, sd_scripts_python=sys.executable).save()
    arguments = ["-n", "elena", "-d", pictures, "-p", "16gb", "--optimizer", "AdamW"]
    said = Said(capsys, "check", "-t", "flux", *arguments)
    assert said.code == 0, said.err
    numbers = dict(line.split("  ", 1) for line in said.out.splitlines() if "  " in line)
    assert numbers["Pictures"].strip() == "6"
    assert numbers["Steps per epoch"].strip() == "60"
    report = Said(capsys, "check", "-t", "sd3", *arguments, "--json")
    assert report.code == 2
    problems = report.records[0]["report"]["problems"]
    missing = [p["params"]["role"] for p in problems if p["code"] == "component_missing"]
    assert missing == ["SD3 checkpoint", "CLIP-G", "VAE"]
    said = Said(capsys, "check", "-t", "sd3", *arguments)
    assert str(comfyui / "models") in said.err


def tomllib_loads(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_training_in_a_pipe(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, *rehearsal(pictures, "--configs", "configs", "--copy-to", "copies"))
    assert said.code == 0, said.err
    out = Path("out").absolute()
    assert f"  Copy: {Path('copies').absolute() / 'cg_elena.safetensors'}" in said.out.splitlines()
    lines = said.out.splitlines()
    assert lines[0] == "elena (Stable Diffusion XL), preset 8gb, 6 pictures, 60 steps per epoch, 12 steps, epochs: 1"
    assert "Rehearsal: a miniature training, no Stable Diffusion XL. The LoRA is for practice only." in lines
    steps = [line for line in lines if line.startswith("Step ")]
    assert steps[-1].startswith("Step 12/12 (100%) - Loss: ")
    assert [line.split(":")[0] for line in lines if line.startswith("Sample at")] == [
        "Sample at step 6",
        "Sample at step 12",
    ]
    assert f"Checkpoint at step 6: {out / 'cg_elena-step00000006.safetensors'}" in lines
    assert f"Done: {out / 'cg_elena.safetensors'}" in lines
    assert (out / "cg_elena.safetensors").stat().st_size > 1000
    assert len(list(Path("configs").iterdir())) == 3
    assert "\x1b" not in said.out


def test_check_knows_the_pace_of_an_earlier_training(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["check", *rehearsal(pictures)[1:]]
    assert "s a step" not in Said(capsys, *asked).out
    assert Said(capsys, *rehearsal(pictures)).code == 0
    (run,) = cinderlora.runs()
    said = Said(capsys, *asked, "--steps", 600).out
    assert re.search(rf"Time +about \S+ at [\d.]+ s a step, as in {run.folder.name}\n", said)
    assert "s a step" not in Said(capsys, *asked, "--batch-size", 3).out  # another pace


def test_a_job_file_and_options_over_it(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("jobs").mkdir()
    Path("jobs/elena.toml").write_text(
        f'type = "flux"\nname = "elena"\ndataset = "{pictures}"\noutput = "loras"\nsteps = 400\nresolution = 64\n'
        "[settings]\nsample_every = 0\n",
        encoding="utf-8",
    )
    said = Said(capsys, "train", "jobs/elena.toml", "--rehearsal", "--steps", 5, "--json")
    assert said.code == 0, said.out
    report, run, *events = said.records
    assert report["report"]["images"] == 6
    assert [events[0]["event"], events[-1]["event"]] == ["Started", "Finished"]
    result = events[-1]["result"]
    assert (result["steps"], result["rehearsal"]) == (5, True)
    assert result["samples"] == []
    assert result["lora"] == str(Path("jobs/loras/cg_elena.safetensors").absolute())
    # The run's own record is a job file, too.
    again = Said(capsys, "train", Path(run["run"]["folder"]) / "run.toml", "--rehearsal", "--dry-run", "--json")
    assert "max_train_steps = 5" in again.records[0]["plan"]["files"]["elena_kohya_training.toml"]


def test_a_failure_is_diagnosed(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CINDERLORA_REHEARSE", "oom@4")
    said = Said(capsys, *rehearsal(pictures))
    assert said.code == 1
    assert "Training failed [cuda_out_of_memory]" in said.err
    assert "  | torch.OutOfMemoryError" in said.err
    assert "\n  -> " in said.err
    assert "output.log" in said.err
    # And so says who looks at it later, in another language.
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    later = Said(capsys, "watch", "elena")
    assert later.code == 1
    assert "Training fehlgeschlagen [cuda_out_of_memory]" in later.err
    (listed,) = Said(capsys, "runs", "--json").records
    assert (listed["state"], listed["step"], listed["total"]) == ("failed", 3, 12)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_the_training(number: signal.Signals, pictures: Path) -> None:
    with process(*rehearsal(pictures, "--steps", 10_000), act="slow@0.02") as program:
        assert program.stdout is not None
        assert program.stderr is not None
        run = Path(wait_for(program.stdout, "Run folder: ")[-1].split(": ", 1)[1].strip())
        wait_for(program.stdout, "Step ")
        program.send_signal(number)
        assert program.wait(20) == 130
        said = program.stderr.read()
    assert "Stopping the training" in said
    assert "Stopped by" in said
    assert cinderlora.attach(run).state == "stopped"
    assert left_of(run) == []


@pytest.fixture
def detached(pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A training that goes on, by itself."""
    monkeypatch.setenv("CINDERLORA_REHEARSE", "slow@0.02")
    said = Said(capsys, *rehearsal(pictures, "--steps", 10_000, "--detach", "--json"))
    assert said.code == 0
    run = Path(said.records[-1]["run"]["folder"])
    yield run
    main(["stop", str(run), "--grace", "0"])


def test_a_detached_training_is_listed_watched_and_stopped(
    detached: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (listed,) = Said(capsys, "runs", "--json").records
    assert (listed["folder"], listed["state"]) == (str(detached), "running")
    with process("watch") as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        wait_for(watcher.stdout, "Step ")
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(20) == 130
        assert "goes on" in watcher.stderr.read()
    assert cinderlora.attach(detached).state == "running"
    again = rehearsal(pictures, "--steps", 10_000, "--detach")
    assert "[launch_lora_taken]" in Said(capsys, *again).err
    assert Said(capsys, *again, "-o", "elsewhere").code == 0
    refused = Said(capsys, "stop", "--json")  # which one?
    assert refused.records[0]["error"]["code"] == "several_runs_going_on"
    assert Said(capsys, "stop", "elena", "--json").records[0]["error"]["code"] == "run_ambiguous"
    assert Said(capsys, "stop", "--json", detached.name).records[0]["state"] == "stopped"
    last = Said(capsys, "stop")
    assert last.code == 0
    assert last.out.startswith("Stopped ")
    assert left_of(detached.parent) == []
    assert Said(capsys, "stop", detached).out.strip().endswith("had ended already: stopped.")
    assert Said(capsys, "watch", "--json").records[0]["error"]["code"] == "no_run_going_on"
    assert Said(capsys, "watch", "nobody", "--json").records[0]["error"]["code"] == "run_unknown"
    assert Said(capsys, "watch", detached).code == 130
    table = Said(capsys, "runs").out.splitlines()
    assert [line.split()[:3] for line in table[1:]] == [["stopped", "elena", "sdxl"]] * 2


def test_a_failed_training_is_resumed(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said(capsys, "resume")
    assert said.code == 2
    assert "[no_run]" in said.err
    monkeypatch.setenv("CINDERLORA_REHEARSE", "crash@8")
    assert Said(capsys, *rehearsal(pictures, "--save-state")).code == 1
    monkeypatch.delenv("CINDERLORA_REHEARSE")
    said = Said(capsys, "resume", "--dry-run")
    assert said.code == 0
    assert "goes on at step 6" in said.out
    said = Said(capsys, "resume", "--steps", 10)
    assert said.code == 0
    assert "goes on at step 6/10 from the saved state cg_elena-step00000006-state" in said.out
    assert "Step 10/10" in said.out
    assert f"Done: {Path('out/cg_elena.safetensors').absolute()}" in said.out
    said = Said(capsys, "resume")
    assert said.code == 2
    assert "[resume_done]" in said.err
    said = Said(capsys, "resume", "--json", "--steps", 12)
    assert said.code == 0
    assert said.records[0]["resumed_from"]["step"] == 10
    assert said.records[-1]["result"]["steps"] == 12
    said = Said(capsys, "resume", "--steps", 20)
    lines = [line.partition(": ") for line in said.out.splitlines() if "cg_elena" in line]
    # Called "step00000006" until it is put among the earlier files.
    assert [line[0] for line in lines if Path(line[2]).name == "cg_elena-step00000006.safetensors"] == [
        "Checkpoint at step 18"
    ]


def test_a_training_survives_its_terminal_and_its_reader(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(*rehearsal(pictures, "--steps", 10_000), act="slow@0.02") as program:
        assert program.stdout is not None
        run = Path(wait_for(program.stdout, "Run folder: ")[-1].split(": ", 1)[1].strip())
        wait_for(program.stdout, "Step ")
        program.send_signal(signal.SIGHUP)
        assert program.wait(20) == -signal.SIGHUP
    assert cinderlora.attach(run).state == "running"
    with process("watch", run) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        watcher.stdout.close()  # as `| head -1` does
        assert watcher.wait(20) == 141
        assert "Traceback" not in (watcher.stderr.read() if watcher.stderr else "")
    assert Said(capsys, "stop", run).code == 0
    assert left_of(run) == []


def test_the_live_display(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    screen, terminal = pty.openpty()
    options: dict[str, Any] = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    with process(*rehearsal(pictures, "--steps", 30), act="slow@0.02", **options) as program:
        os.close(terminal)
        seen = b""
        while True:
            try:
                piece = os.read(screen, 4096)
            except OSError:  # the terminal's other end is closed
                break
            if not piece:
                break
            seen += piece
        assert program.wait(20) == 0
    os.close(screen)
    text = seen.decode()
    assert "/30" in text  # the bar's figures
    assert "━" in text
    assert "Loss: " in text
    assert "Ctrl-C stops the training" in text
    assert "Done: " in text.rpartition("Ctrl-C stops")[2]  # what is left on the screen in the end


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said(capsys, "demo", "--steps", 20, "--folder", "try")
    assert said.code == 0, said.err
    for place in ("datasets/elena", "loras/cg_elena.safetensors", "loras/sample"):
        assert str(Path("try", place).absolute()) in said.out
        assert Path("try", place).exists()
    assert "rehearsal" in said.out.lower()
    dataset = cinderlora.inspect_dataset("try/datasets/elena", trigger="elena")
    assert not dataset.problems
    assert 12 <= len(dataset.pictures) == dataset.captions <= 16
    assert len(list(Path("try/loras/sample").glob("*.png"))) == 4
    before = {path: path.read_bytes() for path in Path("try/datasets/elena").iterdir()}
    write_dataset(Path("try/datasets/elena"))  # again: the same
    assert {path: path.read_bytes() for path in Path("try/datasets/elena").iterdir()} == before
    # The Python that it shows is Python.
    shown = said.out.partition("The same from Python\n")[2].partition("\n\nThe real thing")[0]
    program = "\n".join(line[2:] for line in shown.splitlines())
    compile(program, "demo", "exec")
    assert "cinderlora.sync" in program


def test_the_demo_touches_no_file_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    mine = Path("try/datasets/elena/elena_03.png")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    said = Said(capsys, "demo", "--folder", "try", "--json")
    assert said.code == 2
    assert said.records[0]["error"]["code"] == "demo_in_the_way"
    assert [path.name for path in Path("try").rglob("*") if path.is_file()] == ["elena_03.png"]


# ---- parse -----------------------------------------------------------------------------------------------------------

LOG = (
    b"epoch 1/1\n\rsteps:   0%|          | 0/4 [00:00<?, ?it/s]\rsteps:  50%|#####     | 2/4 [00:01<00:01,  1.0s/it]"
    b"\rsteps:  50%|#####     | 2/4 [00:01<00:01,  1.0s/it, avr_loss=0.25]\n"
    b"saving checkpoint: /tmp/\x1b[31mx-step00000002.safetensors\n"
    b"\rsteps:  75%|#######   | 3/4 [00:03<00:01,  1.0s/it, avr_loss=0.2]\n"
    b"Traceback (most recent call last):\n"
    b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 MiB.\n"
)


def test_parse_gives_the_events_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    Path("output.log").write_bytes(LOG)
    records = Said(capsys, "parse", "--type", "sd3", "output.log", "--json").records
    expected = list(cinderlora.Registry.from_installed()["sd3"].events([LOG]))
    assert records == [json.loads(json.dumps(cinderlora.to_json(event))) for event in expected]
    said = Said(capsys, "parse", "-t", "sd3", "output.log")
    assert said.code == 0
    assert "Step 2/4 (50%) - Loss: 0.25 - " in said.out
    assert "\x1b" not in said.out + said.err
    assert "[cuda_out_of_memory]" in said.err
    last = Said(capsys, "parse", "-t", "sd3", "--exit-code", 1, "output.log", "--json").records[-1]
    assert last["diagnosis"]["code"] == "cuda_out_of_memory"
    assert Said(capsys, "parse", "-t", "sd3", "nothing.log").code == 2


def test_parse_reads_from_a_pipe_as_it_comes() -> None:
    with process("parse", "--type", "sd3", "-", "--json", stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.buffer.write(LOG[:60])
        program.stdin.buffer.flush()
        assert json.loads(program.stdout.readline())["event"]  # before the end is known
        program.stdin.buffer.write(LOG[60:])
        program.stdin.close()
        rest = [json.loads(line)["event"] for line in program.stdout]
        assert program.wait(20) == 0
    assert "Progress" in rest


# ---- the small parts -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text())
def test_nothing_that_steers_a_terminal_is_printed(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert len(cleaned) == len(text)
    assert all(a == b for a, b in zip(cleaned, text, strict=True) if b.isprintable())


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_value_for_a_trainer_argument(text: str) -> None:
    value = toml_value(text)
    assert isinstance(value, (str, int, float, bool, list))
    assert not isinstance(value, str) or value == text or text.strip()[:1] in {'"', "'"}


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.lists(st.text(st.characters(codec="ascii"), max_size=5)))
def test_values_of_toml_are_what_they_say(value: object) -> None:
    assert (
        toml_value(json.dumps(value).replace("\\u007f", "\x7f") if not isinstance(value, list) else _toml(value))
        == value
    )


def _toml(value: object) -> str:
    import tomli_w

    return tomli_w.dumps({"v": value}).partition("=")[2].strip()


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=600), st.integers(1, 100))
def test_a_sparkline_fits_and_shows_where_it_goes(points: list[float], width: int) -> None:
    from cinderlora.cli.live import sparkline

    line = sparkline(points, width)
    assert len(line) == min(width, len(points))
    assert set(line) <= set("▁▂▃▄▅▆▇█")
    if len(points) <= width and max(points) > min(points):
        assert line[points.index(max(points))] == "█"
        assert line[points.index(min(points))] == "▁"


def test_a_long_training_keeps_few_losses() -> None:
    from cinderlora.cli.live import Losses

    losses = Losses()
    for step in range(1, 20_001):
        losses.add(step, step / 20_000)
    points = losses.points()
    assert 200 < len(points) < 600
    assert points == sorted(points)
    assert points[-1] > 0.98
    losses.add(20_480, float("nan"))
    assert losses.points() == points


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59.4, "59s"), (61, "1m"), (3599, "1h 00m"), (4800, "1h 20m"), (float("inf"), "?")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
