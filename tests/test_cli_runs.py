"""`cinderlora runs`: list, show, compare, repeat, prune, as people and programs use them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cinderlora
from cinderlora import Registry, SdScripts
from cinderlora.cli import main
from cinderlora.cli.curves import plot
from cinderlora.demo import write_dataset
from cinderlora.folders import data_folder
from cinderlora.running import supervisor
from cinderlora.sync import launch, runs


class Said:
    """What a call of the command line in this process said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code = main(["runs", *map(str, arguments)])
        self.out, self.err = capsys.readouterr()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folders that are nobody's, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, two trainings of it that finished, and one that failed."""
    folder = tmp_path_factory.mktemp("workshop")
    write_dataset(folder / "elena")
    sdxl, small = Registry.from_installed()["sdxl"], {"resolution": 64, "steps": 6, "sample_every": 3, "save_every": 3}
    with pytest.MonkeyPatch.context() as patch:
        for name, changes in (("elena-dim4", {"network_dim": 4}), ("elena-dim8", {"network_dim": 8}), ("mara", {})):
            patch.setenv("CINDERLORA_REHEARSE", "oom@5" if name == "mara" else "")
            about = {"name": name, "trigger": "elena", "dataset": folder / "elena", "output": folder / "loras"}
            job = sdxl.job(**about, **{**small, **changes})
            with launch(sdxl.plan(job, SdScripts.rehearsal()), runs=folder / "runs") as run:
                run.wait()
    while supervisor.is_supervised(str(run.folder)):  # it goes a moment after its last word
        time.sleep(0.01)
    return folder


@pytest.fixture
def trained(workshop: Path, home: Path) -> list[str]:
    """The names of the run folders, the earliest first, in the person's own folder of runs."""
    shutil.copytree(workshop / "runs", data_folder() / "runs", symlinks=True)
    return [run.folder.name for run in reversed(runs())]


@pytest.fixture
def retold(workshop: Path) -> Iterator[Path]:
    """A caption that has changed since."""
    caption = workshop / "elena/elena_01.txt"
    was = caption.read_bytes()
    caption.write_text("elena, another one", encoding="utf-8")
    yield caption
    caption.write_bytes(was)


