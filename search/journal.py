"""The durable record of a search, and the state that follows from it.

Everything that happens is one JSON line, on disk before anything else acts on it. The state of a search (its
trials, and by replay its searcher and its rungs) is a function of those lines alone, so a driver killed at any
moment resumes exactly where the last line stands, and MLflow can be told again what it may have missed.

Events (all with `time`, milliseconds since 1970, never decreasing):
    session      {}                                              a driver took the search up
    warm_start   from, trials                                    what the searcher is told of an earlier search's trials
    trial        number, params, seed                            proposed
    result       number, epoch, metrics, outcome                 an epoch's end; `outcome` None: goes on
    checkpoint   number, epoch, name, bytes                      written completely
    retry        number, why, traceback, micro_batches           failed, to be taken up again
    failed       number, why, traceback                          failed for good
    promoted     number                                          was paused at a rung, and goes on
    stopped_early number                                         was paused at a rung, and never will
    paused       number                                          after all it may: the search was given more
    timed_out    number                                          over its time in the middle of an epoch
    interrupted  number                                          stopped with the search, to be resumed
    reopened     number                                          was complete; the search was given more epochs
    repeat_started / repeat_result / repeat_finished             a balanced value's best trial again, by value and seed
    audit_started / audit_result / audit_finished                a stopped trial trained to the end, by number
    compared                                                     the comparison of the values is written
    final_started / final_result / final_finished                a final training, by trial and seed
    decided      champion, winner, finalists, ...                the finalists compared: `finalists.decide`
    ended        status                                          searching | interrupted | finished | failed
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from trainables.task import InputError

Event = dict[str, Any]


class Journal:
    """The file of events of one search, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Opens or creates it, drops a last line that a kill left unfinished, and locks it.

        Raises:
            InputError: another process is running this search.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path.parent.name}: this search is running in another process") from error
        self.events = list(read_events(path))
        self._end = sum(len(line) for line in _whole_lines(path))
        self._file.truncate(self._end)
        #: Why an event could not be kept; after that nothing is.
        self.refused: OSError | None = None
        self._last = self.events[-1]["time"] if self.events else 0

    def append(self, *events: Event) -> list[Event]:
        """Stamps events and puts them on disk, all or none; raises OSError where the disk refuses them."""
        self._last = max(self._last, int(time.time() * 1000))  # a clock that is set back moves no event back
        stamped = [{**event, "time": self._last} for event in events]
        lines = b"".join(json.dumps(event).encode() + b"\n" for event in stamped)
        if self.refused:
            raise self.refused
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            self.refused = error
            self._file.truncate(self._end)
            raise
        self._end += len(lines)
        self.events += stamped
        return stamped

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():  # killed before the first event
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def read_events(path: Path) -> Iterator[Event]:
    """The complete events of a journal, none where there is none; floats to the last bit, NaN and infinity too.

    Raises:
        InputError: a line that is no event: the file was edited or the disk is bad.
    """
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is damaged: {line[:60]!r}") from error
        yield event
