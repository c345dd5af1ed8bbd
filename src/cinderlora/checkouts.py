"""A trainer that is a checkout of scripts, with a Python that has what they need: where it is, and what it lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from cinderlora.errors import TrainerNotFound
from cinderlora.problems import Problem
from cinderlora.trainers import Trainer

if TYPE_CHECKING:
    from cinderlora.sd_scripts.arguments import Arguments

__all__ = ["Checkout", "python_of"]


class Checkout(Trainer):
    """A trainer's scripts in a folder. Making one looks at nothing.

    `python` is the interpreter that has what the scripts need; where it is not given, that of the checkout's own `venv`
    or `.venv`, then the `python` on the path. A class for a trainer derives from this one and has `kind`, `sign`,
    `problems` and `plan`.
    """

    kind: ClassVar[str]
    """What a `ModelType.trainer` calls it, and what people do: "musubi-tuner"."""
    sign: ClassVar[str]
    """A file that tells a checkout of this trainer from other folders, relative to it."""
    is_rehearsal: ClassVar[bool] = False

    def __init__(self, path: str | Path, *, python: str | Path | None = None) -> None:
        self.path: Path = Path(path).expanduser().absolute()
        self._python = None if python is None else Path(python).expanduser()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Checkout):
            return NotImplemented
        return (type(self), self.path, self._python) == (type(other), other.path, other._python)

    def __hash__(self) -> int:
        return hash((type(self), self.path, self._python))

    # ---- finding it ----

    @classmethod
    def find(
        cls,
        path: str | Path | None = None,
        *,
        python: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """The first checkout there is: in the folder given, that of the variable named after the trainer
        (`CINDERLORA_MUSUBI_TUNER`, with `CINDERLORA_MUSUBI_TUNER_PYTHON`), and those of `places`.

        Raises `TrainerNotFound`, which says where it was looked for.
        """
        environ = os.environ if environ is None else environ
        variable = cls.variable()
        python = python or environ.get(f"{variable}_PYTHON") or None
        asked = [path, environ.get(variable)]
        places = [*(Path(place) for place in asked if place), *cls.places()]
        for place in places:
            found = cls(place, python=python)
            if found.is_there():
                return found
        problem = cls(places[0])._not_there()
        looked = [str(place) for place in places[1:]]
        raise TrainerNotFound(problem.code, **{**problem.params, "path": str(places[0]), "looked": looked})

    @classmethod
    def rehearsal(cls) -> Trainer:
        """One that pretends, where there is one; raises `TrainerNotFound` where not."""
        raise TrainerNotFound("rehearsal_missing", trainer=cls.kind)

    @classmethod
    def variable(cls) -> str:
        """The environment variable that names the folder; with "_PYTHON" behind it, the interpreter."""
        return f"CINDERLORA_{cls.kind.replace('-', '_').upper()}"

    @classmethod
    def places(cls) -> Iterable[Path]:
        """The folders it usually lies in: `tools`, the user's data folder, the home folder, `/opt`."""
        from cinderlora.folders import data_folder

        yield Path("tools") / cls.kind
        yield data_folder() / cls.kind
        yield Path.home() / cls.kind
        yield Path("/opt") / cls.kind

    def is_there(self) -> bool:
        """Whether the folder looks like a checkout of this trainer."""
        return (self.path / self.sign).is_file()

    # ---- what it has ----

    @property
    def python(self) -> Path | None:
        """The interpreter that runs the scripts, or None where there is none."""
        if self._python is not None:
            return self._python
        for environment in self.environments():
            python = python_of(environment)
            if python.is_file():
                return python
        found = shutil.which("python") or shutil.which("python3")
        return Path(found) if found else None

    def environments(self) -> Iterator[Path]:
        """The virtual environments that may go with the checkout."""
        yield self.path / "venv"
        yield self.path / ".venv"

    @property
    def commit(self) -> str | None:
        """The checkout's commit, read from its `.git` without running anything; None where it has none."""
        from cinderlora.sd_scripts.git_folder import commit_of

        return commit_of(self.path)

    def arguments(self, script: str, *, root: str | None = None) -> Arguments | None:
        """What a script takes, read from its source; None where that cannot be read. `root` is the folder in the
        checkout that it imports its modules from, where that is not the one it lies in.

        Kept in the user's cache folder: 0.2 seconds the first time.
        """
        from cinderlora.sd_scripts.argument_cache import checkout_arguments

        return checkout_arguments(self.path, script, root=None if root is None else self.path / root)

    def missing(self, *scripts: str) -> Iterator[Problem]:
        """What of the checkout itself is not there: the folder, a script, its Python."""
        if not self.is_there():
            yield self._not_there()
            return
        for script in scripts:
            if not (self.path / script).is_file():
                yield self._no_script(script)
                return
        if self.python is None or shutil.which(self.python) is None:
            yield self._no_python()

    def record(self) -> dict[str, str | None]:
        """What a run's record keeps of its trainer."""
        return {"kind": self.kind, "path": str(self.path), "python": str(self.python), "commit": self.commit}

    # ---- saying it ----

    def _not_there(self) -> Problem:
        return Problem(
            "checkout_not_found", {"trainer": self.kind, "path": str(self.path), "variable": self.variable()}
        )

    def _no_script(self, script: str) -> Problem:
        return Problem("checkout_script_not_found", {"trainer": self.kind, "script": script, "path": str(self.path)})

    def _no_python(self) -> Problem:
        params = {"trainer": self.kind, "path": str(self.python or self.path / "venv"), "variable": self.variable()}
        return Problem("checkout_python_not_found", params)


def python_of(environment: Path) -> Path:
    """Where the interpreter of a virtual environment is."""
    return environment.joinpath(*(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))
