"""From a trainer's output to events: the recordings, and what plugins may do."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cinderlora.events import (
    Activity,
    CheckpointSaved,
    Event,
    Log,
    Phase,
    Progress,
    Started,
    Stopped,
    Warned,
)
from cinderlora.markers import SamplesDue
from cinderlora.running.lines import LineSplitter
from cinderlora.running.stream import EventStream, Parser, public
from cinderlora.sd_scripts.progress import parse_progress

CAPTURES = sorted((Path(__file__).parent / "data" / "captures").glob("*/truth.json"))
CORE = ("cinderlora", parse_progress)


def bar(step: int, total: int = 8, loss: float | str | None = None, desc: str = "steps") -> str:
    postfix = "" if loss is None else f", avr_loss={loss}"
    return f"\r{desc}: {step * 100 // total:3d}%|█████     | {step}/{total} [00:19<00:19,  4.86s/it{postfix}]"


def stream_of(*chunks: bytes | str, parsers: Sequence[tuple[str, Parser]] = (CORE,), **options: Any) -> list[Event]:
    """All that the stream gives, markers too."""
    stream = EventStream(parsers, **options)
    data = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    return [event for chunk in data for event in stream.feed(chunk)] + stream.close()


def events_of(*chunks: bytes | str, **options: Any) -> list[Event]:
    return public(stream_of(*chunks, **options))


E = TypeVar("E", bound=Event)


def only(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


# ---- recordings ----


def test_there_are_recordings() -> None:
    assert len(CAPTURES) == 30


@pytest.mark.parametrize("truth_file", CAPTURES, ids=lambda p: p.parent.name)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_what_a_recording_says(truth_file: Path, line_end: bytes) -> None:
    truth = json.loads(truth_file.read_text(encoding="utf-8"))
    data = (truth_file.parent / "output.log").read_bytes().replace(b"\n", line_end)
    events = events_of(data)
    losses = {e.step: e.loss for e in only(Progress, events) if e.step}
    assert list(losses) == [step for step, _ in truth["progress"]]
    assert list(losses.values()) == pytest.approx([float(loss) for _, loss in truth["progress"]], nan_ok=True)
    assert {e.total for e in only(Progress, events)} <= {truth["bar_total"]}
    assert [e.path.name for e in only(CheckpointSaved, events)] == truth["saved"]
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    assert repr(events_of(*[data[at : at + 61] for at in range(0, len(data), 61)])) == repr(events)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, 20_000), max_size=40))
@pytest.mark.parametrize("name", ["sd3-rich", "sdxl-complete", "sd3-nan", "sd3-fail-out-of-memory"])
def test_events_do_not_depend_on_the_chunks(name: str, places: list[int]) -> None:
    data = (CAPTURES[0].parent.parent / name / "output.log").read_bytes()
    at = sorted({0, len(data), *(place % len(data) for place in places)})
    assert repr(stream_of(*[data[a:b] for a, b in pairwise(at)])) == repr(stream_of(data))


def test_the_phases_of_a_training(data: Path) -> None:
    events = events_of((data / "captures/sd3-rich/output.log").read_bytes())
    assert [(e.name, e.step) for e in only(Phase, events)] == [
        ("loading", None),
        ("caching_latents", None),
        ("caching_text_encoders", None),
        ("loading", None),
        ("training", None),
        ("sampling", 4),
        ("saving", None),
        ("training", None),
        ("sampling", 8),
        ("saving", None),
        ("training", None),
        ("saving", None),
    ]
    labels = {e.label for e in only(Activity, events)}
    assert labels == {"loading", "read caption", "caching_latents", "caching_text_encoders", "sampling"}
    assert {e.level for e in only(Log, events)} == {"INFO", "WARNING", None}
    assert [(e.epoch, e.epochs) for e in only(Progress, events)][-1] == (2, 2)


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        ("sd3-complete", [(4, 1), (8, 2)]),
        ("sdxl-complete", [(2, 1), (4, 1)]),
        ("sd3-epochs", [(6, 1), (12, 2), (18, 3)]),
        ("sd3-sample-at-first", [(0, 0), (4, 1)]),
        ("sd3-save-state", []),
    ],
)
def test_when_samples_are_on_disk(data: Path, name: str, rounds: list[tuple[int, int]]) -> None:
    found = only(SamplesDue, stream_of((data / "captures" / name / "output.log").read_bytes()))
    expected = [(step, e, index) for step, epoch in rounds for index in (0, None) for e in (None, epoch)]
    assert [(due.step, due.epoch, due.index) for due in found] == expected
    assert public(found) == []


# ---- single facts ----


def test_a_bar_becomes_progress() -> None:
    (phase, progress) = events_of(bar(3, 8, 2.61))
    assert phase == Phase("training", seq=phase.seq)
    assert progress == Progress(3, 8, 2.61, 4.86, pytest.approx(5 * 4.86), seq=progress.seq)  # type: ignore[arg-type]
    assert progress.seq == len(bar(3, 8, 2.61).encode()) * 1024 + 1


def test_progress_comes_when_step_or_loss_changes() -> None:
    bars = [
        bar(1),
        bar(1),
        bar(1, loss=2),
        bar(1, loss=2.0),
        bar(2, loss="nan"),
        bar(2, loss="nan"),
        bar(3, loss="nan"),
    ]
    events = events_of(*bars)
    assert [(e.step, repr(e.loss)) for e in only(Progress, events)] == [
        (1, "None"),
        (1, "2.0"),
        (2, "nan"),
        (3, "nan"),
    ]
    (warned,) = only(Warned, events)
    assert (warned.code, warned.params) == ("nan_loss", {"step": 2})
    assert warned.message


@pytest.mark.parametrize("loss", ["2", "1.23e+3", "inf", "0.0912"])
def test_ways_to_print_a_loss(loss: str) -> None:
    assert only(Progress, events_of(bar(1, loss=loss)))[0].loss == float(loss)


def test_other_figures_beside_the_loss() -> None:
    with_norms = bar(1, loss=0.5).replace("avr_loss", "Keys Scaled=3, Average key norm=0.01, avr_loss")
    assert only(Progress, events_of(with_norms))[0].loss == 0.5


def test_nothing_to_train() -> None:
    (progress,) = only(Progress, events_of("\rsteps: 0it [00:00, ?it/s]"))
    assert (progress.step, progress.total, progress.eta) == (0, 0, None)


@pytest.mark.parametrize(
    "text",
    [
        bar(5, desc="validation steps"),
        bar(5, desc="epoch validation steps"),
        "  bucket_reso_steps: 64\n",
        "sample_steps: 2\n",
        "steps: 50%\n",
        "the steps:  50%|█████     | 4/8 were fine\n",
    ],
)
def test_what_is_not_the_training_bar(text: str) -> None:
    assert only(Progress, events_of(text)) == []


def test_bars_that_count_other_things() -> None:
    events = events_of(
        "caching latents...\n", bar(2, desc="x").replace("x: ", ""), bar(5, desc="validation steps"), bar(5, desc="a b")
    )
    download = events_of("\rmodel.safetensors:  45%|████      | 1.20G/2.5G [00:10<00:11, 120MB/s]")
    assert [(e.label, e.done, e.total) for e in only(Activity, [*events, *download])] == [
        ("caching_latents", 2, 8),
        ("validation steps", 5, 8),
        ("a b", 5, 8),
        ("model.safetensors", 1_200_000_000, 2_500_000_000),
    ]


SAVING = "saving checkpoint: /out/cg_elena-step00000004.safetensors\n"


@pytest.mark.parametrize(
    ("after", "saved"),
    [
        (bar(4, loss=1), True),
        ("saving state at step 4\n", True),
        ("generating sample images at step / サンプル画像生成 ステップ: 4\n", True),
        ("epoch 2/2\n", True),
        ("model saved.\n", True),
        ("", False),
        ("/x/lora_sd3.py:530: FutureWarning: Positional args are being deprecated\n", False),
        (f"Traceback (most recent call last):\n  File x\nRuntimeError: no\n{bar(3, loss=1)}", False),
    ],
)
def test_a_checkpoint_is_there_when_the_trainer_went_on(after: str, saved: bool) -> None:
    events = events_of(bar(3, loss=1), "\n" + SAVING, after)
    assert [(e.path, e.step) for e in only(CheckpointSaved, events)] == [
        (Path("/out/cg_elena-step00000004.safetensors"), 4)
    ] * saved


def test_a_traceback_ends_a_round_of_samples() -> None:
    begun = "generating sample images at step / サンプル画像生成 ステップ: 4\nprompt: a\n"
    failed = f"Traceback (most recent call last):\n  File x\nRuntimeError: no\n{bar(3, loss=1)}"
    assert only(SamplesDue, stream_of(bar(3, loss=1) + "\n", begun, failed)) == []


def test_announcements_that_were_held_back_in_a_buffer() -> None:
    """stdout through a pipe without PYTHONUNBUFFERED: what was printed comes at the end."""
    events = events_of(bar(8, loss=1), "\nmodel saved.\n", bar(8, loss=1), "\n\n" + SAVING)
    events += events_of(bar(8, loss=1), "\nmodel saved.\n", "saving checkpoint: /out/cg_elena.safetensors\n")
    assert [(e.path.name, e.step) for e in only(CheckpointSaved, events)] == [
        ("cg_elena-step00000004.safetensors", 4),
        ("cg_elena.safetensors", 8),
    ]


def test_the_closing_bar_begins_no_phase() -> None:
    phases = only(
        Phase, events_of(bar(8, loss=1), "\nsaving checkpoint: /o/a.safetensors\nmodel saved.\n", bar(8, loss=1))
    )
    assert [e.name for e in phases] == ["training", "saving"]


def test_a_resumed_training_counts_on() -> None:
    sampling = "\ngenerating sample images at step / サンプル画像生成 ステップ: 4\nprompt: a\n"
    events = stream_of(bar(3, 4, 1), sampling, SAVING, bar(4, 4, 1), first_step=8)
    assert [(e.step, e.total) for e in only(Progress, events)] == [(11, 12), (12, 12)]
    assert [e.step for e in only(CheckpointSaved, events)] == [12]
    assert [e.step for e in only(Phase, events) if e.name == "sampling"] == [12]
    assert {(due.step, due.epoch) for due in only(SamplesDue, events)} == {(12, None), (12, 0)}
    assert only(Progress, events)[0].eta == pytest.approx(4.86)


def test_several_things_on_one_line() -> None:
    glued = (
        f"{bar(3, loss=0.371)}  /x/checkpoint.py:238: UserWarning: None of the inputs\r\n"
        f"{bar(4, loss=0.4)}Traceback (most recent call last):\r\n"
    )
    events = events_of(glued)
    assert [e.step for e in only(Progress, events)] == [3, 4]
    assert [e.text for e in only(Log, events)] == [
        "/x/checkpoint.py:238: UserWarning: None of the inputs",
        "Traceback (most recent call last):",
    ]


def test_noise_is_left_out_of_the_log() -> None:
    noise = "epoch is incremented. current_epoch: 0, epoch: 1\n\n   \nkept\n"
    assert [e.text for e in only(Log, events_of(noise))] == ["kept"]


# ---- the training bar, read ahead ----


def not_mine(line: str, phase: str | None) -> None:
    """A hook for the sake of which every line goes through the hooks."""


AS_USUAL = st.builds(
    lambda step, total, loss, rate: bar(step, total, loss).replace("4.86s/it", rate),
    st.integers(0, 12),
    st.sampled_from([8, 12]),
    st.sampled_from([None, 2, 2.61, 0.0912, "1.23e+03", "1e-05"]),
    st.sampled_from([" 4.86s/it", "12.30it/s"]),
)
CHANGES = [
    ("avr_loss=", "avr_loss=nan"),
    ("avr_loss=2", "avr_loss=1e999"),
    ("avr_loss=2", f"avr_loss={'9' * 400}"),
    ("avr_loss=", "avr_loss=1."),
    ("avr_loss", "Keys Scaled=3, avr_loss"),
    (" 4.86s/it", " 0.00s/it"),
    ("12.30it/s", " 0.00it/s"),
    ("12.30it/s", "?it/s"),
    (" 4.86s/it", "1.2.3s/it"),
    ("/8 [", "/8000000000000 ["),
    ("█", "\x85"),
    ("█", "["),
    ("█", "\r"),
    ("█", "\x1b[1m"),
    ("]", ""),
    ("]", "\n"),
    ("\r", ""),
    ("\r", "\n"),
    ("\r", "   \r"),
    ("\r", "\r\r"),
    ("\r", "\x1b[A\r"),
    ("\rsteps: ", "\rvalidation steps: "),
    ("\rsteps: ", "\r"),
    ("\rsteps: ", "\rsteps:     "),
]
EACH_CHANGE = "".join(
    bar(2 * n, loss=1) + bar(2 * n + 1, loss=2).replace(" 4.86s/it", rate).replace(*change)
    for n, change in enumerate(CHANGES)
    for rate in (" 4.86s/it", "12.30it/s")
)
UNUSUAL = st.builds(lambda text, change: text.replace(*change), AS_USUAL, st.sampled_from(CHANGES))
LINES = st.sampled_from(
    [
        "",
        "hello",
        "running training / 学習開始",
        "epoch 2/3",
        "saving checkpoint: /out/cg_elena-step00000004.safetensors",
        "generating sample images at step / サンプル画像生成 ステップ: 4",
        "prompt: elena",
        "model saved.",
        "Traceback (most recent call last):",
        "Loading settings from x.toml",
        "2026-11-23 00:30:29 INFO     generating sample images at  sd3_train_utils.py:400",
        f"{' ' * 29}step / サンプル画像生成",
        f"{' ' * 29}ステップ: 4",
    ]
).flatmap(lambda line: st.sampled_from([f"\n{line}\n", f"{line}\n", f"{line}\r\n", f"\r{line}"]))
OUTPUT = st.lists(st.lists(AS_USUAL, min_size=1).map("".join) | UNUSUAL | LINES, max_size=12).map("".join)
CUTS = st.lists(st.integers(min_value=0), max_size=8)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


@given(OUTPUT, CUTS, st.sampled_from([0, 8]))
@example("".join(bar(step, loss=loss) for step in range(1, 9) for loss in (1, 1, 2)), [100, 300], 0)
@example(EACH_CHANGE, [], 8)
def test_what_is_read_ahead_is_what_the_hooks_would_say(output: str, places: list[int], first_step: int) -> None:
    data = output.encode()
    asked = stream_of(data, parsers=[("other", not_mine), CORE], first_step=first_step)
    assert repr(stream_of(*pieces(data, places), first_step=first_step)) == repr(asked)


@given(OUTPUT, CUTS)
def test_a_plugin_that_wants_the_training_bar_sees_all_of_it(output: str, places: list[int]) -> None:
    seen: list[str] = []

    def mine(line: str, phase: str | None) -> list[Event] | None:
        if not line.startswith("steps: "):
            return None
        seen.append(line)
        return [Log("mine")]

    data = output.encode()
    events = stream_of(*pieces(data, places), parsers=[("mine", mine), CORE])
    splitter = LineSplitter()
    lines = [line.text for line in splitter.feed(data) + splitter.close()]
    assert seen == [line for line in lines if line.startswith("steps: ")]
    assert only(Progress, events) == []


def test_a_step_that_was_read_ahead_is_like_any_other() -> None:
    (_, first, second) = events_of(bar(1, loss=1), bar(2, loss=0.5))
    assert type(second) is Progress
    assert second == Progress(2, 8, 0.5, 4.86, 6 * 4.86, seq=second.seq)
    assert len({first, second, attrs.evolve(second)}) == 2
    assert pickle.loads(pickle.dumps(second)) == copy.deepcopy(second) == second
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        second.step = 3  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del second.step  # type: ignore[misc]


# ---- parsers ----


@given(st.text(), st.none() | st.sampled_from(["loading", "sampling", "training", "of a plugin"]))
def test_no_line_is_too_strange(line: str, phase: str | None) -> None:
    events = parse_progress(line, phase)
    assert events is None or all(isinstance(event, Event) for event in events)


FRAGMENTS = [
    "steps: ",
    "50%|",
    "| 4/8 [",
    "0it [",
    "99999999999999",
    "?",
    "/",
    "]",
    ",",
    "avr_loss=",
    "1e999",
    "\r",
    "\n",
]
FRAGMENTS += ["saving checkpoint: ", "epoch ", "generating sample images at step / x: ", "٣", "1.2.3s/it", "<00:00"]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3)).map("".join))
def test_no_output_is_too_strange(output: str) -> None:
    data = output.encode("utf-8", "surrogatepass")
    events = events_of(data)
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    parse_progress(output, "sampling")


def quantizing(line: str, phase: str | None) -> list[Event] | None:
    if line.startswith("quantizing block "):
        return [Phase("quantizing"), Activity("quantizing", int(line.split()[2]), None)]
    return None


def test_a_plugin_is_asked_first() -> None:
    events = events_of(
        "quantizing block 3\nquantizing block x\nprepare images.\n", parsers=[("lumina", quantizing), CORE]
    )
    assert [type(e).__name__ for e in events] == ["Phase", "Activity", "Warned", "Log", "Phase", "Log"]
    assert [e.name for e in only(Phase, events)] == ["quantizing", "loading"]
    (warned,) = only(Warned, events)
    assert warned.code == "plugin_failed"
    assert "lumina" in warned.message


def test_a_plugin_may_want_the_training_bar() -> None:
    def mine(line: str, phase: str | None) -> list[Event] | None:
        return [] if line.startswith("steps: ") else None

    assert only(Progress, events_of(bar(1, loss=1), parsers=[("mine", mine), CORE])) == []


def _raise(line: str, phase: str | None) -> list[Event]:
    raise ValueError("no idea")


@pytest.mark.parametrize(
    "plugin",
    [
        _raise,
        lambda line, phase: 3,
        lambda line, phase: "events",
        lambda line, phase: [None],
        lambda line, phase: [Started("x", "y", Path())],
        lambda line, phase: [Stopped("me")],
        lambda line, phase: [Progress("1", 2)],  # type: ignore[arg-type]
        lambda line, phase: [Progress(1, 2, "low")],  # type: ignore[arg-type]
        lambda line, phase: [Phase("x", step="1")],  # type: ignore[arg-type]
        lambda line, phase: [Log(None)],  # type: ignore[arg-type]
        lambda line: [],
    ],
)
def test_a_plugin_that_fails_is_left_out_for_the_rest(plugin: Callable[..., Any]) -> None:
    with_plugin = events_of(bar(1, loss=1), "\nhello\n", bar(2, loss=1), parsers=[("bad", plugin), CORE])
    (warned,) = only(Warned, with_plugin)
    assert warned.params["plugin"] == "bad"
    without = events_of(bar(1, loss=1), "\nhello\n", bar(2, loss=1))
    assert [repr(e).partition("time")[2] for e in with_plugin if e is not warned] == [
        repr(e).partition("time")[2] for e in without
    ]


def test_a_plugin_that_says_very_much_does_not_run_into_the_next_line() -> None:
    def chatty(line: str, phase: str | None) -> Iterable[Event] | None:
        return (Log(f"{n}", seq=7) for n in range(10**9)) if line == "a" else None

    events = events_of("a\nb\n", parsers=[("chatty", chatty), CORE])
    assert [e.seq for e in events] == [*range(1024, 1024 + 512), 3 * 1024]


def test_what_is_kept_of_a_long_log_is_bounded() -> None:
    stream = EventStream([CORE])
    for n in range(3000):
        stream.feed(f"line {n} {'x' * 9000}\n".encode())
    stream.feed(f"RuntimeError: why it failed\n\t{'key, ' * 20_000}\n".encode())
    for n in range(1000):
        stream.feed(f"\tsize mismatch for {n}\n".encode())
    failure = stream.failure("sdxl", 1)
    assert len(failure.lines) <= 500
    assert max(map(len, failure.lines)) <= 4000
    assert failure.lines[0] == "RuntimeError: why it failed"


def test_what_is_known_of_a_training() -> None:
    stream = EventStream([CORE], first_step=2)
    stream.feed((bar(3, loss=1) + bar(4, loss="nan") + "\nmodel saved.\n").encode())
    failure = stream.failure("sd3", 0)
    assert (failure.steps, failure.total, failure.nan, failure.model_saved) == (6, 10, True, True)
    assert failure.phase == "training"
    assert any("avr_loss=nan" in line for line in failure.lines)
    assert not math.isnan(failure.steps or 0)
