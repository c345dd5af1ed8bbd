"""What the two faces of a queue, the async and the blocking one, have in common. Blocking, but brief."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from cinderlora.errors import QueueError, RunNotFound, UnknownName
from cinderlora.queues.entries import ENDED, Entry, Gpu, QueueSettings, QueueStatus, in_order
from cinderlora.queues.freezing import Frozen, freeze
from cinderlora.queues.store import Store
from cinderlora.running.base import RunBase
from cinderlora.running.folder import RunFolder
from cinderlora.running.starting import default_runs_folder
from cinderlora.running.stopping import GRACE, StopReport, stop_run
from cinderlora.types import Job, Plan

if TYPE_CHECKING:
    from cinderlora.queues.comparing import Outcome
    from cinderlora.registry import Registry
    from cinderlora.trainers import Trainer

__all__ = ["QueueBase", "default_queue_folder"]

_START_LIMIT = 60.0  # seconds that a job which is being started has to have its run, before it can be stopped


def default_queue_folder() -> Path:
    """Where the queue lies unless said otherwise: `queue` in the user's data folder."""
    from cinderlora.folders import data_folder

    return data_folder() / "queue"


class QueueBase:
    """A queue of trainings in a folder. Making one looks at nothing and writes nothing.

    `gpus` are those that jobs may have ("all", or numbers as `nvidia-smi` counts), `gpus_per_job` how many each gets;
    where no GPU can be asked for, one job runs at a time. With `stop_on_failure` the queue pauses when a job fails.
    With `retry_out_of_memory` a job that ran out of memory is tried once more with what its diagnosis advises. What is
    not given is as the queue has it on record; what is given goes on record with the next `add` or `start`. `registry`
    is for programs that registered plugins in code.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        gpus: Sequence[Gpu] | Literal["all"] | None = None,
        gpus_per_job: int | None = None,
        stop_on_failure: bool | None = None,
        retry_out_of_memory: bool | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.folder: Path = (Path(folder) if folder is not None else default_queue_folder()).expanduser().absolute()
        chosen = gpus if gpus is None or gpus == "all" else tuple(gpus)
        if (gpus_per_job or 1) < 1 or (isinstance(chosen, tuple) and 0 < len(chosen) < (gpus_per_job or 1)):
            raise QueueError("queue_gpus_few", gpus=list(chosen or ()), per_job=gpus_per_job)
        self._options: dict[str, Any] = {
            "gpus": chosen,
            "gpus_per_job": gpus_per_job,
            "stop_on_failure": stop_on_failure,
            "retry_out_of_memory": retry_out_of_memory,
        }
        self._registry = registry
        self._store = Store(self.folder)
        self._runs: dict[Path, RunBase] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.folder}>"

    # ---- looking ----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> QueueSettings:
        """What goes for the whole queue: what is on record, with what was given to this object over it."""
        return self._with_options(self._store.settings())

    @property
    def is_running(self) -> bool:
        """Whether the queue's supervisor is there, which starts what waits."""
        from cinderlora.running.supervisor import is_supervised

        return is_supervised(str(self.folder))

    def entries(self) -> tuple[Entry, ...]:
        """All entries: those that have ended by their end, those under way, then those to come in the order they will
        be started in."""
        found = [self._as_it_is(entry) for entry in self._store.entries().values()]
        return tuple(in_order(found, self._store.settings().order))

    def entry(self, number: int) -> Entry:
        """One entry; raises `UnknownName`."""
        found = self._store.entry(number)
        if found is None:
            raise UnknownName("queue_entry_unknown", name=number, known=sorted(self._store.entries()))
        return self._as_it_is(found)

    def plan(self, number: int) -> Plan:
        """The plan of an entry as it was frozen. Raises `UnknownName`, and `ConfigError` where it cannot be read."""
        self.entry(number)
        try:
            return Frozen.read(self._store.plan_text(number)).plan
        except (OSError, ValueError) as error:
            from cinderlora.errors import ConfigError

            if isinstance(error, ConfigError):
                raise
            raise ConfigError("plan_unreadable", why=str(error)) from error

    def status(self) -> QueueStatus:
        """How the queue stands, the progress of what runs with it. To be asked again and again: it reads what is
        new."""
        is_running = self.is_running
        entries = tuple(
            attrs.evolve(entry, status=self._run_status(entry.run)) if entry.state == "running" else entry
            for entry in self.entries()
        )
        settings = self._store.settings()
        return QueueStatus(
            folder=self.folder,
            is_running=is_running,
            paused=settings.paused,
            problem=settings.problem,
            entries=entries,
            put_aside=self._store.put_aside(),
        )

    def outcomes(self, numbers: Iterable[int] | None = None) -> tuple[Outcome, ...]:
        """What came of entries (all, unless some are named), side by side: the settings in which they differ, loss,
        seconds, LoRA, samples. Reads the logs of their runs: call it in a thread from async code."""
        from cinderlora.queues.comparing import outcomes

        chosen = self.entries() if numbers is None else [self.entry(number) for number in numbers]
        return outcomes([(entry, self.plan(entry.id)) for entry in chosen], self._registry)

    def sheet(self, path: Path | str, numbers: Iterable[int] | None = None) -> Path:
        """Draw the samples of entries (all, unless some are named) side by side on one picture: a row for each job, a
        column for each step. Needs Pillow (`cinderlora[pictures]`). Raises `QueueError` where there are none."""
        from cinderlora.queues.sheet import draw_sheet

        return draw_sheet(self.outcomes(numbers), Path(path))

    def _as_it_is(self, entry: Entry) -> Entry:
        """An entry whose run has ended says so, even where nobody is there to put it on record."""
        if entry.state != "running" or entry.run is None:
            return entry
        try:
            folder = self._run(entry.run)._folder
            state, name = folder.state(), folder.state_name
        except RunNotFound:
            return attrs.evolve(entry, state="lost")
        ended = state.ended if state is not None else None
        return entry if name == "running" else attrs.evolve(entry, state=name, ended=ended)

    def _run(self, folder: Path) -> RunBase:
        if folder not in self._runs:
            self._runs[folder] = RunBase(RunFolder(folder), registry=self._registry)
        return self._runs[folder]

    def _run_status(self, folder: Path | None) -> Any:
        try:
            return None if folder is None else self._run(folder).status
        except RunNotFound:
            return None

    # ---- changing ---------------------------------------------------------------------------------------------------

    def add(
        self,
        wanted: Plan | Job,
        trainer: Trainer | None = None,
        *,
        hold: bool = False,
        start: bool = True,
        runs: Path | str | None = None,
        configs: Path | str | None = None,
    ) -> Entry:
        """Add a plan, or a job with the trainer that is to run it, at the end of the queue.

        Its configuration is frozen here: presets, settings, captions and job files that change later change nothing.
        The pictures and models are linked when it starts; if one of them is another file by then, the entry fails and
        says which. `hold` adds it held, `start` sees to it that the queue runs. Its run folder will lie in `runs` (by
        default in the user's data folder), copies of the configuration files in `configs`.

        Raises `JobRefused` where a job makes no plan, and `QueueError` where another entry to come would write the same
        LoRA.
        """
        plan = wanted if isinstance(wanted, Plan) else self._plan(wanted, trainer)
        frozen = freeze(plan)
        where = Path(runs) if runs is not None else default_runs_folder()
        with self._store.changing():
            lora = lora_path(plan)
            for other in self._store.entries().values():
                if lora.is_absolute() and other.lora == lora and self._as_it_is(other).state not in ENDED:
                    raise QueueError("queue_lora_taken", entry=other.id, lora=str(lora))
            entry = Entry(
                id=self._store.new_id(),
                name=plan.name,
                model_type=plan.model_type,
                state="held" if hold else "waiting",
                added=time.time(),
                lora=lora,
                steps=plan.steps,
                runs=where.expanduser().absolute(),
                configs=Path(configs).expanduser().absolute() if configs is not None else None,
            )
            put_in(self._store, entry, frozen.text(), self.settings)
        if start and not hold:
            self._start_unless_paused()
        return entry

    def move(self, number: int, *, to: int | None = None, before: int | None = None) -> None:
        """Put an entry that is still to come elsewhere: to a place (1 is the next to be started), or before another."""
        with self._store.changing():
            settings = self._store.settings()
            coming = self._coming()
            self._one_of(number, coming)
            rest = [n for n in coming if n != number]
            if before is not None:
                self._one_of(before, coming)
                place = rest.index(before) if before in rest else coming.index(number)
            else:
                place = max(0, (to or 1) - 1)
            rest.insert(place, number)
            self._store.write_settings(attrs.evolve(settings, order=rest))

    def hold(self, number: int) -> Entry:
        """Keep an entry from being started, until it is released."""
        return self._change(number, {"waiting": "held", "held": "held"})

    def release(self, number: int, *, start: bool = True) -> Entry:
        """Let an entry that is held be started when its turn comes; `start` sees to it that the queue runs."""
        entry = self._change(number, {"held": "waiting", "waiting": "waiting"})
        if start:
            self._start_unless_paused()
        return entry

    def remove(self, number: int) -> None:
        """Take an entry out of the queue. Its run folder and its LoRA stay. One that runs is to be stopped first."""
        with self._store.changing():
            entry = self.entry(number)
            if entry.is_under_way:
                raise QueueError("queue_entry_running", entry=number)
            self._store.delete(number)

    def retry(self, number: int, *, start: bool = True) -> Entry:
        """Add an entry that has ended once more, as a new one at the end: the same configuration, with the pictures
        and models as they are now."""
        plan = self.plan(number)
        frozen = freeze(plan)
        with self._store.changing():
            entry = self.entry(number)
            if not entry.is_ended:
                raise QueueError("queue_entry_state", entry=number, state=entry.state)
            again = attrs.evolve(retried(entry, self._store.new_id()), retry_of=number)
            put_in(self._store, again, frozen.text(), self.settings)
        if start:
            self._start_unless_paused()
        return again

    def pause(self) -> None:
        """Start nothing more, until `start`. What runs goes on."""
        with self._store.changing():
            self._store.write_settings(attrs.evolve(self.settings, paused=True, problem=None))

    def start(self) -> None:
        """Have the queue worked off: by a process of its own, one for each queue, which goes on when this program ends
        and goes when nothing is left to do. Harmless where it is there. Raises `LaunchFailed`."""
        with self._store.changing():
            self._store.write_settings(attrs.evolve(self.settings, paused=False, problem=None))
        self._start_unless_paused()

    def _start_unless_paused(self) -> None:
        from cinderlora.queues.process import start_supervisor

        if not self._store.settings().paused and not self.is_running:
            start_supervisor(self.folder)

    def _with_options(self, settings: QueueSettings) -> QueueSettings:
        return attrs.evolve(settings, **{name: value for name, value in self._options.items() if value is not None})

    def _plan(self, job: Job, trainer: Trainer | None) -> Plan:
        from cinderlora.registry import Registry

        if trainer is None:
            raise TypeError("a job is added with its trainer: queue.add(job, trainer)")
        registry = Registry.from_installed() if self._registry is None else self._registry
        return registry[job.model_type].plan(job, trainer)

    def _coming(self) -> list[int]:
        return [entry.id for entry in self.entries() if entry.state in {"waiting", "held"}]

    def _one_of(self, number: int, coming: list[int]) -> None:
        if number not in coming:
            raise QueueError("queue_entry_state", entry=number, state=self.entry(number).state)

    def _change(self, number: int, states: dict[str, Any]) -> Entry:
        with self._store.changing():
            entry = self.entry(number)
            if entry.state not in states:
                raise QueueError("queue_entry_state", entry=number, state=entry.state)
            changed = attrs.evolve(entry, state=states[entry.state])
            if changed != entry:
                self._store.write(changed)
            return changed

    def _stop(self, number: int, grace: float = GRACE, by: str | None = None) -> StopReport:
        """End the run of an entry. Blocking, as long as that takes."""
        until = time.monotonic() + _START_LIMIT
        while (entry := self.entry(number)).state == "starting" and time.monotonic() < until and self.is_running:
            time.sleep(0.02)
        if entry.run is None or entry.state not in {"running", *ENDED}:
            raise QueueError("queue_entry_state", entry=number, state=entry.state)
        return stop_run(RunFolder(entry.run), grace, by)


