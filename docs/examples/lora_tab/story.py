"""One run as it has been told so far, in bounded memory, however long it trains and however many watch."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

from cinderlora import CinderloraError, Phase, Progress, Registry, SampleSaved, Started, Status, sync

POINTS = 500
SAMPLES = 60


class Story:
    """Follows a run to its end in a thread of its own. Browsers only look at what it has heard."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.rehearsal = False
        self.phases: list[str] = []
        self.samples: dict[tuple[int, int], Path] = {}
        self.curve: list[tuple[int, float]] = []  # the loss by step, thinned out but for the newest
        self._stride = 1
        self._lock = Lock()
        self._run = sync.attach(folder, registry=registry)
        self.events = self._run.events()
        Thread(target=self._listen, daemon=True).start()

    def status(self) -> Status:
        with self._lock:
            return self._run.status

    def _listen(self) -> None:
        with suppress(CinderloraError):  # the run folder was removed; `status` tells
            for event in self.events:
                match event:
                    case Progress(step=step, loss=loss) if loss is not None and math.isfinite(loss):
                        self._note(step, loss)
                    case SampleSaved(path=path, step=step, index=index):
                        self.samples = dict([*self.samples.items(), ((step, index), path)][-SAMPLES:])
                    case Phase(name=name) if name not in self.phases:
                        self.phases = [*self.phases, name]
                    case Started(rehearsal=rehearsal):
                        self.rehearsal = rehearsal

    def _note(self, step: int, loss: float) -> None:
        last = [at for at, _ in self.curve[-2:]]
        crowded = step in last or (len(last) == 2 and last[1] - last[0] < self._stride)
        self.curve = [*(self.curve[:-1] if crowded else self.curve), (step, loss)]
        if len(self.curve) > POINTS:
            self.curve = [*self.curve[:-1:2], self.curve[-1]]
            self._stride *= 2
