"""The async face: launching a plan, attaching to runs, following them. Runs on asyncio and trio."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from cinderlora.events import Event
from cinderlora.running.base import RunBase, is_out_of_reach
from cinderlora.running.devices import placed
from cinderlora.running.folder import RunFolder, StateName
from cinderlora.running.folding import Status
from cinderlora.running.follow import POLL, Follower
from cinderlora.running.signals import farewell
from cinderlora.running.starting import begin
from cinderlora.running.stopping import GRACE, StopReport, stop_run
from cinderlora.types import Plan

if TYPE_CHECKING:
    from cinderlora.gpu import Gpu
    from cinderlora.registry import Registry
    from cinderlora.trainers import Trainer

__all__ = ["Events", "Run", "attach", "launch", "runs", "status"]

T = TypeVar("T")


class Events:
    """The events of a run as they come, until the run has ended. Leaving a loop over it loses nothing: the next loop
    goes on behind the last event."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._pending: deque[Event] = deque()
        self._is_up_to_date = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._pending:
            if self._follower.ending is not None:
                raise StopAsyncIteration
            if self._is_up_to_date:
                # To the next beat, which all followers have in common: the event loop wakes up once for all of them.
                await anyio.sleep(POLL - anyio.current_time() % POLL)
            else:
                await anyio.lowlevel.checkpoint()  # or a program would be deaf while much is read at once
            self._pending.extend(self._follower.poll())
            self._is_up_to_date = not self._follower.is_behind
        return self._pending.popleft()


class Run(RunBase):
    """A run, of this program or of another one, going on or ended. `launch` and `attach` give it.

    Iterating gives the events from the start, or from behind `since`.
    """

    def __init__(self, folder: RunFolder, **options: Any) -> None:
        super().__init__(folder, **options)
        self._iteration: Events | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._iteration is None:
            self._iteration = Events(self._own_follower)
        return await anext(self._iteration)

    def events(self, since: int | None = None) -> Events:
        """The events once more, for somebody else: from the start, or from behind an event's `seq`."""
        return Events(Follower(self._folder, self._adapter, since=since))

    async def wait(self) -> None:
        """Wait for the end of the run. What came of it, `result` tells."""
        while not self._guardian.is_over():  # noqa: ASYNC110 - it is another process that ends
            await anyio.sleep(POLL)

    async def stop(
        self, grace: float = GRACE, by: str | None = None, *, after: Literal["checkpoint"] | None = None
    ) -> StopReport:
        """End the run's whole process tree: politely, after `grace` seconds by force. Returns when that is done and
        recorded, even if cancelled meanwhile. `by` is what `Stopped` will say. Harmless if the run has ended.

        `after="checkpoint"` first waits for the next checkpoint, and for the state that is saved with it. Cancelled
        until then, the run goes on. Raises `StillRunning` where no checkpoint is due before the end.
        """
        if after is not None:
            saved = await anyio.to_thread.run_sync(self._until_saved)
            while not saved.poll():  # noqa: ASYNC110 - it is another process that saves
                await anyio.sleep(POLL)
        return await _to_the_end(lambda: stop_run(self._folder, grace, by))

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
        """Go on with this run, which has ended: `async with run.resume() as resumed`, a run of its own.

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
        """Launch the same again, as the run's record has it: `async with run.repeat() as again`. Raises what
        `repeat_plan` raises; what has changed since, `changes()` says, and the new run's first events.

        Its LoRA takes the place of the earlier one unless it is given another `name`. Its run folder lies beside this
        one's unless `runs` says otherwise. For the block, `detach` and `configs` see `launch`; for `gpus`, `resume`.
        """
        return Launching(lambda: self._begin_repeated(name, trainer, runs, configs, gpus), detach, self._registry)


class Launching:
    """The context manager that `launch` and `Run.resume` give."""

    def __init__(self, begins: Callable[[], Path], detach: bool, registry: Registry | None) -> None:
        self._begins = begins
        self._detach = detach
        self._registry = registry
        self._run: Run | None = None
        self._farewell = ExitStack()

    async def __aenter__(self) -> Run:
        if not self._detach:
            self._farewell.enter_context(farewell())
        try:
            await _to_the_end(self._begin)
        except BaseException:
            with self._farewell:
                await self._stop()  # cancelled while the trainer was being started
            raise
        assert self._run is not None  # noqa: S101 - _begin raises or sets it
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._farewell:
            if self._detach or is_out_of_reach(error):
                return
            if error is not None:
                await self._stop()
                return
            assert self._run is not None  # noqa: S101
            try:
                await self._run.wait()
            except BaseException as failure:
                if not is_out_of_reach(failure):
                    await self._stop()
                raise

    def _begin(self) -> None:
        self._run = Run(RunFolder(self._begins()), registry=self._registry, live=True)

    async def _stop(self) -> None:
        if self._run is not None:
            await self._run.stop()


async def _to_the_end(work: Callable[[], T]) -> T:
    """Do blocking work in a thread and see it through, whatever is cancelled meanwhile; the cancellation comes after.

    A shield alone does not do it: asyncio's own `task.cancel()` and `asyncio.timeout()` go through anyio's.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed over to who waits
            failure.append(error)

    thread = threading.Thread(target=run, name="cinderlora")
    thread.start()
    cancelled: BaseException | None = None
    with anyio.CancelScope(shield=True):
        while thread.is_alive():
            try:
                await anyio.to_thread.run_sync(thread.join)
            except anyio.get_cancelled_exc_class() as error:
                cancelled = error
    if failure:
        raise failure[0]
    if cancelled is not None:
        raise cancelled
    return outcome[0]


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
    """Start a plan: `async with launch(plan) as run`. Raises `LaunchFailed`, with nothing left behind.

    Makes a run folder in `runs` (by default in the user's data folder) and copies the configuration files to
    `configs`, where given. The training does not depend on this program: it goes on if this one is killed. But the
    block looks after it: left normally, it waits for the end; left by an exception or cancellation, it stops the run,
    and where the program has no handling of its own for SIGTERM and hang-ups, so do these. With `detach` it does none
    of this. `registry` is for programs that registered plugins in code.

    `gpus` are the cards that it sees, as `nvidia-smi` counts them; on several it trains at once, one process on each
    through the trainer's own launcher. Steps are the optimizer's, so each takes as many batches as there are cards.
    With `machines` (all with as many cards), launch the same plan on each, with its own `machine_rank` and the
    `main_address` ("host" or "host:port") of the one with rank 0, which writes the LoRA.
    """
    where, kept = Path(runs) if runs else None, Path(configs) if configs else None

    def begins() -> Path:
        on = placed(plan, gpus, machines=machines, machine_rank=machine_rank, main_address=main_address)
        return begin(on, where, kept)

    return Launching(begins, detach, registry)


def attach(folder: Path | str, *, since: int | None = None, registry: Registry | None = None) -> Run:
    """The run in a run folder, going on or ended; iterating gives its events from the start, or from behind `since`.

    Raises `RunNotFound`.
    """
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
    """The runs in a folder of runs, newest first; by default those in the user's data folder. Reads no logs.

    Only those in a `state` (or one of several), of a `model_type`, whose `name` fits a pattern ("elena*"), launched
    `since` a time (a `datetime`, or seconds since the epoch), and at most `limit` of them.
    """
    return Run.all_in(
        folder, state=state, model_type=model_type, name=name, since=since, limit=limit, registry=registry
    )


def status(folder: Path | str, *, registry: Registry | None = None) -> Status:
    """How the run in a run folder stands; raises `RunNotFound`. Who asks often keeps a `Run` and asks its `status`."""
    return Run.at(folder, registry=registry).status
