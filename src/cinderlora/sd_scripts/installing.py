"""Install sd-scripts: clone it, give it a Python environment of its own, see that it works.

Made in place, under a mark that keeps everybody from taking it for complete (`building_site`). The work is blocking and
done in a thread; cancelled, it ends the program that runs and removes what there is so far.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.lowlevel
from attrs import evolve, frozen

from cinderlora.checkouts import python_of
from cinderlora.errors import InstallFailed, SettingError
from cinderlora.frozendict import FrozenDict
from cinderlora.sd_scripts.building_site import building_site
from cinderlora.sd_scripts.checkout import SdScripts
from cinderlora.sd_scripts.git_folder import commit_of
from cinderlora.sd_scripts.processes import Commands, Outcome
from cinderlora.sd_scripts.torch_builds import BUILDS, TorchBuild, build_for, nvidia_cards
from cinderlora.sd_scripts.verify import verify_environment

if TYPE_CHECKING:
    from cinderlora.sd_scripts.verify import Verification

__all__ = ["PINNED", "SOURCE", "STEPS", "InstallStep", "Installed", "default_path", "install"]

SOURCE = "https://github.com/kohya-ss/sd-scripts"
PINNED = "48d368fa557731ad0488c07304dfeba8c07910eb"
"""The commit that cinderlora is tried with: v0.10.1 and some corrections, February 2026."""

STEPS = ("preparing", "cloning", "environment", "torch", "requirements", "verifying")

_NAMES = {"auto", *BUILDS}
_REF = re.compile(r"[A-Za-z0-9_][\w.+@/-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_ADDRESS = re.compile(r"(?:https?|ssh|git|file)://(?!-)\S+|\w[\w.-]*@\w[\w.-]*:(?!-)\S+")
_SECRET = re.compile(r"https?://[^/]*@")
_NO_SUCH_REF = re.compile("couldn't find remote ref|not our ref|unadvertised object", re.IGNORECASE)
_GIT_BAR = re.compile(r"(?:remote: )?([A-Z][\w ]+):\s+\d+% \((\d+)/(\d+)\)")
_PIP_BAR = re.compile(r"Progress (\d+) of (\d+)")
_TELLING = re.compile(r"(?:remote: )?\s*(?:error|fatal)\b", re.IGNORECASE)

# What a person's own environment and configuration would make of the programs that are run here.
_LEFT_OUT = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__"),
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT"),
}
_SET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "LC_ALL": "C.UTF-8",
    "NO_COLOR": "1",
    "PIP_NO_INPUT": "1",
    "PIP_USER": "0",
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYTHONUTF8": "1",
    "PYTHONUNBUFFERED": "1",
}


@frozen(kw_only=True)
class InstallStep:
    """How far an installation is. It comes once for each step, and again for each thing that its program tells."""

    name: str
    """preparing, cloning, environment, torch, requirements, or verifying."""
    number: int
    """Which step it is, from 1."""
    of: int = len(STEPS)
    detail: str = ""
    """What its program is at, in the program's own words."""
    done: int | None = None
    """How much of it, where the program tells: objects when cloning, bytes when downloading."""
    total: int | None = None


@frozen(kw_only=True)
class Installed:
    """What came of `install`."""

    trainer: SdScripts
    verification: Verification
    was_there: bool = False
    """There was an sd-scripts already; nothing was changed."""


def default_path() -> Path:
    """Where sd-scripts goes unless said otherwise, and where `SdScripts.find` finds it: the user's data folder."""
    from cinderlora.folders import data_folder

    return data_folder() / "sd-scripts"


