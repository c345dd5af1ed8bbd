"""The options that say which GPUs and machines a training gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cinderlora.gpu import Gpu

__all__ = ["gpus_of", "gpus_option", "machine_options", "machines_option"]

C = TypeVar("C", bound=Callable[..., Any])

gpus_option = click.option(
    "--gpus", metavar="LIST", help="Train on these GPUs, on several at once: 0,1 as nvidia-smi counts, or all."
)
machines_option = click.option(
    "--machines", type=int, default=1, metavar="N", help="How many machines train together, each with as many GPUs."
)


def machine_options(command: C) -> C:
    """What a training on several machines has to be told besides their number."""
    rank = click.option(
        "--machine-rank", type=int, default=0, metavar="N", help="Which of them this is; 0 is the main."
    )
    address = click.option("--main-address", metavar="HOST[:PORT]", help="Where the main machine is reached.")
    return machines_option(rank(address(command)))


def gpus_of(text: str | None) -> tuple[Gpu, ...] | None:
    """The GPUs in an option's value."""
    if text is None:
        return None
    if text.strip() == "all":
        from cinderlora.queues.slots import machine_gpus

        return machine_gpus()
    return tuple(int(part) if part.isdecimal() else part for part in map(str.strip, text.split(",")) if part)
