"""Starts a run's trainer, waits for it, and records how it ended. It outlives whoever asked for the run.

    python -I -S -X utf8 supervisor.py RUN start|adopt [PYTHON]

This file is started by its path, with the trainer's own Python: nothing but the standard library, Python 3.8 and
newer. It reads `launch.json` in the run folder, and it alone writes `state.json`. On its standard output it says
"started" once the trainer's pid is recorded, or else why not, and lets go of that output: whoever started it reads to
the end and knows. Then it is on its own: in a session of its own, deaf to hang-ups and polite signals, holding the
lock file. `adopt` takes over from a supervisor that was killed: it waits for the trainer that is already there.

What is recorded, in this order, is what lets every follower see the same events: the facts about the files, then that
the run is ending, then (no follower reads on from here) the length of the log with everything else.

While it lives it holds the right to write the LoRA, a lock beside it: two trainings of one file would ruin it. A file
is one of the run's if it is not, unchanged, what lay there before the start; no clock is asked. What is half-written
when a run ends that did not finish gets the ending ".partial".

A resumed training writes into its run folder, since sd-scripts counts its steps from 0 again and would overwrite
earlier files of the same names. When it has ended, its files are put where the earlier ones lie, under steps that count
on.

The Windows parts are written by its documentation; nobody has run them yet.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would take a megabyte for as long as the run lasts
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, BinaryIO

POSIX = os.name == "posix"
LAUNCH, STATE, STOP, LOG, LOCK = "launch.json", "state.json", "stop.json", "output.log", "supervisor.lock"
BEFORE = "before.json"  # what lay in the output folder at the start, where something did
TOLD = "run_finished.log"  # what plugins print that are told of the end

RUN_ID = "CINDERLORA_RUN_ID"
"""The environment variable by which every process of a run is known, even one that left its session and its parent."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
LOOK_EVERY = 0.5  # seconds between two looks for new files
CARD_EVERY = 10.0  # seconds between two looks at the GPU memory: PyTorch keeps what it once took
CARD_SHARE = 1 << 28  # bytes of it that another program has to hold to be named
LOOKS = 3  # in a row that have to find nothing before a run's processes count as gone
GROUP_GRACE = 5.0  # seconds that what is left of the trainer's group has to end
LONGEST_GRACE = 3600.0  # seconds
CLOCK_SLACK = 2.0  # seconds: file systems round times, FAT to two seconds
RECORD_LIMIT = 8 << 20  # bytes of a record; a run with fifty thousand pictures has three million
PARTIAL = ".partial"


class NotStarted(Exception):
    """The trainer could not be started."""


# ---- processes -------------------------------------------------------------------------------------------------------


def start_of(pid: int) -> str | None:
    """When a process started: a text that, with the pid, names this process and no later one. None: it is gone.

    A zombie counts as gone: in a container, one whose parent died may stay for ever.
    """
    if sys.platform.startswith("linux"):
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                boot = file.read().strip()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else (boot[:8] + b"-" + fields[19]).decode()
    if POSIX:
        import subprocess

        asked = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
            stdout=subprocess.PIPE,
            env=dict(os.environ, LC_ALL="C"),
            check=False,
        )
        status, _, started = asked.stdout.decode("ascii", "replace").strip().partition(" ")
        return None if not started or status.startswith("Z") else started.strip()
    return _start_on_windows(pid)


def _start_on_windows(pid: int) -> str | None:
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(0x1000, False, pid))  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return None
    try:
        times = [ctypes.c_uint64() for _ in range(4)]
        code = ctypes.c_uint32()
        known = kernel.GetProcessTimes(handle, *[ctypes.byref(t) for t in times])
        known = known and kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        return str(times[0].value) if known and code.value == 259 else None  # STILL_ACTIVE
    finally:
        kernel.CloseHandle(handle)


def is_running(process: dict[str, Any]) -> bool:
    """Whether a recorded process (`pid`, `start`) is still there, and is the same one."""
    pid, start = process["pid"], process["start"]
    return isinstance(pid, int) and isinstance(start, str) and start_of(pid) == start


def is_of_run(process: dict[str, Any], run_id: str) -> bool:
    """Whether a recorded process is still there and belongs to the run: a record in a folder, which may be anybody's,
    can name any process. Where there is no /proc, pid and start have to do."""
    if not is_running(process) or process["pid"] <= 1:
        return False
    return not sys.platform.startswith("linux") or mark_of(process["pid"]) == run_id


def mark_of(pid: int) -> str:
    """The id of the run that a process says it belongs to, "" for none. From Linux' /proc."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            for variable in file.read().split(b"\0"):
                name, _, value = variable.partition(b"=")
                if name == RUN_ID.encode():
                    return value.decode("ascii", "replace")
    except OSError:
        pass  # gone, or another user's
    return ""


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group; OSError where there is none. Not to 1, by which the system means everybody."""
    if group <= 1:
        raise ProcessLookupError(group)
    os.killpg(group, number)


