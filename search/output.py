"""Output that a training does not depend on."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO, Any


class PatientFile:
    """A text file that takes every write, even when nobody reads it any more or its disk is full.

    `run ... | head` closes the pipe after ten lines. The search goes on without output, and its exit code stays that of
    the search. After the first error the file descriptor leads nowhere, as Python would otherwise fail again at exit.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._gone = False

    def write(self, text: str) -> int:
        """Writes the text if that is possible. Returns its length."""
        if not self._gone:
            try:
                return self._file.write(text)
            except OSError:
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered if that is possible."""
        if not self._gone:
            try:
                self._file.flush()
            except OSError:
                self._give_up()

    def _give_up(self) -> None:
        self._gone = True
        with suppress(OSError, ValueError):  # a file without a descriptor has nothing that fails at exit
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, self._file.fileno())
            os.close(silence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
