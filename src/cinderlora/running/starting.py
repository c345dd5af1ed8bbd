"""From a plan to a running trainer: the run folder, the view of the data set, the supervisor. Blocking.

Everything is laid out under a name with a dot in front and renamed when it is whole; when the start fails, nothing is
left behind.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from cinderlora.errors import LaunchFailed
from cinderlora.names import is_plain_file_name
from cinderlora.running import supervisor
from cinderlora.running.detached import first_answer
from cinderlora.running.folder import RunFolder
from cinderlora.types import Link, Plan

__all__ = ["adopt", "begin", "begin_again", "default_runs_folder"]

_OURS = {
    supervisor.LAUNCH,
    supervisor.STATE,
    supervisor.STOP,
    supervisor.LOG,
    supervisor.LOCK,
    supervisor.BEFORE,
    supervisor.TOLD,
}
_LOG_ROOM = 8 << 20  # bytes kept free for the log: ten thousand steps print three million
_STATE_ROOM = 256 << 10  # bytes kept free for the record of the end, by a file that needs none itself


def default_runs_folder() -> Path:
    """Where runs go unless said otherwise: `runs` in the user's data folder."""
    from cinderlora.folders import data_folder

    return data_folder() / "runs"


def begin(plan: Plan, runs: Path | None = None, configs: Path | None = None, run_id: str | None = None) -> Path:
    """Start a plan and give its run folder, when the trainer's pid is on record. Raises `LaunchFailed`.

    The run's id is chosen at random unless given; no two runs may have the same one.
    """
    runs = (runs or default_runs_folder()).expanduser().absolute()
    _refuse_bad_names(plan)
    for stage in plan.stages:
        if shutil.which(stage.argv[0]) is None:
            raise LaunchFailed("launch_trainer_missing", program=stage.argv[0])
    with ExitStack() as undo:
        if plan.publish is not None or plan.output.is_absolute():
            _make_writable(plan.publish or plan.output, undo, "output_not_writable")
        _make_writable(runs, undo, "launch_runs_folder")
        try:
            folder = _lay_out(plan, runs, undo, run_id or secrets.token_hex(8))
        except OSError as error:
            raise _failed("launch_runs_folder", runs, error) from error
        kept = _stage_configs(plan, configs.expanduser().absolute(), undo) if configs else {}
        _start_supervisor(folder, plan.argv[0])
        undo.pop_all()
    for staged, final in kept.items():
        staged.replace(final)
    return folder


def begin_again(folder: RunFolder, plan: Plan) -> None:
    """Start a run that was laid out by a program which was killed before it had started the trainer, or just then.

    Harmless where the trainer was started: a supervisor that finds that out starts nothing. Raises `LaunchFailed` where
    this call has not started it, for whatever reason.
    """
    _start_supervisor(folder.path, plan.argv[0])


def adopt(folder: RunFolder) -> bool:
    """Start a supervisor for a run whose own was killed; False where it could not be.

    Our own Python runs it: a program that is named in a folder, which may be anybody's, is not run by looking at it.
    """
    if not _is_python(sys.executable):
        return False
    try:
        _start_supervisor(folder.path, sys.executable, adopts=True)
    except LaunchFailed:
        return False
    return True


# ---- what is refused ------------------------------------------------------------------------------------------------


def _refuse_bad_names(plan: Plan) -> None:
    """Raise where a name of the plan would reach out of the run folder, or into what is not its own there."""
    for name in (plan.name, plan.model_type, plan.lora):
        if not is_plain_file_name(name):
            raise LaunchFailed("launch_name", name=name)
    paths = [*plan.files, *(link.target for link in plan.links)]
    if not plan.output.is_absolute():
        paths.append(plan.output.as_posix())
    taken = set(paths)
    for path in paths:
        parts = path.split("/")
        bad = any(part in {"", ".", ".."} or "\0" in part for part in parts)
        bad |= os.name == "nt" and any(c in path for c in ':\\<>"|?*')
        bad |= parts[0].lower() in _OURS
        # What would be written below a link lands in the person's own folder.
        bad |= any("/".join(parts[:n]) in taken for n in range(1, len(parts)))
        if bad:
            raise LaunchFailed("launch_path", path=path)
    for name in plan.configs:
        if name not in plan.files or not is_plain_file_name(name.rpartition("/")[2]):
            raise LaunchFailed("launch_path", path=name)


def _failed(code: str, folder: Path, error: OSError) -> LaunchFailed:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        code = "disk_full"
    return LaunchFailed(code, folder=str(folder), path=str(folder), why=error.strerror or str(error))


