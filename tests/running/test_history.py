"""Looking back on runs: lists of many, losses from bars and trackers, what has changed, what can go."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cinderlora
from cinderlora import Plan, Progress, Registry, sync
from cinderlora.folders import cache_folder
from cinderlora.history.plotting import Curve, draw_curves, ticks
from cinderlora.history.tensorboard import Scalar, masked_crc, scalars
from cinderlora.models.hollow import write_hollow
from cinderlora.running import supervisor
from cinderlora.testing import sample_header

Planner = Callable[..., Plan]
Copier = Callable[..., Path]


@pytest.fixture
def ended(make_plan: Planner, run_folders: Path, registry: Registry) -> sync.Run:
    """A run that has ended well."""
    with sync.launch(make_plan(), runs=run_folders, registry=registry) as run:
        run.wait()
    while supervisor.is_supervised(str(run.folder)):  # it goes a moment after its last word
        time.sleep(0.01)
    return run


@pytest.fixture
def copy(ended: sync.Run, run_folders: Path) -> Copier:
    """Make a run folder like the one of the run that ended, with other records."""
    records = {name: json.loads((ended.folder / name).read_bytes()) for name in ("launch.json", "state.json")}

    def make(number: int, *, runs: Path = run_folders, state: dict[str, Any] | None = None, **launch: Any) -> Path:
        folder = runs / f"run{number:04d}"
        folder.mkdir(parents=True)
        about = {"id": f"{number:016x}", "created": 1000.0 + number, **launch}
        for name, changes in (("launch.json", about), ("state.json", state or {})):
            (folder / name).write_text(json.dumps(records[name] | changes))
            os.utime(folder / name, (time.time() - 3600,) * 2)  # what changed just now is not kept
        (folder / "output.log").write_bytes((ended.folder / "output.log").read_bytes())
        return folder

    return make


def names(runs: list[sync.Run]) -> list[str]:
    return [run.folder.name for run in runs]


# ---- lists -----------------------------------------------------------------------------------------------------------


def test_runs_are_listed_by_what_is_asked(copy: Copier, ended: sync.Run, registry: Registry) -> None:
    copy(1, name="elena")
    copy(2, name="elena-dim8", state={"exit_code": 1})
    copy(3, name="mara", model_type="other")
    copy(4, name="mara", state={"exit_code": None, "stopped_by": "me", "lora": {}})
    folder = ended.folder.parent
    shutil.rmtree(ended.folder)

    def listed(**about: Any) -> list[str]:
        return names(sync.runs(folder, registry=registry, **about))

    assert listed() == ["run0004", "run0003", "run0002", "run0001"]
    assert listed(limit=1) == ["run0004"]
    assert listed(state="failed") == ["run0002"]
    assert listed(state={"failed", "stopped"}) == ["run0004", "run0002"]
    assert listed(state="finished", limit=1) == ["run0003"]
    assert listed(name="elena*") == ["run0002", "run0001"]
    assert listed(name="elena") == ["run0001"]
    assert listed(model_type="other") == ["run0003"]
    assert listed(since=1003.0) == ["run0004", "run0003"]
    assert listed(since=datetime.fromtimestamp(1002.0), name="mara", limit=1) == ["run0004"]
    assert names(cinderlora.runs(folder, state="stopped", registry=registry)) == ["run0004"]  # type: ignore[arg-type]
    assert listed(state="running") == []
    assert sync.runs(folder / "nowhere", registry=registry) == []


def test_a_run_says_how_long_it_took(ended: sync.Run, copy: Copier, registry: Registry) -> None:
    assert ended.seconds is not None
    assert ended.seconds == ended.result.seconds
    assert ended.ended is not None
    assert ended.figures == (4, 4, 0.25)
    lost = copy(1)
    (lost / "state.json").unlink()
    with pytest.raises(cinderlora.TrainingFailed):
        _ = sync.attach(lost, registry=registry).result
    assert (sync.attach(lost, registry=registry).ended, sync.attach(lost, registry=registry).seconds) == (None, None)


@pytest.fixture
def many(copy: Copier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """So many runs that an index is kept of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(120):
        copy(number, runs=tmp_path / "many", state={"exit_code": 1} if number % 3 else None)
    return tmp_path / "many"


