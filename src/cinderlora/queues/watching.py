"""The async face of a queue. Runs on asyncio and trio."""

from __future__ import annotations

from collections import deque
from typing import Self

import anyio
import anyio.lowlevel

from cinderlora.queues.base import Changes, QueueBase
from cinderlora.queues.entries import Entry
from cinderlora.running.run import _to_the_end
from cinderlora.running.stopping import GRACE, StopReport

__all__ = ["POLL", "Queue", "Watching"]

POLL = 0.1  # seconds between two looks


class Watching:
    """Entries as they change. Leaving a loop over it loses nothing: the next loop goes on behind the last change."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._pending: deque[Entry] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        while not self._pending:
            await anyio.lowlevel.checkpoint()
            if self._changes.is_over:
                raise StopAsyncIteration
            self._pending.extend(self._changes.look())
            if not self._pending:
                await anyio.sleep(POLL)
        return self._pending.popleft()


class Queue(QueueBase):
    __doc__ = QueueBase.__doc__

    def watch(self, *, forever: bool = False) -> Watching:
        """The entries as they change, all of them first; one that was removed comes with the state "removed". Ends
        when nothing runs and nothing will be started, unless it is to go on `forever`."""
        return Watching(Changes(self, forever=forever))

    async def wait(self) -> None:
        """Wait until nothing runs and nothing will be started."""
        async for _ in self.watch():
            pass

    async def stop(self, number: int, *, grace: float = GRACE, by: str | None = None) -> StopReport:
        """End the run of an entry as `Run.stop` does; the queue goes on with the next one. Harmless if it has ended;
        `QueueError` for one that has not begun: remove it, or hold it."""
        return await _to_the_end(lambda: self._stop(number, grace, by))
