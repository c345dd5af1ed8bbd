"""`cinderlora queue`: arguments in, lines, files and exit codes out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cinderlora import Diagnosis, Entry, Outcome, QueueError, Result, sync
from cinderlora.cli import main
from cinderlora.queues.comparing import Sample
from cinderlora.queues.sheet import draw_sheet


@pytest.fixture(autouse=True)
def _nobodys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("CINDERLORA_")]:
        monkeypatch.delenv(name)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


class Said:
    """What a call of the command line in this process said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code = main(["queue", *map(str, arguments)])
        self.out, self.err = capsys.readouterr()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="as the queue's other tests")
def test_a_sweep_from_the_first_word_to_the_contact_sheet(folder, pictures, tmp_path, capsys):
    small = ["--rehearsal", "--resolution", 64, "--steps", 4, "--save-every", 0, "--sample-every", 2]
    job = ["-t", "sdxl", "-n", "elena", "-d", pictures, "-o", tmp_path / "out", *small, "--queue", folder]
    swept = [*job, "--sweep", "network_dim=4,8", "--sweep", "optimizer=AdamW"]
    added = Said(capsys, "add", *swept)
    assert added.code == 0
    assert added.out.splitlines() == [
        "Added as 1: elena-dim4-optimizer-AdamW",
        "Added as 2: elena-dim8-optimizer-AdamW",
    ]
    assert Said(capsys, "add", *swept).code == 2  # the same LoRAs are on their way
    watched = Said(capsys, "watch", "--queue", folder)
    assert "elena-dim8-optimizer-AdamW: finished" in watched.out
    table = Said(capsys, "table", "--queue", folder, "--sheet", tmp_path / "sheet.png")
    heads, first, second = table.out.splitlines()[:3]
    assert heads.split() == ["ID", "Name", "network_dim", "Loss", "Time", "LoRA"]
    assert first.split()[:3] == ["1", "elena-dim4-optimizer-AdamW", "4"]
    assert second.split()[-1] == "cg_elena-dim8-optimizer-AdamW.safetensors"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * 256 and sheet.height > 2 * 256
    records = Said(capsys, "table", 2, "--queue", folder, "--json").records
    assert [sample["step"] for sample in records[0]["outcome"]["samples"]] == [2, 4]
    listed = Said(capsys, "list", "--queue", folder, "--json").records
    assert [record["entry"]["state"] for record in listed[1:]] == ["finished", "finished"]
    removed = Said(capsys, "remove", "--ended", "--queue", folder)
    assert removed.code == 0 and len(removed.out.splitlines()) == 2
    assert "is empty" in Said(capsys, "list", "--queue", folder).err


def test_the_list_and_what_changes_it(folder, make_plan, capsys, monkeypatch):
    queue = sync.Queue(folder)
    for name in ("ann", "ben", "eve\x1b[31m"):
        queue.add(make_plan(name), start=False)
    at = ["--queue", folder]
    assert Said(capsys, "hold", 1, *at).out == "Held: 1 ann\n"
    assert Said(capsys, "move", 3, *at).code == 0
    assert Said(capsys, "pause", *at).code == 0
    listed = Said(capsys, "list", *at)
    rows = [line.split()[:3] for line in listed.out.splitlines()[1:4]]
    assert [row[:2] for row in rows] == [["3", "waiting"], ["1", "held"], ["2", "waiting"]]
    assert "\x1b" not in listed.out and "The queue is paused" in listed.out
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "de")
    assert Said(capsys, "release", 1, *at).out == "Freigegeben: 1 ann\n"
    german = Said(capsys, "list", *at).out
    assert "Stand" in german and "wartet" in german and "macht Pause" in german
    assert Said(capsys, "remove", 1, 2, *at).out.splitlines() == ["Entfernt: 1 ann", "Entfernt: 2 ben"]
    records = Said(capsys, "list", "--json", *at).records
    assert records[0]["queue"]["paused"] and [r["entry"]["id"] for r in records[1:]] == [3]


