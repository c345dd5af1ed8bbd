"""The blocking face: launching a plan, attaching to runs, following them, without an event loop.

>>> from cinderlora.sync import launch
>>> def train(plan):
...     with launch(plan) as run:
...         for event in run:
...             print(event)
...     return run.result.lora
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from cinderlora.events import Event
from cinderlora.queues.base import Changes, QueueBase
from cinderlora.queues.entries import Entry
from cinderlora.queues.watching import POLL as QUEUE_POLL
from cinderlora.running.base import RunBase, is_out_of_reach
from cinderlora.running.devices import placed
from cinderlora.running.folder import RunFolder, StateName
from cinderlora.running.follow import POLL, Follower
from cinderlora.running.signals import farewell
from cinderlora.running.starting import begin
from cinderlora.running.stopping import GRACE, StopReport, stop_run
from cinderlora.types import Plan

if TYPE_CHECKING:
    from cinderlora.gpu import Gpu
    from cinderlora.registry import Registry
    from cinderlora.trainers import Trainer

__all__ = ["Events", "Launching", "Queue", "Run", "Watching", "attach", "launch", "runs"]


class Events:
    """The events of a run as they come, until the run has ended. A second loop goes on where the first was left."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._pending: deque[Event] = deque()
        self._is_closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._pending and not self._is_closed:
            if self._follower.ending is not None:
                raise StopIteration
            self._pending.extend(self._follower.poll())
            if not self._pending and not self._follower.is_behind:
                time.sleep(POLL)
        if self._is_closed:
            raise StopIteration
        return self._pending.popleft()

    def close(self) -> None:
        """End the loop over it, which may be waiting for a trainer that says nothing for minutes. The run goes on. To
        be called from any thread."""
        self._is_closed = True


class Run(RunBase):
    """`cinderlora.Run` for blocking code. To be used by one thread; `stop` may be called from any."""

    def __init__(self, folder: RunFolder, **options: Any) -> None:
        super().__init__(folder, **options)
        self._iteration: Events | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._iteration is None:
            self._iteration = Events(self._own_follower)
        return next(self._iteration)

    def events(self, since: int | None = None) -> Events:
        """The events once more, for somebody else: from the start, or from behind an event's `seq`."""
        return Events(Follower(self._folder, self._adapter, since=since))

    def wait(self) -> None:
        """Wait for the end of the run. What came of it, `result` tells."""
        while not self._guardian.is_over():
            time.sleep(POLL)

    def stop(
        self, grace: float = GRACE, by: str | None = None, *, after: Literal["checkpoint"] | None = None
    ) -> StopReport:
        """End the run's whole process tree: politely, after `grace` seconds by force. `by` is what `Stopped` will
        say. Harmless if the run has ended.

        `after="checkpoint"` first waits for the next checkpoint, and for the state that is saved with it. Interrupted
        until then, the run goes on. Raises `StillRunning` where no checkpoint is due before the end.
        """
        if after is not None:
            saved = self._until_saved()
            while not saved.poll():
                time.sleep(POLL)
        return stop_run(self._folder, grace, by)

    def resume(
        self,
        *,
        steps: int | None = None,
        trainer: Trainer | None = None,
        runs: Path | str | None = None,
        detach: bool = False,
        configs: Path | str | None = None,
        gpus: Sequence[Gpu] | None = None,
    ) -> Launching:
        """Go on with this run, which has ended: `with run.resume() as resumed`, a run of its own.

        It starts from what `resume_plan` finds, and raises what that raises. Its folder lies beside this one's unless
        `runs` says otherwise. It trains the steps that are left and counts on, and in the end its files lie in the
        output folder under the steps in all; no checkpoint or sample that is there is overwritten. For the block,
        `detach` and `configs` see `launch`. A training on several GPUs goes on with them unless `gpus` says otherwise.
        """
        return Launching(lambda: self._begin_resumed(steps, trainer, runs, configs, gpus), detach, self._registry)

    def repeat(
        self,
        *,
        name: str | None = None,
        trainer: Trainer | None = None,
        runs: Path | str | None = None,
        detach: bool = False,
        configs: Path | str | None = None,
        gpus: Sequence[Gpu] | None = None,
    ) -> Launching:
        """Launch the same again, as the run's record has it: `with run.repeat() as again`. Raises what `repeat_plan`
        raises; what has changed since, `changes()` says, and the new run's first events.

        Its LoRA takes the place of the earlier one unless it is given another `name`. Its run folder lies beside this
        one's unless `runs` says otherwise. For the block, `detach` and `configs` see `launch`; for `gpus`, `resume`.
        """
        return Launching(lambda: self._begin_repeated(name, trainer, runs, configs, gpus), detach, self._registry)


