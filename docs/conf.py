"""The documentation site: python -m sphinx -W --keep-going -b html docs docs/_build/html"""

from __future__ import annotations

import cinderlora

project = "cinderlora"
author = "the authors of cinderlora"
copyright = "the authors of cinderlora, Apache-2.0"
version = release = cinderlora.__version__

extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "examples/*/tests", "examples/*/src", "examples/*/.*"]

myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"  # of a console, the commands alone

html_theme = "furo"
html_title = f"cinderlora {release}"
html_static_path = ["_static"]
html_css_files = ["cinderlora.css"]
html_use_index = False  # no page has entries for one
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#b03a12", "color-brand-content": "#b03a12"},
    "dark_css_variables": {"color-brand-primary": "#ff9a6b", "color-brand-content": "#ff9a6b"},
}
