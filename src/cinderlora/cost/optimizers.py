"""What optimizers keep in mind for each number that is trained."""

from __future__ import annotations

__all__ = ["state_bytes"]

# Bytes for each number. AdamW keeps two floats, its 8-bit form two bytes and a scale for every 256 of each; Lion and
# SGD with momentum keep one float. Prodigy keeps three, and a fourth for the matrices that do not start at zero, which
# is about half of the numbers. Adafactor keeps rows' and columns' sums, next to nothing.
_STATE = {
    "adamw": 8.0,
    "adam": 8.0,
    "adamw8bit": 2.05,
    "pagedadamw8bit": 2.05,
    "adafactor": 0.1,
    "prodigy": 14.0,
    "dadaptadam": 12.0,
    "dadaptation": 12.0,
    "lion": 4.0,
    "lion8bit": 1.05,
    "pagedlion8bit": 1.05,
    "sgdnesterov": 4.0,
    "sgd": 0.0,
}
_UNKNOWN = 8.0
"""Of an optimizer that is not in the list: most are kinds of AdamW."""


def state_bytes(optimizer: str | None, numbers: int) -> float:
    """Bytes that an optimizer keeps for so many numbers; its name is read as sd-scripts reads it, in any case."""
    return _STATE.get((optimizer or "adamw").lower(), _UNKNOWN) * numbers
