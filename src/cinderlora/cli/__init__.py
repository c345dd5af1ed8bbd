"""The command line, `cinderlora`. It is an extra: a base install has this entry point, which says what is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0 done, 1 training failed, 2 the request was wrong, 130 stopped."""
    from importlib.util import find_spec

    lacking = [name for name in ("click", "rich") if find_spec(name) is None]
    if lacking:
        from cinderlora.config import default_language
        from cinderlora.texts import text_of

        params = {"what": "cinderlora", "packages": lacking, "extra": "cli"}
        text = text_of("extra_missing", params, default_language())
        print(*(text or ()), file=sys.stderr)
        return 2
    from cinderlora.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))