def group_members(group: int, run_id: str | None = None) -> list[int]:
    """The pids of a process group but for its leader, from Linux' /proc; with `run_id`, of that run's only."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == group:
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if fields[0] in (b"Z", b"X") or int(fields[2]) != group:
                continue
        except OSError:
            continue
        if run_id is not None and mark_of(int(name)) != run_id:
            continue
        found.append(int(name))
    return found


def end_group(group: int, grace: float, run_id: str | None = None) -> None:
    """End what is left of a trainer's process group: politely, after `grace` seconds by force.

    The group's number is safe to use while its leader has not been reaped, or where the members prove to be the run's.
    """

    def left() -> bool:
        if sys.platform.startswith("linux"):
            return bool(group_members(group, run_id))
        try:
            signal_group(group, 0)
        except OSError:
            return False
        return True

    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        if not left():
            return
        try:
            signal_group(group, number)
        except OSError:
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until and left():
            time.sleep(0.02)


def strays(run_id: str) -> list[int]:
    """The pids of a run's processes, its trainer gone: those with its mark, and our own children."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X") and (int(fields[1]) == os.getpid() or mark_of(int(name)) == run_id):
            found.append(int(name))
    return found


def has_children() -> bool:
    """Whether we have a child that lives, those included that lost their parent; the dead are let go of. The kernel
    knows: a child is ours before its parent, that was, can be seen dead."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def end_strays(run_id: str, grace: float) -> None:
    """End a run's processes wherever they went, on Linux: politely, after `grace` seconds by force."""
    if not sys.platform.startswith("linux"):
        return
    begun = time.monotonic()
    signalled: set[tuple[int, int]] = set()
    empty = 0
    # One look may find neither a parent, which has gone, nor its child, which was not there when it began.
    while empty < LOOKS and time.monotonic() - begun < grace + 2.0:
        number = signal.SIGTERM if time.monotonic() - begun < grace else signal.SIGKILL
        left = strays(run_id)
        empty = 0 if left or has_children() else empty + 1
        for pid in left:
            if (pid, number) not in signalled:
                signalled.add((pid, number))
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        time.sleep(0.05 if left else 0.01)


# ---- the lock --------------------------------------------------------------------------------------------------------


def lock(fd: int, wait: float) -> bool:
    """Lock a file for as long as it is open; False where another process has it and keeps it for `wait` seconds.
    A file system without locks has nobody who could."""
    until = time.monotonic() + wait  # somebody may be asking, which takes the lock for a moment
    while True:
        try:
            if POSIX:
                import fcntl

                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                import msvcrt

                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)


def take_lock(folder: str, wait: float = 0.2) -> int | None:
    """The lock that a supervisor holds while it lives, as a file descriptor; None where another has it."""
    fd = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o644)
    if lock(fd, wait):
        return fd
    os.close(fd)
    return None


def is_supervised(folder: str) -> bool:
    """Whether a supervisor lives for a run folder."""
    try:
        fd = os.open(os.path.join(folder, LOCK), os.O_RDONLY if POSIX else os.O_RDWR)
    except OSError:
        return False
    try:
        if POSIX:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


class Claim:
    """The right to write a LoRA, held by one run at a time: a locked file beside it that names the run folder.

    Whoever dies lets go of the lock. A trainer that outlives its supervisor is found by the name in the file.
    """

    def __init__(self, lora: str) -> None:
        self.path = os.path.join(os.path.dirname(lora), ".%s.run" % os.path.basename(lora))
        self._fd: int | None = None

    def take(self, folder: str) -> str | None:
        """Take it for a run folder; gives the run folder that has it instead, None where we have it now. Where no
        file can be made, or none be locked, nobody is kept from training."""
        until = time.monotonic() + 1.0
        while True:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            except OSError:
                return None
            if not POSIX:
                os.lseek(fd, 1 << 30, os.SEEK_SET)  # what is locked there cannot be read by others
            mine = lock(fd, 0.2)
            os.lseek(fd, 0, os.SEEK_SET)
            holder = os.read(fd, 4096).decode("utf-8", "surrogateescape").strip()
            taken = not mine or (bool(holder) and not _same(holder, folder) and has_trainer(holder))
            if mine and not taken and _is_open(self.path, fd):
                break
            os.close(fd)
            if taken and (holder or time.monotonic() > until):
                return holder or "?"
            # Otherwise whoever has it has not said so yet, or has just removed it.
        with contextlib.suppress(OSError):
            os.lseek(fd, 0, os.SEEK_SET)
            os.ftruncate(fd, 0)
            os.write(fd, folder.encode("utf-8", "surrogateescape"))
        self._fd = fd
        return None

    def release(self) -> None:
        """Let go of it, and leave nothing behind."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            if _is_open(self.path, self._fd):
                os.unlink(self.path)
        os.close(self._fd)
        self._fd = None


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _is_open(path: str, fd: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def has_trainer(folder: str) -> bool:
    """Whether the trainer of a run lives, with or without its supervisor."""
    launch, state = read_record(folder, LAUNCH), read_record(folder, STATE)
    if launch is None or state is None:
        return False
    trainer = state.get("trainer")
    if state.get("state") == "ended" or not isinstance(trainer, dict) or not {"pid", "start"} <= set(trainer):
        return False
    return is_of_run(trainer, str(launch.get("id")))


# ---- what is on disk -------------------------------------------------------------------------------------------------


def signature(path: str) -> list[int] | None:
    """What tells a file from the one that was there before, without trusting two machines' clocks."""
    try:
        there = os.stat(path)
    except OSError:
        return None
    return [there.st_mtime_ns, there.st_size, there.st_ino]


