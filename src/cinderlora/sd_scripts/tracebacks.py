"""The exceptions in a log: which were raised, through which code, and which belong together. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

__all__ = ["Raised", "cause_chain", "raised_in"]

_TRACEBACK = "Traceback (most recent call last)"
_RANK = re.compile(r"\[rank[0-9]+\]: ?")  # torch puts it before each line where several processes train
_AFTER_TRACE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:: .*)?$")
# Where the traceback itself is missing: only what is certainly an exception. argparse's `x.py: error:` is none.
_ALONE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Invalid)(?:: .*)?$")
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")

# What the launcher and the data loader's processes say when the trainer has ended; never why it did.
_ECHOES = re.compile(r"(?:subprocess\.)?CalledProcessError|ConnectionResetError|BrokenPipeError|EOFError$|SystemExit")


@frozen
class Raised:
    """An exception as printed: its line, the lines of its traceback, and where they are in the log."""

    text: str
    trace: str
    begin: int
    end: int
    chained: bool = False
    """It came up while the one before was handled, or speaks of the same."""


def raised_in(lines: Sequence[str]) -> list[Raised]:
    """All exceptions in a log, in order."""
    found: list[Raised] = []
    chained = False
    at = 0
    lines = [_RANK.sub("", line, count=1) if line.startswith("[rank") else line for line in lines]
    while at < len(lines):
        line, begin = lines[at], at
        at += 1
        if line.startswith(_CHAINED):
            chained = True
        elif _TRACEBACK in line:
            chained = chained or line.startswith("Original ")
            while at < len(lines) and lines[at][:1] in ("", " ", "\t", "│", "╭", "╰"):
                at += 1
            if at < len(lines) and _AFTER_TRACE.match(lines[at]):
                found.append(Raised(lines[at], "\n".join(lines[begin + 1 : at]), begin, at, chained))
                chained = False
                at += 1
        elif _ALONE.match(line):
            found.append(Raised(line, "", begin, begin, chained))
            chained = False
    return found


def cause_chain(raised: Sequence[Raised]) -> list[Raised]:
    """The last exception that is not an echo of another process's end, then those it came of, newest first."""
    chain: list[Raised] = []
    for one in reversed([r for r in raised if not _ECHOES.match(r.text)]):
        if chain and not chain[-1].chained:
            break
        chain.append(one)
    return chain
