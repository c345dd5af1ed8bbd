"""A character trainer in the browser: cinderlora embedded into Gradio by its public names, to copy and to change.

`cinderlora ui` serves it; docs/ui.md has how to put it into an app. Gradio is imported when a tab is drawn, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .server import Guard, application, is_loopback
from .workshop import Places, Workshop

if TYPE_CHECKING:
    from .tab import Tab

__all__ = ["STYLE", "Guard", "Places", "Workshop", "application", "is_loopback", "lora_tab"]

STYLE = Path(__file__).with_name("style.css")
"""How it looks: `app.launch(css_paths=[STYLE])`."""


def lora_tab(workshop: Workshop, language: str = "en") -> Tab:
    """The tab, in the `gr.Blocks` that is open. `language` is "en" or "de"."""
    from .tab import Tab

    return Tab(workshop, language)
