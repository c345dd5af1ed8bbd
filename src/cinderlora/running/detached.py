"""Starting a supervisor: a process that lives on by itself, and says first whether it has begun."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["first_answer"]

_LIMIT = 60.0  # seconds; a Python on a sleeping network drive takes its time
_DETACHED = 0 if os.name == "posix" else 0x00000008 | 0x00000200  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP


def first_answer(argv: Sequence[str], folder: Path) -> str:
    """What a program prints, started in a folder, until it closes its output. It lives on, and nobody waits for it.

    On POSIX the process that is started goes at once and leaves another one behind, which answers. Raises `OSError`
    where the program cannot be started, and `TimeoutError`, which is one, where nothing is said in a minute.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        creationflags=_DETACHED,
    )
    if os.name == "posix":
        # The output stays open until the one that is left behind has answered.
        try:
            said, _ = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise TimeoutError(f"no answer in {_LIMIT:g} s") from error
    else:
        assert process.stdout is not None  # noqa: S101
        said = process.stdout.read()
        process.stdout.close()
        process.returncode = 0  # it lives on, and nobody waits for it
    return said.decode("utf-8", "replace").strip()
