"""A contact sheet: all pictures of a data set at a glance, what is trained of each, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from cinderlora.dataset.buckets import BucketPlan, Fit
from cinderlora.dataset.check import size_findings
from cinderlora.dataset.data import Dataset, Picture, printable
from cinderlora.dataset.decode import BOMB, in_pool
from cinderlora.dataset.labels import LABELS, SEVERE, label

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["contact_sheet"]

LIMIT = 1500
"""Pictures on a sheet; where there are more, those with problems come first."""

_PAPER, _CARD, _SHADE = "#f3f2ee", "#ffffff", "#e4e2dc"
_INK, _GREY = "#1d1d1f", "#75726b"
_FRAME, _ERROR, _WARNING = "#1f8fff", "#c8322b", "#b86e00"
_WORDS = {
    "pictures": ("{count} pictures", "{count} Bilder"),
    "captions": ("{count} captions", "{count} Captions"),
    "buckets": ("buckets at {resolution} px: {count}", "Buckets bei {resolution} px: {count}"),
    "errors": ("{count} with errors", "{count} mit Fehlern"),
    "warnings": ("{count} with warnings", "{count} mit Warnungen"),
    "left_out": ("{count} more are not shown", "{count} weitere sind nicht zu sehen"),
    "frame": ("what is trained", "was trainiert wird"),
    "error": ("error", "Fehler"),
    "warning": ("warning", "Warnung"),
}


@frozen
class _Size:
    """The measures of a sheet in pixels."""

    columns: int
    thumb: int
    """The side of the square that a picture is fitted into."""
    text: int
    caption_lines: int
    labels: int
    gap: int = 14
    margin: int = 26
    pad: int = 8

    @property
    def card(self) -> tuple[int, int]:
        """Width and height of one picture's card."""
        line = self.text + 5
        lines = 2 + self.caption_lines + self.labels
        return self.thumb + 2 * self.pad, self.thumb + 3 * self.pad + lines * line + 4


def contact_sheet(
    dataset: Dataset,
    plan: BucketPlan | None = None,
    *,
    language: str = "en",
    progress: Callable[[int, int], object] | None = None,
) -> Image:
    """Draw the sheet, as an RGB picture of at most 3600 x 10100 pixels.

    Each picture has its name, its size, the beginning of its caption and what is wrong with it in a word or two; with
    a plan of `dataset.sizes`, a frame shows what its bucket leaves of it. `language` is "en" or "de". Pictures are
    drawn as the trainer sees them: not turned by EXIF, and with what lies beneath transparency. Raises
    `CinderloraError` (`extra_missing`) without the extra `pictures`.
    """
    marks = {picture.path: list(picture.problems) for picture in dataset.pictures}
    fits: dict[Path, Fit | None] = {}
    if plan is not None:
        readable = [picture.path for picture in dataset.pictures if picture.readable]
        fits = dict(zip(readable, plan.fits, strict=True))
        for finding in size_findings(dataset, plan):
            for picture in finding.pictures:
                marks[picture.path].append(finding.code)
    codes = {path: [code for code in LABELS if code in found] for path, found in marks.items()}
    shown = _shown(dataset.pictures, codes)
    size = _size_for(len(shown))
    thumbs = in_pool(
        lambda item: _thumb(*item, size.thumb),
        [(picture.path, picture.width * picture.height) for picture in shown],
        "contact_sheet()",
        progress,
    )
    pen = _Pen(size, language, _twins(dataset))
    sheet, top = _paper(pen, dataset, plan, codes, len(shown))
    for n, (picture, thumb) in enumerate(zip(shown, thumbs, strict=True)):
        left = size.margin + n % size.columns * (size.card[0] + size.gap)
        upper = top + n // size.columns * (size.card[1] + size.gap)
        pen.card(sheet, (left, upper), dataset, picture, thumb, fits.get(picture.path), codes[picture.path])
    return sheet


def _shown(pictures: Sequence[Picture], codes: Mapping[Path, Sequence[str]]) -> list[Picture]:
    if len(pictures) <= LIMIT:
        return list(pictures)
    worst = sorted(pictures, key=lambda p: (not SEVERE & set(codes[p.path]), not codes[p.path]))[:LIMIT]
    kept = {picture.path for picture in worst}
    return [picture for picture in pictures if picture.path in kept]


def _size_for(count: int) -> _Size:
    if count <= 60:
        return _Size(columns=max(3, min(count, 6)), thumb=236, text=14, caption_lines=2, labels=2)
    if count <= 240:
        return _Size(columns=10, thumb=160, text=12, caption_lines=1, labels=2)
    return _Size(columns=28, thumb=100, text=10, caption_lines=0, labels=1, gap=10)


def _thumb(path: Path, pixels: int, side: int) -> Image | None:
    from PIL import Image

    if not 0 < pixels <= BOMB:
        return None
    try:
        with Image.open(path) as image:
            image.draft("RGB", (side, side))
            opaque = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
            opaque.thumbnail((side, side), reducing_gap=2.0)
            return opaque
    except Exception:  # as in `decode`
        return None


