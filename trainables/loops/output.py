"""Writes the output of a training function to a file of its trial."""

from __future__ import annotations

import io
import os
from contextlib import suppress
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

    def close(self) -> None:
        """Leaves the file open for the next trials."""
