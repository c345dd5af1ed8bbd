"""Looks around in sd-scripts' Python environment and tells what it finds.

    python probe.py CHECKOUT [MODULE ...]

Started by its path, with the trainer's own Python and the trainer's own environment, so that it sees what a training
would see: nothing but the standard library, Python 3.8 and newer. It tells its findings on standard output, each as a
record separator, a JSON object and a line feed (RFC 7464): whatever the modules print stands between them, and what was
told before a crash has been told. The modules named are imported one after another, with the checkout first on the
path, as it is for the scripts in it.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    # Before anything is imported: no file beside this one may stand in for a module.
    sys.path[0] = sys.argv[1]

import importlib
import json
import os
import warnings
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def tell(**finding: Any) -> None:
    os.write(1, b"\x1e" + json.dumps(finding).encode("ascii", "replace") + b"\n")


def tell_packages() -> None:
    from importlib import metadata

    for distribution in metadata.distributions():
        with suppress(Exception):  # a damaged one is none
            name, version = distribution.metadata["Name"], distribution.version
            if name and version:
                tell(package=name, version=version)


def try_to_import(name: str) -> bool:
    tell(importing=name)
    try:
        importlib.import_module(name)
    except BaseException as error:  # some modules exit
        why = f"{type(error).__name__}: {error}"
        missing = ((error.name or "") if isinstance(error, ModuleNotFoundError) else "").partition(".")[0]
        if missing in sys.modules:  # the package is there, in a version without that module
            missing = ""
        tell(failed=name, why=why[:2000], missing=missing or None)
        return False
    tell(imported=name)
    return True


def tell_torch() -> None:
    import torch  # type: ignore[import-not-found, unused-ignore]

    gpus: list[str] = []
    why = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            elif sys.platform == "darwin" and torch.backends.mps.is_available():
                gpus = ["Apple MPS"]
        except Exception as error:
            why = str(error)
    if not gpus and warned and why is None:
        why = str(warned[-1].message)  # the driver is too old, for example
    version = torch.version
    tell(torch=torch.__version__, cuda=version.cuda, hip=getattr(version, "hip", None), gpus=gpus, why=why)


def main(names: list[str]) -> None:
    tell(python=".".join(map(str, sys.version_info[:3])))
    tell_packages()
    for name in names:
        if try_to_import(name) and name == "torch":
            try:
                tell_torch()
            except Exception as error:
                tell(failed="torch", why=f"{type(error).__name__}: {error}", missing=None)
    tell(done=True)
    os._exit(0)  # no module's farewell can change what was told


if __name__ == "__main__":
    main(sys.argv[2:])
