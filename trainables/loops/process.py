"""The process of a command: its output line by line while it runs, its log, its exit code, and its end."""

from __future__ import annotations

import codecs
import ctypes
import io
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from trainables.loops.errors import TrainingError

#: Lines of the output that an error shows, and characters of each: a progress bar or a printed array has megabytes.
TAIL, QUOTED = 15, 300
#: Characters of a line that are searched for a report. A report is a few hundred; a longer line is data.
LINE = 2**20
#: Bytes of the log that are kept of a trial, in two halves: `output.log` and, before it, `output.log.1`. A progress bar
#: that is written for a day stays below it, and a hundred trials fit on any disk.
LOG = 16 * 2**20
#: Bytes that are read at once; most that a pipe of Linux can hold when its writer has ended.
PIECE, PIPE = 2**16, 2**20
#: Seconds between two looks whether a silent process has ended, and from SIGTERM to SIGKILL.
LOOK, GRACE = 0.1, 10.0
#: The number of the system call's option by which a process is told that its parent is gone.
_PDEATHSIG = 1


class Process:
    """A command that runs. `tail` holds the last lines of its output, cut."""

    def __init__(self, words: list[str], folder: str, environment: dict[str, str], log: Path | None) -> None:
        """Starts it.

        Args:
            environment: variables beside those of this process.
            log: the file that gets its output.

        Raises:
            TrainingError: there is no such program.
        """
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._began = time.monotonic()
        try:
            self._process = subprocess.Popen(
                words, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, bufsize=0, start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip
        except OSError as error:
            raise TrainingError(
                f"{shlex.join(words)}: cannot be started: {error.strerror}: {error.filename}"
            ) from error
        self._log = None if log is None else _Log(log)

    def lines(self) -> Iterator[str]:
        """Its lines as they come, until it has ended. A carriage return ends a line too, as progress bars use it."""
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        rest = ""
        for piece in self._pieces():
            text = decoder.decode(piece)
            if self._log is not None:
                self._log.write(text)
            *whole, rest = (rest + text).split("\n")
            for line in whole:
                self.tail.append(cut(line))
                yield line[:LINE]
            rest = rest[:LINE]
        if rest:
            self.tail.append(cut(rest))
            yield rest

    def _pieces(self) -> Iterator[bytes]:
        """Its output. A child that outlives it may keep the pipe open: then what is in the pipe is the rest."""
        assert self._process.stdout is not None
        pipe, left = self._process.stdout.fileno(), PIPE
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while left > 0:
                ended = self._process.poll() is not None  # asked first: nothing of its own is written after that
                if selector.select(0 if ended else LOOK):
                    if not (piece := os.read(pipe, PIECE)):
                        return
                    left -= len(piece) if ended else 0
                    yield piece
                elif ended:
                    return

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, once it has ended; None where it runs on after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Ends it and all that it started, in sessions of their own too: SIGTERM, and SIGKILL after a while."""
        group = self._process.pid
        try:
            first = psutil.Process(group)
            family = [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has ended; what it left in its group has the same time to end
            family = [one for one in psutil.process_iter() if _group(one) == group]
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        _, left = psutil.wait_procs(family, GRACE)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._log is not None:
            self._log.close()


class _Log:
    """A file that text is added to. Where it becomes longer than half of `LOG`, it becomes `NAME.1` and begins anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def write(self, text: str) -> None:
        self._file.write(text.encode())
        if self._file.tell() > LOG // 2:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        self._file.close()


def cut(line: str) -> str:
    """A line of output as messages quote it: its end is left out where it is long."""
    line = line.strip()
    return line if len(line) <= QUOTED else f"{line[:QUOTED]}..."


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return -1


def _die_with_parent() -> None:
    """In the new process: it gets SIGTERM when the worker dies, which then cannot end it."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
