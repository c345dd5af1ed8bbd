"""The process of a queue's supervisor: python -m cinderlora.queues FOLDER

It says "started", or "locked" where another one has the queue, on its standard output, and lets go of that. Then it is
on its own, in a session of its own, until nothing is left to do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cinderlora.queues.supervising import QueueSupervisor
from cinderlora.running.supervisor import answer, leave, take_lock


def main(folder: Path) -> None:
    """Work off the queue in a folder."""
    leave()
    lock = take_lock(str(folder))
    if lock is None:
        raise SystemExit("locked")
    supervisor = QueueSupervisor(folder, lock)
    answer("started\n")
    supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