def _make_writable(folder: Path, undo: ExitStack, code: str) -> None:
    """Make a folder and see that it can be written; those that were made are removed again if the start fails."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            undo.callback(_remove_empty, path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _failed(code, folder, error) from error


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


# ---- the run folder -------------------------------------------------------------------------------------------------


def _lay_out(plan: Plan, runs: Path, undo: ExitStack, run_id: str) -> Path:
    """The complete run folder, under a name that no other run has."""
    now = time.time()
    title = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{plan.name}-{plan.model_type}"
    folder = runs / f".{title}.{run_id}"
    folder.mkdir()
    undo.callback(lambda: shutil.rmtree(folder, ignore_errors=True))
    # Files before links: nothing is ever written through a link.
    for name, text in plan.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for link in plan.links:
        _link(link, folder)
    if not plan.output.is_absolute():
        (folder / plan.output).mkdir(parents=True, exist_ok=True)
    _reserve(folder / supervisor.LOG, _LOG_ROOM)
    _reserve(folder / supervisor.LOCK, _STATE_ROOM)
    _write_private(folder / supervisor.LAUNCH, _launch_record(plan, run_id, now))
    for final in _candidates(runs / title):
        # A folder that is there has files in it, so that renaming onto it fails: one of two launchers moves on.
        if not final.exists():
            try:
                folder.rename(final)
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.EACCES} or not final.exists():
                    raise
            else:
                folder = final
                return final
    raise AssertionError("unreachable: there is always another candidate")


def _reserve(path: Path, room: int) -> None:
    """Make an empty file with room on the disk that nobody else can take: a trainer that cannot print ends, and an end
    that cannot be recorded is none. Where the file system reserves nothing, an empty file is enough."""
    with path.open("xb") as file:
        if sys.platform.startswith("linux"):
            import ctypes

            reserve = ctypes.CDLL(None, use_errno=True).fallocate
            reserve.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
            # FALLOC_FL_KEEP_SIZE: the file stays empty.
            if reserve(file.fileno(), 1, 0, room) and ctypes.get_errno() in {errno.ENOSPC, errno.EDQUOT}:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _candidates(path: Path) -> Iterable[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _link(link: Link, folder: Path) -> None:
    """Make a link to a person's file: symbolic; where that is not allowed hard; where neither is, a copy."""
    if not link.source.is_absolute() or not link.source.exists():
        raise LaunchFailed("launch_source_missing", path=str(link.source))
    target = folder / link.target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(link.source)
    except (OSError, NotImplementedError):
        try:
            os.link(link.source, target)
        except (OSError, NotImplementedError):
            shutil.copyfile(link.source, target)


def _launch_record(plan: Plan, run_id: str, now: float) -> dict[str, object]:
    from cinderlora.serial import to_json

    return {
        "id": run_id,
        "name": plan.name,
        "model_type": plan.model_type,
        "created": now,
        "output": str(plan.output),
        "lora": plan.lora,
        "stages": [
            {"name": s.name, "argv": list(s.argv), "env": dict(s.env), "cwd": s.cwd, "processes": s.processes}
            for s in plan.stages
        ],
        "steps": plan.steps,
        "first_step": plan.first_step,
        "publish": None if plan.publish is None else str(plan.publish.absolute()),
        "warnings": [{"code": p.code, "params": to_json(p.params)} for p in plan.warnings],
        "zero_at_start": list(plan.zero_at_start),
        "rehearsal": plan.rehearsal,
        "assists": plan.assists,
        "copy_to": [str(folder.expanduser().absolute()) for folder in plan.copy_to],
        "hard_links": plan.hard_links,
        "models_sidecar": plan.models_sidecar,
        "tells": plan.tells,
    }


def _write_private(path: Path, record: dict[str, object]) -> None:
    """JSON that only its owner may read: the environment of a trainer is in it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)


def _stage_configs(plan: Plan, folder: Path, undo: ExitStack) -> dict[Path, Path]:
    """Copies of the configuration files, beside where they are to be kept: nothing is replaced before the start."""
    staged = {}
    _make_writable(folder, undo, "launch_configs")
    try:
        for name in plan.configs:
            final = folder / name.rpartition("/")[2]
            path = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
            undo.callback(path.unlink, missing_ok=True)
            path.write_bytes(plan.files[name].encode("utf-8", "surrogateescape"))
            staged[path] = final
    except OSError as error:
        raise _failed("launch_configs", folder, error) from error
    return staged


# ---- the supervisor -------------------------------------------------------------------------------------------------


def _is_python(program: str | None) -> bool:
    return bool(program and re.fullmatch(r"(python|pypy)[0-9.]*[a-z]?(\.exe)?", Path(program).name, re.IGNORECASE))


def _python_for(program: str) -> str:
    """The Python that runs the supervisor: the trainer's own where it is one, otherwise ours. A program that embeds
    cinderlora may be no Python itself: then any that is there."""
    for candidate in (program, sys.executable, "python3", "python"):
        found = shutil.which(candidate) if _is_python(candidate) else None
        if found:
            return found
    raise LaunchFailed("launch_supervisor", why="there is no Python to run it with")


def _start_supervisor(folder: Path, program: str, *, adopts: bool = False) -> None:
    """Returns when the supervisor says that the trainer's pid is on record."""
    argv = [_python_for(program), "-I", "-S", "-X", "utf8", supervisor.__file__, str(folder)]
    # Not in the folder, which may be anybody's: a program that it names is not run by looking at it.
    argv += ["adopt" if adopts else "start", *([sys.executable] if _is_python(sys.executable) else [])]
    try:
        answer = first_answer(argv, folder)
    except OSError as error:
        raise LaunchFailed("launch_supervisor", why=str(error)) from error
    if answer == "started":
        return
    kind, _, why = answer.partition("\n")
    if kind == "trainer":
        raise LaunchFailed("launch_trainer_failed", program=program, why=why.removeprefix(f"{program}: "))
    if kind == "record":
        raise LaunchFailed("launch_runs_folder", folder=str(folder.parent), why=why)
    if kind == "taken":
        record = supervisor.read_record(str(folder), supervisor.LAUNCH) or {}
        lora = Path(record.get("publish") or record.get("output") or "") / str(record.get("lora"))
        raise LaunchFailed("launch_lora_taken", lora=str(lora), run=why)
    raise LaunchFailed("launch_supervisor", why=(answer.splitlines() or ["it was killed"])[-1])
