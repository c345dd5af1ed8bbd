"""Command lines of sd-scripts, as text: nothing of a script is ever run.

`accelerate launch ... flux_train_network.py --a b --flag`, from a `.sh` or a `.bat`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

from cinderlora.errors import ConfigError
from cinderlora.importing.data import Reading
from cinderlora.importing.source import Source
from cinderlora.sd_scripts.arguments import known_arguments

__all__ = ["arguments", "read"]

_VARIABLE = {
    "sh": re.compile(r"\$[A-Za-z_{(@*0-9]|`"),
    "bat": re.compile(r"%[^%\s]+%|![A-Za-z_]\w*!|%~?[0-9*]"),
}
_NUMBER = re.compile(r"-\d|-\.\d")


def read(source: Source) -> Reading:
    """The first training that a script starts. Raises `ConfigError` where it starts none."""
    dialect = "bat" if source.path.suffix.lower() in {".bat", ".cmd"} else "sh"
    found = [command for line in _lines(source.text, dialect) for command in _commands(line, dialect, source)]
    if not found:
        raise ConfigError("import_no_command", path=str(source.path))
    reading = Reading(format="command_line")
    launcher, script, rest = found[0]
    if len(found) > 1:
        reading.problem("import_several_commands", count=len(found))
    reading.script = PureWindowsPath(script).name
    if len(launcher) > 1:
        reading.drop(PureWindowsPath(launcher[0]).name, launcher[1:], "import_launcher")
    for name, value in arguments(rest, reading.script):
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and _VARIABLE[dialect].search(text) for text in texts):
            reading.drop(f"--{name}", value, "import_variable")
        else:
            reading.take(name, value, key=f"--{name}", theirs=value)
    return reading


def _lines(text: str, dialect: str) -> Iterator[str]:
    """The script's lines, continued ones put together."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return iter(re.sub(r"\^[ \t]*\n" if dialect == "bat" else r"\\\n", " ", text).split("\n"))


def _commands(line: str, dialect: str, source: Source) -> Iterator[tuple[list[str], str, list[str]]]:
    """The trainings that a line starts: the launcher's words, the script, its arguments."""
    if ".py" not in line or (dialect == "bat" and re.match(r"\s*@?(rem\b|::)", line, re.IGNORECASE)):
        return
    line = re.sub(r"(?<=\s)[0-9](?=>)", "", line)  # `2>&1`: the 2 is no word
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>" if dialect == "sh" else "|&<>")
    lexer.whitespace_split = True
    if dialect == "bat":
        lexer.escape, lexer.quotes, lexer.commenters = "", '"', ""
    try:
        words = list(lexer)
    except ValueError as error:  # a quote that is not closed
        raise ConfigError("file_unreadable", path=str(source.path), why=str(error)) from error
    command: list[str] = []
    for word in [*words, ";"]:
        if not set(word) <= set("|&;<>"):
            command.append(word)
            continue
        at = next((n for n, text in enumerate(command) if text.lower().endswith(".py")), None)
        if at is not None and any(text.startswith("--") for text in command[at + 1 :]):
            yield command[:at], command[at], command[at + 1 :]
        command = []


def arguments(words: Sequence[str], script: str | None) -> Iterator[tuple[str, Any]]:
    """The arguments that words on a command line stand for, by the types that the script gives them.

    As argparse does it: `--key value`, `--key=value`, flags, lists, names cut short where they are still unique. Of an
    argument that is not known, what it takes is told from what follows it.
    """
    known: Mapping[str, Any] = (known_arguments(script) if script else None) or {}
    n = 0
    while n < len(words):
        word = words[n]
        n += 1
        if not word.startswith("--") or word == "--":
            yield word, True
            continue
        name, equals, value = word[2:].partition("=")
        name = _full(name, known)
        values = [value] if equals else []
        argument = known.get(name)
        most = _most(argument)
        while not equals and n < len(words) and len(values) < most and _is_value(words[n]):
            values.append(words[n])
            n += 1
        yield name, _value(values, argument)


def _full(name: str, known: Mapping[str, Any]) -> str:
    name = name.replace("-", "_")
    longer = [key for key in known if key.startswith(name)]
    return longer[0] if name not in known and len(longer) == 1 else name


def _most(argument: Mapping[str, Any] | None) -> float:
    if argument is None or argument["nargs"] in {"*", "+"}:
        return float("inf")
    return 0 if argument["is_boolean"] else 1


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NUMBER.match(word) is not None


def _value(values: list[str], argument: Mapping[str, Any] | None) -> Any:
    if argument is None:
        return True if not values else values[0] if len(values) == 1 else values
    if argument["is_boolean"]:
        return True
    return values if argument["nargs"] in {"*", "+"} else values[0] if values else True
