"""Sees to it that the end of a run is recorded: a supervisor that was killed is replaced."""

from __future__ import annotations

import time

from cinderlora.running.folder import RunFolder
from cinderlora.running.starting import adopt

__all__ = ["Guardian"]

_EVERY = 1.0  # seconds between two looks at the lock
_AGAIN = 60.0  # seconds until a supervisor is started again that could not be


class Guardian:
    """Looks after one run for one of its followers."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._looked = float("-inf")
        self._failed = float("-inf")
        self._lost = False

    def is_lost(self) -> bool:
        """Whether the end will never be on record: the run is over, and its folder cannot be written. To be called
        often: it looks once a second."""
        now = time.monotonic()
        if not self._lost and now - self._looked > _EVERY:
            self._looked = now
            if self._folder.is_orphaned() and not self._adopt(now):
                self._lost = self._folder.state_name == "lost"
        return self._lost

    def _adopt(self, now: float) -> bool:
        if now - self._failed < _AGAIN:
            return False
        if adopt(self._folder):
            return True
        self._failed = now
        return False

    def is_over(self) -> bool:
        """Whether the run has ended, on record or lost."""
        state = self._folder.state()
        return (state is not None and state.ended is not None) or self.is_lost()
