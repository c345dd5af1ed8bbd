"""Programs that are run one after another, heard out line by line, and ended with all they started. Blocking."""

from __future__ import annotations

import codecs
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

__all__ = ["Commands", "CommandsStopped", "Outcome"]

_KEPT = 60  # lines
_LONGEST = 1 << 16  # characters of a line; a bar without end is cut


class CommandsStopped(Exception):
    """Somebody called `stop`."""


@frozen
class Outcome:
    """How a program ended, and the last of what it said."""

    exit_code: int
    """Negative for a signal."""
    lines: tuple[str, ...]
    timed_out: bool = False


class Commands:
    """Runs programs, one at a time. `stop`, from any thread, ends the one that runs and lets no other begin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> Outcome:
        """Run a program to its end, each line of its output (the refreshes of a bar, too) handed to `on_line`.

        It has no input, and nobody to ask. After `timeout` seconds it is ended. Raises `CommandsStopped`, and
        `OSError` where it cannot be started. Whatever else is raised meanwhile, it is not left behind.
        """
        process = self._start(argv, cwd, env)
        late = threading.Event()

        def too_late() -> None:
            late.set()
            self._end(process)

        timer = threading.Timer(timeout, too_late) if timeout else None
        if timer:
            timer.start()
        lines: deque[str] = deque(maxlen=_KEPT)
        try:
            for line in _lines(process):
                lines.append(line)
                if on_line and not self.stopped:
                    on_line(line)
        except BaseException:
            self._end(process)
            raise
        finally:
            code = self._reap(process)
            if timer:
                timer.cancel()
            if process.stdout:
                process.stdout.close()
            with self._lock:
                self._running = None
        if self.stopped:
            raise CommandsStopped
        return Outcome(code, tuple(lines), late.is_set())

    def stop(self) -> None:
        """End what runs, by force: what it was making is not going to be used. Does not wait."""
        with self._lock:
            self.stopped = True
            running = self._running
        if running is not None:
            self._end(running)

    def check(self) -> None:
        """Raise `CommandsStopped` where somebody called `stop`: for pieces of work between two programs."""
        if self.stopped:
            raise CommandsStopped

    def _start(self, argv: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        with self._lock:
            self.check()
            # A session of its own: Ctrl-C in the terminal is for us, and the whole group can be ended at once.
            self._running = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return self._running

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        # Not `wait`: as long as nobody has reaped it, its pid is nobody else's, and `_end` may use it.
        while True:
            with self._lock:
                code = process.poll()
            if code is not None:
                return code
            time.sleep(0.01)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        import psutil

        with self._lock:
            if process.returncode is not None:
                return  # its pid may be another's by now
            family = []
            with suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
            if os.name == "posix":
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
            for child in family:
                with suppress(psutil.Error):
                    child.kill()
            process.kill()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while piece := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
        *lines, rest = re.split(r"[\r\n]", rest + decoder.decode(piece))
        rest = rest[-_LONGEST:]
        yield from filter(None, map(str.rstrip, lines))
    if rest.strip():
        yield rest.rstrip()
