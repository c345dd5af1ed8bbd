"""How fast output becomes events, against one compiled expression on the same lines, and what memory it takes.

    python benchmarks/parse.py [REFRESHES]

The lines are those of a training of REFRESHES / 2 steps (1,000,000 if not said): two refreshes of the bar each, the
first with the new step and rate, the second with the new loss, so that each of them is an event. The expression takes
from a line what an event needs, converts nothing, and is given the lines decoded and cut. Both take turns on pieces of
1,000 lines; it is CPU time that counts, and of each the quickest piece, which other programs disturbed least.

Also given: the same where a plugin is asked about each line first, and the recorded trainings of the tests, which are
nearly all log lines.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cinderlora.running.lines import LineSplitter
from cinderlora.running.stream import EventStream, Parser, public
from cinderlora.sd_scripts.progress import parse_progress

PIECE = 1000
CHUNK = 65536
CORE = ("cinderlora", parse_progress)
RECORDINGS = Path(__file__).parent.parent / "tests" / "data" / "captures"
LINE = re.compile(r"steps: +\d+%\|[^|]*\| (\d+)/(\d+) \[[^,]*, *([\d.?]+)(it/s|s/it)(?:, avr_loss=([^\]]+))?\]")


def pieces(count: int) -> Iterator[bytes]:
    """The output of `count` / 2 steps."""
    total, lines = count // 2, []
    for step in range(1, total + 1):
        times = f"{step // 30:02d}:{step * 2 % 60:02d}<{(total - step) // 30:02d}:19"
        bar = f"steps: {step * 100 // total:3d}%|█████     | {step}/{total} [{times}, {2 + step % 311 / 100:5.2f}s/it"
        lines += [f"\r{bar}, avr_loss={loss % 997 / 997:.3g}]" for loss in (step - 1, step)]
        if len(lines) == PIECE:
            yield "".join(lines).encode()
            lines.clear()
    if lines:
        yield "".join(lines).encode()


def feed(stream: EventStream, data: bytes) -> int:
    """The number of events that the stream finds in it."""
    return sum(len(public(stream.feed(data[at : at + CHUNK]))) for at in range(0, len(data), CHUNK))


def not_mine(line: str, phase: str | None) -> None:
    """The hook of a plugin that wants other lines."""


def quickest(data: bytes, lines: int, *parsers: tuple[str, Parser]) -> float:
    """Lines per second, the best of fifty."""
    spent = []
    for _ in range(50):
        stream = EventStream(parsers)
        begin = time.process_time()
        feed(stream, data)
        spent.append(time.process_time() - begin)
    return lines / min(spent)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    stream, events = EventStream([CORE]), 0
    plain, ours, peaks = [], [], []
    for piece in pieces(count):
        lines = piece.decode().split("\r")[1:]
        match = LINE.match
        begin = time.process_time()
        for line in lines:
            match(line)
        plain.append((time.process_time() - begin) / len(lines))
        assert all(map(match, lines))

        begin = time.process_time()
        events += feed(stream, piece)
        ours.append((time.process_time() - begin) / len(lines))
        peaks.append(peak_mb())

    print(f"{count:,} refreshes, {events:,} events: {1 / min(ours):,.0f} lines/s")
    print(f"one expression over the same lines: {1 / min(plain):,.0f} lines/s; ratio {min(plain) / min(ours):.2f}")
    print(f"peak memory: {peaks[len(peaks) // 10]:.1f} MB after a tenth, {peaks[-1]:.1f} MB after all")

    piece = next(pieces(PIECE))
    print(f"a plugin is asked first: {quickest(piece, PIECE, ('other', not_mine), CORE):,.0f} lines/s")
    recorded = b"\n".join(path.read_bytes() for path in sorted(RECORDINGS.glob("*/output.log")))
    count = len(LineSplitter().feed(recorded))
    print(f"recorded trainings, {count:,} lines: {quickest(recorded, count, CORE):,.0f} lines/s")


if __name__ == "__main__":
    main()
