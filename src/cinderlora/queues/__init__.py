"""A queue of trainings: one per GPU, one after the other, whoever added them being alive or not."""

from __future__ import annotations

from cinderlora.queues.comparing import Outcome
from cinderlora.queues.entries import Entry, QueueStatus
from cinderlora.queues.watching import Queue

__all__ = ["Entry", "Outcome", "Queue", "QueueStatus"]
