"""Which GPUs there are, and which of them the next job gets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from cinderlora.gpu import Gpu

__all__ = ["free_slot", "machine_gpus"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def machine_gpus(environ: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs that this process may use: what `CUDA_VISIBLE_DEVICES` says, else all that NVIDIA's library knows."""
    visible = environ.get(_VISIBLE)
    if visible is None:
        from cinderlora.gpu import count

        return tuple(range(count()))
    gpus: list[Gpu] = []
    for name in (part.strip() for part in visible.split(",")):
        if not name or name.startswith("-"):
            break  # as CUDA has it: nothing after one that does not exist
        gpus.append(int(name) if name.isdecimal() else name)
    return tuple(gpus)


def free_slot(
    wanted: Sequence[Gpu] | Literal["all"], per_job: int, machine: Sequence[Gpu], taken: Iterable[Sequence[Gpu]]
) -> tuple[Gpu, ...] | None:
    """The GPUs that the next job gets; None while there is no room. A machine that knows of no GPU runs one job at a
    time, which gets none."""
    gpus = tuple(machine) if wanted == "all" else tuple(wanted)
    taken = [tuple(slot) for slot in taken]
    if not gpus:
        return None if taken else ()
    used = {gpu for slot in taken for gpu in slot}
    free = [gpu for gpu in gpus if gpu not in used]
    return tuple(free[:per_job]) if len(free) >= per_job else None
