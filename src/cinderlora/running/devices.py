"""Which GPUs a run gets, and whether several machines share it: a plan, and what it is launched as."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from cinderlora.errors import LaunchFailed
from cinderlora.gpu import Gpu, count
from cinderlora.types import Plan, Stage

__all__ = ["check_devices", "placed", "recorded_gpus"]

_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_PORT = 29500
"""PyTorch's own, for machines that have to agree on one."""

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


def placed(
    plan: Plan,
    gpus: Sequence[Gpu] | None = None,
    *,
    machines: int = 1,
    machine_rank: int = 0,
    main_address: str | None = None,
) -> Plan:
    """A plan that sees these GPUs only, and that trains on all of them at once where there are several, or several
    machines. Without either it stays as it is. Raises `LaunchFailed` for what cannot be.

    GPUs are counted as NVIDIA's library and `nvidia-smi` do: by their place on the bus, where CUDA would begin with the
    fastest.
    """
    processes = check_devices(gpus, machines, machine_rank)
    if main_address is not None:
        _host_and_port(main_address)
    elif machines > 1:
        raise LaunchFailed("launch_address_missing", machines=machines)
    if gpus is not None:
        names = {_VISIBLE: ",".join(map(str, gpus)), _ORDER: "PCI_BUS_ID"}
        stages = tuple(attrs.evolve(stage, env={**stage.env, **names}) for stage in plan.stages)
        plan = attrs.evolve(plan, stages=stages)
    if processes == 1:
        return plan
    launcher = plan.stages[-1].launcher
    if launcher is None:
        raise LaunchFailed("launch_one_process", model_type=plan.model_type)
    if machines > 1 and launcher.one_machine:
        raise LaunchFailed(launcher.one_machine)
    address, port = ("127.0.0.1", _free_port()) if main_address is None else _host_and_port(main_address)
    values = {
        "{processes}": processes,
        "{machines}": machines,
        "{machine_rank}": machine_rank,
        "{address}": address,
        "{port}": port,
    }
    stages = tuple(_spread(stage, processes // machines, values) for stage in plan.stages)
    return attrs.evolve(plan, stages=stages, assists=machine_rank > 0)


def recorded_gpus(stage: Mapping[str, Any]) -> tuple[Gpu, ...] | None:
    """The GPUs of a recorded stage that trained on several; None for one process, which may go on with any."""
    visible = stage.get("env", {}).get(_VISIBLE) if stage.get("processes", 1) != 1 else None
    return tuple(int(name) if name.isdecimal() else name for name in visible.split(",")) if visible else None


def _spread(stage: Stage, here: int, values: dict[str, object]) -> Stage:
    """A stage as so many processes on this machine; one that cannot be is left as it is: what prepares a training may
    be done by one."""
    if stage.launcher is None:
        return stage
    argv = [str(values.get(part, part)) for part in stage.launcher.argv]
    return attrs.evolve(stage, argv=argv, processes=here)


def _free_port() -> int:
    """A port of this machine that nobody listens on at this moment."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


# ---- what is refused -------------------------------------------------------------------------------------------------


def check_devices(gpus: Sequence[Gpu] | None, machines: int = 1, machine_rank: int = 0) -> int:
    """How many processes train at once with these GPUs on so many machines. Raises `LaunchFailed`."""
    numbers = all(isinstance(number, int) and not isinstance(number, bool) for number in (machines, machine_rank))
    if not numbers or machines < 1 or not 0 <= machine_rank < machines:
        raise LaunchFailed("launch_machines", machines=repr(machines), machine_rank=repr(machine_rank))
    if gpus is None:
        return machines
    _check_gpus(gpus)
    return len(gpus) * machines


def _check_gpus(gpus: Sequence[Gpu]) -> None:
    if isinstance(gpus, str):
        raise LaunchFailed("launch_gpu_name", gpu=repr(gpus))
    if not gpus:
        raise LaunchFailed("launch_gpus_none")
    known = count()
    seen: list[Gpu] = []
    for gpu in gpus:
        is_number = isinstance(gpu, int) and not isinstance(gpu, bool) and gpu >= 0
        if not is_number and not (isinstance(gpu, str) and re.fullmatch(r"(GPU|MIG)-[A-Za-z0-9/-]+", gpu)):
            raise LaunchFailed("launch_gpu_name", gpu=repr(gpu))
        if gpu in seen:
            raise LaunchFailed("launch_gpu_twice", gpu=str(gpu))
        if known and isinstance(gpu, int) and gpu >= known:
            raise LaunchFailed("launch_gpu_unknown", gpu=str(gpu), there=[str(n) for n in range(known)])
        seen.append(gpu)


def _host_and_port(address: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address)
    port = _PORT if found is None or found["port"] is None else int(found["port"])
    if found is None or not 0 < port < 1 << 16:
        raise LaunchFailed("launch_address", address=repr(address))
    return found["host"], port