def is_checkpoint(name: str, stem: str) -> bool:
    """Whether a file's name is that of a checkpoint on the way to "STEM.safetensors", by step or by epoch. Another
    training's LoRA may begin alike: "cg_elena-dim8" in the folder of "cg_elena"."""
    return bool(re.fullmatch(re.escape(stem) + r"-(step[0-9]{8,}|[0-9]{6,})\.safetensors", name))


def _is_sample(name: str, stem: str) -> bool:
    """The same for a sample picture: step or epoch, place of the prompt, and what else there is."""
    wanted = re.match(re.escape(stem) + r"_e?[0-9]{6,}_[0-9]+(_|\.)", name)
    return bool(wanted) and name.lower().endswith(PICTURES)


class Files:
    """The checkpoints and sample pictures that came up during a run, by their names relative to the output folder.

    They are noted as they appear, so that what a person moves away later is still known. `before` are the signatures
    of those that were there at the start.
    """

    def __init__(
        self, output: str, lora: str, before: dict[str, list[int]] | None = None, names: Iterable[str] = ()
    ) -> None:
        self.output = output
        self.names = set(names)
        self.before = before or {}
        self._lora = lora
        self._stem = os.path.splitext(lora)[0]
        self._places = ((output, "", is_checkpoint), (os.path.join(output, "sample"), "sample/", _is_sample))
        self._seen: dict[str, int] = {}

    def look(self, thoroughly: bool = False) -> bool:
        """Note what is new; says whether there was something. A folder that did not change is not read again."""
        new = [name for name, found in self._there(thoroughly) if self.before.get(name) != found]
        self.names.update(new)
        return bool(new)

    def note_what_is_there(self) -> None:
        """Note what is there before the start: none of it, unless it changes, is the run's."""
        self.before = dict(self._there(thoroughly=True))

    def _there(self, thoroughly: bool) -> Iterator[tuple[str, list[int]]]:
        for folder, prefix, is_wanted in self._places:
            try:
                changed = os.stat(folder).st_mtime_ns
                # One that changed just now may change again within the same tick of the file system's clock.
                settled = abs(time.time() - changed / 1e9) > CLOCK_SLACK
                if not thoroughly and settled and self._seen.get(folder) == changed:
                    continue
                self._seen[folder] = changed
                with os.scandir(folder) as entries:
                    for entry in entries:
                        wanted = is_wanted(entry.name, self._stem) or (not prefix and entry.name == self._lora)
                        if wanted and prefix + entry.name not in self.names:
                            found = signature(entry.path)
                            if found is not None:
                                yield prefix + entry.name, found
            except OSError:
                continue  # not there yet

    def set_aside(self) -> list[str]:
        """Give what is half-written a name that nobody takes for a result; gives the new names."""
        renamed = []
        for name in sorted(self.names):
            path = os.path.join(self.output, name)
            with contextlib.suppress(OSError):
                if os.path.isfile(path) and not is_whole(path):
                    os.replace(path, path + PARTIAL)
                    self.names.discard(name)
                    renamed.append(name + PARTIAL)
        return renamed


# Bytes of one element, and, for floating point, which bytes show that one is NaN or infinite (little-endian).
_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_CHUNK = 1 << 17  # bytes; a multiple of every element's size
_HEADER_LIMIT = 100 * 1000 * 1000  # bytes, safetensors' own
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what a bad file can raise


def _all_ones(bits: int) -> bytes:
    """A table for `bytes.translate`: 1 for each byte in which these bits are all set."""
    return bytes(1 if byte & bits == bits else 0 for byte in range(256))


_EXPONENT_IN_ONE_BYTE = {"F16": (2, _all_ones(0x7C)), "F8_E5M2": (1, _all_ones(0x7C)), "F8_E4M3": (1, _all_ones(0x7F))}
_EXPONENT_IN_TWO_BYTES = {"BF16": (2, 0x80), "F32": (4, 0x80), "F64": (8, 0xF0)}


def has_non_finite(data: bytes, dtype: str) -> bool:
    """Whether little-endian numbers have NaN or infinity among them: an exponent of ones. Slices and searches only,
    which run at memory speed in plain Python."""
    if dtype in _EXPONENT_IN_ONE_BYTE:
        size, table = _EXPONENT_IN_ONE_BYTE[dtype]
        return 1 in data[size - 1 :: size].translate(table)
    if dtype not in _EXPONENT_IN_TWO_BYTES:
        return False
    size, rest = _EXPONENT_IN_TWO_BYTES[dtype]
    high = data[size - 1 :: size]
    for sign in (0x7F, 0xFF):
        at = high.find(sign)
        while at >= 0:  # rare: such a number is above 10^38, if it is one
            if data[at * size + size - 2] & rest == rest:
                return True
            at = high.find(sign, at + 1)
    return False


def lora_facts(path: str, before: list[int] | None, zero_at_start: list[str]) -> dict[str, Any]:
    """What a LoRA file is like, as in `cinderlora.types.LoraFacts`, read once in small pieces. One that was there
    before is not read: whatever it is like, it is not the run's."""
    now = signature(path)
    facts: dict[str, Any] = {
        "exists": now is not None, "fresh": now is not None and now != before, "complete": False, "finite": False,
        "trained": None, "all_steps": None, "size": now[1] if now else 0, "problem": "",
    }  # fmt: skip
    if now is None or not facts["fresh"]:
        return facts
    try:
        with open(path, "rb") as file:
            tensors, metadata = _tensors(file, now[1])
            facts["complete"] = True
            facts["all_steps"] = _has_all_steps(metadata)
            facts["finite"], facts["trained"] = _look_through(file, tensors, zero_at_start)
    except UNREADABLE as error:
        facts["problem"] = "%s: %s" % (type(error).__name__, error)
    return facts