def seen(folder: Path, registry: Registry) -> list[tuple[object, ...]]:
    """All that a list says, and whether it says so from the index."""
    found = sync.runs(folder, registry=registry)
    return [(run.folder, run.name, run.model_type, run.created, run.state, run.ended, run.seconds) for run in found]


def from_index(folder: Path, registry: Registry) -> set[str]:
    return {run.folder.name for run in sync.runs(folder, registry=registry) if run._folder.listed is not None}


def test_a_list_of_many_is_kept_and_never_stale(many: Path, copy: Copier, registry: Registry) -> None:
    before = seen(many, registry)
    assert len(list((cache_folder() / "runs").iterdir())) == 1
    assert len(from_index(many, registry)) == 120
    assert seen(many, registry) == before
    # One that ends otherwise, one that is launched otherwise, one that is gone, one that is new.
    state = json.loads((many / "run0003/state.json").read_bytes())
    (many / "run0003/state.json").write_text(json.dumps(state | {"exit_code": 7}))
    launch = json.loads((many / "run0006/launch.json").read_bytes())
    (many / "run0006/launch.json").write_text(json.dumps(launch | {"name": "mara"}))
    shutil.rmtree(many / "run0009")
    copy(500, runs=many)
    (many / "run0012/state.json").unlink()
    (many / "run0015/launch.json").write_text("{}")
    now = {run.folder.name: run for run in sync.runs(many, registry=registry)}
    assert len(now) == 119
    assert (now["run0003"].state, now["run0006"].name, now["run0012"].state) == ("failed", "mara", "lost")
    assert {"run0009", "run0015"} & set(now) == set()
    assert now["run0500"].state == "finished"
    del now
    # What changed just now may change again unseen, and what has not ended goes on: those are read each time.
    assert {"run0003", "run0006", "run0012"} & from_index(many, registry) == set()
    assert len(from_index(many, registry)) == 116


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: "",
        lambda told: "[" * 100_000,
        lambda told: json.dumps(told)[:-10],
        lambda told: json.dumps(told | {"format": 2}),
        lambda told: json.dumps(told | {"folder": "/elsewhere"}),
        lambda told: json.dumps(told | {"created": ["soon"] * 120}),
        lambda told: json.dumps(told | {"state_size": told["state_size"][1:]}),
        lambda told: json.dumps(told | {"asked": None}),
        lambda told: json.dumps([told]),
    ],
)
def test_an_index_that_is_damaged_is_made_anew(
    damage: Callable[[dict[str, Any]], str], many: Path, registry: Registry
) -> None:
    before = seen(many, registry)
    (index,) = (cache_folder() / "runs").iterdir()
    index.write_text(damage(json.loads(index.read_bytes())))
    assert seen(many, registry) == before
    assert len(from_index(many, registry)) == 120


def test_the_last_figures_are_kept_with_the_list(many: Path, registry: Registry) -> None:
    first = {run.folder.name: run.figures for run in sync.runs(many, registry=registry)}
    assert first["run0007"] == (4, 4, 0.25)
    for log in many.glob("*/output.log"):
        log.unlink()
    assert {run.folder.name: run.figures for run in sync.runs(many, registry=registry)} == first


