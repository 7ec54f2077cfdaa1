"""Writes the output of a training function to a file of its trial."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

#: The largest number of characters of a trial's file. More output is dropped, so that a loop cannot fill the disk.
MAX_CHARACTERS = 50_000_000
#: Characters from the end of the output that an error shows.
TAIL_CHARACTERS = 1000


class Output(io.TextIOBase):
    """A stream that replaces `sys.stdout` and writes to the file of the current trial.

    All trials of a process share one object: a handler of `logging` keeps the stream that it was made with.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        #: The number of characters that this trial wrote.
        self.written = 0
        self.tail = ""
        self._file: IO[str] | None = None

    def switch_to(self, path: Path) -> None:
        """Appends to the file at `path` from now on."""
        if path != self.path:
            if self._file is not None:
                self._file.close()
            self.path, self.written, self.tail, self._file = path, 0, "", None

    def write(self, text: str) -> int:
        """Writes text, up to `MAX_CHARACTERS` characters of a trial."""
        if self.written < MAX_CHARACTERS:
            file = self._opened()
            file.write(text)
            if self.written + len(text) >= MAX_CHARACTERS:
                file.write(f"\n... {MAX_CHARACTERS} characters; further output is left out\n")
        self.written += len(text)
        self.tail = (self.tail + text)[-TAIL_CHARACTERS:]
        return len(text)

    def _opened(self) -> IO[str]:
        if self._file is None:
            if self.path is None:
                raise io.UnsupportedOperation("no trial runs")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", buffering=1, errors="replace", encoding="utf-8")
        return self._file

    def flush(self) -> None:
        """Flushes the file."""
        if self._file is not None:
            self._file.flush()

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The file descriptor, for processes that write there; raises OSError if no trial runs."""
        return self._opened().fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the file."""
        return "utf-8"