def _has_all_steps(metadata: Any) -> bool | None:
    """Whether a LoRA says of itself that it has all the steps that its training was to have, as sd-scripts' do."""
    counts = [str(metadata.get(key, "")) for key in ("ss_steps", "ss_max_train_steps")]
    if not all(count.isdecimal() and len(count) <= 12 for count in counts):
        return None
    return int(counts[0]) >= int(counts[1])


def _tensors(file: BinaryIO, length: int) -> tuple[list[tuple[str, str, int]], Any]:
    """Name, dtype and bytes of the tensors in a safetensors file, in the file's order, and its metadata; ValueError
    where it is not complete."""
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= min(length - 8, _HEADER_LIMIT):
        raise ValueError("the header is missing or cut off")
    header = json.loads(file.read(size).decode("utf-8"))
    metadata = header.pop("__metadata__", None) or {}
    tensors = []
    at = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = tensor["data_offsets"]
        count = 1
        for side in tensor["shape"]:
            count *= side
        if begin != at or end < begin or count * _SIZES.get(tensor["dtype"], 0) not in (0, end - begin):
            raise ValueError("the header does not fit the tensor %s" % name)
        tensors.append((name, tensor["dtype"], end - begin))
        at = end
    if 8 + size + at != length:
        raise ValueError("%d bytes, where the header says %d" % (length, 8 + size + at))
    return tensors, metadata


def _look_through(
    file: BinaryIO, tensors: list[tuple[str, str, int]], zero_at_start: list[str]
) -> tuple[bool, bool | None]:
    """Whether all numbers are finite, and whether one of the tensors that start at zero no longer is."""
    finite = True
    trained: bool | None = None if tensors else False
    for name, dtype, size in tensors:
        starts_at_zero = any(part in name for part in zero_at_start)
        if starts_at_zero and trained is None:
            trained = False
        left = size
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                raise ValueError("the file is shorter than it was")
            left -= len(data)
            if finite and has_non_finite(data, dtype):
                finite = False
            if starts_at_zero and not trained:
                trained = bool(data.strip(b"\0\x80"))  # minus zero is zero
    return finite, trained


# ---- the files of a resumed training ---------------------------------------------------------------------------------

_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"


def published_name(name: str, stem: str, first_step: int) -> str:
    """What a checkpoint or sample of a resumed training is called among earlier runs' files: its step is the one in
    all. Files that sd-scripts names by epochs, which begin anew too, get the steps that were done before instead.

    "cg_elena-step00000004.safetensors" after 8 steps is "cg_elena-step00000012.safetensors".
    """
    at = name.rfind("/") + 1 + len(stem) + 1
    begins, rest = name[:at], name[at:]
    if name.startswith("sample/"):
        step, mark, more = rest.partition("_")
        if mark and step.isdecimal():
            return "%s%06d_%s" % (begins, int(step) + first_step, more)
        return "%safter%06d_%s" % (begins, first_step, rest)
    step, ending = os.path.splitext(rest)
    if step.startswith("step") and step[4:].isdecimal():
        return "%sstep%08d%s" % (begins, int(step[4:]) + first_step, ending)
    return "%safter%08d-%s" % (begins, first_step, rest)


def is_whole(path: str) -> bool:
    """Whether a checkpoint or a picture is all there: one that a trainer was ended over stays where it is."""
    try:
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if path.lower().endswith(".safetensors"):
                _tensors(file, length)
            elif path.lower().endswith(".png"):
                file.seek(max(0, length - len(_END_OF_PNG)))
                return file.read() == _END_OF_PNG
    except UNREADABLE:
        return False
    return length > 0


def put(source: str, target: str, mark: str, replace: bool = False, link: bool = True) -> bool:
    """Give a file a second name, in another folder: a hard link, or a copy where that cannot be or is not wanted;
    there at once and whole, or not at all. False where another file has that name, unless it is to be replaced. `mark`
    is the run's own.
    """
    with contextlib.suppress(OSError):
        if os.path.samefile(source, target):
            return True
    part = os.path.join(os.path.dirname(target), ".%s.%s" % (os.path.basename(target), mark))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)  # of a supervisor that was killed here
    try:
        try:
            if not link:
                raise OSError("a copy is wanted")
            os.link(source, part)
        except OSError:
            _copy(source, part)
        if not replace:
            try:
                os.link(part, target)
                return True
            except FileExistsError:
                return False
            except OSError:  # there are no hard links here
                if os.path.lexists(target):
                    return False
        os.replace(part, target)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as file:
        there = os.fstat(file.fileno())
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), there.st_mode & 0o777)
        with os.fdopen(fd, "wb") as copy:
            while True:
                data = file.read(_CHUNK)
                if not data:
                    break
                copy.write(data)
            copy.flush()
            os.fsync(copy.fileno())
    os.utime(target, ns=(there.st_atime_ns, there.st_mtime_ns))


# ---- the record ------------------------------------------------------------------------------------------------------


