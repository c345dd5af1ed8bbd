"""Whether output is read line by line without memory and without raising, and failures are looked at alike."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from cinderlora.adapter import Adapter
from cinderlora.events import Event, Progress, Warned
from cinderlora.problems import Diagnosis
from cinderlora.registry import Implementation
from cinderlora.running.lines import LineSplitter
from cinderlora.testing.checking import Subject, calling, fail, skip
from cinderlora.testing.literals import patterns_of, texts_of
from cinderlora.types import Failure, LoraFacts, Settings

__all__ = [
    "diagnose_never_raises",
    "its_log_is_understood",
    "parse_progress_never_raises",
    "progress_does_not_depend_on_how_lines_are_split",
]

PHASES = (
    None,
    "loading",
    "caching_latents",
    "caching_text_encoders",
    "training",
    "sampling",
    "saving",
    "its own phase",
)

# What trainers print, and what terminals, crashes and other people's libraries put between.
LINES = (
    "",
    " ",
    "steps:   0%|          | 0/8 [00:00<?, ?it/s]",
    "steps:  50%|█████     | 4/8 [00:00<00:00,  7.92it/s, avr_loss=0.807]",
    "steps:  50%|█████     | 4/8 [00:19<00:19,  4.86s/it, avr_loss=nan]",
    "steps: 0it [00:00, ?it/s]",
    "validation steps:  62%|██████▎   | 5/8 [00:01<00:00,  3.11it/s]",
    " 17%|█▋        | 1/6 [00:00<00:02,  1.84it/s]",
    "caching latents...",
    "generating sample images at step / サンプル画像生成 ステップ: 4",
    "prompt: elena, a red ball --n {} --d 42",
    "saving checkpoint: /x/cg_elena-step00000004.safetensors",
    "model saved.",
    "epoch 1/2",
    "Traceback (most recent call last):",
    '  File "flux_train_network.py", line 1, in <module>',
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
    "\ufffd\ufffd 100% | [ ] / \\ {} %s %d {0} \x1b[A",
    "99999999999999999999/0 [",
    "-1/-1 [?<?, ?it/s, avr_loss=1e400]",
    "loss: inf, step: , epoch: -0",
    "[" * 300,
    "x" * 5000,
)


def parse_progress_never_raises(subject: Subject) -> None:
    for adapter in subject.adapters():
        for parser in _parsers(subject, adapter):
            for line in (*LINES, *_logged(subject), *_its_own(parser)):
                for phase in PHASES:
                    _parsed(parser, line, phase)
            _search(parser)


def _parsers(subject: Subject, adapter: Adapter) -> list[Implementation]:
    found = subject.implementations(adapter, "parse_progress")
    if not found:
        skip("it has no parse_progress: the core's parser for sd-scripts reads its output")
    return found


def _its_own(implementation: Implementation) -> list[str]:
    """Lines with the texts that a function looks for, and not what it expects behind them."""
    return [text + rest for text in texts_of(implementation.call) for rest in ("", "x", " x y z", "7", "1/0")]


def _logged(subject: Subject) -> list[str]:
    """The logical lines of the output that its author gave."""
    found: list[str] = []
    for log in subject.logs:
        splitter = LineSplitter()
        found += [line.text for line in (*splitter.feed(log), *splitter.close())]
    return found


def _parsed(parser: Implementation, line: str, phase: str | None) -> Sequence[Event] | None:
    with calling("parse_progress", f"the line {line[:80]!r} in the phase {phase!r}"):
        events = parser.call(line=line, phase=phase)
        again = parser.call(line=line, phase=phase)
    if events is None and again is None:
        return None
    if not isinstance(events, (list, tuple)) or not all(isinstance(event, Event) for event in events):
        fail(f'parse_progress gave {events!r} for {line[:80]!r}: return a list of events, or None for "not mine".')
    if repr(events) != repr(again):  # a loss may be no number, which is not equal to itself
        fail(f"parse_progress says something else of {line[:80]!r} the second time: keep no state; `phase` is told.")
    return events


def _search(parser: Implementation) -> None:
    """Try lines that nobody thought of, where hypothesis is installed; it gives the shortest one that fails."""
    try:
        from hypothesis import HealthCheck, given, settings
        from hypothesis import strategies as st
    except ImportError:
        return
    piece = st.sampled_from([*LINES, "%|", "/", "[00:01<", "it/s]", "loss=", "step ", "nan", ":", "\t"]) | st.text(
        max_size=9
    )
    begun = [st.sampled_from(texts)] if (texts := texts_of(parser.call)) else []
    begun += [st.from_regex(pattern) for pattern in patterns_of(parser.call)]
    rest = st.lists(piece, max_size=6).map("".join)
    lines = st.one_of(rest, *(st.tuples(beginning, rest).map("".join) for beginning in begun))
    lines = lines.map(lambda text: text.replace("\n", " "))

    @settings(
        deadline=None,
        max_examples=200,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(lines, st.sampled_from(PHASES))
    def search(line: str, phase: str | None) -> None:
        _parsed(parser, line, phase)

    search()


def progress_does_not_depend_on_how_lines_are_split(subject: Subject) -> None:
    chance = random.Random(48)  # noqa: S311
    for adapter in subject.adapters():
        for output in (_output(LINES), *subject.logs):
            whole = _said(adapter.events([output]))
            broken = [event for event in whole if "plugin_failed" in event]
            if broken:
                fail(f"parse_progress fails on its output, so that it is left out for the rest of it: {broken[0]}")
            for places in _cuts(len(output), chance):
                parts = [output[a:b] for a, b in pairwise(places)]
                if _said(adapter.events(parts)) != whole:
                    fail(
                        f"The events of {len(output)} bytes of output are others when they come in {len(parts)} parts: "
                        "keep no state in parse_progress, and look at nothing but `line` and `phase`."
                    )


def _output(lines: Iterable[str]) -> bytes:
    """Lines as a terminal gets them: bars behind a carriage return, and glued to what follows."""
    printed = [f"\r{line}" if "%|" in line else f"{line}\n" for line in lines]
    return "".join(printed * 2).encode()


def _said(events: Iterable[Event]) -> list[str]:
    return [repr(event) for event in events]


def _cuts(length: int, chance: random.Random) -> Iterator[list[int]]:
    yield [0, *range(1, min(length, 20_000)), length]
    for count in (1, 3, 30, 300):
        yield sorted({0, length, *(chance.randrange(length + 1) for _ in range(count))})


def its_log_is_understood(subject: Subject) -> None:
    if not subject.logs:
        skip("no output of its trainer is given: logs=['output.log'], or --log output.log")
    adapter = subject.adapter()
    for log in subject.logs:
        events = list(adapter.events([log]))
        steps = [event for event in events if isinstance(event, Progress)]
        failed = [event for event in events if isinstance(event, Warned) and event.code == "plugin_failed"]
        if failed:
            fail(f"{failed[0].message}")
        diagnosis = adapter.diagnose([log], 1)
        if not steps and (diagnosis is None or diagnosis.code == "unknown"):
            fail(
                f"In {len(log)} bytes of output there is no Progress, and no diagnosis either: return Progress(step, "
                "total, loss) from parse_progress for its training bar."
            )
        if any(event.step > event.total for event in steps):
            fail("parse_progress gives a Progress whose step is beyond its total.")


# ---- failures --------------------------------------------------------------------------------------------------------


def diagnose_never_raises(subject: Subject) -> None:
    for adapter in subject.adapters():
        own = subject.implementations(adapter, "diagnose")
        if not own:
            skip("it has no diagnose: the core's own diagnosis is asked")
        for implementation in own:
            for failure in _failures(adapter.name, [*LINES, *_logged(subject), *_its_own(implementation)]):
                with calling("diagnose", f"exit code {failure.exit_code} and {len(failure.lines)} lines"):
                    found: Any = implementation.call(failure=failure)
                if found is not None and not isinstance(found, Diagnosis):
                    fail(f"diagnose gave {found!r}: return a cinderlora.Diagnosis, or None where it cannot tell.")
                if found is not None and found.cause == found.code:
                    fail(f"The diagnosis {found.code!r} has no words: give it a cause and a fix, or a known code.")


def _failures(model_type: str, lines: Sequence[str]) -> Iterator[Failure]:
    for exit_code in (None, 0, 1, 2, -9, -15, 3221225477):
        yield Failure(model_type=model_type, exit_code=exit_code)
        yield Failure(
            model_type=model_type, exit_code=exit_code, lines=lines, phase="training", nan=True, steps=4, total=8
        )
    for line in lines:
        yield Failure(model_type=model_type, exit_code=1, lines=[line], phase="loading", settings=Settings())
    yield Failure(model_type=model_type, exit_code=0, lora=LoraFacts(), model_saved=True, steps=8, total=8)