class Changes:
    """What changes in a queue, look by look."""

    def __init__(self, queue: QueueBase, *, forever: bool) -> None:
        self._queue = queue
        self._forever = forever
        self._known: dict[int, Entry] = {}
        self._idle = 0

    def look(self) -> list[Entry]:
        """The entries that are others than at the last look, as they are now; at the first look all of them."""
        is_running = self._queue.is_running
        now = {entry.id: entry for entry in self._queue.entries()}
        changed = [entry for entry in now.values() if self._known.get(entry.id) != entry]
        gone = [attrs.evolve(entry, state="removed") for number, entry in self._known.items() if number not in now]
        self._known = now
        # Twice: between two looks a supervisor may have been on its way.
        busy = changed or is_running or any(entry.is_under_way for entry in now.values())
        self._idle = 0 if busy else self._idle + 1
        return [*gone, *changed]

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will be started."""
        return not self._forever and self._idle > 1


def lora_path(plan: Plan) -> Path:
    """Where the LoRA of a plan will lie."""
    folder = plan.publish or plan.output
    return (folder.absolute() if folder.is_absolute() or plan.publish else folder) / plan.lora


def put_in(store: Store, entry: Entry, plan: str, settings: QueueSettings, *, first: bool = False) -> None:
    """Put a new entry on record, while nobody else changes the queue: the number first, so that it is never given
    twice, and the entry last, so that it is whole."""
    order = (entry.id, *settings.order) if first else settings.order
    store.write_settings(attrs.evolve(settings, next_id=entry.id + 1, order=order))
    store.write_plan(entry.id, plan)
    store.write(entry)


def retried(entry: Entry, number: int) -> Entry:
    """A new entry for the same job."""
    return Entry(
        id=number,
        name=entry.name,
        model_type=entry.model_type,
        added=time.time(),
        lora=entry.lora,
        steps=entry.steps,
        runs=entry.runs,
        configs=entry.configs,
        retry_of=entry.id,
    )
