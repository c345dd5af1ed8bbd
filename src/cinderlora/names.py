"""Names that people type: the nearest known one, and what is a safe file name."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one, if any does."""
    import difflib  # 4 ms, for a mistake only

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


_RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{i}" for p in ("com", "lpt") for i in range(1, 10))}


def is_plain_file_name(name: str) -> bool:
    """Whether a name can name a file in any folder on any system, and names one in that folder only."""
    return (
        name == name.strip()
        and name not in {"", ".", ".."}
        and not name.startswith(("-", "."))
        and not name.endswith(".")
        and len(name.encode("utf-8", "replace")) <= 120
        and not any(c in '<>:"/\\|?*%{}' or not c.isprintable() for c in name)
        and name.partition(".")[0].lower() not in _RESERVED
    )
