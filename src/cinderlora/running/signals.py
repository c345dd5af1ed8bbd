"""A front end that is asked to go: what it looks after is stopped first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["farewell"]

_NAMES = ("SIGTERM", "SIGHUP")


@contextmanager
def farewell() -> Iterator[None]:
    """While this lasts, SIGTERM and a hang-up do what Ctrl-C does, so that a block that looks after a run stops it;
    then they end the program as they would have.

    Nothing is changed where the program deals with these signals, or does not deal with Ctrl-C in Python, or in another
    thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    relays = [relay for name in _NAMES if hasattr(signal, name) for relay in _Relay.on(getattr(signal, name))]
    try:
        yield
    finally:
        for relay in relays:
            relay.leave()


class _Relay:
    """The handler of one signal. Blocks within each other share it: it is found again in the process's own table."""

    @classmethod
    def on(cls, number: signal.Signals) -> Iterator[_Relay]:
        """The relay for a signal that nobody else handles."""
        handler: object = signal.getsignal(number)
        if handler is signal.SIG_DFL:
            handler = cls(number)
            signal.signal(number, handler)
        if isinstance(handler, cls):
            handler._blocks += 1
            yield handler

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self._blocks = 0
        self._came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        signal.raise_signal(signal.SIGINT)

    def leave(self) -> None:
        """To be called at the end of a block."""
        self._blocks -= 1
        current: object = signal.getsignal(self._number)
        if self._blocks == 0 and current is self:
            signal.signal(self._number, signal.SIG_DFL)
            if self._came:
                signal.raise_signal(self._number)
