"""`cinderlora dataset`: what people read and programs get, the sheet it draws, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cinderlora import Preset
from cinderlora.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="terminals are POSIX's")
Draw = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's folders that are nobody's, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def elena(tmp_path: Path, draw: Draw) -> Path:
    """Twelve pictures in two forms, nothing wrong."""
    for n in range(12):
        draw(tmp_path / "sets" / "elena" / f"elena_{n:02}.png", (512, 512) if n % 3 else (512, 768))
    return tmp_path / "sets" / "elena"


class Said:
    """What a call of the command line in this process said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code = main(["dataset", *map(str, arguments)])
        self.out, self.err = capsys.readouterr()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def test_a_good_data_set(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, elena, "--trigger", "elena")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "elena"
    assert "12 (12 PNG)" in lines[1] and "12 decoded without a fault" in lines[1]
    assert "512x512 to 512x768, 8 square, 4 upright" in lines[2]
    assert '12 of 12, 12 begin with "elena"' in lines[3]
    assert "Buckets at 512 px" in said.out
    assert [line.split()[:2] for line in lines[6:8]] == [["384x576", "4"], ["512x512", "8"]]
    assert lines[6].count("█") * 2 == lines[7].count("█")
    assert "12 (repeats 1, batch 1)" in said.out
    assert said.out.endswith("Nothing is wrong with this data set.\n")


def test_errors_and_warnings(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elena / "bad.png").write_bytes(b"<html>")
    said = Said(capsys, elena)
    assert said.code == 1
    assert "Error [image_unreadable]" in said.err
    assert "bad.png (HTML)" in said.err
    assert said.err.index("Error") < said.err.index("Warning [caption_missing]")
    assert "1 error: it cannot be trained on like this." in said.err
    assert "--trigger WORD" in said.err
    (elena / "bad.png").unlink()
    (elena / "elena_00.txt").unlink()
    assert Said(capsys, elena).code == 0


