"""How far a training was, from the end of its log: a list of runs need not read all of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cinderlora.events import Progress
from cinderlora.running.folder import RunFolder

if TYPE_CHECKING:
    from cinderlora.adapter import Adapter

__all__ = ["Figures", "last_figures"]

# Bytes from the end that are looked through, one after the other. Behind the last step there are some lines; where
# samples are drawn at the end, the bars of those; after a crash, a traceback.
_ROOMS = (1 << 14, 1 << 20)


class Figures(NamedTuple):
    """What the training's bar last said, earlier runs' steps included."""

    step: int | None = None
    total: int | None = None
    loss: float | None = None
    """The moving average."""


def last_figures(folder: RunFolder, adapter: Adapter) -> Figures | None:
    """The last figures in a log, the same that a follower ends with; None where the end of a large log has none, and
    all of it would have to be read."""
    state = folder.state()
    ended = state is not None and state.ended is not None
    try:
        with folder.log.open("rb") as log:
            length = state.log_length if state is not None and ended else os.fstat(log.fileno()).st_size
            for room in _ROOMS:
                start = max(0, length - room)
                log.seek(start)
                data = log.read(length - start)
                if start:
                    data = _from_a_line_on(data)
                last = _last(data, folder, adapter, complete=ended)
                if last is not None:
                    return Figures(last.step, last.total, last.loss)
                if not start:
                    return Figures()
    except OSError:
        return Figures()
    return None


def _from_a_line_on(data: bytes) -> bytes:
    """Without the first line, which is cut."""
    ends = [at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0]
    return data[min(ends) :] if ends else b""


def _last(data: bytes, folder: RunFolder, adapter: Adapter, *, complete: bool) -> Progress | None:
    stream = adapter.event_stream(first_step=folder.launch.first_step)
    events = [*stream.feed(data), *(stream.close() if complete else ())]
    bars = [event for event in events if isinstance(event, Progress)]
    return bars[-1] if bars else None
