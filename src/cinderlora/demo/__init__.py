"""A small data set to try things out on: pictures of Elena, a cartoon character, drawn on the spot."""

from __future__ import annotations

from cinderlora.demo.dataset import PICTURES, Scene, draw, write_dataset

__all__ = ["PICTURES", "Scene", "draw", "write_dataset"]