@pytest.mark.parametrize("noise", [0, 20_000, 300_000, 1_100_000])
def test_the_last_figures_are_the_followers(noise: int, ended: sync.Run, registry: Registry) -> None:
    """However much was printed behind the last step."""
    log = (ended.folder / "output.log").read_bytes() + (b"x" * 79 + b"\n") * (noise // 80)
    (ended.folder / "output.log").write_bytes(log)
    state = json.loads((ended.folder / "state.json").read_bytes()) | {"log_length": len(log)}
    (ended.folder / "state.json").write_text(json.dumps(state))
    run = sync.attach(ended.folder, registry=registry)
    assert run.figures == (run.status.step, run.status.total, run.status.loss) == (4, 4, 0.25)


def test_the_last_figures_of_a_log_cut_off_anywhere(copy: Copier, registry: Registry) -> None:
    whole = (Path(cinderlora.__file__).parent / "testing/recordings/complete.log").read_bytes() * 4
    folder = copy(1)
    state = json.loads((folder / "state.json").read_bytes())
    for length in range(0, len(whole), len(whole) // 25):
        (folder / "output.log").write_bytes(whole[:length])
        (folder / "state.json").write_text(json.dumps(state | {"log_length": length, "exit_code": 1}))
        run = sync.attach(folder, registry=registry)
        total = None if run.status.step is None else run.status.total  # which a status knows from the start
        assert run.figures == (run.status.step, total, run.status.loss), length


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_losses_from_the_bar_are_averages(ended: sync.Run) -> None:
    curve = ended.losses()
    assert (curve.source, curve.is_average, curve.loss, curve.learning_rate) == ("bar", True, (), ())
    last = {event.step: event.loss for event in ended.events() if isinstance(event, Progress)}
    assert curve.steps == (1, 2, 3, 4) == tuple(last)
    assert curve.average == tuple(last.values())


@pytest.fixture
def tracked(data: Path) -> Path:
    """What sd-scripts 0.10.1 wrote in a training of SD3 of 12 steps, with the schedule "cosine"."""
    (path,) = (data / "tracker").iterdir()
    return path


def wants_tracker(folder: Path, **extra: str) -> None:
    from cinderlora.serial import toml_text

    settings = {"settings": {"extra": {"log_with": "tensorboard", **extra}}}
    (folder / "run.toml").write_text(toml_text({"job": settings}))


def test_losses_from_a_tracker_are_those_of_each_step(
    copy: Copier, tracked: Path, registry: Registry, tmp_path: Path
) -> None:
    folder = copy(1, first_step=100)
    place = folder / "tracked/20261124095355/network_train" / tracked.name
    place.parent.mkdir(parents=True)
    shutil.copy(tracked, place)
    assert sync.attach(folder, registry=registry).losses().source == "bar"  # nobody asked for a tracker
    wants_tracker(folder)
    curve = sync.attach(folder, registry=registry).losses()
    assert (curve.source, curve.is_average) == ("tracker", False)
    assert curve.steps == tuple(range(101, 113))
    assert [round(loss or 0, 4) for loss in curve.loss[:3]] == [0.2586, 0.3338, 2.4733]
    assert [round(loss or 0, 4) for loss in curve.average[:3]] == [0.2586, 0.2962, 1.0219]
    assert [f"{rate:.3g}" for rate in curve.learning_rate][::11] == ["9.83e-05", "0"]
    # Cut off in the middle of a record, as while it is written.
    place.write_bytes(tracked.read_bytes()[:1000])
    cut = sync.attach(folder, registry=registry).losses()
    assert (cut.steps, cut.loss[-1], cut.learning_rate[-1]) == (curve.steps[:5], curve.loss[4], None)
    place.write_bytes(bytes(1000))
    assert sync.attach(folder, registry=registry).losses().source == "bar"


def test_in_a_folder_of_several_runs_only_the_runs_own_files_count(
    copy: Copier, tracked: Path, registry: Registry, tmp_path: Path
) -> None:
    state = {"started": 1795514070.0, "ended": 1795514090.0, "trainer": {"pid": 1513, "start": "x"}}
    folder, shared = copy(1, state=state), tmp_path / "shared"
    wants_tracker(folder, logging_dir=str(shared))
    run = sync.attach(folder, registry=registry)
    assert run.losses().source == "bar"  # there is no such folder
    shared.mkdir()
    for other in ("1795514078.host.999.0", "1795510000.host.1513.0", "1795514078", "soon.host.1513.0"):
        shutil.copy(tracked, shared / f"events.out.tfevents.{other}")
    assert run.losses().source == "bar"
    shutil.copy(tracked, shared)
    assert run.losses().source == "tracker"


def test_a_tracker_gets_a_folder_in_the_run_and_a_warning_where_it_is_missing(pictures: Path, tmp_path: Path) -> None:
    for name in ("train_network.py", "sdxl_train_network.py"):
        (tmp_path / name).touch()
    sdxl = Registry.from_installed()["sdxl"]
    about: dict[str, Any] = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": tmp_path / "loras"}
    job = sdxl.job(**about, extra={"log_with": "tensorboard"})
    trainer = cinderlora.SdScripts(tmp_path, python=sys.executable)  # which has no TensorBoard
    assert "tracker_package" in [problem.code for problem in sdxl.check(job, trainer).warnings]
    assert "tracker_package" not in [problem.code for problem in sdxl.check(sdxl.job(**about), trainer).problems]

    def table(job: cinderlora.Job) -> dict[str, Any]:
        text = sdxl.plan(job, cinderlora.SdScripts.rehearsal()).files["elena_kohya_training.toml"]
        found: dict[str, Any] = tomllib.loads(text)["training"]
        return found

    assert table(job)["logging_dir"] == "tracked"
    assert table(job.evolve(extra={"log_with": "tensorboard", "logging_dir": "/logs"}))["logging_dir"] == "/logs"
    assert "logging_dir" not in table(sdxl.job(**about))


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def message(*fields: tuple[int, bytes | float | int]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def logged(tag: str, step: int, value: float) -> bytes:
    summary = message((1, message((1, tag.encode()), (2, value), (9, b"\n\t"))))
    return record(varint(1 << 3 | 1) + struct.pack("<d", 1e9) + message((2, step), (5, summary)))


numbers = st.builds(
    Scalar, st.text(min_size=1, max_size=20), st.integers(0, (1 << 63) - 1), st.floats(width=32, allow_nan=False)
)


@given(st.lists(numbers, max_size=8), st.data())
def test_numbers_are_read_as_they_were_written(wanted: list[Scalar], draw: st.DataObject) -> None:
    parts = [logged(*scalar) for scalar in wanted]
    assert list(scalars(BytesIO(b"".join(parts)))) == wanted
    cut = draw.draw(st.integers(0, sum(map(len, parts))))
    whole = list(scalars(BytesIO(b"".join(parts)[:cut])))
    assert whole == wanted[: len(whole)]
    assert sum(map(len, parts[: len(whole)])) <= cut


def test_the_checksum_is_tensorflows() -> None:
    # RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8A9136AA.
    crc = (masked_crc(bytes(32)) - 0xA282EAD8) & 0xFFFFFFFF
    assert (crc >> 17 | crc << 15) & 0xFFFFFFFF == 0x8A9136AA


@given(st.binary(max_size=300))
def test_no_bytes_are_too_much_for_the_reader(junk: bytes) -> None:
    list(scalars(BytesIO(junk)))
    list(scalars(BytesIO(record(junk) + record(message((5, message((1, junk)))) + junk))))


@given(st.data())
def test_a_damaged_file_gives_numbers_or_none(draw: st.DataObject) -> None:
    whole = bytearray(b"".join(logged("loss/current", step, 0.5) for step in range(4)))
    for at in draw.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = draw.draw(st.integers(0, 255))
    assert len(list(scalars(BytesIO(bytes(whole))))) <= 4


def test_what_is_no_number_is_passed_over() -> None:
    large = record(message((5, bytes(2 << 20))))
    found = scalars(BytesIO(logged("a", 1, 0.5) + large + record(b"") + record(b"\xff") + logged("b", 2, 1.5)))
    assert list(found) == [Scalar("a", 1, 0.5), Scalar("b", 2, 1.5)]


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_drawn(ended: sync.Run, tmp_path: Path) -> None:
    from PIL import Image

    curves = [Curve("elena <&>", ended.losses()), Curve("mara\x1b", ended.losses())]
    with Image.open(draw_curves(curves, tmp_path / "losses.png", title="elena")) as picture:
        assert (picture.format, picture.width) == ("PNG", 1200)
        assert len(picture.getcolors(1 << 20) or ()) > 4
    drawn = draw_curves(curves, tmp_path / "losses.svg", title="elena").read_text(encoding="utf-8")
    assert "elena &lt;&amp;&gt;" in drawn
    assert "\x1b" not in drawn
    for path, code in ((tmp_path / "x.txt", "file_not_written"), (tmp_path / "no/x.png", "file_not_written")):
        with pytest.raises(cinderlora.ConfigError) as refused:
            draw_curves(curves, path)
        assert refused.value.code == code
    with pytest.raises(cinderlora.ConfigError) as refused:
        draw_curves([Curve("empty", cinderlora.LossCurve(source="bar"))], tmp_path / "x.png")
    assert refused.value.code == "plot_empty"


def test_one_leap_does_not_press_a_long_curve_down(tmp_path: Path) -> None:
    """It is drawn as one of many; the curve has all of the height."""
    losses = [5.0, *(1.0 - n / 20_000 for n in range(1, 10_000))]
    curve = cinderlora.LossCurve(source="bar", steps=range(1, 10_001), average=losses)
    drawn = draw_curves([Curve("elena", curve)], tmp_path / "loss.svg").read_text(encoding="utf-8")
    (points,) = re.findall(r'points="([^"]*)"[^>]*stroke-width="2.6"', drawn)
    heights = [float(point.partition(",")[2]) for point in points.split()]
    assert min(heights) < 120
    assert heights[1] < 250, "the second point is as high as its loss"


losses_drawn = st.lists(st.none() | st.floats(width=32), min_size=1, max_size=50)


@given(losses_drawn, losses_drawn)
def test_every_curve_can_be_drawn(average: list[float | None], loss: list[float | None]) -> None:
    from tempfile import TemporaryDirectory

    count = min(len(average), len(loss))
    curve = cinderlora.LossCurve(
        source="tracker", steps=range(1, count + 1), average=average[:count], loss=loss[:count]
    )
    with TemporaryDirectory() as folder:
        if any(value is not None and math.isfinite(value) for value in curve.average):
            text = draw_curves([Curve("x", curve)], Path(folder) / "x.svg").read_text()
            assert "nan" not in text
            assert "inf" not in text


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_few(low: float, reach: float, most: int) -> None:
    found = ticks(low, low + reach, most)
    assert len(found) <= most + 1
    room = reach * 1e-6 + 4 * math.ulp(abs(low) + reach)
    assert all(low - room <= tick <= low + reach + room for tick in found)


# ---- repeating -------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(pictures: Path, tmp_path: Path) -> Iterator[sync.Run]:
    """A rehearsal with real records, of an SDXL checkpoint that is a header and nothing else."""
    model = tmp_path / "sdxl.safetensors"
    write_hollow(model, sample_header("sdxl_base", dtype="F16").tensors)
    sdxl = Registry.from_installed()["sdxl"]
    job = sdxl.job(
        name="elena",
        trigger="elena",
        dataset=pictures,
        output=tmp_path / "loras",
        resolution=64,
        steps=4,
        save_every=0,
        models={"model": model},
    )
    with sync.launch(sdxl.plan(job, cinderlora.SdScripts.rehearsal()), runs=tmp_path / "runs") as run:
        run.wait()
    yield run
    for left in sync.runs(tmp_path / "runs"):
        left.stop(grace=0)


def test_the_same_again_from_the_record_alone(trained: sync.Run, tmp_path: Path) -> None:
    assert trained.result.lora.name == "cg_elena.safetensors"
    assert trained.job.settings.steps == 4
    assert trained.changes() == ()
    with trained.repeat(name="again") as again:
        again.wait()
    assert again.result.lora == tmp_path / "loras/cg_again.safetensors"
    assert again.losses().average == trained.losses().average
    assert again.folder.parent == trained.folder.parent


@pytest.mark.anyio
async def test_the_same_again_in_async_code(trained: sync.Run) -> None:
    async with cinderlora.attach(trained.folder).repeat(name="again", detach=True) as again:
        await again.wait()
    assert again.result.steps == 4


def test_what_has_changed_is_said(trained: sync.Run, pictures: Path, tmp_path: Path, draw: Callable[..., Path]) -> None:
    soon = time.time() + 5  # file systems and clocks are coarse
    (pictures / "elena_01.txt").write_text("elena, another ball", encoding="utf-8")
    draw(pictures / "elena_02.png", size=(128, 128), caption=None)
    os.utime(pictures / "elena_02.png", (soon, soon))
    draw(pictures / "new.png", size=(128, 128))
    (pictures / "elena_05.png").unlink()
    with (tmp_path / "sdxl.safetensors").open("r+b") as model:
        model.truncate((tmp_path / "sdxl.safetensors").stat().st_size + 4096)
    record = trained.folder / "run.toml"
    old = record.read_text(encoding="utf-8").replace(f'"{cinderlora.__version__}"', '"0.0.9"')
    record.write_text(old, encoding="utf-8")
    config = trained.folder / "elena_kohya_training.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("seed = 42", "seed = 7"), encoding="utf-8")
    write_hollow(tmp_path / "sdxl.safetensors", sample_header("sdxl_base", dtype="F32").tensors)

    said = {problem.code: problem for problem in trained.changes()}
    assert list(said) == [
        "changed_cinderlora",
        "changed_trainer",
        "changed_model",
        "changed_pictures",
        "changed_captions",
        "changed_settings",
    ]
    assert said["changed_trainer"].params == {"was": "0.0.9", "now": cinderlora.__version__}
    assert said["changed_model"].params["role"] == "model"
    assert said["changed_model"].params["was"] != said["changed_model"].params["now"]
    assert said["changed_pictures"].params == {
        "added": ["new.png"],
        "gone": ["elena_05.png"],
        "replaced": ["elena_02.png"],
    }
    assert said["changed_captions"].params == {"names": ["elena_01.png"]}
    assert "seed (7 -> 42)" in said["changed_settings"].params["settings"]
    assert "elena_05.png" in str(said["changed_pictures"])
    assert trained.repeat_plan().warnings[:6] == tuple(said.values())


def test_a_picture_of_the_same_name_and_time_is_noticed(trained: sync.Run, pictures: Path) -> None:
    old = (pictures / "elena_02.png").stat()
    shutil.copy(pictures / "elena_03.png", pictures / "elena_02.png")
    os.utime(pictures / "elena_02.png", (old.st_atime - 900, old.st_mtime - 900))
    assert [problem.code for problem in trained.changes()] == ["changed_dataset"]


def test_copies_instead_of_links_are_compared_too(trained: sync.Run, pictures: Path) -> None:
    """As on a system that allows no links: then the view does not say where a picture was from."""
    for link in list(trained.folder.glob("dataset/*/*.png")):
        source = link.readlink()
        link.unlink()
        shutil.copy2(source, link)
    (pictures / "elena_05.png").unlink()
    (problem,) = trained.changes()
    assert (problem.code, problem.params["gone"]) == ("changed_pictures", ["006-elena_05.png"])


def test_what_cannot_be_repeated_is_refused(trained: sync.Run, pictures: Path, ended: sync.Run) -> None:
    with pytest.raises(cinderlora.ConfigError):
        ended.repeat_plan()
    record = trained.folder / "run.toml"
    told = record.read_text(encoding="utf-8")
    origin = '\n[resumed_from]\nrun = "/x"\npath = "/x/gone"\nkind = "state"\nstep = 2\n'
    record.write_text(told + origin, encoding="utf-8")
    with pytest.raises(cinderlora.JobRefused) as refused:
        trained.repeat_plan()
    assert refused.value.code == "repeat_origin_missing"
    record.write_text(told, encoding="utf-8")
    shutil.rmtree(pictures)
    with pytest.raises(cinderlora.JobRefused) as refused:
        trained.changes()
    assert refused.value.code == "dataset_not_found"


# ---- pruning ---------------------------------------------------------------------------------------------------------


def test_nothing_goes_unless_it_is_said(copy: Copier, ended: sync.Run) -> None:
    runs = ended.folder.parent
    for number in range(4):
        copy(number, state={"ended": time.time() - 86_400 * (4 - number)})
    copy(9, state={"exit_code": 1})
    shutil.rmtree(ended.folder)
    with pytest.raises(TypeError):
        cinderlora.prune_runs(runs)
    would = cinderlora.prune_runs(runs, older_than=timedelta(days=1.5), keep=1)
    assert [run.folder.name for run in would.going] == ["run0002", "run0001", "run0000"]
    assert not would.done
    assert would.bytes >= sum(file.stat().st_size for file in (runs / "run0000").iterdir())
    assert len(list(runs.iterdir())) == 5
    done = cinderlora.prune_runs(runs, older_than=timedelta(days=1.5), keep=1, delete=True)
    assert (done.done, [run.name for run in done.going]) == (True, [run.name for run in would.going])
    assert sorted(path.name for path in runs.iterdir()) == ["run0003", "run0009"]
    cinderlora.prune_runs(runs, state="failed", delete=True)
    cinderlora.prune_runs(runs, keep=0, name="mara", delete=True)
    assert [path.name for path in runs.iterdir()] == ["run0003"]


def test_only_the_run_folder_goes(copy: Copier, ended: sync.Run, tmp_path: Path) -> None:
    runs = ended.folder.parent
    picture, outside = tmp_path / "mine.png", tmp_path / "outside"
    picture.write_bytes(b"mine")
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    folder = copy(1)
    (folder / "dataset").mkdir()
    (folder / "dataset/001.png").symlink_to(picture)
    (folder / "dataset/002.png").hardlink_to(picture)
    (folder / "dataset/elsewhere").symlink_to(outside, target_is_directory=True)
    (runs / "linked").symlink_to(copy(2, runs=tmp_path / "other"), target_is_directory=True)
    (runs / "no run").mkdir()
    (runs / ".cinderlora-removed-run0007").mkdir()  # what an earlier call could not finish
    lora = ended.result.lora
    done = cinderlora.prune_runs(runs, keep=0, delete=True)
    assert {run.folder.name: run.kept for run in done.runs} == {
        ended.folder.name: "",
        "run0001": "",
        "linked": "is_link",
    }
    assert sorted(path.name for path in runs.iterdir()) == ["linked", "no run"]
    assert picture.read_bytes() == b"mine"
    assert (outside / "kept.txt").read_text() == "kept"
    assert lora.exists()
    assert (tmp_path / "other/run0002/state.json").exists()


def test_a_run_that_goes_on_or_was_lost_stays(
    make_plan: Planner, run_folders: Path, registry: Registry, copy: Copier, ended: sync.Run
) -> None:
    lost, nobody_saw = copy(1, created=0.0), copy(2, state={"exit_code": None, "lora": {}})
    (lost / "state.json").unlink()
    with sync.launch(
        make_plan("train()\ntime.sleep(600)", lora="cg_other.safetensors"),
        runs=run_folders,
        registry=registry,
        detach=True,
    ) as run:
        done = cinderlora.prune_runs(run_folders, keep=0, delete=True)
        assert [one.folder for one in done.runs] == [ended.folder]
        assert run.state == "running"
        assert run.folder.exists()
        assert lost.exists()
        assert nobody_saw.exists()
        run.stop(grace=0)


def test_a_lora_that_is_nowhere_else_keeps_its_run(copy: Copier, tmp_path: Path) -> None:
    loras = tmp_path / "loras"
    loras.mkdir()
    for number, how in enumerate(("alone", "linked", "copied", "lost")):
        state = {"published": {"cg_elena.safetensors": f"{how}.safetensors"}} if how != "alone" else {}
        folder = copy(number, output="output", publish=str(loras), state=state)
        (folder / "output/cg_elena-step00000002-state").mkdir(parents=True)
        (folder / "output/cg_elena-step00000002-state/model.safetensors").write_bytes(b"a state")
        (folder / "output/cg_elena.safetensors").write_bytes(b"a lora")
        if how == "linked":
            (loras / "linked.safetensors").hardlink_to(folder / "output/cg_elena.safetensors")
        elif how == "copied":
            (loras / "copied.safetensors").write_bytes(b"a lora")
    runs = tmp_path / "runs"
    done = cinderlora.prune_runs(runs, keep=0, model_type="toy", delete=True)
    assert {run.folder.name: run.kept for run in done.runs if run.folder.name.startswith("run")} == {
        "run0000": "has_lora",
        "run0001": "",
        "run0002": "",
        "run0003": "has_lora",
    }
    assert next(run for run in done.runs if run.kept).loras == (runs / "run0003/output/cg_elena.safetensors",)
    assert (runs / "run0000/output/cg_elena.safetensors").exists()