def test_decoding_finds_what_headers_do_not(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = elena / "elena_00.png"
    file.write_bytes(file.read_bytes()[:-200])
    assert Said(capsys, elena).code == 1
    quick = Said(capsys, elena, "--no-decode")
    assert quick.code == 0
    assert "not decoded" in quick.out


def test_the_buckets_of_a_preset(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, elena, "-t", "sdxl", "-p", "16gb")
    assert "Buckets at 768 px" in said.out
    assert "120 (repeats 10, batch 1)" in said.out
    assert "13 for 1500 steps" in said.out
    other = Said(capsys, elena, "-t", "sdxl", "-p", "16gb", "--resolution", 256, "--batch-size", 4, "--repeats", 1)
    assert "Buckets at 256 px" in other.out
    assert "(repeats 1, batch 4)" in other.out


def test_the_buckets_of_a_preset_in_a_file(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Preset(name="mine", model_type="sdxl", base="16gb", resolution=640).save("cinderlora/presets/mine.toml")
    assert "Buckets at 640 px" in Said(capsys, elena, "-t", "sdxl", "-p", "mine").out


def test_records(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elena / "elena_00.txt").unlink()
    (record,) = Said(capsys, elena, "--trigger", "elena", "--steps", 100, "--json").records
    dataset, plan = record["dataset"], record["plan"]
    assert (dataset["path"], dataset["layout"]) == (str(elena), "flat")
    (problem,) = dataset["problems"]
    assert (problem["code"], problem["params"]["names"]) == ("caption_missing", ["elena_00.png"])
    pictures = dataset["subsets"][0]["pictures"]
    assert [p["problems"] for p in pictures[:2]] == [["caption_missing"], []]
    assert all(p["decoded"] for p in pictures)
    assert [(b["resolution"], b["count"]) for b in plan["buckets"]] == [([384, 576], 4), ([512, 512], 8)]
    assert (plan["steps_per_epoch"], plan["steps"], plan["epochs"]) == (12, 100, 9)


def test_german(elena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    said = Said(capsys, elena, "--trigger", "elena")
    assert "12 von 12, 12 beginnen mit „elena“" in said.out
    assert "Mit diesem Dataset ist alles in Ordnung." in said.out


def test_a_sheet(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, elena, "--trigger", "elena", "--sheet", "out.png")
    assert said.code == 0
    assert "Contact sheet: out.png" in said.out
    with Image.open("out.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 1000
    (record,) = Said(capsys, elena, "--sheet", "small.webp", "--json").records
    assert record["sheet"] == "small.webp"


@pytest.mark.parametrize(
    ("sheet", "code"), [("out.txt", "option_form"), ("no/such/folder/out.png", "folder_not_written")]
)
def test_a_sheet_that_cannot_be_written(elena: Path, capsys: pytest.CaptureFixture[str], sheet: str, code: str) -> None:
    said = Said(capsys, elena, "--sheet", sheet, "--json")
    assert (said.code, said.records[-1]["error"]["code"]) == (2, code)


def test_a_file_of_its_own_and_folders_with_repeats(
    elena: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("both.toml").write_text(
        '[[datasets]]\nresolution = 1024\n[[datasets.subsets]]\nimage_dir = "sets/elena"\nnum_repeats = 3\n'
    )
    said = Said(capsys, "both.toml", "-t", "sdxl", "-p", "16gb")
    assert "sets/elena: 12 x 3" in said.out
    assert "Warning [dataset_setting_differs]" in said.err
    asked = Said(capsys, "both.toml")
    assert "Buckets at 1024 px" in asked.out and "36 (batch 1)" in asked.out
    assert "dataset_setting_differs" not in asked.err
    assert "Buckets at 512 px" in Said(capsys, "both.toml", "--resolution", 512).out
    draw(Path("kohya/5_elena woman/a.png"))
    assert "5_elena woman: 1 x 5" in Said(capsys, "kohya").out


def test_the_configured_folder_of_data_sets(
    elena: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Said(capsys, "--json")
    assert (missing.code, missing.records[0]["error"]["code"]) == (2, "datasets_folder_missing")
    monkeypatch.setenv("CINDERLORA_DATASETS", str(elena.parent))
    (elena.parent / "nobody").mkdir()
    listed = Said(capsys)
    assert [line.split() for line in listed.out.splitlines()[1:]] == [
        ["elena", "12", "12", "ready", "elena"],
        ["nobody", "0", "0", "no", "pictures", "nobody"],
    ]
    assert [r["state"] for r in Said(capsys, "--json").records] == ["ready", "empty"]
    assert "12 (12 PNG)" in Said(capsys, "elena").out


@pytest.mark.parametrize("arguments", [["nowhere"], ["sets"]])
def test_no_data_set_there(elena: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    said = Said(capsys, *arguments)
    assert said.code == 1
    assert "Not a valid data set" in said.err


@pytest.mark.parametrize("arguments", [["-p", "16gb"], ["-t", "flx"], ["--resolution", "7"], ["--trigge", "x"]])
def test_wrong_requests(elena: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert Said(capsys, elena, *arguments).code == 2


def test_names_cannot_steer_the_terminal(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elena / "\x1b]0;owned\x07.png").write_bytes(b"x")
    (elena / "elena_00.txt").write_text("\x1b[2Jelena")
    said = Said(capsys, elena, "--trigger", "elena")
    assert "\x1b" not in said.out + said.err


def in_terminal(*arguments: str, code: int = 0, columns: int = 100) -> str:
    """What a command shows in a terminal of so many columns."""
    near, far = pty.openpty()
    command = [sys.executable, "-m", "cinderlora.cli", *arguments]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    with subprocess.Popen(command, stdout=far, stderr=far, env=environment) as process:
        os.close(far)
        shown = b""
        while select.select([near], [], [], 60)[0]:
            try:
                shown += os.read(near, 4096)
            except OSError:  # the end
                break
        assert process.wait(60) == code
    os.close(near)
    return shown.decode()


def test_in_a_terminal_a_bar_counts_the_pictures(elena: Path) -> None:
    text = in_terminal("dataset", str(elena), "--sheet", "out.png")
    assert "Looking at the pictures" in text and "Drawing the contact sheet" in text
    assert "12/12" in text


def test_in_a_terminal_sentences_are_broken_between_words(elena: Path) -> None:
    long = elena / f"{'a-very-long-name-' * 6}.png"
    long.write_bytes(b"no picture")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", in_terminal("dataset", str(elena), code=1, columns=60))
    lines = text.replace("\r", "\n").splitlines()
    start = next(n for n, line in enumerate(lines) if "[image_unreadable]" in line)
    told = [line for line in lines[start:] if line.strip()]
    assert told[0].endswith("Not every picture can be read.") and told[1] == "  Unreadable:"
    assert told[2] == f"  {long.name}."  # a name is left whole, for copying
    fix = next(n for n, line in enumerate(told) if line.startswith("  -> "))
    assert told[fix + 1].startswith("     ")
    assert all(len(line) <= 60 or line.strip() == f"{long.name}." for line in told)


def test_check_decodes(elena: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = elena / "elena_00.png"
    file.write_bytes(file.read_bytes()[:-200])
    code = main(["check", "-t", "sdxl", "-n", "elena", "-d", str(elena), "-o", "out", "-p", "16gb", "--rehearsal"])
    assert code == 2
    assert "elena_00.png" in capsys.readouterr().err
