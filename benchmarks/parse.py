"""How fast output becomes events: lines per second through `EventStream`, and memory, on 1,000,000 bar refreshes.

    python benchmarks/parse.py [REFRESHES]

Also given: the ratio to one compiled expression over the same lines in the same run, which does not depend on the
machine as much.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Iterator

from cinderlora.running.stream import EventStream, public
from cinderlora.sd_scripts.progress import parse_progress

CHUNK = 65536
LINE = re.compile(
    r"steps: +(\d+)%\|[^|]*\| (\d+)/(\d+) \[([^<]*)<([^,]*), *([\d.?]+)(it/s|s/it)(?:, avr_loss=(\S+))?\]"
)


def refreshes(count: int) -> Iterator[bytes]:
    """The output of `count` / 2 steps: two refreshes each, the loss in the second."""
    piece = []
    total = count // 2
    for step in range(1, total + 1):
        bar = f"\rsteps: {step * 100 // total:3d}%|█████     | {step}/{total} [00:19<00:19,  4.86s/it, avr_loss="
        piece.append(f"{bar}{(step - 1) % 997 / 997:.3g}]{bar}{step % 997 / 997:.3g}]")
        if len(piece) == 256:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode()


def chunks(count: int) -> Iterator[bytes]:
    rest = b""
    for piece in refreshes(count):
        rest += piece
        while len(rest) >= CHUNK:
            yield rest[:CHUNK]
            rest = rest[CHUNK:]
    yield rest


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    before, spent, events = peak_mb(), 0.0, 0
    stream = EventStream([("cinderlora", parse_progress)])
    for chunk in chunks(count):
        begin = time.perf_counter()
        events += len(public(stream.feed(chunk)))
        spent += time.perf_counter() - begin
    after = peak_mb()

    plain, matched = 0.0, 0
    for piece in refreshes(count):
        lines = piece.decode().split("\r")[1:]
        begin = time.perf_counter()
        matched += sum(LINE.match(line) is not None for line in lines)
        plain += time.perf_counter() - begin

    assert matched == count, matched
    print(f"{count:,} refreshes, {events:,} events: {count / spent:,.0f} lines/s")
    print(f"one expression over the same lines: {count / plain:,.0f} lines/s; ratio {spent / plain:.1f}")
    print(f"peak memory: {before:.1f} MB before, {after:.1f} MB after")


if __name__ == "__main__":
    main()
