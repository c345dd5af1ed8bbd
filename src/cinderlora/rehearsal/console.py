"""What goes to the screen: log lines on stdout, bars on stderr, each flushed at once.

The trainer's two streams usually end in one file, so the order of the writes is the order of the lines. The bars
have the text that tqdm 4.70 gives them in the recordings, including its habit of refreshing no more often than
every 0.1 s except for a changed postfix.
"""

import atexit
import io
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

BLOCKS = " ▏▎▍▌▋▊▉█"
BAR_WIDTH = 10
MIN_INTERVAL = 0.1
CURSOR_UP = "\x1b[A"


def prepare_streams() -> None:
    """UTF-8 whatever the locale: the trainer prints Japanese, and paths may hold anything."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def log(text: str = "") -> None:
    """One plain log line, as sd-scripts prints it with ``console_log_simple``."""
    print(text, flush=True)


def clock(seconds: float) -> str:
    """``[H:]MM:SS``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def figure(value: float) -> str:
    """A number in a postfix: three significant digits, or its plain text where that is no longer."""
    short = f"{value:.3g}".replace("e+0", "e+").replace("e-0", "e-")
    plain = str(value)
    return short if len(short) < len(plain) else plain


def meter(n: int, total: int, elapsed: float, desc: str = "", postfix: str = "") -> str:
    """The text of a bar, e.g. ``steps:  50%|█████     | 4/8 [00:19<00:19,  4.86s/it, avr_loss=2.61]``."""
    rate = n / elapsed if elapsed > 0 else 0.0
    speed = "?it/s" if not rate else f"{rate:5.2f}it/s" if rate >= 1 else f"{1 / rate:5.2f}s/it"
    prefix = f"{desc}: " if desc else ""
    tail = f", {postfix}" if postfix else ""
    if not total:
        return f"{prefix}{n}it [{clock(elapsed)}, {speed}{tail}]"
    full, eighths = divmod(int(n / total * BAR_WIDTH * 8), 8)
    bar = (BLOCKS[-1] * full + (BLOCKS[eighths] if full < BAR_WIDTH else "")).ljust(BAR_WIDTH)
    remaining = clock((total - n) / rate) if rate else "?"
    return f"{prefix}{n / total * 100:3.0f}%|{bar}| {n}/{total} [{clock(elapsed)}<{remaining}, {speed}{tail}]"


class Bar:
    """A progress bar; one opened while another is open is drawn on the line below it, as tqdm does."""

    _open: list["Bar"] = []  # noqa: RUF012 - shared by design: a bar's place depends on those already open

    def __init__(self, total: int, desc: str = "", *, leave: bool = True) -> None:
        self.n = 0
        self.total = total
        self.desc = desc
        self.leave = leave
        self.postfix = ""
        self.position = len(Bar._open)
        self.started = self._last = time.perf_counter()
        self._width = 0
        Bar._open.append(self)
        self.refresh()

    def refresh(self) -> None:
        elapsed = time.perf_counter() - self.started
        self._draw(meter(self.n, self.total, elapsed, self.desc, self.postfix), self.position)

    def update(self) -> None:
        self.n += 1
        now = time.perf_counter()
        if now - self._last >= MIN_INTERVAL:
            self.refresh()
            self._last = now

    def set_postfix(self, **figures: float) -> None:
        self.postfix = ", ".join(f"{name}={figure(value)}" for name, value in figures.items())
        self.refresh()

    def leave_out(self, seconds: float) -> None:
        """Do not count these seconds: the trainer's elapsed time excludes sampling."""
        self.started += seconds
        self._last = time.perf_counter()

    def close(self) -> None:
        if self not in Bar._open:
            return
        Bar._open.remove(self)
        if self.leave:
            self._draw(meter(self.n, self.total, time.perf_counter() - self.started, self.desc, self.postfix), 0)
            self._write("\n")
        else:
            self._draw("", self.position)
            if not self.position:
                self._write("\r")

    def _draw(self, text: str, position: int) -> None:
        padding = " " * max(self._width - len(text), 0)
        self._width = len(text)
        self._write("\n" * position + "\r" + text + padding + CURSOR_UP * position)

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def over(items: Sequence[T], desc: str = "") -> Iterator[T]:
    """The items, under a bar that is closed before an exception's traceback is printed."""
    bar = Bar(len(items), desc)
    try:
        for item in items:
            yield item
            bar.update()
    finally:
        bar.close()


@atexit.register
def _close_open_bars() -> None:
    # After a traceback comes the bar's last refresh: the exception line is not the last line of the trainer's log.
    for bar in reversed(list(Bar._open)):
        bar.close()


class LossRecorder:
    """The trainer's ``avr_loss``: the mean over the last epoch's worth of steps, each step's loss replacing the one
    that the same place of the epoch before had. A single NaN therefore stays in it to the end."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._total = 0.0

    def add(self, epoch: int, step: int, loss: float) -> None:
        if epoch == 0:
            self._losses.append(0.0)
        else:
            self._losses.extend([0.0] * (step + 1 - len(self._losses)))
        self._total += loss - self._losses[step]
        self._losses[step] = loss

    @property
    def average(self) -> float:
        return self._total / len(self._losses) if self._losses else math.nan
