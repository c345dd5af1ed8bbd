"""Model files: what their headers tell, where they lie, and which of them go together. Tensors are never read."""

from __future__ import annotations

from cinderlora.models.cache import HeaderCache
from cinderlora.models.headers import Header, Tensor, Tensors, read_header
from cinderlora.models.library import ModelLibrary, scan

__all__ = ["Header", "HeaderCache", "ModelLibrary", "Tensor", "Tensors", "read_header", "scan"]