async def install(
    path: Path | str | None = None,
    *,
    ref: str | None = None,
    source: str | Path = SOURCE,
    torch: str | TorchBuild = "auto",
    on_event: Callable[[InstallStep], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Installed:
    """Install sd-scripts with an environment of its own, and see that its scripts can be run.

    `source` is an address for git or a folder with a repository, `ref` a tag, a branch or a commit of it: by default
    the commit that cinderlora is tried with, and of another source what it has checked out. `torch` is "cpu", "cu126",
    "cu128", "auto" (by the NVIDIA driver), or a `TorchBuild` of your own. `on_event` is called in the event loop.
    `environ` is the environment that the programs get.

    An sd-scripts that is there already is looked at and left as it is. When it fails or is cancelled, every program is
    ended and everything removed before this returns; if the process is killed, what it leaves is marked, and the next
    call removes it. Raises `SettingError` for what cannot be meant, `InstallFailed` for everything else.
    """
    work = _Installation(
        path=Path(path or default_path()),
        ref=_checked_ref(ref),
        source=_checked_source(source),
        torch=_checked_torch(torch),
        environ=dict(os.environ if environ is None else environ),
    )
    token = anyio.lowlevel.current_token()

    def report(step: InstallStep) -> None:
        if on_event is not None:
            anyio.from_thread.run_sync(on_event, step, token=token)

    return await _in_a_thread(lambda: work.run(report), work.commands)


async def _in_a_thread(work: Callable[[], Installed], commands: Commands) -> Installed:
    """Do the work in a thread. Cancelled, stop the commands and wait until it has cleaned up, however often it is
    cancelled meanwhile; a shield alone does not do that, as asyncio's own `task.cancel()` goes through it."""
    outcome: list[Installed] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed over to who waits
            failure.append(error)

    thread = threading.Thread(target=run, name="cinderlora-install")
    thread.start()
    cancelled: BaseException | None = None
    try:
        await anyio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class() as error:
        cancelled = error
        commands.stop()
    with anyio.CancelScope(shield=True):
        while thread.is_alive():
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.to_thread.run_sync(thread.join)
    if cancelled is not None:
        raise cancelled
    if failure:
        raise failure[0]
    return outcome[0]


# ---- what is asked for -----------------------------------------------------------------------------------------------


def _checked_ref(ref: str | None) -> str | None:
    # It becomes a part of a refspec: nothing in it may mean anything there, and it is no option.
    if ref is not None and (not _REF.fullmatch(ref) or ".." in ref or len(ref) > 200):
        raise SettingError("install_ref", ref=repr(ref))
    return ref


def _checked_source(source: str | Path) -> str:
    text = str(source)
    with suppress(RuntimeError):  # "~nobody": no such home
        folder = Path(text).expanduser()
        if text and folder.is_dir():
            return str(folder.absolute())
    if _SECRET.match(text):
        raise SettingError("install_source_secret")
    # A host's name with a hyphen in front would be an option to ssh.
    if not _ADDRESS.fullmatch(text) or "@-" in text or not text.isprintable():
        raise SettingError("install_source", source=repr(text))
    return text


def _checked_torch(torch: str | TorchBuild) -> str | TorchBuild:
    if isinstance(torch, str) and torch not in _NAMES:
        raise SettingError("setting_choice", setting="torch", value=repr(torch), choices=sorted(_NAMES))
    return torch


# ---- the work --------------------------------------------------------------------------------------------------------


@frozen
class _Tools:
    git: str
    uv: str | None
    python: str
    """The Python to make an environment of: a path, or a version that uv is to get."""
    torch: TorchBuild


class _Installation:
    """One installation: blocking, in a thread of its own."""

    def __init__(
        self, *, path: Path, ref: str | None, source: str, torch: str | TorchBuild, environ: dict[str, str]
    ) -> None:
        self.commands = Commands()
        self._path = path.expanduser().resolve()
        self._ref = ref
        self._source = source
        self._torch = torch
        self._environ = {name: value for name, value in environ.items() if name not in _LEFT_OUT} | _SET
        self._report: Callable[[InstallStep], None] = lambda step: None
        self._step = InstallStep(name=STEPS[0], number=1)

    def run(self, report: Callable[[InstallStep], None]) -> Installed:
        self._report = report
        there = SdScripts(self._path)
        if there.is_there():
            return self._look_at(there)
        self._begin("preparing")
        tools = self._tools()
        with building_site(self._path) as temporary:
            # A small /tmp is what large downloads often fail on; and so it goes with the rest.
            self._environ |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
            self._begin("cloning")
            self._clone(tools.git)
            self._begin("environment")
            python = self._make_environment(tools)
            self._begin("torch", " ".join(tools.torch.packages))
            self._install_packages(tools, python, [*_index(tools.torch), *tools.torch.packages])
            self._begin("requirements")
            if (self._path / "requirements.txt").is_file():
                self._install_packages(tools, python, ["-r", "requirements.txt"])
            self._begin("verifying")
            verification = self._verify(python)
            self.commands.check()
        return Installed(trainer=SdScripts(self._path), verification=verification)

    def _look_at(self, trainer: SdScripts) -> Installed:
        version, commit = trainer.version, trainer.commit
        wanted = (self._ref or "").removeprefix("v")
        is_it = wanted == version or (_COMMIT.fullmatch(wanted) and (commit or "").startswith(wanted))
        if wanted and not is_it:
            params = {"path": str(self._path), "version": version, "commit": commit, "ref": self._ref}
            raise InstallFailed("install_other_version", **params)
        self._begin("verifying")
        python = trainer.python
        if python is None or shutil.which(python) is None:
            return Installed(trainer=trainer, verification=trainer.verify(), was_there=True)
        verification = verify_environment(python, self._path, trainer.scripts, commands=self.commands)
        return Installed(trainer=trainer, verification=verification, was_there=True)

    # ---- preparing ----

    def _tools(self) -> _Tools:
        folders = self._environ.get("PATH")
        git = shutil.which("git", path=folders)
        if git is None:
            raise InstallFailed("install_git_missing")
        uv = shutil.which("uv", path=folders)
        python = _python(folders, get_one=uv is not None)
        if python is None:
            raise InstallFailed("install_python_missing")
        return _Tools(git, uv, python, self._torch if isinstance(self._torch, TorchBuild) else self._build())

    def _build(self) -> TorchBuild:
        if self._torch != "auto":
            return BUILDS[str(self._torch)]
        cards = nvidia_cards(self.commands, self._environ)
        build = build_for(cards)
        if build is None:
            raise InstallFailed("install_driver_old", card=cards[0].name, driver=min(card.driver for card in cards))
        found = ", ".join(card.name for card in cards) or "no NVIDIA GPU"
        self._tell(f"{found}: {build.name}")
        return build

    # ---- cloning ----

    def _clone(self, git: str) -> None:
        def do(*argv: str) -> None:
            self._must(self._git(git, *argv))

        do("init", "--quiet", "--template=")
        do("remote", "add", "--", "origin", self._source)
        # Of another source, no ref means what it has checked out itself.
        ref = self._ref or (PINNED if self._source == SOURCE else "HEAD")
        fetch = ("fetch", "--progress", "--no-tags", "--depth=1", "origin")
        start = "FETCH_HEAD"
        if _COMMIT.fullmatch(ref):
            if not self._is_found(self._git(git, *fetch, ref)):
                # Shortened, or a server that gives out the newest commits only: then all, and the commit out of that.
                do("fetch", "--progress", "--tags", "origin")
                start = ref
        elif ref == "HEAD" or not self._is_found(self._git(git, *fetch, f"+refs/tags/{ref}:refs/tags/{ref}")):
            do(*fetch, ref)
        do("checkout", "--quiet", "--detach", start, "--")
        do("pack-refs", "--all")  # notes down which commit an annotated tag means
        if not (self._path / "train_network.py").is_file():
            raise InstallFailed("install_not_sd_scripts", source=self._source, ref=ref)
        self._tell(commit_of(self._path) or "")

    def _is_found(self, outcome: Outcome) -> bool:
        """Whether what was to be fetched is there under that name. Raises for every other failure."""
        if outcome.exit_code and _NO_SUCH_REF.search("\n".join(outcome.lines)):
            return False
        self._must(outcome)
        return True

    def _git(self, git: str, *argv: str) -> Outcome:
        # A connection on which nothing comes for a minute is given up.
        settings = ("http.lowSpeedLimit=1000", "http.lowSpeedTime=60", "gc.auto=0", "maintenance.auto=false")
        options = [word for setting in settings for word in ("-c", setting)]
        return self._run([git, *options, *argv])

    # ---- environment and packages ----

    def _make_environment(self, tools: _Tools) -> Path:
        environment = self._path / "venv"
        make = [tools.uv, "venv", "--python", tools.python] if tools.uv else [tools.python, "-m", "venv"]
        self._must(self._run([*make, str(environment)]))
        return python_of(environment)

    def _install_packages(self, tools: _Tools, python: Path, what: Sequence[str]) -> None:
        if tools.uv:
            install = [tools.uv, "pip", "install", "--python", str(python)]
        else:
            bar = "raw" if _pip_version(python) >= (24, 1) else "off"
            install = [str(python), "-m", "pip", "install", "--progress-bar", bar]
        self._must(self._run([*install, *what]))

    # ---- verifying ----

    def _verify(self, python: Path) -> Verification:
        trainer = SdScripts(self._path)
        verification = verify_environment(
            python, self._path, trainer.scripts, environ=self._environ, commands=self.commands
        )
        if not verification.ok:
            broken = next((p.params for p in verification.problems if p.params.get("why")), FrozenDict())
            told = {name: broken.get(name) for name in ("module", "why")}
            params = {"path": str(self._path), "packages": verification.missing, **told, "step": self._step.name}
            raise InstallFailed("install_unverified", **params)
        return verification

    # ---- running and telling ----

    def _run(self, argv: Sequence[str]) -> Outcome:
        try:
            return self.commands.run(argv, cwd=self._path, env=self._environ, on_line=self._hear)
        except OSError as error:
            return Outcome(127, (f"{argv[0]}: {error.strerror or error}",))

    def _must(self, outcome: Outcome) -> None:
        if outcome.exit_code == 0:
            return
        lines = [line for line in outcome.lines if not _GIT_BAR.match(line) and not _PIP_BAR.match(line)]
        telling = [line for line in lines if _TELLING.match(line)] or lines or [f"exit code {outcome.exit_code}"]
        # git names the cause first and what follows from it afterwards; pip and uv come to the point at the end.
        why = telling[0 if self._step.name == "cloning" else -1].strip()
        params = {"step": self._step.name, "path": str(self._path), "why": why, "output": tuple(lines[-12:])}
        raise InstallFailed("install_step_failed", **params)

    def _begin(self, name: str, detail: str = "") -> None:
        self.commands.check()
        self._step = InstallStep(name=name, number=STEPS.index(name) + 1, detail=detail)
        self._report(self._step)

    def _tell(self, detail: str) -> None:
        self._step = evolve(self._step, detail=detail, done=None, total=None)
        self._report(self._step)

    def _hear(self, line: str) -> None:
        if bar := _GIT_BAR.match(line):
            self._step = evolve(self._step, detail=bar[1], done=int(bar[2]), total=int(bar[3]))
        elif bar := _PIP_BAR.match(line):
            self._step = evolve(self._step, done=int(bar[1]), total=int(bar[2]))
        else:
            self._tell(line.strip()[:200])
            return
        self._report(self._step)


def _index(build: TorchBuild) -> list[str]:
    if build.index is None:
        return []
    folder = Path(build.index).expanduser()
    return ["--no-index", "--find-links", str(folder)] if folder.is_dir() else ["--index-url", build.index]


def _pip_version(python: Path) -> tuple[int, ...]:
    found = [re.match(r"pip-(\d+)\.(\d+)", p.name) for p in python.parent.parent.rglob("site-packages/pip-*.dist-info")]
    return max((tuple(map(int, match.groups())) for match in found if match), default=(0,))


def _python(folders: str | None, *, get_one: bool) -> str | None:
    """A Python that sd-scripts is made for (its README names 3.10 to 3.12): our own, one on the path, or the version
    that uv is to get; else any there is, and verification tells."""
    fitting = (3, 10) <= sys.version_info[:2] <= (3, 12)
    is_python = re.fullmatch(r"(python|pypy)[0-9.]*w?(\.exe)?", Path(sys.executable or "").name, re.IGNORECASE)
    own = sys.executable if is_python and not getattr(sys, "frozen", False) else None
    if own and fitting:
        return own
    on_path = (shutil.which(f"python3.{minor}", path=folders) for minor in (11, 12, 10))
    return next(filter(None, on_path), None) or ("3.11" if get_one else own or shutil.which("python3", path=folders))