def test_a_queue_that_stands_says_so(folder, make_plan, capsys):
    sync.Queue(folder).add(make_plan("ann"), start=False)
    assert "1 waiting. Start it: cinderlora queue run" in Said(capsys, "list", "--queue", folder).out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["hold", 7], "There is no entry 7 in the queue"),
        (["lsit"], "Did you mean queue list?"),
        (["remove"], "ID..."),
        (["run", "--gpus", "0", "--gpus-per-job", 2], "Each job is to have 2 GPUs"),
        (["table", "--sheet", "x.png"], "no samples"),
    ],
)
def test_what_is_wrong_is_said(folder, capsys, arguments, text):
    said = Said(capsys, *arguments, *([] if arguments == ["lsit"] else ["--queue", folder]))
    assert said.code == 2 and text in said.err


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        ("network_dum=1", "Did you mean network_dim?"),
        ("network_dim=", "no values of network_dim"),
        ("seed=1,1", "stands twice"),
        ("seed=x", "takes a value of type int"),
        ("seed", "--sweep"),
    ],
)
def test_a_sweep_that_is_none(folder, pictures, capsys, sweep, text):
    job = ["-t", "sdxl", "-n", "elena", "-d", pictures, "--rehearsal", "--queue", folder]
    said = Said(capsys, "add", *job, "--sweep", sweep)
    assert said.code == 2 and text in said.err
    assert not folder.exists()


def test_ctrl_c_ends_watching_only(folder, make_plan, go):
    queue = sync.Queue(folder)
    queue.add(make_plan("ann", "wait"))
    # As a terminal starts it: whoever runs the suite may have Ctrl-C ignored.
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{listens}; from cinderlora.cli import main; raise SystemExit(main())"
    argv = [sys.executable, "-c", script, "queue", "watch", "--queue", str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "ann: " in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "The queue goes on." in said
    go("ann")
    queue.wait()
    assert queue.entry(1).state == "finished"


# ---- the contact sheet -----------------------------------------------------------------------------------------------


def outcome(number: int, samples: dict[int, Path], **values: Any) -> Outcome:
    entry = Entry(id=number, name=f"job{number}", model_type="t", state="finished", added=0.0, lora="l", runs="r")
    drawn = [Sample(path, step) for step, path in samples.items()]
    return Outcome(entry=entry, samples=drawn, **values)


def test_a_row_for_each_job_and_a_column_for_each_step(tmp_path):
    paths = {}
    for colour in ("red", "lime", "blue"):
        paths[colour] = tmp_path / f"{colour}.png"
        Image.new("RGB", (512, 256), colour).save(paths[colour])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    sheet = draw_sheet(
        [
            outcome(1, {1: paths["red"], 2: paths["lime"]}, settings={"network_dim": 8}, loss=0.5),
            outcome(2, {2: tmp_path / "broken.png", 3: paths["blue"]}, result=Result(lora=Path("l")), loss=0.25),
            outcome(3, {}, diagnosis=Diagnosis("killed")),
        ],
        tmp_path / "sheet.png",
    )
    with Image.open(sheet) as picture:
        colours = {colour: count for count, colour in picture.getcolors(1 << 24)}
        size = picture.size
    assert {colours[c] for c in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]} == {256 * 128}
    assert size[0] > 3 * 256 and 2 * 128 < size[1] < 3 * 128  # two rows, no third


def test_a_row_has_room_for_its_settings(tmp_path):
    Image.new("RGB", (256, 32)).save(tmp_path / "a.png")
    settings = dict.fromkeys(["seed", "network_dim", "optimizer_args"], "x" * 60)
    sheet = draw_sheet([outcome(n, {1: tmp_path / "a.png"}, settings=settings) for n in (1, 2)], tmp_path / "sheet.png")
    with Image.open(sheet) as picture:
        assert picture.height > 2 * 6 * 20


def test_no_samples_no_sheet(tmp_path):
    with pytest.raises(QueueError, match="no samples"):
        draw_sheet([outcome(1, {})], tmp_path / "sheet.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(QueueError, match="cannot be written"):
        draw_sheet([outcome(1, {1: tmp_path / "a.png"})], tmp_path / "sheet.unheard")
