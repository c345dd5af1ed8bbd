"""Every exception that cinderlora raises. Each has a stable `code`; texts in English and German are in `texts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cinderlora.texts import Text, text_of

if TYPE_CHECKING:
    from cinderlora.problems import Diagnosis, Problem

__all__ = [
    "CinderloraError",
    "ConfigError",
    "InstallFailed",
    "JobRefused",
    "LaunchFailed",
    "PluginError",
    "QueueError",
    "RunNotFound",
    "SettingError",
    "StillRunning",
    "TrainerNotFound",
    "TrainingFailed",
    "TrainingStopped",
    "UnknownName",
]


class CinderloraError(Exception):
    """The base of all. `code` says what happened, `params` with what, `str()` says it in English with the cure."""

    def __init__(self, code: str, /, **params: Any) -> None:
        self.code = code
        self.params = params
        super().__init__(code, params)

    def __reduce__(self) -> Any:
        # Exceptions are pickled by their positional arguments; ours are made from keywords.
        return _rebuilt, (type(self), self.args, self.__dict__)

    def text(self, language: str = "en") -> Text:
        """The message and the fix in a language ("en" or "de")."""
        return text_of(self.code, self.params, language) or Text(self.code, "")

    @property
    def message(self) -> str:
        """What failed, in English."""
        return self.text().message

    @property
    def fix(self) -> str:
        """What to do about it, in English."""
        return self.text().fix

    def __str__(self) -> str:
        text = self.text()
        return f"{text.message} {text.fix}".strip()


def _rebuilt(cls: type[CinderloraError], args: tuple[Any, ...], state: dict[str, Any]) -> CinderloraError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class UnknownName(CinderloraError, KeyError):
    """There is no model type, preset or role of that name. `params`: name, known, nearest."""


class SettingError(CinderloraError, ValueError):
    """A setting is unknown or of the wrong type. `params` name it."""


class ConfigError(CinderloraError, ValueError):
    """A TOML file (a preset, a job, the machine's configuration) cannot be read. `params`: path, where, why."""


class PluginError(CinderloraError):
    """A plugin cannot be used. `params`: plugin, why."""


class TrainerNotFound(CinderloraError):
    """No sd-scripts where one was expected. `params`: path."""


class JobRefused(CinderloraError, ValueError):
    """A job has errors; `problems` holds all of them, `code` is the first one's."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems[0].code, **problems[0].params)
        self.problems = problems

    def text(self, language: str = "en") -> Text:
        """All messages and all fixes, in a language."""
        texts = [p.text(language) for p in self.problems]
        return Text(" ".join(t.message for t in texts), " ".join(t.fix for t in texts if t.fix))


class LaunchFailed(CinderloraError):
    """The run could not be started. `params`: folder, why."""


class InstallFailed(CinderloraError):
    """sd-scripts could not be installed; nothing of it is left. `params`: path, why, step (one of `installing.STEPS`)
    and output (the last lines of the program that failed), as far as they say anything."""


class RunNotFound(CinderloraError, LookupError):
    """There is no run in that folder. `params`: folder."""


class QueueError(CinderloraError):
    """The queue cannot do that. `params`: folder or entry, why."""


class StillRunning(CinderloraError):
    """The result was asked for before the end. `params`: folder."""


class TrainingStopped(CinderloraError):
    """The result was asked for of a run that somebody stopped. `params`: by."""


class TrainingFailed(CinderloraError):
    """The result was asked for of a run that failed; `diagnosis` says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.code, **diagnosis.params)
        self.diagnosis = diagnosis

    def text(self, language: str = "en") -> Text:
        """The diagnosis' cause and fix, in a language."""
        return self.diagnosis.text(language)
