"""musubi-tuner's output: its log lines have a head and go to stderr, what `accelerate` prints has none."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cinderlora.rehearsal.console import clock

__all__ = ["WithHeads", "log", "over"]

T = TypeVar("T")

# The first words of what goes past the log.
_PLAIN = re.compile(
    r"running training|  |epoch [0-9]|saving checkpoint: |removing old checkpoint: |import network module"
    r"|prepare optimizer|load network weights|override steps"
)


def log(module: str, text: str, level: str = "INFO") -> None:
    """A line of the log, as Python's `logging.basicConfig` has it."""
    print(f"{level}:{module}:{text}", file=sys.stderr, flush=True)


def over(items: Iterable[T]) -> Iterator[T]:
    """The items, under a bar that does not know how many there will be."""
    started = time.perf_counter()
    sys.stderr.write("\r0it [00:00, ?it/s]")
    for count, item in enumerate(items, 1):
        yield item
        elapsed = max(time.perf_counter() - started, 1e-6)
        sys.stderr.write(f"\r{count}it [{clock(elapsed)}, {count / elapsed:5.2f}it/s]")
        sys.stderr.flush()
    sys.stderr.write("\n")


class WithHeads(io.TextIOBase):
    """Stands in for stdout: what the miniature training prints there, as musubi-tuner would."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._plain = sys.stdout
        self._line = ""

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if not line or _PLAIN.match(line):
                self._plain.write(line + "\n")
            else:
                log(self._module, line)
        return len(text)

    def flush(self) -> None:
        self._plain.flush()
