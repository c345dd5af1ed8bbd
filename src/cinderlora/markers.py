"""What the core's parser tells the stream, and the stream a follower, about the place where it stands: never public.

They are events so that they keep their order among the others; `running.stream.public` leaves them out.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from cinderlora.events import Event

__all__ = ["EpochBegan", "LoraSaved", "Marker", "PromptBegan", "SamplesDue", "SaveAnnounced"]


@frozen
class Marker(Event):
    """What all of them are."""


@frozen
class EpochBegan(Marker):
    """A pass over the data set begins; counts from 1."""

    epoch: int
    epochs: int


@frozen
class SaveAnnounced(Marker):
    """A LoRA is about to be written. `step` is the one in its name, where it has one."""

    path: Path
    step: int | None


@frozen
class LoraSaved(Marker):
    """The trainer has written the final LoRA."""


@frozen
class PromptBegan(Marker):
    """The next sample picture is begun, so the one before lies on disk."""


@frozen
class SamplesDue(Marker):
    """Sample pictures are on disk: the one of the prompt `index`, or with None all of the round.

    sd-scripts names them by epoch (`epoch` as in the name) or by step (`epoch` is None), and its log does not tell
    which: the marker comes once for each. `step` is that of the training in all; the name has it without the steps of
    earlier runs.
    """

    step: int
    epoch: int | None
    index: int | None
