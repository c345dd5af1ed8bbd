"""Start a training and follow it, or follow one that is there; signals, and the exit code that comes of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from attrs import field, frozen

from cinderlora.cli.app import DONE, FAILED, STOPPED
from cinderlora.cli.display import Display, display_for
from cinderlora.events import Event, Failed, Finished, Stopped

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from cinderlora.cli.terminal import Terminal
    from cinderlora.running import Run
    from cinderlora.types import Plan

__all__ = ["Launch", "follow", "train_and_follow"]


@frozen(kw_only=True)
class Launch:
    """What to start, and what to say of it."""

    plan: Plan
    title: str
    """The model type's name for people."""
    details: str = ""
    runs: Path | None = None
    configs: Path | None = None
    devices: Mapping[str, Any] = field(factory=dict)
    """The GPUs and machines, as `cinderlora.launch` takes them."""


def train_and_follow(terminal: Terminal, launch: Launch, *, detach: bool = False) -> int:
    """Start a training and, unless detached, show it to its end. Ctrl-C and SIGTERM stop it; if this program is ended
    in another way (its terminal is closed, its output is no longer read), the training goes on."""
    if detach:
        return anyio.run(_start_only, terminal, launch)
    return anyio.run(_train, terminal, launch)


def follow(terminal: Terminal, run: Run, title: str) -> int:
    """Show a run to its end. Ctrl-C leaves it alone."""
    return anyio.run(_watch, terminal, run, title)


async def _start_only(terminal: Terminal, launch: Launch) -> int:
    async with _launched(launch) as run:
        if terminal.json:
            terminal.record({"run": _run_record(run)})
            return DONE
        quoted = _quoted(run.folder)
        terminal.print(terminal.say("started", folder=run.folder), "bold")
        terminal.print(terminal.say("watch_it", command=f"cinderlora watch {quoted}"))
        terminal.print(terminal.say("stop_it", command=f"cinderlora stop {quoted}"))
    return DONE


async def _train(terminal: Terminal, launch: Launch) -> int:
    # The signals first: one that comes while the trainer is being started must not leave it behind.
    async with _signals() as signals, _launched(launch) as run:
        with display_for(terminal, run, title=launch.title, details=launch.details, own=True) as display:
            try:
                return await _show(run, display, _stopping(run, display), signals)
            except BrokenPipeError:
                terminal.note(terminal.say("goes_on", run=_quoted(run.folder)))
                raise


async def _watch(terminal: Terminal, run: Run, title: str) -> int:
    async with _signals() as signals:
        with display_for(terminal, run, title=title, details="", own=False) as display:
            code = await _show(run, display, None, signals)
    if code == STOPPED and run.state == "running" and not terminal.json:
        terminal.note(terminal.say("goes_on", run=_quoted(run.folder)))
    return code


def _launched(launch: Launch) -> Any:
    from cinderlora import launch as start

    return start(launch.plan, runs=launch.runs, configs=launch.configs, detach=True, **launch.devices)


# ---- showing it ------------------------------------------------------------------------------------------------------

Handler = Callable[["TaskGroup", signal.Signals], None]


async def _show(run: Run, display: Display, on_signal: Handler | None, signals: AsyncIterator[Any] | None) -> int:
    """Show the events to the end; a signal is handed to `on_signal`, or ends the showing where that is None."""
    outcome: list[Event] = []

    async def listen(tasks: TaskGroup) -> None:
        assert signals is not None  # noqa: S101
        async for number in signals:
            if on_signal is None:
                tasks.cancel_scope.cancel()
                return
            on_signal(tasks, number)

    async with _one_error(), anyio.create_task_group() as tasks:
        if signals is not None:
            tasks.start_soon(listen, tasks)
        async for event in run:
            display.show(event)
            outcome[:] = [event]
        tasks.cancel_scope.cancel()
    match outcome:
        case [Finished()]:
            return DONE
        case [Failed()]:
            return FAILED
        case [Stopped()] | _:
            return STOPPED


@asynccontextmanager
async def _one_error() -> AsyncIterator[None]:
    """A task group wraps what is raised in it; here there is one thing that can go wrong at a time."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _stopping(run: Run, display: Display) -> Handler:
    """What a signal does to a training of our own: the first one asks it to end, the next one ends it."""
    asked: list[float] = []

    def handle(tasks: TaskGroup, number: signal.Signals) -> None:
        if not asked:
            display.stopping()
        grace = 0.0 if asked else 10.0
        asked.append(grace)
        by = "Ctrl-C" if number == signal.SIGINT else number.name
        tasks.start_soon(lambda: run.stop(grace=grace, by=by))

    return handle


@asynccontextmanager
async def _signals() -> AsyncIterator[AsyncIterator[Any] | None]:
    """SIGINT and SIGTERM as they come; None where the event loop cannot have them (Windows), and Ctrl-C is an
    exception there as everywhere."""
    try:
        receiver = anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM)
        entered = receiver.__enter__()
    except NotImplementedError:
        yield None
        return
    try:
        yield entered
    finally:
        receiver.__exit__(*sys.exc_info())


def _run_record(run: Run) -> dict[str, Any]:
    return {"folder": str(run.folder), "name": run.name, "model_type": run.model_type, "state": run.state}


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
