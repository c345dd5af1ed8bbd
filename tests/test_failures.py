"""Why a training failed: the recordings, and every way to fail that was seen elsewhere."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora.problems import Diagnosis
from cinderlora.running.stream import EventStream
from cinderlora.sd_scripts.failure_rules import RULES
from cinderlora.sd_scripts.failures import diagnose
from cinderlora.sd_scripts.progress import parse_progress
from cinderlora.texts import LANGUAGES
from cinderlora.texts import catalogue as texts_of
from cinderlora.types import Failure, LoraFacts, Settings

CAPTURES = sorted((Path(__file__).parent / "data" / "captures").glob("*/truth.json"))
FAILURES = Path(__file__).parent / "data" / "failures"
PROVOKED = json.loads((FAILURES / "truth.json").read_text(encoding="utf-8"))
BAR = "\rsteps:   0%|          | 4/20000 [00:00<55:55,  5.96it/s, avr_loss=0.319]"
LAUNCHER = """Traceback (most recent call last):
  File "/venv/bin/accelerate", line 8, in <module>
    sys.exit(main())
subprocess.CalledProcessError: Command '['python3', 'sd3_train_network.py', '--config_file', 'x.toml']' {how}.
"""


def diagnosis_of(
    output: str | bytes, exit_code: int | None = 1, model_type: str = "sd3", **known: Any
) -> Diagnosis | None:
    stream = EventStream([("cinderlora", parse_progress)])
    stream.feed(output if isinstance(output, bytes) else output.encode())
    stream.close()
    return diagnose(stream.failure(model_type, exit_code, **known))


def found(output: str | bytes, exit_code: int | None = 1, **known: Any) -> Diagnosis:
    diagnosis = diagnosis_of(output, exit_code, **known)
    assert diagnosis is not None
    return diagnosis


def raised(exception: str, trace: str = "train", before: str = "") -> str:
    """What Python prints for an exception that came up in a function, or in a line of code."""
    inner = f", in {trace}" if trace.isidentifier() else f", in x\n    {trace}"
    return f'{before}Traceback (most recent call last):\n  File "/x/train_network.py", line 7{inner}\n{exception}\n'


def explains(diagnosis: Diagnosis) -> bool:
    """Whether it has all that a person needs, in both languages."""
    said = [diagnosis.text(language) for language in LANGUAGES]
    evidence = bool(diagnosis.evidence) and all(line.strip() for line in diagnosis.evidence)
    return evidence and all(text.message and text.fix for text in said)


# ---- recordings ----


@pytest.mark.parametrize("truth_file", CAPTURES, ids=lambda p: p.parent.name)
def test_why_a_recording_failed(truth_file: Path) -> None:
    truth = json.loads(truth_file.read_text(encoding="utf-8"))
    data = (truth_file.parent / "output.log").read_bytes()
    diagnosis = diagnosis_of(data, truth["exit_code"], truth["model_type"])
    assert (diagnosis and diagnosis.code) == truth["diagnosis"]
    if diagnosis is not None:
        assert explains(diagnosis)
        printed = data.decode()
        assert all(line in printed for line in diagnosis.evidence)
    if truth["exit_code"]:
        launched = data + LAUNCHER.format(how=f"returned non-zero exit status {truth['exit_code']}").encode()
        through = diagnosis_of(launched, 1, truth["model_type"])
        assert through == diagnosis, "what the launcher adds changes nothing"


@pytest.mark.parametrize("name", PROVOKED)
@pytest.mark.parametrize("launched", [False, True], ids=["direct", "accelerate"])
def test_why_a_provoked_failure_failed(name: str, launched: bool) -> None:
    truth = PROVOKED[name]
    output = (FAILURES / f"{name}.log").read_bytes()
    exit_code = truth["exit_code"]
    if launched and exit_code > 0:
        output += b"\n" + LAUNCHER.format(how=f"returned non-zero exit status {exit_code}").encode()
        exit_code = 1
    diagnosis = found(output, exit_code, model_type=truth["model_type"])
    assert diagnosis.code == truth["code"]
    assert diagnosis.changes == truth["changes"]
    assert all(str(diagnosis.params[param]).endswith(value) for param, value in truth["params"].items())
    assert explains(diagnosis)
    printed = output.decode()
    assert all(word in printed for line in diagnosis.evidence for word in line.split()), "lines may be wrapped there"


@pytest.mark.parametrize(
    ("name", "exit_code", "code"),
    [
        ("gpu-memory", -9, "cuda_out_of_memory"),
        ("launched-killed", 1, "host_out_of_memory"),
        ("interrupted", -9, "host_out_of_memory"),
        ("terminated", -15, "killed"),
    ],
)
def test_what_the_kernel_ended_for_lack_of_memory(name: str, exit_code: int, code: str) -> None:
    """It counts what it ends, and says nothing of it in the log; other signals are not its own."""
    diagnosis = found((FAILURES / f"{name}.log").read_bytes(), exit_code, oom_kills=1)
    assert diagnosis.code == code and explains(diagnosis)
    assert any("oom_kill" in line for line in diagnosis.evidence) is (code == "host_out_of_memory")


# ---- one by one ----

LOADING = "load_target_model"
VALUES = {
    "missing-sdxl": (
        raised(
            'ValueError: The provided pretrained_model_name_or_path "/m/no.safetensors" is neither a valid local path'
            " nor a valid repo id. Please check the parameter."
        ),
        "model_file_missing",
        {"path": "/m/no.safetensors"},
    ),
    "missing-0.4.5": (
        raised('FileNotFoundError: No such file or directory: "/m/no t5.safetensors"', "load_t5xxl"),
        "model_file_missing",
        {"path": "/m/no t5.safetensors", "role": "T5XXL"},
    ),
    "missing-errno": (
        raised("FileNotFoundError: [Errno 2] No such file or directory: '/m/ae.sft'", "load_ae"),
        "model_file_missing",
        {"path": "/m/ae.sft", "role": "AE"},
    ),
    "sd3-without-t5": (
        raised(
            "AttributeError: 'NoneType' object has no attribute 'eval'",
            LOADING,
            "t5xxl is not included in the checkpoint and t5xxl_path is not provided\n",
        ),
        "component_missing",
        {"role": "T5XXL", "model_type": "sd3"},
    ),
    "flux-without-t5": (
        raised(
            "TypeError: argument 'filename': expected str, bytes or os.PathLike object, not NoneType",
            "sd = load_t5xxl(args.t5xxl)",
        ),
        "component_missing",
        {"role": "T5XXL"},
    ),
    "sdxl-wrong-model": (
        raised(
            "RuntimeError: Error(s) in loading state_dict for SdxlUNet2DConditionModel:\n\tMissing key(s): "
            + '"a.b", ' * 9000
            + "\n"
            + "\tsize mismatch for x\n" * 600
        ),
        "wrong_architecture",
        {},
    ),
    "another-component": (
        "Loaded CLIP-G: _IncompatibleKeys(missing_keys=['text_model.embeddings.token_embedding.weight'])\n"
        "Loaded T5xxl: _IncompatibleKeys(missing_keys=['encoder.embed_tokens.weight'], unexpected_keys=[])\n"
        + raised("NotImplementedError: Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty()"),
        "component_not_loaded",
        {"component": "CLIP-G"},
    ),
    "a-smaller-t5": (  # whose other layers are not there
        "Loading state dict from /m/clip_g.safetensors\n"
        "Loaded CLIP-G: <All keys matched successfully>\n"
        "Loading state dict from /m/t5.safetensors\n"
        "Loaded T5xxl: _IncompatibleKeys(missing_keys=['encoder.embed_tokens.weight', 'encoder.block.1.layer.0.x'])\n"
        + raised("NotImplementedError: Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty()"),
        "component_not_loaded",
        {"component": "T5xxl", "path": "/m/t5.safetensors"},
    ),
    "lora-of-another-model": (
        raised("RuntimeError: Error(s) in loading state_dict for LoRANetwork:"),
        "bad_setting",
        {"setting": "network_weights"},
    ),
    "lora-for-flux": (
        raised(
            "AttributeError: 'LoRANetwork' object has no attribute 'train_t5xxl'",
            before="import network module: networks.lora\n",
        ),
        "wrong_network_module",
        {"module": "networks.lora"},
    ),
    "no-network-module": (
        raised("AttributeError: 'NoneType' object has no attribute 'startswith'", "importlib.import_module(x)"),
        "wrong_network_module",
        {},
    ),
    "unknown-flag": (
        "usage: sd3_train_network.py [-h]\nsd3_train_network.py: error: unrecognized arguments: --no_such_flag 3\n",
        "unknown_argument",
        {"argument": "--no_such_flag 3"},
    ),
    "flag-of-wrong-type": (
        "sd3_train_network.py: error: argument --network_dim: invalid int value: 'abc'\n",
        "bad_setting",
        {"setting": "--network_dim", "value": "abc"},
    ),
    "steps-as-text": (
        raised("TypeError: unsupported operand type(s) for -: 'str' and 'int'", "lr_scheduler = get_scheduler_fix(x)"),
        "bad_setting",
        {"setting": "max_train_steps"},
    ),
    "rate-as-text": (
        raised("TypeError: '<=' not supported between instances of 'float' and 'str'"),
        "bad_setting",
        {"setting": "learning_rate"},
    ),
    "precision": (
        raised("ValueError: Unknown mixed_precision mode: float16. Choose between ['no', 'fp8', 'fp16', 'bf16']"),
        "bad_setting",
        {"setting": "mixed_precision", "value": "float16"},
    ),
    "optimizer-args-as-text": (
        raised("ValueError: not enough values to unpack (expected 2, got 1)", "get_optimizer"),
        "bad_setting",
        {"setting": "optimizer_args"},
    ),
    "network-args-as-text": (
        raised("ValueError: not enough values to unpack (expected 2, got 1)"),
        "bad_setting",
        {"setting": "network_args"},
    ),
    "scheduler": (
        raised("ValueError: nosuch is not a valid SchedulerType, please select one of ['linear', 'cosine']"),
        "bad_setting",
        {"setting": "lr_scheduler", "value": "nosuch"},
    ),
    "optimizer": (
        raised("AttributeError: module 'torch.optim' has no attribute 'nosuchopt'"),
        "bad_setting",
        {"setting": "optimizer_type", "value": "nosuchopt"},
    ),
    "bucket-step": (
        raised("AssertionError: bucket_reso_steps is 48. it must be divisible by 32."),
        "bad_setting",
        {"setting": "bucket_reso_steps", "value": "48"},
    ),
    "resolution": (
        raised("AttributeError: 'int' object has no attribute 'split'"),
        "bad_setting",
        {"setting": "resolution"},
    ),
    "save-every-0": (
        raised(
            "ZeroDivisionError: integer modulo by zero",
            "if args.save_every_n_steps is not None and global_step % args.save_every_n_steps == 0:",
        ),
        "bad_setting",
        {"setting": "save_every_n_steps"},
    ),
    "output-below-a-file": (
        raised("NotADirectoryError: [Errno 20] Not a directory: '/out/file/x'"),
        "bad_setting",
        {"setting": "output_dir", "value": "/out/file/x"},
    ),
    "no-output": (
        raised(
            "TypeError: expected str, bytes or os.PathLike object, not NoneType",
            "os.makedirs(args.output_dir, exist_ok=True)",
        ),
        "bad_setting",
        {"setting": "output_dir"},
    ),
    "samples-without-prompts": (
        raised("TypeError: stat: path should be string, bytes, os.PathLike or integer, not NoneType") + BAR,
        "sample_prompts_missing",
        {},
    ),
    "prompts-missing": (
        raised(
            "FileNotFoundError: [Errno 2] No such file or directory: '/w/prompts.txt'",
            "load_prompts(args.sample_prompts)",
        ),
        "sample_prompts_missing",
        {"path": "/w/prompts.txt"},
    ),
    "config-missing": ("INFO: x\n/w/train.toml not found.\n", "config_unreadable", {"path": "/w/train.toml"}),
    "config-syntax": (
        raised(
            "toml.decoder.TomlDecodeError: invalid literal for int() with base 0: '= 3' (line 2 column 1 char 4)",
            "toml.load(f)",
        ),
        "config_unreadable",
        {},
    ),
    "dataset-config-missing": (
        raised("ValueError: file not found / ファイルが見つかりません: /w/dataset.toml"),
        "config_unreadable",
        {"path": "/w/dataset.toml"},
    ),
    "dataset-key": (
        raised(
            "voluptuous.error.MultipleInvalid: extra keys not allowed @ data['general']['no_such_key']",
            before="Invalid user config / ユーザ設定の形式が正しくないようです\n",
        ),
        "dataset_config_invalid",
        {},
    ),
    "truncated-picture": (
        raised("OSError: image file is truncated", "load_image", "Error loading file: /d/elena 02.png\n"),
        "image_unreadable",
        {"file": "/d/elena 02.png"},
    ),
    "truncated-cache": (
        raised(
            "zipfile.BadZipFile: File is not a zip file",
            "npz = np.load(npz_path)",
            "Error loading file: /d/elena_02_sd3_te.npz\n",
        ),
        "cache_corrupt",
        {"path": "/d/elena_02_sd3_te.npz"},
    ),
    "nan-latents": (
        raised("RuntimeError: NaN detected in latents: /d/elena_02.png"),
        "latents_nan",
        {"path": "/d/elena_02.png"},
    ),
    "truncated-0.4.5": (
        raised(
            "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
            before="Loading state dict from /m/clip_l.safetensors\n",
        ),
        "model_file_truncated",
        {"path": "/m/clip_l.safetensors"},
    ),
    **{
        f"unreadable-{wording}": (
            raised(f"safetensors_rust.SafetensorError: Error while deserializing header: {wording}"),
            "model_file_unreadable",
            {},
        )
        for wording in ["header too large", "header too small", "HeaderTooLarge", "HeaderTooSmall"]
    },
    "disk-full-0.4.5": (
        raised(
            "safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 28, kind: StorageFull, "
            'message: "No space left on device" })',
            before="saving checkpoint: /out/cg_elena-step00000008.safetensors\n",
        )
        + BAR,
        "disk_full",
        {"path": "/out/cg_elena-step00000008.safetensors"},
    ),
    "disk-full-caching": (raised("OSError: [Errno 28] No space left on device"), "disk_full", {}),
    "no-wandb": (
        raised("ImportError: No wandb / wandb がインストールされていないようです"),
        "missing_package",
        {"package": "wandb"},
    ),
    "no-prodigy": (
        raised("ImportError: No Prodigy / Prodigy がインストールされていないようです"),
        "missing_package",
        {"package": "prodigyopt"},
    ),
    "no-lycoris": (
        raised("ModuleNotFoundError: No module named 'lycoris'", before="import network module: lycoris.kohya\n"),
        "missing_package",
        {"package": "lycoris"},
    ),
    "broken-environment": (raised("ModuleNotFoundError: No module named 'library'"), "trainer_broken", {}),
    "old-gpu-build": (
        raised("RuntimeError: CUDA error: no kernel image is available for execution on the device"),
        "gpu_unusable",
        {},
    ),
    "old-driver": (
        raised(
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
            "driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
        ),
        "driver_too_old",
        {"cuda": "11.4"},
    ),
    "libuv": (
        raised("RuntimeError: use_libuv was requested but PyTorch was build without libuv support")
        + LAUNCHER.format(how="returned non-zero exit status 1"),
        "libuv_missing",
        {},
    ),
    "no-network": (
        raised("OSError: We couldn't connect to 'https://huggingface.co' to load the files"),
        "download_failed",
        {},
    ),
    "old-torch-oom": (
        raised(
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.99 GiB total "
            "capacity; 14.2 GiB already allocated)"
        )
        + BAR,
        "cuda_out_of_memory",
        {"tried": "2.00 GiB", "total": "15.99 GiB"},
    ),
    "oom-beside-others": (  # PyTorch 2.1's own words, its spelling as well, from reports
        raised(
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 96.00 MiB. GPU 0 has a total capacty "
            "of 23.56 GiB of which 64.94 MiB is free. Process 1762 has 260.00 MiB memory in use. Process 679073 has "
            "6.50 GiB memory in use. Including non-PyTorch memory, this process has 16.86 GiB memory in use."
        ),
        "cuda_out_of_memory",
        {"total": "23.56 GiB", "programs": ("process 1762, 260.00 MiB", "process 679073, 6.50 GiB")},
    ),
    "oom-in-a-container": (  # where the process takes itself for another
        raised(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.15 GiB. GPU 0 has a total capacity of "
            "23.69 GiB of which 912.81 MiB is free. Process 454738 has 22.79 GiB memory in use."
        ),
        "cuda_out_of_memory",
        {"total": "23.69 GiB", "programs": None},
    ),
    "oom-of-one-of-several": (
        raised("torch.OutOfMemoryError: CUDA out of memory.").replace("\n", "\n[rank0]: ")
        + "\n"
        + raised("torch.distributed.DistBackendError: NCCL error in: x"),
        "cuda_out_of_memory",
        {},
    ),
    "ram": (raised("MemoryError"), "host_out_of_memory", {}),
    "ram-torch": (
        raised(
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        "host_out_of_memory",
        {},
    ),
    "page-file": (
        raised("OSError: [WinError 1455] The paging file is too small for this operation to complete"),
        "host_out_of_memory",
        {},
    ),
    "ram-of-a-worker": (
        raised("RuntimeError: DataLoader worker (pid 77) is killed by signal: Killed."),
        "host_out_of_memory",
        {},
    ),
    "in-a-worker": (
        "RuntimeError: Caught AssertionError in DataLoader worker process 0.\n"
        + raised("AssertionError: caption file is empty / キャプションファイルが空です: /d/a.txt").replace(
            "Traceback", "Original Traceback"
        ),
        "caption_empty",
        {"path": "/d/a.txt"},
    ),
    "permissions": (
        raised("PermissionError: [Errno 13] Permission denied: '/out/cg_elena.safetensors'"),
        "permission_denied",
        {"path": "/out/cg_elena.safetensors"},
    ),
    "no-script": (
        "python: can't open file '/opt/sd-scripts/flux_train_network.py': [Errno 2] No such file or directory\n",
        "trainer_not_found",
        {"path": "/opt/sd-scripts"},
    ),
    "interrupted": (raised("KeyboardInterrupt") + BAR, "killed", {"signal": "SIGINT"}),
    "own-exception": (raised("mylib.errors.Strange: what is this") + BAR, "unknown", {"exit_code": 1}),
    "nothing-at-all": ("", "unknown", {"exit_code": 1}),
}


@pytest.mark.parametrize(("output", "code", "params"), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("launched", [False, True], ids=["direct", "accelerate"])
def test_an_exception_and_its_cause(output: str, code: str, params: dict[str, Any], launched: bool) -> None:
    output += "\n" + LAUNCHER.format(how="returned non-zero exit status 1") if launched and output else ""
    diagnosis = found(output)
    assert diagnosis.code == code
    assert {name: diagnosis.params.get(name) for name in params} == params
    assert explains(diagnosis)


def test_the_unknown_is_quoted() -> None:
    diagnosis = found(VALUES["own-exception"][0])
    assert diagnosis.evidence == ("mylib.errors.Strange: what is this",)
    assert "what is this" in diagnosis.cause


@pytest.mark.parametrize(
    ("output", "changes"),
    [
        (VALUES["scheduler"][0], {"lr_scheduler": "constant"}),
        (VALUES["bucket-step"][0], {"bucket_step": 64}),
        (VALUES["save-every-0"][0], {"save_every": 0}),
        (raised("ValueError: SchedulerType.CONSTANT does not require `num_warmup_steps`. Set None or 0."),
         {"lr_warmup_steps": 0}),
        (raised("ImportError: No bitsandbytes / bitsandbytesが"), {"optimizer": "AdamW"}),
        (raised("AssertionError: fp8_base requires mixed precision='fp16' or 'bf16' / x"), {"mixed_precision": "bf16"}),
        (raised("AssertionError: Cannot swap more than 17 double blocks and 36 single blocks. Requested 18 double"
                " blocks and 36 single blocks."), {"blocks_to_swap": 35}),
        (raised("AssertionError: Cannot swap more than -1 double blocks and -1 single blocks. Requested 0 double"
                " blocks and 2 single blocks."), {"blocks_to_swap": 0}),
        (raised("AssertionError: Cannot swap more than 22 blocks. Requested: 30 blocks."), {"blocks_to_swap": 22}),
    ],
)  # fmt: skip
def test_what_a_program_can_change(output: str, changes: dict[str, Any]) -> None:
    diagnosis = found(output)
    assert diagnosis.changes == changes
    Settings(**diagnosis.changes)
    name, value = next(iter(changes.items()))
    assert f"{name}={value!r}" in diagnosis.fix


@pytest.mark.parametrize(
    ("settings", "phase", "changes"),
    [
        (None, "training", {}),
        (Settings(resolution=1024), "sampling", {"sample_every": 0}),
        (Settings(gradient_checkpointing=False, batch_size=2), "training", {"gradient_checkpointing": True}),
        (Settings(batch_size=2, blocks_to_swap=0), "training", {"batch_size": 1}),
        (Settings(batch_size=1, blocks_to_swap=20, resolution=768), "training", {"blocks_to_swap": 28}),
        (Settings(batch_size=1, blocks_to_swap=35, resolution=1024), "training", {"resolution": 768}),
        (Settings(resolution=512, network_dim=32), "training", {"network_dim": 16}),
        (Settings(resolution=512, network_dim=4), "training", {"resolution": 384}),
        (Settings(resolution=256, network_dim=4), "training", {}),
    ],
)
def test_less_memory_step_by_step(settings: Settings | None, phase: str, changes: dict[str, Any]) -> None:
    lines = raised("torch.OutOfMemoryError: CUDA out of memory.").splitlines()
    diagnosis = diagnose(Failure(model_type="flux", exit_code=1, lines=lines, phase=phase, settings=settings))
    assert diagnosis is not None
    assert diagnosis.changes == changes


# ---- signals ----


@pytest.mark.parametrize(
    ("output", "exit_code", "code", "signal"),
    [
        ("loading\n", -9, "killed", "SIGKILL"),
        ("loading\n", -15, "killed", "SIGTERM"),
        ("loading\n", 137, "killed", "SIGKILL"),
        ("loading\n", 0xC000013A, "killed", "SIGINT"),
        ("", -2, "killed", "SIGINT"),
        (LAUNCHER.format(how="died with <Signals.SIGKILL: 9>"), 1, "killed", "SIGKILL"),
        (raised("ConnectionResetError: [Errno 104] Connection reset by peer") + BAR, -9, "killed", "SIGKILL"),
        (raised("ValueError: that was long ago"), -15, "killed", "SIGTERM"),
        ("loading\n", -11, "trainer_broken", None),
        ("Fatal Python error: Segmentation fault\n", 139, "trainer_broken", None),
        ("what():  CUDA out of memory. Tried to allocate 2.00 GiB\n", -6, "cuda_out_of_memory", None),
        (raised("MemoryError"), -9, "host_out_of_memory", None),
    ],
)
def test_ended_by_a_signal(output: str, exit_code: int, code: str, signal: str | None) -> None:
    diagnosis = found(output, exit_code)
    assert diagnosis.code == code
    assert signal is None or diagnosis.params["signal"] == signal
    assert explains(diagnosis)


# ---- exit code 0 ----

GOOD = LoraFacts(exists=True, fresh=True, complete=True, finite=True, trained=True)
SAVED = f"{BAR}\nsaving checkpoint: /o/cg_elena.safetensors\nmodel saved.\n"


@pytest.mark.parametrize(
    ("output", "lora", "code"),
    [
        (SAVED, None, None),
        (SAVED, GOOD, None),
        (raised("ImportError: no triton") + SAVED, GOOD, None),
        (raised("ImportError: no triton") + SAVED, None, None),
        (BAR.replace("0.319", "nan") + SAVED, None, "nan_loss"),
        (BAR.replace("0.319", "nan") + SAVED, GOOD, None),
        (SAVED, LoraFacts(exists=True, fresh=True, complete=True, finite=False, trained=True), "nan_loss"),
        (SAVED, LoraFacts(exists=True, fresh=True, complete=True, finite=True, trained=False), "nothing_learned"),
        (SAVED, LoraFacts(exists=True, fresh=True, problem="It ends in the middle."), "no_lora_written"),
        (SAVED, LoraFacts(exists=True, complete=True, finite=True), "no_lora_written"),
        (SAVED, LoraFacts(), "no_lora_written"),
        (BAR, None, "no_lora_written"),
        ("not directory: /d\nNo data found. Please verify arguments (x) / x\n", LoraFacts(), "dataset_empty"),
    ],
)
def test_exit_code_0_proves_nothing(output: str, lora: LoraFacts | None, code: str | None) -> None:
    diagnosis = diagnosis_of(output, 0, lora=lora)
    assert (diagnosis and diagnosis.code) == code
    assert diagnosis is None or explains(diagnosis)


def test_where_the_data_set_was_looked_for() -> None:
    rows = [
        f"2026-11-23 00:30:21 WARNING  {'not directory: /data/lora/no':32} train_util.py:2060",
        f"{' ' * 29}{'such folder':51}",
        f"{' ' * 20}ERROR    {'No data found. Please verify':31} train_network.py:576",
        f"{' ' * 29}{'arguments (x)':51}",
    ]
    assert found("\n".join(rows), 0).params["path"] == "/data/lora/no such folder"


def test_a_log_that_goes_on_is_no_failure() -> None:
    assert diagnosis_of("prepare images.\n" + BAR, None) is None
    assert found(raised("MemoryError"), None).code == "host_out_of_memory"


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (Settings(mixed_precision="fp16", learning_rate=1e-4), {"mixed_precision": "bf16"}),
        (Settings(mixed_precision="bf16", learning_rate=1e-3), {"learning_rate": 1e-4}),
        (Settings(optimizer="Prodigy", learning_rate=1.0), {}),
        (Settings(), {}),
    ],
)
def test_what_helps_against_nan(settings: Settings, changes: dict[str, Any]) -> None:
    assert found(BAR.replace("0.319", "nan") + SAVED, 0, settings=settings).changes == changes


# ---- all of them ----


def test_every_code_has_its_texts() -> None:
    for language in LANGUAGES:
        assert {rule.code for rule in RULES} <= set(texts_of(language))


def test_what_is_marked_as_from_reports_is_in_no_recording() -> None:
    """Where one proves it, it is not from reports any more. Out of memory is raised by hand."""
    logs = [*FAILURES.glob("*.log"), *(file.parent / "output.log" for file in CAPTURES)]
    by_hand = {FAILURES / "gpu-memory.log", FAILURES.parent / "captures/sd3-fail-out-of-memory/output.log"}
    lines = "\n".join(
        log.read_text(encoding="utf-8", errors="replace") for log in logs if log not in by_hand
    ).splitlines()
    reported = [rule for rule in RULES if rule.reported]
    assert {rule.code for rule in reported} >= {"cuda_out_of_memory", "driver_too_old", "libuv_missing", "gpu_unusable"}
    assert not [(rule.code, line) for rule in reported for line in lines if rule.match(line, "")]


WORDS = st.sampled_from(
    [
        "Traceback (most recent call last):",
        "During handling of the above exception, another exception occurred:",
        '  File "x", line 1, in load_target_model',
        "KeyError: 'x.weight'",
        "RuntimeError: CUDA out of memory.",
        "subprocess.CalledProcessError: Command died with <Signals.SIGKILL: 9>.",
        "x.py: error: argument a: invalid int value: '",
        "Error loading file: a.npz",
        "",
        "[rank0]: ",
    ]
)


@given(
    st.lists(WORDS | st.text(string.printable, max_size=40), max_size=12),
    st.none() | st.integers(-70, 300),
    st.booleans(),
    st.none() | st.just(GOOD) | st.just(LoraFacts()),
)
def test_no_log_is_too_strange(lines: list[str], exit_code: int | None, saved: bool, lora: LoraFacts | None) -> None:
    diagnosis = diagnose(Failure(model_type="x", exit_code=exit_code, lines=lines, model_saved=saved, lora=lora))
    assert diagnosis is None or explains(diagnosis)
    if exit_code:
        assert diagnosis is not None
