"""Everything that knows sd-scripts: where it lies, what it can take, its configuration files, its output, its ends."""

from __future__ import annotations

from cinderlora.sd_scripts.checkout import SdScripts

__all__ = ["SdScripts"]
