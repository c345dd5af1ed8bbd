"""Write the pages of docs/reference that are made from the code: python docs/make_pages.py"""

from __future__ import annotations

from pathlib import Path

import make_api
import make_commands
import make_errors
import make_events
import make_hooks
import make_settings

FOLDER = Path(__file__).parent / "reference"
PAGES = {
    "api.md": make_api.page,
    "commands.md": make_commands.page,
    "errors.md": make_errors.page,
    "events.md": make_events.page,
    "hooks.md": make_hooks.page,
    "settings.md": make_settings.page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
