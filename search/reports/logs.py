"""Reads the output of a trial: what its function or command printed, warnings and errors included."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from search.core.journal import is_held
from search.core.replay import open_search, replay
from search.core.store import SearchFolder, Store
from search.reports.summary import check_trial
from trainables.loops.reports import ESCAPES

#: Seconds between two looks at a file that grows.
POLL_SECONDS = 0.3
#: What ends a line: a carriage return does too, by which progress bars overwrite their line.
_LINE_END = re.compile(r"\r\n|\r|\n")


def log_lines(store: Store, name: str, trial: int, last: int = 0) -> list[str]:
    """The lines that a trial has printed so far, without colours; empty for a trial without output.

    Args:
        last: only this many lines from the end; 0 for all.

    Raises:
        InputError: there is no such search or trial.
    """
    folder, _ = _opened(store, name, trial)
    log = _Log(folder.log(trial))
    return [*log.lines(), *log.rest()][-last:]


def follow_log(store: Store, name: str, trial: int, last: int = 0) -> Iterator[str]:
    """Yields the lines of `log_lines`, and then each new line, until the trial is over or no process runs the search.

    Raises:
        InputError: as `log_lines`.
    """
    folder, over = _opened(store, name, trial)
    log, size = _Log(folder.log(trial)), -1
    lines = [*log.lines(), *(log.rest() if over else ())][-last:]
    while True:
        yield from lines
        if over:
            return
        time.sleep(POLL_SECONDS)
        running = is_held(folder.journal)  # before the lines are read, so that none is missed
        if size != (size := folder.journal.stat().st_size):
            _, over = _opened(store, name, trial)
        over = over or not running
        lines = [*log.lines(), *(log.rest() if over else ())]


def _opened(store: Store, name: str, trial: int) -> tuple[SearchFolder, bool]:
    """The folder of a search, and whether the trial is over; raises InputError if there is no such search or trial."""
    folder, *_ = open_search(store, name)
    state, _ = replay(folder)
    check_trial(state, name, trial)
    return folder, state.trials[trial].over


class _Log:
    """The file of a trial's output, which may grow, and which `Process` renames to `NAME.1` when it is large."""

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, ""
        self._file: TextIO | None = None
        with suppress(FileNotFoundError):
            self._file = path.with_name(f"{path.name}.1").open(encoding="utf-8", errors="replace", newline="")

    def lines(self) -> Iterator[str]:
        """The lines since the last call; the last line only if its end has been written."""
        while self._open():
            assert self._file is not None
            renamed = self._is_renamed()  # before the rest is read: a renamed file does not grow
            *lines, self._rest = _LINE_END.split(self._rest + self._file.read())
            yield from (ESCAPES.sub("", line) for line in lines)
            if not renamed:
                return
            self._file.close()
            self._file = None

    def rest(self) -> list[str]:
        """A last line without an end."""
        return [ESCAPES.sub("", self._rest)] if self._rest else []

    def _open(self) -> bool:
        if self._file is None:
            with suppress(FileNotFoundError):
                self._file = self._path.open(encoding="utf-8", errors="replace", newline="")
        return self._file is not None

    def _is_renamed(self) -> bool:
        assert self._file is not None
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:  # the new file has not begun
            return False
