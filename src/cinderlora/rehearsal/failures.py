"""Acting out failures: ``CINDERLORA_REHEARSE="slow@0.05,oom@30"``.

``oom@N``, ``crash@N``, ``hang@N`` and ``kill@N`` happen while step N is trained, before it is counted; ``nan@N`` makes
the loss of step N and all later ones NaN; ``disk_full@N`` fails the first save at step N or later; ``slow@S`` sleeps
S seconds in every step. The messages are those of the recordings.
"""

import os
import signal
import time
from dataclasses import dataclass, field

from .network import Network

VARIABLE = "CINDERLORA_REHEARSE"
AT_A_STEP = ("oom", "nan", "crash", "hang", "kill", "disk_full")


class UnknownDirective(Exception):
    """Something in the variable is not understood (exit code 2)."""


class OutOfMemoryError(RuntimeError):
    """Stands in for torch's; the traceback shows the module below."""


OutOfMemoryError.__module__ = "torch"


class SafetensorError(Exception):
    """Stands in for that of safetensors."""


SafetensorError.__module__ = "safetensors._safetensors_rust"

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 80.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 80.25 MiB is "
    "free. Including non-PyTorch memory, this process has 23.53 GiB memory in use. Of the allocated memory 22.00 GiB "
    "is allocated by PyTorch, and 14.50 MiB is reserved by PyTorch but unallocated."
)
DISK_FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@dataclass
class Script:
    """What is to go wrong, and when."""

    at: dict[str, int] = field(default_factory=dict)
    pause: float = 0.0

    def during_step(self, step: int, network: Network) -> None:
        """Called when step ``step`` (from 1) has begun."""
        if self.pause:
            time.sleep(self.pause)
        for name, when in self.at.items():
            if when == step:
                self._act(name, network)

    def before_save(self, step: int) -> None:
        if step >= self.at.get("disk_full", step + 1):
            raise SafetensorError(DISK_FULL)

    def _act(self, name: str, network: Network) -> None:
        if name == "oom":
            raise OutOfMemoryError(OUT_OF_MEMORY)
        if name == "crash":
            raise RuntimeError(f"an unexpected error, acted out ({VARIABLE}=crash@{self.at[name]})")
        if name == "nan":
            network.parameters.fill(float("nan"))
        if name == "hang":
            while True:
                time.sleep(3600)
        if name == "kill":
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def read(text: str) -> Script:
    """The script of ``CINDERLORA_REHEARSE``."""
    script = Script()
    for directive in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = directive.partition("@")
        try:
            if name == "slow" and float(value) >= 0:
                script.pause = float(value)
            elif name in AT_A_STEP and int(value) > 0:
                script.at[name] = int(value)
            else:
                raise ValueError
        except ValueError:
            known = ", ".join(f"{name}@STEP" for name in AT_A_STEP)
            raise UnknownDirective(
                f"{VARIABLE}: unknown directive {directive!r}; known are {known} and slow@SECONDS"
            ) from None
    return script
