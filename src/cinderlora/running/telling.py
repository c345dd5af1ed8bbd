"""Tells the plugins that a run has ended: `python -m cinderlora.running.telling RUN`, which the supervisor starts.

It is a process of its own: the supervisor may run on a Python without cinderlora, and ends when the run does.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from cinderlora import sync
from cinderlora.registry import Registry


def main(folder: Path) -> None:
    """Call each plugin's `run_finished`. One that raises harms no other."""
    registry = Registry.from_installed()
    run = sync.attach(folder, registry=registry)
    adapter = registry[run.model_type].plugin if run.model_type in registry else ""
    for tell in registry.implementations("run_finished", adapter):
        try:
            tell.call(run=run)
        except (Exception, SystemExit):
            print(f"run_finished of {registry.provider(tell.plugin)} failed:", flush=True)
            traceback.print_exc()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
