"""Sees to it that the end of a run is recorded: a supervisor that was killed is replaced."""

from __future__ import annotations

import time

from cinderlora.running.folder import RunFolder
from cinderlora.running.starting import adopt

__all__ = ["Guardian"]

_EVERY = 1.0  # seconds between two looks at the lock
_AGAIN = 60.0  # seconds until a supervisor is started again that could not be
_AT_MOST = 5.0  # seconds until one is started again that could: if it does not last, the next one may not either


class Guardian:
    """Looks after one run for one of its followers."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._looked = float("-inf")
        self._not_before = float("-inf")
        self._lost = False

    def is_lost(self) -> bool:
        """Whether the end will never be on record: the run is over, and its folder cannot be written. To be called
        often: it looks once a second."""
        now = time.monotonic()
        if not self._lost and now - self._looked > _EVERY:
            self._looked = now
            if self._folder.is_orphaned() and not self._adopt(now):
                # Somebody else may have been quicker, and have put it on record by now.
                self._lost = self._folder.state_name == "lost" and not self._is_on_record()
        return self._lost

    def _adopt(self, now: float) -> bool:
        if now < self._not_before:
            return False
        adopted = adopt(self._folder)
        self._not_before = now + (_AT_MOST if adopted else _AGAIN)
        return adopted

    def _is_on_record(self) -> bool:
        state = self._folder.state()
        return state is not None and state.ended is not None

    def is_over(self) -> bool:
        """Whether the run has ended, on record or lost."""
        return self._is_on_record() or self.is_lost()
