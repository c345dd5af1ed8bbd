"""What was read of somebody else's configuration, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from attrs import Factory, define, evolve, field, frozen

from cinderlora.dataset.data import printable
from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.problems import Problem
from cinderlora.types import Preset, Settings

__all__ = ["FORMATS", "Dropped", "Entry", "Format", "Imported", "Reading", "Taken", "shown", "words"]

Format = Literal["kohya_gui", "sd_scripts", "command_line", "onetrainer", "ai_toolkit"]
FORMATS: tuple[Format, ...] = ("kohya_gui", "sd_scripts", "command_line", "onetrainer", "ai_toolkit")


# ---- what is handed out ----


@frozen(kw_only=True)
class Taken:
    """One of their settings, and what it is now."""

    key: str = field(converter=printable)
    """Theirs."""
    value: str
    """Theirs, fit to be printed."""
    setting: str
    """Ours: a setting, `extra.<argument>`, `models.<role>`, `name`, `trigger`, `dataset` or `output`. "" where
    cinderlora does just that anyway."""
    now: Any = None
    """Our value; a path is text."""


@frozen(kw_only=True)
class Dropped:
    """One of their settings that has no place here."""

    key: str = field(converter=printable)
    value: str
    """Fit to be printed; "" for a secret."""
    why: Problem


@frozen(kw_only=True)
class Imported:
    """A configuration of another program, said in cinderlora's words.

    `job_arguments()` are arguments for `adapter.job`; what is not in them (a name, a data set, ...) the file did not
    say. `settings` is complete in the sense that what the trainer's own defaults decided is set as well, where the
    format leaves that to them: those settings are named in `implied`.
    """

    format: Format
    model_type: str | None = None
    """None where it could not be told; a problem says so."""
    name: str | None = None
    trigger: str | None = None
    dataset: Path | None = None
    output: Path | None = None
    models: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    """Paths by role."""
    settings: Settings = field(factory=Settings)
    taken: tuple[Taken, ...] = field(default=(), converter=as_tuple)
    dropped: tuple[Dropped, ...] = field(default=(), converter=as_tuple)
    implied: tuple[str, ...] = field(default=(), converter=as_tuple)
    """Settings (`extra.<argument>` as well) that follow from what the file does not say."""
    problems: tuple[Problem, ...] = field(default=(), converter=as_tuple)
    """What a person has to look at."""
    files: tuple[Path, ...] = field(default=(), converter=as_tuple)
    """The files that were read."""

    def job_arguments(self) -> dict[str, Any]:
        """What the configuration says, as arguments for `adapter.job`: `flux.job(**imported.job_arguments())`."""
        own = {name: getattr(self, name) for name in ("name", "trigger", "dataset", "output")}
        given = {name: value for name, value in own.items() if value is not None}
        return given | ({"models": dict(self.models)} if self.models else {}) | dict(self.settings.items())

    def preset(self, name: str, title: str = "") -> Preset:
        """The settings as a preset, without what names files."""
        settings = {key: value for key, value in self.settings.items() if key != "output_prefix"}
        return Preset(name=name, title=title, model_type=self.model_type, **settings)

    def save_job(self, path: str | Path) -> None:
        """Write a job file for `cinderlora train`. What it does not say can be given beside it:
        `cinderlora train job.toml --dataset FOLDER`."""
        from cinderlora.serial import save_job_part

        save_job_part(self.model_type, self.job_arguments(), Path(path))


# ---- what the formats are read into ----


@frozen
class Entry:
    """One argument of sd-scripts, as a configuration of any form has it."""

    value: Any
    key: str
    """What the configuration calls it."""
    theirs: Any
    """Its value there."""


@define
class Reading:
    """What a configuration says, in the words of sd-scripts' arguments: every format is read into one.

    `complete` says that the trainer would get nothing else, so that its own defaults hold for what is not there.
    """

    format: Format
    script: str | None = None
    """The training script's file name, where it is known."""
    complete: bool = True
    dataset_known: bool = True
    """False where the data set is described in a file that could not be read."""
    table: dict[str, Entry] = Factory(dict)
    name: str | None = None
    """The character's name where something else than the LoRA's file name tells it."""
    trigger: Entry | None = None
    prompts: tuple[str, ...] = ()
    """Lines of sd-scripts' prompt file."""
    dropped: list[Dropped] = Factory(list)
    problems: list[Problem] = Factory(list)

    def take(self, argument: str, value: Any, key: str | None = None, theirs: Any = None) -> None:
        """An argument with its value; `key` and `theirs` where the configuration says it in other words."""
        self.table[argument] = Entry(value, key or argument, value if theirs is None else theirs)

    def drop(self, key: str, value: Any, code: str, **params: Any) -> None:
        """A setting that is not taken over, and why."""
        self.dropped.append(Dropped(key=key, value=shown(value), why=Problem(code, params, "warning")))

    def refuse(self, entry: Entry, problem: Problem) -> None:
        """An argument that is not taken over, for what is wrong with it."""
        why = evolve(problem, severity="warning")
        self.dropped.append(Dropped(key=entry.key, value=shown(entry.theirs), why=why))

    def problem(self, code: str, **params: Any) -> None:
        """Something that a person has to look at."""
        self.problems.append(Problem(code, params, "warning"))


def shown(value: Any) -> str:
    """A value of somebody else's, fit to be printed."""
    if isinstance(value, (list, tuple)):
        text = " ".join(shown(item) for item in value[:50])
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = printable(str(value)[:1000])
    return text if len(text) <= 120 else f"{text[:119]}…"


def words(text: str) -> frozenset[str]:
    """A vocabulary: the words of a text."""
    return frozenset(text.split())
