"""From output bytes to logical lines: bars complete at their "]", wrapping undone, terminal codes gone. Pure.

A trainer's output is written for a terminal. tqdm refreshes its bars with a carriage return *before* each refresh, so
that nothing tells the end of the newest one but its own closing bracket, and whatever is printed next stands on the
same line. rich wraps its log records at 80 columns in the middle of words. Here one refresh of a bar is one line, and
so is one line of a log message.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["LONGEST", "Line", "LineSplitter"]

LONGEST = 1 << 16
"""Bytes: what goes on longer without a line end is cut there, so that memory is bounded whatever is printed."""


class Line(NamedTuple):
    """One logical line: a refresh of a bar, or a log line without its wrapping, time, level and place."""

    text: str
    end: int
    """Bytes of the output up to its end, the line end itself not counted. No two lines have the same."""
    bar: bool
    level: str | None = None
    """INFO, WARNING, ... where rich printed one."""


# All its parts stop at brackets and line ends, so a bar that is complete is recognised the same way whatever follows.
_BAR = re.compile(
    rb"(?:[ \t]|\x1b\[[0-?]{0,20}[@-~]){0,200}"  # padding of what was there before, cursor movements
    rb"((?:[^\x00- \x7f\[\]|][^\x00-\x1f\x7f\[\]|]{0,200}?: )?"  # its description
    rb"(?: {0,2}[0-9]{1,3}%\|[^\x00-\x1f\x7f\[\]|]{0,1000}\| {0,20}[0-9.]{1,20}[A-Za-z]{0,9}/[0-9.?]{1,20}[A-Za-z]{0,9}"
    rb"|[0-9.]{1,20}[A-Za-z]{1,20}) \[[0-9:]+[<,][^\x00-\x1f\x7f\]]{0,1000}\])"
)
# A bar that a narrow terminal has cut.
_CUT_BAR = re.compile(r"(?:[^|\[\]]{1,200}: )? {0,2}[0-9]{1,3}%\|")
_C1 = b"\xc2"  # the first byte of a control character in UTF-8
_LINE_END = re.compile(rb"[\r\n]")
_LINE_ENDS = _RETURN, _NEWLINE = tuple(b"\r\n")
# What clears a bar that stood on the line below.
_CLEARED = re.compile(r"^(?:[ \t]*\x1b\[[0-9]*A)+")
# Hyperlinks and titles, then colours and cursor movements, then other escapes and control characters. What is shown to
# people must not steer their terminal.
_TERMINAL = re.compile(
    r"\x1b\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class LineSplitter:
    """Takes output in any chunks and gives the logical lines in it. They depend on the bytes, never on the chunks."""

    def __init__(self) -> None:
        self._rest = b""  # what has no end yet
        self._at = 0  # place in the rest, while it is gone through
        self._offset = 0  # of the rest in the output
        self._searched = 0  # bytes of the rest that hold no line end
        self._after_cr = False  # whether the byte before the rest is a carriage return
        self._after_bar = False  # whether the rest follows a bar on its line
        self._record: _Record | None = None

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that are complete with this chunk. A wrapped log line is when the next line shows that it is."""
        return list(self.lines(chunk))

    def lines(self, chunk: bytes) -> Iterator[Line]:
        """As `feed`, one by one, so that `more` can take what follows a bar. All of them have to be taken."""
        data = self._rest = self._rest + chunk
        size, at, searched = len(data), 0, self._searched  # what was searched holds no line end
        offset = self._offset
        while at < size:
            first = data[at]
            if first in _LINE_ENDS:
                if first == _NEWLINE and not self._after_cr and not self._after_bar:
                    yield from self._close_record()  # an empty line is part of none; the middle of \r\n is no line
                self._after_cr, self._after_bar = first == _RETURN, False
                at += 1
                continue
            limit = at + LONGEST
            end = _LINE_END.search(data, max(at, searched), limit)
            stop = searched = end.start() if end else min(size, limit)
            bar = _BAR.match(data, at) if data.find(b"]", at, stop) >= 0 else None
            if bar is not None:
                if self._record is not None:
                    yield from self._close_record()
                self._at = bar.end()
                self._after_cr, self._after_bar = False, True
                yield Line(_bar_text(bar[1]), offset + self._at, True)
            elif end is None and stop < limit:
                break
            else:
                lines = self._physical(data[at:stop], offset + stop)
                self._after_cr, self._after_bar = end is not None and data[stop] == _RETURN, False
                self._at = stop if end is None else stop + 1
                yield from lines
            at = self._at
        self._rest, self._offset, self._searched, self._at = data[at:], offset + at, max(searched - at, 0), 0

    def more(self, refresh: re.Pattern[bytes]) -> Iterator[tuple[int, tuple[bytes, ...]]]:
        """The refreshes of a bar that follow the line given last, if that was a bar: the end and the groups of each.

        `refresh` matches what precedes one on its line, the carriage return, and the whole of it, to its bracket.
        """
        data, offset, match = self._rest, self._offset, refresh.match
        while (found := match(data, self._at)) is not None:
            self._at = end = found.end()
            self._after_cr, self._after_bar = False, True
            yield offset + end, found.groups()

    def close(self) -> list[Line]:
        """What is left when the output has ended."""
        lines: list[Line] = []
        if self._rest:
            lines = self._physical(self._rest, self._offset + len(self._rest))
            self._offset += len(self._rest)
            self._rest, self._searched = b"", 0
        return lines + self._close_record()

    def _physical(self, raw: bytes, end: int) -> list[Line]:
        """Take one line as it was printed, or what followed a bar on it; gives what is complete with it."""
        text = raw.decode("utf-8", "replace")
        if not text.isprintable():
            text = _TERMINAL.sub("", _CLEARED.sub("", text, count=1))
        text = text.rstrip()
        head = _RECORD.match(text)
        place = text.rpartition(" ")[2]
        begins = head is not None and _PLACE.fullmatch(place)
        if not begins and self._record is not None and not self._after_bar and self._record.continues_with(text):
            return self._record.take(text[_MESSAGE:], end)
        lines = self._close_record()
        if head is not None and begins:
            self._record = _Record(head["level"].rstrip(), text[head.end() : -len(place)], end)
        elif text and not text.isspace():
            text = text.lstrip() if self._after_bar else text
            lines.append(Line(text, end, "%|" in text and _CUT_BAR.match(text) is not None))
        return lines

    def _close_record(self) -> list[Line]:
        record, self._record = self._record, None
        return [] if record is None else record.flush()


