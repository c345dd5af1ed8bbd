"""What importing cinderlora and loading the installed plugins costs over bare Python, in milliseconds.

    python benchmarks/importing.py [repeats]

Prints the medians of one run. Goals: import <= 30 ms, import and Registry.from_installed() <= 110 ms.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from importlib.metadata import distributions

CASES = {
    "bare python": "pass",
    "import cinderlora": "import cinderlora",
    "from cinderlora import Registry, Preset, Job, hookimpl": "from cinderlora import Registry, Preset, Job, hookimpl",
    "Registry.from_installed()": "import cinderlora; cinderlora.Registry.from_installed()",
    "cinderlora --help": "import sys; sys.argv = ['cinderlora', '--help']; from cinderlora.cli import main; main()",
    "cinderlora presets": "import sys; sys.argv = ['cinderlora', 'presets']; from cinderlora.cli import main; main()",
}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(repeats):  # interleaved, so that a busy moment of the machine hits all cases alike
        for name, code in CASES.items():
            taken[name].append(seconds(code))
    bare = statistics.median(taken["bare python"])
    print(f"{len(list(distributions()))} distributions installed, medians of {repeats}")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:60} {median * 1000:6.0f} ms, {(median - bare) * 1000:+6.0f} over bare, x{median / bare:.1f}")


if __name__ == "__main__":
    main()
