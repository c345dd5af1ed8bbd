"""The samples of several jobs on one picture: a row for each job, a column for each step. Needs Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cinderlora.errors import QueueError
from cinderlora.queues.comparing import Outcome

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["draw_sheet"]

_CELL = 256  # pixels: the larger side of a sample
_GAP = 12
_MARGIN = 28
_LABEL = 250  # pixels for what a row is
_VALUE = 136  # pixels from a setting's name to its value
_HEAD = 34
_COLUMNS = 6
_PAPER, _INK, _FAINT, _MARK, _EMPTY = "#fafaf7", "#1c1c1a", "#77776f", "#1d7a46", "#ecebe4"


def draw_sheet(outcomes: Sequence[Outcome], path: Path, *, columns: int = _COLUMNS) -> Path:
    """Draw the samples of jobs side by side, and give the path: the first prompt's, at most so many steps of them, the
    last always. The ending of the path says which kind of picture (PNG, JPEG, WebP).

    Raises `QueueError`: `sheet_no_samples` where no job has drawn any, `extra_missing` without Pillow,
    `file_not_written`.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise QueueError("extra_missing", what="a contact sheet", packages=["pillow"], extra="pictures") from error
    rows = [(outcome, {s.step: s.path for s in outcome.samples if s.index == 0}) for outcome in outcomes]
    rows = [(outcome, found) for outcome, found in rows if found]
    if not rows:
        raise QueueError("sheet_no_samples")
    steps = _chosen(sorted({step for _, found in rows for step in found}), columns)
    pictures = [[_thumbnail(found.get(step)) for step in steps] for _, found in rows]
    widths = [max((p.width for row in pictures if (p := row[n])), default=_CELL) for n in range(len(steps))]
    best = min((o.loss for o, _ in rows if o.result is not None and o.loss is not None), default=None)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    labels = [_label(measure, o, o.loss is not None and o.loss == best and len(rows) > 1) for o, _ in rows]
    heights = [
        max([label[-1].top + 20, *(picture.height for picture in row if picture)])
        for label, row in zip(labels, pictures, strict=True)
    ]
    size = (
        2 * _MARGIN + _LABEL + sum(widths) + _GAP * len(widths),
        2 * _MARGIN + _HEAD + sum(heights) + _GAP * (len(heights) - 1),
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    lefts = [_MARGIN + _LABEL + _GAP * (n + 1) + sum(widths[:n]) for n in range(len(widths))]
    for left, step in zip(lefts, steps, strict=True):
        pen.text((left, _MARGIN), f"{step}", font=_font(18), fill=_INK)
        pen.text((left + pen.textlength(f"{step} ", font=_font(18)), _MARGIN + 4), "steps", font=_font(13), fill=_FAINT)
    top = _MARGIN + _HEAD
    for label, row, height in zip(labels, pictures, heights, strict=True):
        for word in label:
            pen.text((_MARGIN + word.left, top + word.top), word.text, font=_font(word.size), fill=word.colour)
        for left, width, picture in zip(lefts, widths, row, strict=True):
            if picture is None:
                pen.rectangle((left, top, left + width - 1, top + height - 1), fill=_EMPTY)
            else:
                sheet.paste(picture, (left, top))
        top += height + _GAP
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:  # ValueError: no kind of picture ends like this
        raise QueueError("file_not_written", path=str(path), why=str(error)) from error
    return path


def _chosen(steps: list[int], columns: int) -> list[int]:
    """At most so many of the steps, as evenly as can be, the last one always."""
    count = max(1, min(columns, len(steps)))
    return [steps[len(steps) * (n + 1) // count - 1] for n in range(count)]


def _thumbnail(path: Path | None) -> Image | None:
    """A sample made small; None where it is gone or is no picture."""
    from PIL import Image, UnidentifiedImageError

    if path is None:
        return None
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    scale = _CELL / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), _filter(scale))


def _filter(scale: float) -> Any:
    from PIL.Image import Resampling

    return Resampling.LANCZOS if scale < 1 else Resampling.BICUBIC


class Word(NamedTuple):
    """A word of a label: where it stands below and right of the label's corner, and how."""

    text: str
    left: int
    top: int
    size: int
    colour: str


def _label(pen: ImageDraw, outcome: Outcome, is_best: bool) -> list[Word]:
    """What a row is: the name, the settings that are its own, the loss."""
    words = []
    top = 0
    for line in _wrapped(pen, outcome.entry.name, 19)[:3]:
        words.append(Word(line, 0, top, 19, _INK))
        top += 25
    top += 5
    for name, value in outcome.settings.items():
        words.append(Word(name.replace("_", " "), 0, top, 14, _FAINT))
        for line in _wrapped(pen, _text(value), 14, room=_LABEL - _VALUE)[:2]:
            words.append(Word(line, _VALUE, top, 14, _INK))
            top += 20
    top += 6
    if outcome.loss is not None:
        text = f"{outcome.loss:.3g}" + ("  lowest" if is_best else "")
        words += [Word("loss", 0, top, 14, _FAINT), Word(text, _VALUE, top, 14, _MARK if is_best else _INK)]
    elif outcome.result is None:
        words.append(Word(outcome.entry.state, 0, top, 14, _FAINT))
    return words


def _wrapped(pen: ImageDraw, text: str, size: int, room: int = _LABEL) -> list[str]:
    """Text in lines that fit, broken anywhere: names have no blanks."""
    lines, line = [], ""
    for character in text:
        if line and pen.textlength(line + character, font=_font(size)) > room:
            cut = max(line.rfind("-"), line.rfind(" ")) + 1
            keep = cut if cut > len(line) // 2 else len(line)
            lines.append(line[:keep])
            line = line[keep:]
        line += character
    return [*lines, line]


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
