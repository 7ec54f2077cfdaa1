"""Writes the output of a training function to a file of its trial."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: The largest number of bytes of a trial's file. More output is dropped, so that a loop cannot fill the disk.
MAX_BYTES = 50_000_000
#: Bytes from the end of the output that an error shows.
TAIL_BYTES = 1000


class Output(io.TextIOWrapper):
    """A text stream that replaces `sys.stdout` and writes to the file of the current trial.

    All trials of a process share one object: a handler of `logging` keeps the stream that it was made with. So the
    stream and its `buffer` stay open: `close` and `detach` of a function only flush them.
    """

    mode = "w"

    def __init__(self) -> None:
        self._file = _TrialFile()
        super().__init__(_Buffer(self._file), **_FORMAT)

    def switch_to(self, path: Path) -> None:
        """Appends to the file at `path` from now on, in the usual encoding. Text of the last trial is written first."""
        if path == self._file.path:
            return
        try:
            self.flush()
        except OSError:  # a full disk: the rest of the last trial's output must not go to the next trial's file
            self._file.switch_to(None)
            self.flush()
        self._file.switch_to(path)
        self.reconfigure(**_FORMAT)

    @contextmanager
    def receives_processes(self) -> Iterator[None]:
        """Sends file descriptors 1 and 2 to the file while the block runs.

        Processes that the function starts, and libraries in C, write to these numbers, not to `sys.stdout`. A process
        that goes on after the block still writes to the file. Other threads of the worker write there too while the
        block runs. Ray's logs have files of their own.
        """
        saved: list[tuple[int, int]] = []
        try:
            for number in (1, 2):
                with suppress(OSError):  # the number is closed in this process
                    saved.append((number, os.dup(number)))
            with suppress(OSError):  # a function without output also trains on a full disk
                for number, _ in saved:
                    self._file.receive(number)
            yield
        finally:
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            with suppress(OSError):
                self.flush()
            self._file.remove_empty()

    @property
    def path(self) -> Path | None:
        """The file of the current trial."""
        return self._file.path

    @property
    def tail(self) -> str:
        """The end of the trial's output."""
        with suppress(OSError):
            self.flush()
        return self._file.tail.decode("utf-8", "replace")

    def close(self) -> None:
        """Flushes the stream."""
        self.flush()

    def detach(self) -> Any:
        """The binary stream, which this stream goes on to use."""
        self.flush()
        return self.buffer


_FORMAT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "line_buffering": True, "write_through": False}


class _Buffer(io.BufferedWriter):
    """The binary stream below `Output`."""

    def close(self) -> None:
        self.flush()

    def detach(self) -> Any:
        self.flush()
        return self.raw


class _TrialFile(io.RawIOBase):
    """The file of the current trial; before the first trial, output is dropped."""

    name = "<output of the trial>"
    mode = "ab"

    def __init__(self) -> None:
        self.path: Path | None = None
        #: The last `TAIL_BYTES` bytes of the output.
        self.tail = b""
        #: The number of bytes that this process wrote for the trial.
        self._written = 0
        self._descriptor: int | None = None

    def switch_to(self, path: Path | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self.path, self.tail, self._written, self._descriptor = path, b"", 0, None

    def write(self, data: Any) -> int:
        content = bytes(data)
        if self.path is not None and self._written < MAX_BYTES:
            written = content
            if self._written + len(content) >= MAX_BYTES:
                written += f"\n... {MAX_BYTES} bytes; further output is left out\n".encode()
            while written:
                written = written[os.write(self.fileno(), written) :]
        self._written += len(content)
        self.tail = (self.tail + content)[-TAIL_BYTES:]
        return len(content)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The file descriptor, for processes that write there; raises OSError if no trial runs."""
        if self._descriptor is None:
            if self.path is None:
                raise io.UnsupportedOperation("no trial runs")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        return self._descriptor

    def receive(self, number: int) -> None:
        """Sends the file descriptor `number` to the file, or to nowhere if the file is full."""
        if os.fstat(self.fileno()).st_size < MAX_BYTES:
            os.dup2(self.fileno(), number)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)

    def remove_empty(self) -> None:
        """Removes the file if it is empty and no process that runs may write to it."""
        if self.path is None or self._descriptor is None or os.fstat(self._descriptor).st_size:
            return
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # this process has no child
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        """Leaves the file open for the next trials."""