def write_whole(folder: str, name: str, record: dict[str, Any], durable: bool = False) -> None:
    """Replace a JSON file of a run folder at once: readers see the old one or the new one."""
    write_text(os.path.join(folder, name), json.dumps(record, indent=1), durable)


def write_text(path: str, text: str, durable: bool = False) -> None:
    """Replace a file at once."""
    part = "%s.%d" % (path, os.getpid())
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def read_record(folder: str, name: str) -> dict[str, Any] | None:
    """A JSON file of a run folder; None where it is not there, not whole, or larger than any of ours."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read(RECORD_LIMIT + 1)
        record = json.loads(data.decode("utf-8")) if len(data) <= RECORD_LIMIT else None
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_before(folder: str) -> dict[str, list[int]]:
    """The signatures of the files that lay in the output folder at a run's start, by their names."""
    record = read_record(folder, BEFORE) or {}
    return {name: found for name, found in record.items() if isinstance(found, list)}


def oom_kills() -> int | None:
    """How many processes the kernel has ended for lack of memory since the system was started, those of all containers
    counted; None where it does not say."""
    try:
        with open("/proc/vmstat", "rb") as file:
            found = re.search(rb"^oom_kill ([0-9]+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


class CardMemory:
    """The most GPU memory that a run's processes were seen to hold at once, all cards together, and which programs held
    some at the last look, as NVIDIA's library has it: it is looked at in a thread of its own, since a driver that hangs
    must hold up nobody.

    None where there is no such library, or it knows none of the run's processes: in some containers it tells other
    numbers. Never tried on a card: it is written by NVIDIA's documentation.
    """

    def __init__(self, run_id: str) -> None:
        self.peak: int | None = None
        self.others: list[str] = []
        """The programs of others, the largest first, e.g. "ComfyUI, process 4711, 10.2 GB"."""
        self._run_id = run_id
        self._begins: float | None = time.monotonic() + CARD_EVERY  # until then nothing is on a card

    def watch(self) -> None:
        """See to it that somebody looks. To be called often."""
        if self._begins is not None and time.monotonic() > self._begins and sys.platform.startswith("linux"):
            import _thread

            self._begins = None
            _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        try:
            ask = _card_processes()
            while True:
                held, others = 0, []
                for pid, used in ask():
                    if mark_of(pid) == self._run_id:
                        held += used
                    elif used >= CARD_SHARE:
                        others.append((used, pid))
                if held > (self.peak or 0):
                    self.peak = held
                if held:  # or else its numbers are not those of processes here
                    largest = sorted(others, reverse=True)[:3]
                    self.others = ["%s, process %d, %.1f GB" % (program(p), p, used / 2**30) for used, p in largest]
                time.sleep(CARD_EVERY)
        except (OSError, AttributeError, ImportError, ValueError):
            return  # there is no library, or an old one


def program(pid: int) -> str:
    """What people call a process: ComfyUI is a script of Python like many others. From Linux' /proc."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            if b"comfyui" in file.read().lower():
                return "ComfyUI"
        with open("/proc/%d/comm" % pid, "rb") as file:
            return "".join(c for c in file.read().decode("utf-8", "replace").strip() if c.isprintable())
    except OSError:
        return "a program"


def _card_processes() -> Callable[[], list[tuple[int, int]]]:
    """What asks for the processes on all cards, each with the bytes that it holds. OSError where there is no library
    or no card, AttributeError where the library is older than 2021."""
    import ctypes

    class Info(ctypes.Structure):  # nvmlProcessInfo_t
        _fields_ = (
            ("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu_instance", ctypes.c_uint),
            ("compute_instance", ctypes.c_uint),
        )  # fmt: skip

    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    running = nvml.nvmlDeviceGetComputeRunningProcesses_v3
    number = ctypes.c_uint()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(number)) or not number.value:
        raise OSError("no card")
    cards = [ctypes.c_void_p() for _ in range(number.value)]
    cards = [card for n, card in enumerate(cards) if not nvml.nvmlDeviceGetHandleByIndex_v2(n, ctypes.byref(card))]

    def ask() -> list[tuple[int, int]]:
        found = []
        for card in cards:
            count = ctypes.c_uint(256)  # more than a card has; with more it says that they are too many
            infos = (Info * count.value)()
            if not running(card, ctypes.byref(count), infos):
                # All bits: the driver does not tell.
                found += [(info.pid, info.used) for info in infos[: count.value] if info.used < 1 << 63]
        return found

    return ask


class Supervisor:
    """One run, from the start of its trainer to the record of its end."""

    def __init__(self, folder: str, launch: dict[str, Any]) -> None:
        self.folder = folder
        self.launch = launch
        self.output = os.path.join(folder, launch["output"])
        self.lora = os.path.join(self.output, str(launch["lora"]))
        self.me = {"pid": os.getpid(), "start": start_of(os.getpid())}
        self.state: dict[str, Any] = {}
        self.files = Files(self.output, str(launch["lora"]))
        self.claim = Claim(os.path.join(launch.get("publish") or self.output, str(launch["lora"])))
        self.card = CardMemory(str(launch["id"]))
        self._trainer: Any = None
        self._asked: float | None = None  # when a wish to stop was first seen
        self._has_seen_trainer = True

    # -- starting

    def start(self) -> None:
        """Start the first stage and record its pid; NotStarted where either cannot be done."""
        holder = None if self.launch.get("assists") else self.claim.take(self.folder)
        if holder is not None:
            raise NotStarted("taken\n%s" % holder)
        try:
            self.files.note_what_is_there()
            if self.files.before:
                write_whole(self.folder, BEFORE, self.files.before)
            self.state = {
                "state": "running", "supervisor": self.me, "started": time.time(), "clock": time.monotonic(),
                "files": [], "oom_kills_before": oom_kills(),
            }  # fmt: skip
            self._start_stage(0)
        except BaseException:
            self.claim.release()
            raise

    def adopt(self, state: dict[str, Any]) -> None:
        """Take over from a supervisor that was killed; NotStarted where the record is none of ours."""
        trainer, files = state.get("trainer"), state.get("files")
        sound = (
            isinstance(trainer, dict)
            and {"pid", "start"} <= set(trainer)
            and isinstance(state.get("started"), (int, float))
            and isinstance(files, list)
            and all(isinstance(name, str) for name in files)
        )
        if not sound or is_running(state.get("supervisor") or self.me) or not isinstance(files, list):
            raise NotStarted("record\nthere is nothing to adopt")
        # A folder may be anybody's. Only of one whose trainer proves to be its own is more believed than what it says.
        self._has_seen_trainer = is_of_run(state["trainer"], str(self.launch["id"]))
        self.state = dict(state, state="running", supervisor=self.me)
        boots = [str(process["start"]).split("-")[0] for process in (state["trainer"], self.me)]
        if not sys.platform.startswith("linux") or boots[0] != boots[1]:
            self.state.pop("clock", None)  # it runs since the system was started
        self.files = Files(self.output, str(self.launch["lora"]), read_before(self.folder), files)
        if self._has_seen_trainer and not self.launch.get("assists"):
            self.claim.take(self.folder)
        self._record()

    def _start_stage(self, index: int) -> None:
        stage = self.launch["stages"][index]
        env = dict(os.environ)
        env.update(stage["env"])
        env[RUN_ID] = str(self.launch["id"])
        log = os.open(os.path.join(self.folder, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            cwd = os.path.join(self.folder, stage["cwd"])
            pid = (self._fork if POSIX else self._create)(stage["argv"], env, cwd, log)
        finally:
            os.close(log)
        self.state["trainer"] = {"pid": pid, "start": start_of(pid)}
        self.state["stage"] = index
        try:
            self._record()
        except OSError as error:
            if index > 0:
                return  # the run goes on; the end will be written when there is room
            if POSIX:
                signal_group(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise NotStarted("record\n%s" % error) from error

    def _fork(self, argv: list[str], env: dict[str, str], cwd: str, log: int) -> int:
        """Start a process in a session of its own, with every signal as a fresh login has it.

        By hand: `subprocess` takes two megabytes for as long as the run lasts, and cannot reset all signals.
        """
        readable, writable = os.pipe()  # closed by exec, or tells why there was none
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for number in range(1, signal.NSIG):
                    try:
                        signal.signal(number, signal.SIG_DFL)
                    except (OSError, ValueError):
                        continue  # KILL, STOP, and those that the C library keeps
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.chdir(cwd)
                os.execvpe(argv[0], argv, env)  # noqa: S606 - never through a shell
            except BaseException as error:
                os.write(writable, ("%s: %s" % (argv[0], error)).encode("utf-8", "replace"))
            finally:
                os._exit(127)
        os.close(writable)
        why = b""
        while True:
            part = os.read(readable, 4096)
            if not part:
                break
            why += part
        os.close(readable)
        if why:
            os.waitpid(pid, 0)
            raise NotStarted("trainer\n" + why.decode("utf-8", "replace"))
        return pid

    def _create(self, argv: list[str], env: dict[str, str], cwd: str, log: int) -> int:
        import subprocess

        try:
            process = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                creationflags=0x00000200 | 0x08000000,  # CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW
            )  # fmt: skip
        except OSError as error:
            raise NotStarted("trainer\n%s: %s" % (argv[0], error)) from error
        self._trainer = process
        return process.pid

    # -- waiting

    def wait(self) -> None:
        """Wait for all stages to end, one after the other, and record the end."""
        while True:
            code, stopped_by = self._wait_for_trainer()
            stage = self.state["stage"] + 1
            if code != 0 or stopped_by is not None or stage >= len(self.launch["stages"]):
                break
            try:
                self._start_stage(stage)
            except (NotStarted, OSError) as error:
                self._say(str(error))
                code = 127  # as a shell has it
                break
        self._record_end(code, stopped_by)

    def _say(self, text: str) -> None:
        """Leave a word in the log, where followers find it."""
        with contextlib.suppress(OSError), open(os.path.join(self.folder, LOG), "a", encoding="utf-8") as log:
            log.write("\ncinderlora: %s\n" % text.replace("\n", ": "))

    def _wait_for_trainer(self) -> tuple[int | None, str | None]:
        """The exit code, and who had asked for the stop by then: a stop that comes later did not end it."""
        pid = self.state["trainer"]["pid"]
        if not POSIX:
            while self._trainer.poll() is None:
                time.sleep(0.1)
                self._look()
            return self._trainer.returncode, self._stop_request()[0]

        import select

        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        os.set_blocking(readable, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        status = None
        while status is None and not self._has_ended(pid):
            if not hasattr(os, "waitid"):
                found, code, usage = os.wait4(pid, os.WNOHANG)
                status = code if found else None
            if status is None and select.select([readable], [], [], LOOK_EVERY)[0]:
                os.read(readable, 4096)
            self._reap_others(pid)
            self._look()
            self._end_by_force(pid)
        signal.set_wakeup_fd(-1)
        os.close(readable)
        os.close(writable)
        stopped_by, grace = self._stop_request()
        end_group(pid, grace)  # while the leader is not reaped, its number is nobody else's
        if status is None:
            _, status, usage = os.wait4(pid, 0)
        if stopped_by is not None or self._is_spread():
            end_strays(str(self.launch["id"]), self._left_of(grace))
        self._note_memory(usage)
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), stopped_by

    def _note_memory(self, usage: Any) -> None:
        """Keep the most memory that a process of the trainer had, of those whose end was seen by their parents."""
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.state["max_rss_bytes"] = max(peak, self.state.get("max_rss_bytes") or 0)

    def _end_by_force(self, pid: int) -> None:
        """See a stop through that somebody asked for and did not live to see through themselves."""
        stopped_by, grace = self._stop_request()
        if stopped_by is None:
            return
        if self._asked is None:
            self._asked = time.monotonic()
        elif time.monotonic() - self._asked > grace:
            with contextlib.suppress(OSError):
                signal_group(pid, signal.SIGKILL)

    def _left_of(self, grace: float) -> float:
        """The seconds that are left of a grace period, which began when the wish to stop was first seen."""
        return grace if self._asked is None else max(0.0, grace - (time.monotonic() - self._asked))

    def _reap_others(self, pid: int) -> None:
        """Let go of dead processes that became our children when they lost their parent."""
        if not hasattr(os, "waitid"):
            return
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid == pid:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)

    def _has_ended(self, pid: int) -> bool:
        if not hasattr(os, "waitid"):
            return False
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait_for_adopted(self) -> None:
        """Wait for a trainer that is not our child. Nobody will ever know its exit code."""
        trainer = self.state["trainer"]
        while is_of_run(trainer, str(self.launch["id"])):
            time.sleep(0.1)
            self._look()
            if self._has_seen_trainer:
                self._end_by_force(trainer["pid"])
        stopped_by, grace = self._stop_request()
        if sys.platform.startswith("linux"):
            end_group(trainer["pid"], grace, str(self.launch["id"]))
        if stopped_by is not None or self._is_spread():
            end_strays(str(self.launch["id"]), self._left_of(grace))
        self._record_end(None, stopped_by)

    def _is_spread(self) -> bool:
        """Whether the trainer has several processes, which PyTorch starts in sessions of their own: they outlive a
        launcher that is killed."""
        stages = self.launch["stages"]
        index = self.state.get("stage")
        stage = stages[index] if isinstance(index, int) and 0 <= index < len(stages) else {}
        return bool(stage.get("processes", 1) != 1)

    def _stop_request(self) -> tuple[str | None, float]:
        """Who asked for the stop, None where nobody did; and how many seconds processes have to end."""
        if not os.path.exists(os.path.join(self.folder, STOP)):
            return None, GROUP_GRACE
        request = read_record(self.folder, STOP) or {}
        grace = request.get("grace")
        # Whoever stops the run is to use force first, and say so; we do where they are gone.
        more = float(grace) if isinstance(grace, (int, float)) and 0 <= grace <= LONGEST_GRACE else 0.0
        return str(request.get("by") or ""), more + GROUP_GRACE

    def _look(self) -> None:
        self.card.watch()
        if self.files.look():
            with contextlib.suppress(OSError):  # no room now; the end is written for sure
                self._record()

    # -- recording

    def _record(self, durable: bool = False) -> None:
        self.state["files"] = sorted(self.files.names)
        if self.card.peak is not None:
            self.state["max_vram_bytes"], self.state["gpu_others"] = self.card.peak, self.card.others
        write_whole(self.folder, STATE, self.state, durable)

    def _record_end(self, code: int | None, stopped_by: str | None) -> None:
        ended = time.time()
        if code is None:
            # It may have ended long ago, with nobody there to see it: the last word is the best guess.
            with contextlib.suppress(OSError):
                ended = os.stat(os.path.join(self.folder, LOG)).st_mtime
        seconds = self._seconds()
        self.files.look(thoroughly=True)
        lora = str(self.launch["lora"])
        facts = lora_facts(self.lora, self.files.before.get(lora), self.launch["zero_at_start"])
        good = facts["fresh"] and facts["complete"] and facts["finite"] and facts["trained"] is not False
        finished = good and (code == 0 or (code is None and facts["all_steps"] and self._has_seen_trainer))
        if self.launch.get("assists"):
            self.state["assists"] = True
            finished = code == 0
        if not finished and self._has_seen_trainer:
            self.state["partial"] = self.files.set_aside()
        if self.launch.get("publish"):
            self._publish(str(self.launch["publish"]), finished)
        if finished and not self.launch.get("assists"):
            self._hand_round()
        self.claim.release()
        self._insist("ending")
        try:
            length = os.stat(os.path.join(self.folder, LOG)).st_size
        except OSError:
            length = 0
        self.state.update(
            exit_code=code, ended=ended, seconds=seconds, stopped_by=stopped_by, lora=facts, log_length=length
        )
        before, now = self.state.get("oom_kills_before"), oom_kills()
        if isinstance(before, int) and now is not None:
            self.state["oom_kills"] = max(0, now - before)
        self._insist("ended")
        self._release_room()

    def tell(self, python: str) -> None:
        """Start what tells the plugins of the end, and wait for nothing: whatever they do, the run is over."""
        argv = [python, "-P", "-X", "utf8", "-m", "cinderlora.running.telling", self.folder]
        with contextlib.suppress(OSError, NotStarted):
            log = os.open(os.path.join(self.folder, TOLD), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                (self._fork if POSIX else self._create)(argv, dict(os.environ), self.folder, log)
            finally:
                os.close(log)

    def _seconds(self) -> float | None:
        """How long it took, by a clock that nobody sets; None where that clock began anew meanwhile."""
        began = self.state.get("clock")
        return max(0.0, time.monotonic() - began) if isinstance(began, (int, float)) else None

    def _release_room(self) -> None:
        """Give back the room on the disk that was reserved for the log and for the record of the end."""
        for name in (LOG, LOCK):
            with contextlib.suppress(OSError):
                path = os.path.join(self.folder, name)
                os.truncate(path, os.stat(path).st_size)

    def _publish(self, folder: str, finished: bool) -> None:
        """Put the files of a resumed training among those of the earlier runs. None of them is overwritten but the
        LoRA, and that only by one of a training that has finished, as any training does."""
        lora = str(self.launch["lora"])
        published: dict[str, str] = {}
        problem = ""
        for name in sorted(self.files.names | {lora}):
            source = os.path.join(self.output, name)
            if not (finished if name == lora else is_whole(source)):
                continue
            target = name
            if name != lora:
                target = published_name(name, os.path.splitext(lora)[0], int(self.launch["first_step"]))
            path = os.path.join(folder, target)
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if put(source, path, str(self.launch["id"]), replace=name == lora):
                    published[name] = target
            except OSError as error:
                problem = error.strerror or str(error)
        self.state.update(published=published, publish_problem=problem)

    def _hand_round(self) -> None:
        """Put the finished LoRA into the other folders that want it, and beside each the file that says its type."""
        name = str(self.launch["lora"])
        lora = os.path.join(str(self.launch.get("publish") or self.output), name)
        copies, problems = [], {}
        for folder in [os.path.dirname(lora), *self.launch.get("copy_to", [])]:
            path = os.path.join(folder, name)
            try:
                if path != lora:
                    os.makedirs(folder, exist_ok=True)
                    put(lora, path, str(self.launch["id"]), replace=True, link=bool(self.launch.get("hard_links")))
                    copies.append(path)
                if self.launch.get("models_sidecar"):
                    write_text(os.path.splitext(path)[0] + ".models", "type=%s\n" % self.launch["model_type"])
            except OSError as error:
                problems[folder] = error.strerror or str(error)
        self.state.update(copies=copies, copy_problems=problems)

    def _insist(self, state: str) -> None:
        """Write the record, however long it takes to find room for it. What it says is known nowhere else."""
        self.state["state"] = state
        wait = 0.0
        while os.path.isdir(self.folder):
            try:
                self._record(durable=state == "ended")
                return
            except OSError as error:
                if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                    return  # nobody will make room
                self._release_room()
                time.sleep(wait)
                wait = 1.0


# ---- the process -----------------------------------------------------------------------------------------------------


def leave() -> None:
    """Become a process of our own: no controlling terminal, no parent that waits for us."""
    if not POSIX:
        return
    between = os.fork()
    if between:
        os.waitpid(between, 0)  # in some containers nobody else would
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.closerange(3, 1024)  # what somebody forgot to close; we keep the three that we answer on


def take_in_orphans() -> None:
    """On Linux: whatever the trainer starts stays below us, even when it leaves its session and loses its parent."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def answer(text: str) -> None:
    """Say what came of it, and let go of the output: who started us reads to its end."""
    with contextlib.suppress(OSError):  # it may have been killed meanwhile; the run is none the worse for it
        os.write(1, text.encode("utf-8", "replace"))
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    if nothing > 2:
        os.close(nothing)


def main(folder: str, adopts: bool, python: str | None = None) -> None:
    """Supervise the run in a folder. `python` has cinderlora, for the plugins that want to hear of the end."""
    folder = os.path.abspath(folder)
    leave()
    launch = read_record(folder, LAUNCH)
    if launch is None:
        raise SystemExit("record\n%s cannot be read" % LAUNCH)
    lock = take_lock(folder)
    if lock is None:
        raise SystemExit("locked\nanother supervisor has this run")
    supervisor = Supervisor(folder, launch)
    state = read_record(folder, STATE)
    try:
        if not adopts and os.path.exists(os.path.join(folder, STATE)):
            raise SystemExit("locked\nit was started before")
        if not adopts:
            supervisor.start()
        elif state is None or state.get("state") == "ended":
            raise NotStarted("record\nthere is nothing to adopt")
        else:
            supervisor.adopt(state)
    except (NotStarted, OSError) as error:
        raise SystemExit(str(error)) from None
    answer("started\n")
    if adopts:
        supervisor.wait_for_adopted()
    else:
        take_in_orphans()
        supervisor.wait()
    if python and launch.get("tells"):
        supervisor.tell(python)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:3] == ["adopt"], *sys.argv[3:4])
