"""`cinderlora models`: what a person reads and what a program gets."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from cinderlora.cli import main
from cinderlora.cli.models import PROBLEMS_IN_A_WORD
from cinderlora.models import Tensor
from cinderlora.models.hollow import write_hollow
from cinderlora.texts import catalogue

FILES = {
    "diffusion_models/flux1-dev-fp8.safetensors": ("flux_dev", "F8_E4M3"),
    "diffusion_models/flux1-schnell.safetensors": ("flux_schnell", "BF16"),
    "unet/flux1-e5m2.safetensors": ("flux_dev", "F8_E5M2"),
    "text_encoders/clip_l.safetensors": ("clip_l", "F16"),
    "text_encoders/t5xxl.safetensors": ("t5xxl", "F16"),
    "vae/ae.safetensors": ("flux_ae", "BF16"),
}


@pytest.fixture
def folder(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What people have for FLUX, and what lies beside it."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "models"
    for name, (header, dtype) in FILES.items():
        known = json.loads(gzip.decompress((data / f"headers/{header}.json.gz").read_bytes()))
        write_hollow(root / name, {key: Tensor(dtype, tuple(shape)) for key, shape in known["tensors"].items()})
    (root / "checkpoints").mkdir()
    (root / "checkpoints/old.ckpt").write_bytes(b"\x80\x02")
    write_hollow(root / "upscale_models/4x.safetensors", {"body.0.rdb1.conv1.weight": Tensor("F16", (32, 64, 3, 3))})
    for number in range(3):
        write_hollow(root / f"loras/{number}.safetensors", {"lora_unet_a.lora_up.weight": Tensor("F16", (4, 4))})
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[str], str]:
    assert main(["models", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    return out.splitlines(), err


def test_what_would_be_used_is_marked_and_what_cannot_be_stands_apart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, err = said(capsys, folder, "--type", "flux")
    rows = [line.split() for line in lines]
    apart = next(number for number, line in enumerate(lines) if line.strip() == "Not usable")
    marked = {row[1]: row[2] for row in rows[:apart] if row[:1] == ["*"] and len(row) > 3}
    assert marked == {
        "model": "diffusion_models/flux1-dev-fp8.safetensors",
        "clip_l": "text_encoders/clip_l.safetensors",
        "t5xxl": "text_encoders/t5xxl.safetensors",
        "ae": "vae/ae.safetensors",
    }
    assert rows[2][1:] == ["model", "diffusion_models/flux1-dev-fp8.safetensors", "dev", "bfl", "fp8_e4m3fn",
                           *rows[2][6:]]  # fmt: skip
    (schnell,) = [line for line in lines[:apart] if "schnell.safetensors" in line]
    assert schnell.endswith("distilled")
    (refused,) = [line for line in lines[apart:] if "flux1-e5m2" in line]
    assert refused.endswith("FP8 e5m2")
    assert err.count("model_distilled") == err.count("model_fp8_e5m2") == 1


def test_what_else_lies_there_is_counted_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = said(capsys, folder)
    others = {" ".join(line.split()[:-2]): line.split()[-2:] for line in lines[lines.index("Also here") + 2 :] if line}
    assert others["LoRA 3 0.safetensors,"] == ["1.safetensors,", "..."]
    assert others["pickle"] == ["1", "old.ckpt"]
    assert others["Upscaler (ESRGAN)"] == ["1", "4x.safetensors"]


def test_in_german(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    lines, err = said(capsys, folder, "-t", "flux")
    assert any(line.strip() == "Nicht verwendbar" for line in lines) and "Außerdem hier" in lines
    assert any(line.endswith("destilliert") for line in lines)
    assert "die der Trainer ablehnt" in err


def test_a_program_gets_all_that_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = said(capsys, folder, "--type", "flux", "--json")
    records = {Path(record["path"]).name: record for record in map(json.loads, lines)}
    assert len(records) == len(FILES) + 5
    dev = records["flux1-dev-fp8.safetensors"]
    assert (dev["default"], dev["layout"], dev["precisions"]) == (True, "bfl", {"model": "fp8_e4m3fn"})
    assert dev["parameters"] == {"model": 11_901_408_320} and len(dev["layers"]["model"]) > 3
    assert [problem["code"] for problem in records["old.ckpt"]["problems"]] == ["model_pickle"]
    assert records["4x.safetensors"]["variant"] == "Upscaler (ESRGAN)"


def test_a_folder_that_is_a_model_is_a_row(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sdxl = folder / "diffusers/sdxl"
    attention = "attentions.0.transformer_blocks.{}.attn2.to_k.weight"
    unet = {f"down_blocks.1.{attention.format(0)}": (640, 2048), f"mid_block.{attention.format(9)}": (1280, 2048)}
    write_hollow(
        sdxl / "unet/diffusion_pytorch_model.safetensors", {key: Tensor("F16", side) for key, side in unet.items()}
    )
    (sdxl / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "U"]}')
    lines, err = said(capsys, folder, "-t", "sdxl")
    (row,) = [line for line in lines if "diffusers/sdxl" in line]
    assert row.split()[:4] == ["model", "diffusers/sdxl", "base", "diffusers"] and row.endswith("parts missing")
    assert "model_incomplete" in err


def test_names_from_files_cannot_steer_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hollow(folder / "a\x1b[2J.safetensors", {"lora_unet_a.lora_up.weight": Tensor("F16", (4, 4))})
    lines, err = said(capsys, folder)
    assert "\x1b" not in "".join(lines) + err


def test_every_problem_of_a_file_has_a_word_in_both_languages() -> None:
    beside = {
        "model_inside_wins",
        "model_is_lora",
        "model_not_for_type",
    }  # of jobs, and of what is listed as "also here"
    other = ("model_file_", "model_type_")
    codes = {code for code in catalogue("en") if code.startswith("model_") and not code.startswith(other)}
    assert set(PROBLEMS_IN_A_WORD) == codes - beside
    assert all(all(words) and max(map(len, words)) < 16 for words in PROBLEMS_IN_A_WORD.values())
