"""How trainers that are written with Hugging Face's accelerate are run by several processes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cinderlora.types import Launcher

__all__ = ["accelerate_launcher"]

_PRECISIONS = ("no", "fp16", "bf16", "fp8")


def accelerate_launcher(
    python: str, script: Sequence[str], *, mixed_precision: object = None, one_machine: str = ""
) -> Launcher:
    """Starts a script with its arguments through the accelerate of its own Python (flags as of 1.6.0).

    Every flag that accelerate would otherwise take from a person's configuration file is given. One thread per process
    for PyTorch's work on the CPU is what sd-scripts' documentation says; `--gpu_ids all` are all that the process sees.
    """
    precision = mixed_precision if mixed_precision in _PRECISIONS else "no"
    flags = {
        "--num_processes": "{processes}",
        "--num_machines": "{machines}",
        "--machine_rank": "{machine_rank}",
        "--main_process_ip": "{address}",
        "--main_process_port": "{port}",
        "--gpu_ids": "all",
        "--mixed_precision": str(precision),
        "--dynamo_backend": "no",
        "--num_cpu_threads_per_process": "1",
    }
    given = [part for flag in flags.items() for part in flag]
    return Launcher(
        argv=[python, "-m", "accelerate.commands.launch", "--multi_gpu", *given, *script], one_machine=one_machine
    )
