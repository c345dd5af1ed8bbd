"""How long it takes to know what a script takes: read from its source, and from what was kept of it.

    python benchmarks/arguments.py [checkout of sd-scripts]

Without a checkout, the suite's small imitation of one. Goals: <= 1 s read, <= 20 ms kept; both in a fresh process each,
from where it has its registry and trainer, as a program has that checks a job.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

IMITATION = Path(__file__).parent.parent / "tests/data/sd_scripts/parsers_in_train_util"
CODE = """
import sys, time
import cinderlora
registry, trainer = cinderlora.Registry.from_installed(), cinderlora.SdScripts(sys.argv[1])
began = time.perf_counter()
known = trainer.arguments(sys.argv[2])
print(1000 * (time.perf_counter() - began), len(known), known.complete)
"""


def milliseconds(checkout: Path, script: str, cache: str) -> tuple[float, str]:
    """What one fresh process takes, and what it found."""
    command = [sys.executable, "-c", CODE, str(checkout), script]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return float(said[0]), f"{said[1]} arguments{'' if said[2] == 'True' else ', not all'}"


def main() -> None:
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else IMITATION
    for script in sorted(path.name for path in checkout.glob("*train_network.py")):
        read, kept, found = [], [], ""
        for _ in range(5):
            with tempfile.TemporaryDirectory() as cache:
                read.append(milliseconds(checkout, script, cache)[0])
                time, found = milliseconds(checkout, script, cache)
                kept.append(time)
        medians = f"read {statistics.median(read):4.0f} ms, kept {statistics.median(kept):4.1f} ms"
        print(f"{script:35} {medians} (at most {max(read):.0f} and {max(kept):.1f}), {found}")


if __name__ == "__main__":
    main()
