"""Where the command line writes: people's language, records for programs, and nothing that could steer a terminal."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cinderlora.cli.words import say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cinderlora.config import Config
    from cinderlora.errors import CinderloraError
    from cinderlora.problems import Diagnosis, Problem
    from cinderlora.registry import Registry

__all__ = ["Terminal", "clean", "duration", "gigabytes", "loss_text"]


def clean(text: object) -> str:
    """Text from people, files and logs, fit to be printed: what could move the cursor, change colours or turn the
    writing direction becomes "?"."""
    return "".join(c if c.isprintable() else " " if c in "\t\n" else "?" for c in str(text))


def _say_in(console: Console, text: Text, indent: int = 0) -> None:
    """Sentences: one line in a pipe; in a terminal broken between words, the second and following set in. What is
    longer than a line, a path for instance, stays whole."""
    from rich.text import Text

    if console.is_terminal:
        wrapper = textwrap.TextWrapper(console.width, subsequent_indent=" " * indent)
        wrapper.break_long_words = wrapper.break_on_hyphens = False
        lines = wrapper.wrap(text.plain)
        text = Text("\n".join(lines), text.style, spans=text.spans)  # those are of the first line's beginning
    console.print(text, soft_wrap=True)


def duration(seconds: float) -> str:
    """45s, 12m, 1h 20m."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{max(0, round(seconds))}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def gigabytes(size: float) -> str:
    """Bytes as people say them: 320 MB, 11.9 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def loss_text(loss: float | None) -> str:
    """A loss with three digits that tell."""
    return "-" if loss is None else f"{loss:.3g}"


class Terminal:
    """One call of the command line: its language, whether a program reads along, and its two streams."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        options = argv[: argv.index("--")] if "--" in argv else argv
        self.json: bool = "--json" in options
        self.debug: bool = "--debug" in options or bool(environ.get("CINDERLORA_DEBUG"))

    @cached_property
    def config(self) -> Config:
        """This machine's configuration; raises `ConfigError`."""
        from cinderlora.config import Config

        return Config.load()

    @cached_property
    def registry(self) -> Registry:
        """The installed plugins, with the preset files of the working folder and the user."""
        from cinderlora.preset_files import preset_folders
        from cinderlora.registry import Registry

        return Registry.from_installed(presets=preset_folders())

    @cached_property
    def language(self) -> str:
        """ "en" or "de": what is configured; the system's where the configuration cannot be read."""
        from cinderlora.config import default_language
        from cinderlora.errors import ConfigError

        try:
            return self.config.language
        except ConfigError:
            return os.environ.get("CINDERLORA_LANGUAGE") or default_language()

    def say(self, key: str, /, **params: object) -> str:
        """A text of the command line, its parameters made harmless."""
        return say(key, self.language, **{name: clean(value) for name, value in params.items()})

    # ---- for people -----------------------------------------------------------------------------------------------

    @cached_property
    def out(self) -> Console:
        """For results."""
        return self._console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """For errors, and for what is said beside."""
        return self._console(stderr=True)

    @staticmethod
    def _console(*, stderr: bool) -> Console:
        from rich.console import Console

        class Unsilent(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError  # not the end of this program: a training of it goes on

        stream = sys.stderr if stderr else sys.stdout
        # A pipe has no width: lines and tables are as long as they are.
        width = None if stream.isatty() else 10_000
        return Unsilent(file=stream, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)

    def print(self, text: str = "", style: str | None = None, *, prose: bool = False) -> None:
        """A line of the result, made harmless; `prose` is broken between words in a terminal."""
        from rich.text import Text

        if prose:
            _say_in(self.out, Text(clean(text), style or ""))
        else:
            self.out.print("\n".join(map(clean, text.split("\n"))), style=style, soft_wrap=True)

    def note(self, text: str, style: str | None = None) -> None:
        """A line beside the result, or several."""
        from rich.text import Text

        for line in map(clean, text.split("\n")):
            _say_in(self.err, Text(line, style or ""), len(line) - len(line.lstrip()))

    def problems(self, problems: Sequence[Problem]) -> None:
        """What is wrong with a request, errors first, each with its code and its cure."""
        ordered = sorted(problems, key=lambda p: p.severity != "error")
        texts = [problem.text(self.language) for problem in ordered]
        for n, (problem, text) in enumerate(zip(ordered, texts, strict=True)):
            # Four missing files have one cure: it is told once, behind the last.
            told_next = any(following.fix == text.fix for following in texts[n + 1 : n + 2])
            self._trouble(problem.severity, problem.code, text.message, "" if told_next else text.fix)

    def diagnosis(self, diagnosis: Diagnosis) -> None:
        """Why a training failed: the cause, the lines that show it, the cure, and the options to try it with."""
        text = diagnosis.text(self.language)
        self._trouble("failed", diagnosis.code, text.message, text.fix, diagnosis.evidence)
        if diagnosis.changes:
            self.note(f"  {self.say('try_changes', options=as_options(diagnosis.changes))}")

    def _trouble(self, kind: str, code: str, message: str, fix: str, evidence: Sequence[str] = ()) -> None:
        from rich.text import Text

        colour = "yellow" if kind == "warning" else "red"
        head = Text.assemble((self.say(kind), f"bold {colour}"), (f" [{clean(code)}] ", "dim"), clean(message))
        _say_in(self.err, head, 2)
        for line in evidence:
            self.err.print(Text(f"  | {clean(line)}", "dim"), soft_wrap=True)
        if fix:
            _say_in(self.err, Text(f"  -> {clean(fix)}"), 5)

    # ---- for programs ---------------------------------------------------------------------------------------------

    def record(self, value: Any) -> None:
        """One line of JSON."""
        print(json.dumps(value), flush=True)

    # ---- errors ---------------------------------------------------------------------------------------------------

    def error(self, error: CinderloraError, evidence: Sequence[str] = ()) -> None:
        """Say what went wrong, to people, with lines that show it, or to a program."""
        from cinderlora.errors import JobRefused, TrainingFailed

        if self.json:
            self.record({"error": self._error_record(error)})
        elif isinstance(error, JobRefused):
            self.problems(error.problems)
        elif isinstance(error, TrainingFailed):
            self.diagnosis(error.diagnosis)
        else:
            text = error.text(self.language)
            self._trouble("error", error.code, text.message, text.fix, evidence)

    def _error_record(self, error: CinderloraError) -> dict[str, Any]:
        from cinderlora.errors import JobRefused
        from cinderlora.serial import to_json

        text = error.text(self.language)
        record = {"code": error.code, "message": text.message, "fix": text.fix, "params": to_json(dict(error.params))}
        if isinstance(error, JobRefused):
            record["problems"] = [
                {**to_json(problem), **problem.text(self.language)._asdict()} for problem in error.problems
            ]
        return record

    def plain_error(self, code: str, message: str, fix: str = "") -> None:
        """An error that is none of cinderlora's own."""
        if self.json:
            self.record({"error": {"code": code, "message": message, "fix": fix, "params": {}}})
        else:
            self._trouble("error", code, message, fix)


def as_options(changes: Mapping[str, Any]) -> str:
    """Changed settings as options of `train`."""
    options = []
    for name, value in changes.items():
        flag = name.replace("_", "-")
        if name == "extra" and isinstance(value, Mapping):
            options += [f"--set {key}={json.dumps(item)}" for key, item in value.items()]
        elif isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            options.append(f"--{flag} {json.dumps(value) if isinstance(value, str) else value}")
    return " ".join(options)