def _paper(
    pen: _Pen, dataset: Dataset, plan: BucketPlan | None, codes: Mapping[Path, Sequence[str]], shown: int
) -> tuple[Image, int]:
    """The empty sheet with its heading, and where the cards begin."""
    from PIL import Image, ImageDraw

    size = pen.size
    rows = -(-shown // size.columns)
    top = size.margin + 92
    width = 2 * size.margin + size.columns * (size.card[0] + size.gap) - size.gap
    sheet = Image.new("RGB", (width, top + rows * (size.card[1] + size.gap) + size.margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * size.margin
    pen.text(draw, (size.margin, size.margin - 4), printable(dataset.path.name), 26, _INK, room, bold=True)
    errors = sum(bool(SEVERE & set(found)) for found in codes.values())
    warnings = sum(bool(found) for found in codes.values()) - errors
    facts = [pen.say("pictures", count=len(dataset.pictures)), pen.say("captions", count=dataset.captions)]
    if plan is not None:
        resolution = "x".join(map(str, dict.fromkeys(plan.resolution)))
        facts.append(pen.say("buckets", resolution=resolution, count=len(plan.buckets)))
    facts += [pen.say("errors", count=errors)] if errors else []
    facts += [pen.say("warnings", count=warnings)] if warnings else []
    if shown < len(dataset.pictures):
        facts.append(pen.say("left_out", count=len(dataset.pictures) - shown))
    pen.text(draw, (size.margin, size.margin + 32), "  ·  ".join(facts), 15, _GREY, room)
    left = size.margin
    legend = [("error", _ERROR), ("warning", _WARNING)]
    for key, colour in [("frame", _FRAME), *legend] if plan is not None else legend:
        at = size.margin + 60
        box = (left, at + 2, left + 15, at + 15)
        draw.rectangle(box, outline=colour, width=2, fill=None if key == "frame" else colour)
        left += 22 + round(pen.text(draw, (left + 22, at), pen.say(key), 13, _GREY, room)) + 18
    return sheet, top


class _Pen:
    """Writes and draws in the measures of one sheet."""

    def __init__(self, size: _Size, language: str, twins: Mapping[tuple[str, Path], str]) -> None:
        self.size = size
        self._language = language
        self._twins = twins

    def say(self, key: str, **params: object) -> str:
        return _WORDS[key][self._language == "de"].format(**params)

    def text(
        self,
        draw: ImageDraw,
        at: tuple[int, int],
        text: str,
        height: int,
        colour: str,
        room: int,
        *,
        bold: bool = False,
    ) -> float:
        """Write one line, shortened where there is no room for it; gives its width in pixels."""
        font = _font_for(text, height, bold)
        line = _fitted(text, font, room)
        base = at[0], at[1] + _font(height, bold).getmetrics()[0]  # fonts have their lines at different heights
        draw.text(base, line, fill=colour, font=font, anchor="ls")
        return float(font.getlength(line))

    def card(
        self,
        sheet: Image,
        at: tuple[int, int],
        dataset: Dataset,
        picture: Picture,
        thumb: Image | None,
        fit: Fit | None,
        codes: Sequence[str],
    ) -> None:
        from PIL import ImageDraw

        draw, size = ImageDraw.Draw(sheet), self.size
        (left, top), (width, height) = at, size.card
        edge = (_ERROR if SEVERE & set(codes) else _WARNING) if codes else None
        draw.rounded_rectangle(
            (left, top, left + width - 1, top + height - 1), 7, _CARD, edge or _SHADE, width=3 if edge else 1
        )
        x, y = left + size.pad, top + size.pad
        self._picture(sheet, draw, (x, y), thumb, fit)
        line, y = size.text + 5, y + size.thumb + size.pad
        shown = dataset.shown(picture.path)
        name = _middled(shown, _font_for(shown, size.text, True), size.thumb)
        self.text(draw, (x, y), name, size.text, _INK, size.thumb, bold=True)
        measure = f"{picture.width}×{picture.height}" if picture.width else picture.format or "?"
        if fit is not None:
            measure += f" → {fit.bucket[0]}×{fit.bucket[1]}"
        self.text(draw, (x, y + line), measure, size.text - 1, _GREY, size.thumb)
        y += 2 * line
        caption = printable(picture.line)
        for text in _wrapped(caption, _font_for(caption, size.text - 1, False), size.thumb, size.caption_lines):
            self.text(draw, (x, y), text, size.text - 1, _INK, size.thumb)
            y += line
        self._labels(draw, (x, top + height - size.pad - size.labels * line), picture, codes)

    def _picture(
        self, sheet: Image, draw: ImageDraw, at: tuple[int, int], thumb: Image | None, fit: Fit | None
    ) -> None:
        """The picture in the middle of its square, darker where the bucket cuts it."""
        (x, y), side = at, self.size.thumb
        draw.rectangle((x, y, x + side - 1, y + side - 1), _SHADE)
        if thumb is None:
            draw.line((x, y, x + side - 1, y + side - 1), _ERROR, 3)
            draw.line((x, y + side - 1, x + side - 1, y), _ERROR, 3)
            return
        x, y = x + (side - thumb.width) // 2, y + (side - thumb.height) // 2
        if fit is None:
            sheet.paste(thumb, (x, y))
            return
        # As the trainer cuts: the same on both sides, the odd pixel from the far one.
        cut = [(whole - kept) // 2 / whole for kept, whole in zip(fit.bucket, fit.resized, strict=True)]
        part = [kept / whole for kept, whole in zip(fit.bucket, fit.resized, strict=True)]
        left, upper = round(thumb.width * cut[0]), round(thumb.height * cut[1])
        right = max(left + 1, round(thumb.width * (cut[0] + part[0])))
        lower = max(upper + 1, round(thumb.height * (cut[1] + part[1])))
        box = (left, upper, right, lower)
        sheet.paste(thumb.point(lambda value: value * 2 // 5), (x, y))
        sheet.paste(thumb.crop(box), (x + box[0], y + box[1]))
        draw.rectangle((x + box[0], y + box[1], x + box[2] - 1, y + box[3] - 1), outline=_FRAME, width=2)

    def _labels(self, draw: ImageDraw, at: tuple[int, int], picture: Picture, codes: Sequence[str]) -> None:
        size = self.size
        (x, y), line = at, size.text + 5
        for n, code in enumerate(codes[: size.labels]):
            rest = len(codes) - size.labels
            more = f"  +{rest}" if n == size.labels - 1 and rest > 0 else ""
            twin = self._twins.get((code, picture.path))
            text = f"{label(code, self._language)}: {twin}" if twin else label(code, self._language)
            font = _font_for(text, size.text - 1, True)
            text = _fitted(text, font, size.thumb - 10 - font.getlength(more)) + more
            colour = _ERROR if code in SEVERE else _WARNING
            draw.rounded_rectangle((x, y, x + round(font.getlength(text)) + 10, y + line - 2), 4, colour)
            draw.text((x + 5, y + (line - 2) / 2), text, fill="#ffffff", font=font, anchor="lm")
            y += line


def _twins(dataset: Dataset) -> dict[tuple[str, Path], str]:
    """The name of another picture that one is the same as, by the code that says so and the picture."""
    return {
        (code, path): dataset.shown(group[1 if path == group[0] else 0])
        for code, groups in (("image_duplicate", dataset.duplicates), ("image_alike", dataset.alike))
        for group in groups
        for path in group
    }


_FONTS = {
    False: ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc"),
    True: ("DejaVuSans-Bold.ttf", "NotoSans-Bold.ttf", "Arial Bold.ttf", "arialbd.ttf", "Helvetica.ttc"),
}
"""What systems have that knows more scripts than Pillow's own font."""
_EASTERN = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKjp-Regular.otf", "YuGothM.ttc", "msgothic.ttc", "msyh.ttc", "malgun.ttf"),
    *("Hiragino Sans GB.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc"),
)
"""What they have for names and captions in Chinese, Japanese and Korean."""
_NO_CHARACTER = "\U0010ffff"


@cache
def _named(name: str, height: int) -> Any:
    """A font of the system; None where it has none of that name."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, height)
    except OSError:
        return None


@cache
def _font(height: int, bold: bool) -> Any:
    from PIL import ImageFont

    found = filter(None, (_named(name, height) for name in _FONTS[bold]))
    return next(found, None) or ImageFont.load_default(height)


def _font_for(text: str, height: int, bold: bool) -> Any:
    """The usual font, or for a text that it cannot write the first one that can."""
    usual = _font(height, bold)
    if text.isascii() or _writes(usual, text):
        return usual
    others = filter(None, (_named(name, height) for name in _EASTERN))
    return next((font for font in others if _writes(font, text)), usual)


def _writes(font: Any, text: str) -> bool:
    """Whether a font has a picture of its own for every character."""
    missing = bytes(font.getmask(_NO_CHARACTER))
    return all(bytes(font.getmask(c)) != missing for c in set(text[:400]))


def _fitted(text: str, font: Any, room: float) -> str:
    """A text that is no wider than so many pixels, with "…" where something is left out."""
    if font.getlength(text[:400]) <= room and len(text) <= 400:
        return text
    low, high = 0, min(len(text), 400)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(f"{text[:middle].rstrip()}…") <= room:
            low = middle
        else:
            high = middle - 1
    return f"{text[:low].rstrip()}…"


def _middled(name: str, font: Any, room: float) -> str:
    """A file's name that is no wider, with "…" in its middle: its beginning is often that of all others."""
    if len(name) <= 400 and font.getlength(name) <= room:
        return name
    end = name[-12:]
    return _fitted(name[: -len(end)], font, room - font.getlength(end)).removesuffix("…") + "…" + end


def _wrapped(text: str, font: Any, room: float, lines: int) -> list[str]:
    """The first words of a text in so many lines; the last one is shortened where there are more."""
    words = text.split()
    wrapped: list[str] = []
    while words and len(wrapped) < lines - 1:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= room:
            count += 1
        wrapped.append(" ".join(words[:count]))
        words = words[count:]
    return [*wrapped, " ".join(words[:100])] if words and lines else wrapped
