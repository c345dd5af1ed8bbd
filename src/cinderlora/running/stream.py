"""From output bytes to events: asks the parsers about each line, keeps what they may not remember, numbers. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from math import isfinite, isnan
from typing import Any

from attrs import evolve

from cinderlora.events import (
    Activity,
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    Log,
    Phase,
    Progress,
    Started,
    Stopped,
    Warned,
    quick_progress,
)
from cinderlora.markers import EpochBegan, LoraSaved, Marker, PromptBegan, SamplesDue, SaveAnnounced
from cinderlora.running.lines import Line, LineSplitter
from cinderlora.sd_scripts.progress import REFRESH
from cinderlora.texts import text_of
from cinderlora.types import Failure, LoraFacts, Settings

__all__ = ["EventStream", "Parser", "SamplesDue", "public"]

Parser = Callable[..., Iterable[Event] | None]
"""A `parse_progress` hook, called with `line` and `phase` by name."""

CORE = "cinderlora"
"""The name of the core's own plugin, whose parser comes last."""

_PER_LINE = 512  # events that one line may have; the numbers above are the follower's
_NOT_IN_A_LOG = (Started, Finished, Failed, Stopped)

# What is kept of the log to tell why a training failed: its last lines, and before those the ones that speak of
# errors, since one exception can be followed by thousands of lines of tensor names.
_LAST_LINES, _ERROR_LINES, _LINE_LENGTH = 400, 100, 4000
_OF_ERRORS = (
    "error",
    "exception",
    "traceback",
    "no data found",
    "not found",
    "not provided",
    "not directory",
    "killed",
)
_TRACEBACK = "Traceback (most recent call last)"


def public(events: Iterable[Event]) -> list[Event]:
    """The events without the markers that are for followers only."""
    return [event for event in events if not isinstance(event, Marker)]


