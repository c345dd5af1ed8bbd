"""Running a plan: the run folder, the supervisor that outlives its front end, following, stopping."""

from __future__ import annotations

from cinderlora.running.folding import Status
from cinderlora.running.run import Events, Run, attach, launch, runs, status
from cinderlora.running.stopping import StopReport

__all__ = ["Events", "Run", "Status", "StopReport", "attach", "launch", "runs", "status"]