def _bar_text(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    return text if _C1 not in raw else _TERMINAL.sub("", text)


# ---- rich's log records ----------------------------------------------------------------------------------------------
#
# A record is a table: time (19 columns, blank where it is the one of the record before), level (8), message, and the
# place in the source at the right edge of the first row, with one blank between columns. Where a bar precedes it on
# its line, the padding of that bar may come first.

_MESSAGE = 29  # the message's column
_RECORD = re.compile(
    r" *?(?:[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}| {19}) (?P<level>DEBUG   |INFO    |WARNING |ERROR   |CRITICAL) "
)
_PLACE = re.compile(r"[^\s:]+:[0-9]+")


class _Record:
    """A log record whose rows are put together again, as far as they are one line of its message.

    A row that could have held the next row's first word was ended by the message itself. A row that holds one word and
    is full was cut within it. All others were wrapped at a blank.
    """

    def __init__(self, level: str, first: str, end: int) -> None:
        """`first` is the message's column of the first row, with the blank that follows it."""
        self.level = level
        self._width = _cells(first) - 1
        self._text = self._row = first.rstrip()
        self._end = end

    def continues_with(self, text: str) -> bool:
        """Whether a line is this record's next row. Its trailing blanks are gone."""
        row = text[_MESSAGE:]
        return not text or (text[:_MESSAGE].isspace() and 0 < _cells(row) <= self._width)

    def take(self, row: str, end: int) -> list[Line]:
        """Add the next row; gives the line of the message that ended before it, if one did."""
        lines: list[Line] = []
        if not self._text or not row or row[0] == " " or self._had_room_for(row) or len(self._text) > LONGEST:
            lines = self.flush()
            self._text = row
        elif " " not in self._row.lstrip() and _cells(self._row) + _cells(row[0]) > self._width:
            self._text += row
        else:
            self._text += " " + row
        self._row, self._end = row, end
        return lines

    def _had_room_for(self, row: str) -> bool:
        return _cells(self._row) + 1 + _cells(row.partition(" ")[0]) <= self._width

    def flush(self) -> list[Line]:
        """The line put together so far, if there is one."""
        text, self._text = self._text, ""
        return [Line(text, self._end, False, self.level)] if text.strip() else []


def _cells(text: str) -> int:
    """The columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)