class EventStream:
    """Takes a training's output in any chunks and gives the events in it; the same bytes always give the same events.

    `parsers` are (plugin name, `parse_progress` hook) in calling order, the core's own last. `first_step` is where
    the training resumed: it is added to all steps. `SamplesDue` is for the follower to resolve; see `public`.

    An event's `seq` is the end of its line in bytes x 1024, plus its place among the line's events.
    """

    def __init__(self, parsers: Sequence[tuple[str, Parser]], *, first_step: int = 0) -> None:
        self._parsers = list(parsers)
        self._first_step = first_step
        self._lines = LineSplitter()
        self._phase: Phase | None = None
        self._activity: Activity | None = None
        self._progress: Progress | None = None
        self._epoch: EpochBegan | None = None
        self._announced: list[SaveAnnounced] = []
        self._sampling: Phase | None = None
        self._prompts = 0  # begun in this round of sampling
        self._crashed = False  # a traceback was printed, and no step since
        self._saved = False  # the final LoRA
        self._nan = False
        self._count = 0  # log lines
        self._last: deque[tuple[int, str]] = deque(maxlen=_LAST_LINES)
        self._errors: deque[tuple[int, str]] = deque(maxlen=_ERROR_LINES)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events of the lines that are complete with this chunk."""
        return self._events(self._lines.lines(chunk))

    def close(self) -> list[Event]:
        """The events of what is left when the output has ended. What was only announced does not count as done."""
        return self._events(self._lines.close())

    def failure(
        self,
        model_type: str,
        exit_code: int | None,
        *,
        lora: LoraFacts | None = None,
        settings: Settings | None = None,
        oom_kills: int = 0,
        gpu_others: Sequence[str] = (),
    ) -> Failure:
        """What is known of the training so far, for the `diagnose` hooks. `lines` also has the bar that first showed
        a loss that is no number."""
        kept = dict(self._errors)
        kept.update(self._last)
        return Failure(
            model_type=model_type,
            exit_code=exit_code,
            lines=[kept[number] for number in sorted(kept)],
            phase=self._phase.name if self._phase else None,
            nan=self._nan,
            steps=self._progress.step if self._progress else None,
            total=self._progress.total if self._progress else None,
            model_saved=self._saved,
            lora=lora,
            settings=settings,
            oom_kills=oom_kills,
            gpu_others=gpu_others,
        )

    # ---- one line ----------------------------------------------------------------------------------------------------

    def _events(self, lines: Iterable[Line]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if not line.bar:
                self._remember(line.text)
            seq = line.end * 1024
            for n, event in enumerate(self._said(line)):  # the most frequent are numbered already
                # A marker has its line's number: what the follower puts in its place is numbered from 512 on.
                number = seq if isinstance(event, Marker) else seq + n
                events.append(event if event.seq == number else evolve(event, seq=number))
            if line.bar and self._progress is not None and self._may_read_ahead:
                events += self._steps(self._progress)
        return events

    @property
    def _may_read_ahead(self) -> bool:
        """Whether a refresh of the training bar that comes next is a step and nothing else: no plugin wants to read it
        first, no other bar came between, nothing is announced, and nothing went wrong."""
        return (
            self._phase is not None
            and self._phase.name == "training"
            and len(self._parsers) == 1
            and self._parsers[0][0] == CORE
            and not (self._announced or self._sampling or self._crashed or self._saved or self._activity)
        )

    def _steps(self, last: Progress) -> list[Progress]:
        """The steps that come next, read straight from the bytes. Nearly all of a log is these."""
        steps: list[Progress] = []
        first = self._first_step
        epoch, epochs = (self._epoch.epoch, self._epoch.epochs) if self._epoch else (None, None)
        for end, (done, of, rate, unit, average) in self._lines.more(REFRESH):
            step, total = int(done) + first, int(of) + first
            loss = None if average is None else float(average)
            if step == last.step and loss == last.loss:
                continue
            seconds = float(rate) if unit == b"s/it" else 1 / float(rate)
            eta = (total - step) * seconds if total > step else 0.0
            last = quick_progress(step, total, loss, seconds, eta, epoch, epochs, end * 1024)
            steps.append(last)
        self._progress = last
        return steps

    def _remember(self, text: str) -> None:
        if _TRACEBACK in text:
            # What was announced will not be there; a bar that is closed after this says nothing new.
            self._crashed = True
            self._announced.clear()
            self._sampling = None
        self._count += 1
        text = text[:_LINE_LENGTH]
        self._last.append((self._count, text))
        if _speaks_of_errors(text):
            self._errors.append((self._count, text))

    def _said(self, line: Line) -> list[Event]:
        """The events of a line."""
        out: list[Event] = []
        items = self._asked(line, out)
        if items is None:
            if not line.bar:
                out.append(Log(line.text, line.level, seq=line.end * 1024 + len(out)))
            return out
        markers: list[Event] = []
        for item in items:
            if isinstance(item, Progress):
                self._take_progress(item, line, out, markers)
            elif isinstance(item, Log):
                level, seq = item.level or line.level, line.end * 1024 + len(out)
                out.append(Log(item.text, level, seq=seq) if type(item) is Log else evolve(item, level=level, seq=seq))
            elif isinstance(item, Activity):
                if item != self._activity:
                    self._activity = item
                    out.append(item)
            elif isinstance(item, PromptBegan):
                if self._sampling is not None and self._prompts:
                    markers.extend(self._samples_due(self._sampling, self._prompts - 1))
                self._prompts += 1
            elif isinstance(item, Marker | Phase | CheckpointSaved):
                self._done_with_what_went_before(out, markers)
                self._take_turn(item, out)
            else:
                out.append(item)
        # The markers come last, since the samples' numbers begin after those of the line's events.
        return out[:_PER_LINE] + markers if markers or len(out) > _PER_LINE else out

    def _asked(self, line: Line, out: list[Event]) -> Sequence[Event] | None:
        phase = self._phase.name if self._phase else None
        for parser in self._parsers:
            try:
                found = parser[1](line=line.text, phase=phase)
                if found is None:
                    continue
                return _checked(found)
            except Exception as error:
                self._parsers = [other for other in self._parsers if other is not parser]
                out.append(_plugin_failed(parser[0], error))
        return None

    # ---- what the items mean for what went before --------------------------------------------------------------------

    def _take_progress(self, bar: Progress, line: Line, out: list[Event], markers: list[Event]) -> None:
        step, total, loss, last = bar.step + self._first_step, bar.total + self._first_step, bar.loss, self._progress
        moved = last is None or step != last.step
        if moved:
            self._crashed = False
        ended = self._crashed or self._saved
        if not ended:
            if self._announced or self._sampling is not None:
                self._done_with_what_went_before(out, markers)
            if self._phase is None or self._phase.name != "training":
                self._phase = Phase("training")
                out.append(self._phase)
        if not moved and last is not None and (loss == last.loss or (_is_nan(loss) and _is_nan(last.loss))):
            return
        epoch = self._epoch
        self._activity = None
        self._progress = quick_progress(
            step,
            total,
            loss,
            bar.seconds_per_step,
            bar.eta,
            bar.epoch if epoch is None else epoch.epoch,
            bar.epochs if epoch is None else epoch.epochs,
            line.end * 1024 + len(out),
        )
        out.append(self._progress)
        if isinstance(loss, float) and not self._nan and not isfinite(loss):
            self._nan = True
            self._count += 1
            self._errors.append((self._count, line.text[:_LINE_LENGTH]))
            out.append(_warned("nan_loss", step=step))

    def _take_turn(self, item: Marker | Phase | CheckpointSaved, out: list[Event]) -> None:
        if isinstance(item, Phase):
            if item.name == "sampling":
                self._sampling, self._prompts = item, 0
            elif item.name == "training":
                self._saved = False  # announced before its bar: another training in the same log
            if item.step is not None:
                item = evolve(item, step=item.step + self._first_step)
            known = self._phase
            if known is None or (item.name, item.step, item.epoch) != (known.name, known.step, known.epoch):
                self._phase, self._activity = item, None
                out.append(item)
        elif isinstance(item, CheckpointSaved):
            out.append(self._checkpoint(item))
        elif isinstance(item, EpochBegan):
            self._epoch = item
        elif isinstance(item, LoraSaved):
            self._saved = True
        elif isinstance(item, SaveAnnounced):
            self._announced.append(item)
            if self._saved:
                # Printed through a buffer that was emptied at the end: the file has long been written.
                self._done_with_what_went_before(out, [])

    def _done_with_what_went_before(self, out: list[Event], markers: list[Event]) -> None:
        """The trainer went on, so what it announced is on disk."""
        for announced in self._announced:
            out.append(self._checkpoint(CheckpointSaved(announced.path, announced.step)))
        self._announced.clear()
        if self._sampling is not None:
            markers.extend(self._samples_due(self._sampling, None))
            self._sampling = None

    def _checkpoint(self, saved: CheckpointSaved) -> CheckpointSaved:
        if saved.step is not None:
            return evolve(saved, step=saved.step + self._first_step)
        return evolve(saved, step=self._progress.step) if self._progress else saved

    def _samples_due(self, sampling: Phase, index: int | None) -> list[SamplesDue]:
        step = (sampling.step or 0) + self._first_step
        # Pictures of before the first epoch are epoch 0's.
        epoch = sampling.epoch if sampling.epoch is not None else self._epoch.epoch if self._epoch else 0
        return [SamplesDue(step, None, index), SamplesDue(step, epoch, index)]


def _speaks_of_errors(text: str) -> bool:
    text = text.lower()
    for words in _OF_ERRORS:  # noqa: SIM110 — a fifth of the time of one expression, half of that of any()
        if words in text:
            return True
    return False


def _is_nan(number: float | None) -> bool:
    return isinstance(number, float) and isnan(number)


def _checked(found: Any) -> Sequence[Event]:
    """What a parser returned, if it is what parsers return."""
    events = found if type(found) is list else list(islice(found, _PER_LINE))
    for event in events:
        if not _is_sound(event):
            raise TypeError(f"parse_progress returned {event!r}, which is no event of a log line")
    return events


def _is_sound(event: object) -> bool:
    """Whether it is an event that a line of output can have, with the values that are reckoned with here."""
    if isinstance(event, Progress):
        return type(event.step) is type(event.total) is int and (event.loss is None or type(event.loss) in (float, int))
    if isinstance(event, Phase | CheckpointSaved):
        return event.step is None or type(event.step) is int
    if isinstance(event, Log):
        return isinstance(event.text, str)
    if isinstance(event, Activity):
        return isinstance(event.label, str) and isinstance(event.done, int | float)
    return isinstance(event, Event) and not isinstance(event, _NOT_IN_A_LOG) and evolve(event, seq=0).seq == 0


def _plugin_failed(plugin: str, error: Exception) -> Warned:
    why = f"{type(error).__name__}: {error}"[:500]
    return _warned("plugin_failed", plugin=plugin, hook="parse_progress", why=why, left_out=plugin)


def _warned(code: str, **params: Any) -> Warned:
    text = text_of(code, params, "en")
    return Warned(code, text.message if text else code, params)