def test_runs_are_listed_by_default(trained: list[str], capsys: pytest.CaptureFixture[str], home: Path) -> None:
    table = [line.split() for line in Said(capsys).out.splitlines()]
    assert [row[0] for row in table] == ["State", "failed", "finished", "finished"]
    assert table[1][1:5] == ["mara", "sdxl", "4/6", "(66%)"]
    assert table[2][-1] == trained[1]
    assert [record["name"] for record in Said(capsys, "--json", "--limit", 1).records] == ["mara"]
    folder = runs()[0].folder.parent
    assert [r["name"] for r in Said(capsys, folder, "--json", "--name", "elena*").records] == [
        "elena-dim8",
        "elena-dim4",
    ]
    assert [r["name"] for r in Said(capsys, "list", "--state", "failed", "-t", "sdxl", "--json").records] == ["mara"]
    failed, *finished = Said(capsys, "--since", "1h", "--json").records
    assert len(finished) == 2
    assert failed["lora"] is None
    for record in finished:
        assert Path(record["lora"]).name == f"cg_{record['name']}.safetensors"
        assert record["ended"] >= record["created"]
        assert 0 < record["seconds"] < 60
    assert Said(capsys, "--since", "2099-01-01", "--json").records == []
    assert "No runs in elsewhere" in Said(capsys, "elsewhere").err
    # A folder may be called like a command, or nearly.
    (home / "shows").mkdir()
    assert "No runs in shows" in Said(capsys, "shows").err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["shwo"], "command_unknown"),
        (["--since", "yesterday"], "option_form"),
        (["prune", "--older-than", "3 days"], "option_form"),
        (["prune"], "usage"),
        (["compare", "elena"], "usage"),
        (["show"], "no_run"),
        (["repeat", "nobody"], "run_unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, *arguments, "--json")
    assert said.code == 2
    assert said.records[0]["error"]["code"] == code


def test_a_run_is_shown(trained: list[str], capsys: pytest.CaptureFixture[str], home: Path, workshop: Path) -> None:
    said = Said(capsys, "show", "elena-dim8", "--plot", "loss.png")
    assert said.code == 0
    assert said.out.startswith("elena-dim8 (Stable Diffusion XL): finished\n")
    assert "Loss: the moving average of the trainer's bar" in said.out
    assert any(0x2800 < ord(c) < 0x2900 for c in said.out)
    assert "network_dim = 8" in said.out
    assert f"Checkpoints (2): {workshop / 'loras'}" in said.out
    assert "cg_elena-dim8_000006_00_" in said.out
    assert (home / "loss.png").read_bytes().startswith(b"\x89PNG")
    (record,) = Said(capsys, "show", "elena-dim8", "--json").records
    assert (record["state"], record["step"], record["job"]["settings"]["network_dim"]) == ("finished", 6, 8)
    assert record["losses"]["source"] == "bar"
    assert record["losses"]["steps"] == [1, 2, 3, 4, 5, 6]
    assert record["ram_peak_bytes"] > 1e6
    assert Path(record["result"]["lora"]).exists()


def test_a_failed_run_is_shown_with_its_cure(
    trained: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said(capsys, "show")  # the newest
    assert said.out.startswith("mara (Stable Diffusion XL): failed")
    assert "Training failed [cuda_out_of_memory]" in said.err
    assert "\n  -> " in said.err
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    later = Said(capsys, "show", "mara")
    assert "gescheitert" in later.out
    assert "gleitender Durchschnitt" in later.out
    assert "Training fehlgeschlagen [cuda_out_of_memory]" in later.err


def test_runs_are_compared_by_what_differs(trained: list[str], capsys: pytest.CaptureFixture[str], home: Path) -> None:
    said = Said(capsys, "compare", "elena-dim4", "elena-dim8", "--plot", "both.svg")
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line}
    assert rows["Name"] == ["elena-dim4", "elena-dim8"]
    assert rows["network_dim"] == ["4", "8"]
    assert len(rows["Course"]) == 2
    assert "resolution" not in rows
    assert "elena-dim4" in (home / "both.svg").read_text(encoding="utf-8")
    four, eight = Said(capsys, "compare", "elena-dim4", "elena-dim8", "--json").records
    assert (four["settings"], eight["settings"]) == ({"network_dim": 4}, {"network_dim": 8})
    same = Said(capsys, "compare", "mara", trained[2])
    assert "do not differ" in same.out


def test_a_run_is_repeated(trained: list[str], capsys: pytest.CaptureFixture[str], workshop: Path) -> None:
    said = Said(capsys, "repeat", "elena-dim4", "--dry-run")
    assert said.code == 0
    assert f"Nothing has changed since {trained[0]}." in said.err
    assert "will be replaced" in said.err
    assert "--config_file" in said.out
    assert Said(capsys, "repeat", "elena-dim4", "--name", "again").code == 0
    assert (workshop / "loras/cg_again.safetensors").exists()


def test_what_has_changed_needs_a_word(
    trained: list[str], capsys: pytest.CaptureFixture[str], workshop: Path, retold: Path
) -> None:
    refused = Said(capsys, "repeat", "elena-dim4", "--name", "changed", "--json")
    assert refused.code == 2
    told, error = refused.records
    assert [change["code"] for change in told["changes"]] == ["changed_captions"]
    assert retold.with_suffix(".png").name in told["changes"][0]["message"]
    assert error["error"]["code"] == "repeat_changed"
    assert not (workshop / "loras/cg_changed.safetensors").exists()
    done = Said(capsys, "repeat", "elena-dim4", "--name", "changed", "--yes", "--json")
    assert done.code == 0
    assert done.records[-1]["event"] == "Finished"


@pytest.mark.usefixtures("retold")
@pytest.mark.skipif(os.name == "nt", reason="terminals are POSIX's")
def test_a_person_is_asked_before_something_else_is_trained(trained: list[str], workshop: Path) -> None:
    with Terminal("runs", "repeat", trained[0], "--name", "asked") as terminal:
        assert "Train anyway? [y/N]" in terminal.until("[y/N]")
        terminal.type("n\n")
        assert terminal.ended() == 130
    assert not (workshop / "loras/cg_asked.safetensors").exists()


class Terminal:
    """The command line in a process of its own that has a terminal."""

    def __init__(self, *arguments: str) -> None:
        import pty

        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "cinderlora.cli", *arguments])  # noqa: S606

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)

    def until(self, text: str) -> str:
        read = ""
        while text not in read:
            read += os.read(self._fd, 4096).decode("utf-8", "replace")
        return read

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def ended(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_old_runs_are_removed_only_when_that_is_said(
    trained: list[str], capsys: pytest.CaptureFixture[str], workshop: Path
) -> None:
    said = Said(capsys, "prune", "--keep", 1)
    assert [line.split()[-1] for line in said.out.splitlines()[1:]] == [trained[1], trained[0]]
    assert "Run folders that would go: 2" in said.err
    assert len(runs()) == 3
    assert "Nothing to remove" in Said(capsys, "prune", "--older-than", "1d").err
    *gone, summary = Said(capsys, "prune", "--state", "failed", "--state", "finished", "--yes", "--json").records
    assert [Path(one["folder"]).name for one in gone] == trained[::-1]
    assert summary == {"runs": 3, "bytes": sum(one["bytes"] for one in gone), "done": True}
    assert runs() == []
    assert (workshop / "loras/cg_elena-dim4.safetensors").exists()
    assert (workshop / "loras/sample").is_dir()


# ---- curves in a terminal --------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.floats(-1e9, 1e9)), min_size=1, max_size=300, unique_by=lambda p: p[0]
    ),
    st.integers(20, 120),
    st.integers(2, 12),
    st.booleans(),
)
def test_a_curve_fits_where_it_is_drawn(points: list[tuple[int, float]], width: int, height: int, plain: bool) -> None:
    lines = plot(sorted(points), width, height, plain=plain)
    assert len(lines) == height + 1
    assert all(len(line) <= width for line in lines)
    assert not plain or all(line.isascii() for line in lines)


def test_a_curve_goes_where_the_numbers_go() -> None:
    falling = plot([(1, 1.0), (2, 0.0)], 12, 3, plain=True)
    assert falling == ["1 |***", "  |   ***", "0 |      ***", "   1       2"]
    assert plot([(5, 0.5)], 12, 2, plain=True) == ["    |", "0.5 |*", "     5"]
    assert plot([(1, float("nan"))], 12, 2) == []
    # The first step's average is one loss: where it is drawn as one of many, it does not press the others down.
    leap = [(1, 9.0), *((n, 1.0 if n < 500 else 0.0) for n in range(2, 1001))]
    high = float(plot(leap, 12, 3, plain=True)[0].split()[0])
    assert 1 < high < 2
    assert cinderlora.LossCurve(source="bar").is_average