class Launching:
    """The context manager that `launch` and `Run.resume` give. Ctrl-C inside the block stops the run."""

    def __init__(self, begins: Callable[[], Path], detach: bool, registry: Registry | None) -> None:
        self._begins = begins
        self._detach = detach
        self._registry = registry
        self._run: Run | None = None
        self._farewell = ExitStack()

    def __enter__(self) -> Run:
        if not self._detach:
            self._farewell.enter_context(farewell())
        try:
            with _interrupts_held():
                self._run = Run(RunFolder(self._begins()), registry=self._registry, live=True)
        except BaseException:
            with self._farewell:
                self._stop()
            raise
        return self._run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._farewell:
            if self._detach or is_out_of_reach(error):
                return
            if error is not None:
                self._stop()
                return
            assert self._run is not None  # noqa: S101
            try:
                self._run.wait()
            except BaseException as failure:
                if not is_out_of_reach(failure):
                    self._stop()
                raise

    def _stop(self) -> None:
        if self._run is not None:
            self._run.stop()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait for a moment: a trainer that is being started must not be forgotten halfway."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def launch(
    plan: Plan,
    *,
    runs: Path | str | None = None,
    detach: bool = False,
    configs: Path | str | None = None,
    gpus: Sequence[Gpu] | None = None,
    machines: int = 1,
    machine_rank: int = 0,
    main_address: str | None = None,
    registry: Registry | None = None,
) -> Launching:
    """Start a plan: `with launch(plan) as run`. As `cinderlora.launch`, blocking."""
    where, kept = Path(runs) if runs else None, Path(configs) if configs else None

    def begins() -> Path:
        on = placed(plan, gpus, machines=machines, machine_rank=machine_rank, main_address=main_address)
        return begin(on, where, kept)

    return Launching(begins, detach, registry)


def attach(folder: Path | str, *, since: int | None = None, registry: Registry | None = None) -> Run:
    """The run in a run folder. As `cinderlora.attach`, blocking."""
    return Run.at(folder, since=since, registry=registry)


def runs(
    folder: Path | str | None = None,
    *,
    state: StateName | Collection[StateName] | None = None,
    model_type: str | None = None,
    name: str | None = None,
    since: datetime | float | None = None,
    limit: int | None = None,
    registry: Registry | None = None,
) -> list[Run]:
    """The runs in a folder of runs, newest first, all or those that are meant. As `cinderlora.runs`, blocking."""
    return Run.all_in(
        folder, state=state, model_type=model_type, name=name, since=since, limit=limit, registry=registry
    )


class Watching:
    """Entries of a queue as they change. A second loop goes on where the first was left."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._pending: deque[Entry] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Entry:
        while not self._pending:
            if self._changes.is_over:
                raise StopIteration
            self._pending.extend(self._changes.look())
            if not self._pending:
                time.sleep(QUEUE_POLL)
        return self._pending.popleft()


class Queue(QueueBase):
    """`cinderlora.Queue` for blocking code. To be used by one thread."""

    def watch(self, *, forever: bool = False) -> Watching:
        """The entries as they change, all of them first; one that was removed comes with the state "removed". Ends
        when nothing runs and nothing will be started, unless it is to go on `forever`."""
        return Watching(Changes(self, forever=forever))

    def wait(self) -> None:
        """Wait until nothing runs and nothing will be started."""
        for _ in self.watch():
            pass

    def stop(self, number: int, *, grace: float = GRACE, by: str | None = None) -> StopReport:
        """End the run of an entry as `Run.stop` does; the queue goes on with the next one. Harmless if it has ended;
        `QueueError` for one that has not begun: remove it, or hold it."""
        return self._stop(number, grace, by)
