"""Runs a command as a process: reads its output line by line, writes its log, and ends it."""

from __future__ import annotations

import codecs
import ctypes
import io
import logging
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil

from trainables.base.errors import first_line
from trainables.loops.errors import TrainingError

#: The number of last lines that an error shows, and the number of characters of each line.
TAIL_LINES, QUOTED = 15, 300
#: Only this many characters at the start of a line are searched for a report. A report has a few hundred characters.
SEARCHED = 2**20
#: The largest size of a trial's log in bytes: half in `output.log`, half in the older `output.log.1`. The output of a
#: progress bar in a day is smaller.
LOG_BYTES = 16 * 2**20
#: The number of bytes of one read, and of the largest content of a pipe on Linux.
READ_BYTES, PIPE_BYTES = 2**16, 2**20
#: Seconds between two checks whether a silent process has ended; seconds from SIGTERM to SIGKILL.
POLL_SECONDS, GRACE_SECONDS = 0.1, 10.0
#: The variable by which a command's processes are found: its value is different for each start.
MARK_VARIABLE = "SEARCH_PROCESS"
#: The largest number of searches for processes that began while others ended.
ROUNDS = 5
#: PR_SET_PDEATHSIG: the option of prctl(2) that sets the signal for the death of the parent.
_PDEATHSIG = 1


class Process:
    """A running command. `tail` holds the last lines of its output, shortened by `cut`."""

    def __init__(self, words: list[str], folder: str, environment: dict[str, str], log: Path | None) -> None:
        """Starts the command.

        Args:
            environment: variables that are added to those of this process, and to those of `_line_buffered`.
            log: the file for the output; None for none.

        Raises:
            TrainingError: the program cannot be started, or a text holds a character that no process can get.
        """
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._began = time.monotonic()
        self._mark = uuid.uuid4().hex
        variables = {**os.environ, **_line_buffered(), **environment, MARK_VARIABLE: self._mark}
        try:
            self._process = subprocess.Popen(
                words, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, bufsize=0, start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip
        except OSError as error:
            raise TrainingError(
                f"{_printable(shlex.join(words))}: cannot be started: {error.strerror}: {error.filename}"
            ) from error
        except ValueError as error:  # from None: the error of a lone surrogate holds the whole text
            raise TrainingError(f"{_printable(shlex.join(words))}: cannot be started: {first_line(error)}") from None
        self._log = None if log is None else _Log(log)

    def lines(self) -> Iterator[str]:
        """Yields the lines of the output until the process ends. A carriage return ends a line too: progress bars use
        it."""
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        rest = ""
        for piece in self._pieces():
            text = decoder.decode(piece)
            if self._log is not None:
                self._log.write(text)
            *whole, rest = (rest + text).split("\n")
            for line in whole:
                self.tail.append(cut(line))
                yield line[:SEARCHED]
            rest = rest[:SEARCHED]
        if rest:
            self.tail.append(cut(rest))
            yield rest

    def _pieces(self) -> Iterator[bytes]:
        """Yields the output until the process ends and the pipe is empty.

        A child process may hold the pipe open for longer; at most `PIPE_BYTES` are read after the end of the process.
        """
        assert self._process.stdout is not None
        pipe, left = self._process.stdout.fileno(), PIPE_BYTES
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while left > 0:
                ended = self._process.poll() is not None  # before `select`: an ended process writes nothing more
                if selector.select(0 if ended else POLL_SECONDS):
                    if not (piece := os.read(pipe, READ_BYTES)):
                        return
                    left -= len(piece) if ended else 0
                    yield piece
                elif ended:
                    return

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def wait(self, seconds: float | None = None) -> int | None:
        """Waits for the end; returns the exit code, or None if the process still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Ends the process and all that it started: by SIGTERM, then by SIGKILL after `GRACE_SECONDS`.

        These are its children and theirs, the processes of its group, and those with its `MARK_VARIABLE`. The mark
        finds daemons too, which have another session and another parent. A daemon that also clears its environment
        is not found.
        """
        group = self._process.pid
        family = self._family()
        for process in family:
            if _group(process) != group:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        psutil.wait_procs(family, GRACE_SECONDS)
        # A process may start another one while it ends: the search for processes is repeated, but not for ever.
        for _ in range(ROUNDS):
            family = [process for process in {*family, *self._family()} if process.is_running()]
            if not family:
                break
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family, POLL_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._log is not None:
            self._log.close()

    def _family(self) -> list[psutil.Process]:
        """The processes that `end` ends, without those that have ended and wait for their parent."""
        family: set[psutil.Process] = set()
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            family = {first, *first.children(recursive=True)}
        for process in psutil.process_iter():
            if _group(process) == self._process.pid or _mark(process) == self._mark:
                family.add(process)
        return [process for process in family if not _is_zombie(process)]


class _Log(RotatingFileHandler):
    """An append-only file. A file of half of `LOG_BYTES` is renamed to `NAME.1`, and a new file begins."""

    terminator = ""  # the text has line ends

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LOG_BYTES // 2, backupCount=1, encoding="utf-8")

    def write(self, text: str) -> None:
        """Appends text; raises OSError if the disk is full."""
        self.emit(logging.makeLogRecord({"msg": text}))

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # the base class prints the error, and goes on


def is_system_text(text: str) -> bool:
    """Whether a text can be a word, a variable or a folder of a process: it has no `\\0`, and it can be encoded."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def cut(line: str) -> str:
    """Shortens a line of output to `QUOTED` characters, for messages."""
    line = line.strip()
    return line if len(line) <= QUOTED else f"{line[:QUOTED]}..."


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return -1


def _mark(process: psutil.Process) -> str | None:
    """The mark of a process; None for a process without one, or of another user."""
    try:
        return process.environ().get(MARK_VARIABLE)
    except (psutil.Error, OSError):
        return None


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


@cache
def _line_buffered() -> dict[str, str]:
    """The variables by which `stdbuf` lets programs of the C library write each line at once; empty without `stdbuf`.

    Without them a program keeps some kilobytes of lines back, as its output is no terminal. A terminal would change
    the program: colours, progress bars, and lines that are broken at its width.
    """
    try:
        run = subprocess.run(["stdbuf", "-oL", "env", "-0"], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return {}
    variables = dict(entry.split("=", 1) for entry in run.stdout.split("\0") if "=" in entry)
    return {name: value for name, value in variables.items() if os.environ.get(name) != value and name != "_"}


def _die_with_parent() -> None:
    """Runs in the new process: lets the kernel send SIGTERM when the worker dies."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
