"""What a problem of a picture is called in a word or two, where there is no room for a sentence."""

from __future__ import annotations

__all__ = ["LABELS", "SEVERE", "label"]

LABELS: dict[str, tuple[str, str]] = {
    "image_unreadable": ("unreadable", "unlesbar"),
    "image_too_large": ("too large", "zu groß"),
    "image_unfit": ("no bucket", "kein Bucket"),
    "caption_not_utf8": ("caption not UTF-8", "Caption nicht UTF-8"),
    "image_small": ("small", "klein"),
    "image_cut": ("much cut off", "viel abgeschnitten"),
    "image_rotated": ("rotated by EXIF", "per EXIF gedreht"),
    "image_transparent": ("transparent", "durchsichtig"),
    "image_animated": ("several frames", "mehrere Einzelbilder"),
    "image_grey16": ("16-bit grey", "16-Bit-Grau"),
    "image_mislabelled": ("wrong ending", "falsche Endung"),
    "image_duplicate": ("duplicate", "doppelt"),
    "image_alike": ("nearly the same", "fast gleich"),
    "image_same_stem": ("shares its caption", "teilt die Caption"),
    "caption_missing": ("no caption", "keine Caption"),
    "caption_other_extension": ("other caption ending", "andere Caption-Endung"),
    "caption_blank": ("caption empty", "Caption leer"),
    "caption_first_line_blank": ("first line blank", "erste Zeile leer"),
    "caption_several_lines": ("several lines", "mehrere Zeilen"),
    "caption_without_trigger": ("no trigger word", "kein Trigger-Wort"),
}
"""(English, German), the more important ones first. What has no label concerns other programs only."""

SEVERE = frozenset({"image_unreadable", "image_too_large", "image_unfit", "caption_not_utf8"})
"""Those that forbid a training."""


def label(code: str, language: str) -> str:
    """The label in "de", or in English for every other language; "" where it has none."""
    return LABELS.get(code, ("", ""))[language == "de"]
