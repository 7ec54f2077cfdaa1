"""The durable record of a search: one JSON line for each event, on disk before anything acts on it.

The state of a search (its trials and, by replay, its searcher and its rungs) is a function of these lines alone. A
driver that is killed at any moment therefore resumes where the last line stands, and MLflow can be told again what it
may have missed. The kinds of events are listed in `events.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from search.record.events import VERSION, Event
from trainables import InputError


class Journal:
    """The file of events of one search, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, drops a last line that a kill left unfinished, and locks it.

        Raises:
            InputError: another process is running this search, or `read_events` refuses the file.
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
        #: The error of the write that failed first; nothing is written after it.
        self.refused: OSError | None = None
        self._last = self.events[-1]["time"] if self.events else 0

    def append(self, *events: Event) -> list[Event]:
        """Adds the time to each event and writes them to disk, all or none.

        Returns:
            The events as they were written.

        Raises:
            OSError: the disk refuses them; from then on every call raises it.
        """
        self._last = max(self._last, int(time.time() * 1000))  # a clock that is set back moves no event back
        stamped = [cast(Event, {**_plain(event), "time": self._last}) for event in events]
        if not self.events and stamped:
            stamped[0]["version"] = VERSION
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
        """Closes the file, which another process may then open."""
        self._file.close()


def _plain(event: Event) -> dict[str, Any]:
    """The event as it is read back, in Python's own types: a task may measure in NumPy's or torch's."""
    plain: dict[str, Any] = json.loads(json.dumps(event, default=_scalar))
    return plain


def _scalar(value: Any) -> Any:
    if not hasattr(value, "item"):
        raise TypeError(f"{value!r}: expected text, a number, true, false or null")
    return value.item()


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():  # killed before the first event
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def read_events(path: Path) -> Iterator[Event]:
    """Yields the complete events of a journal; nothing where there is no file. Floats are exact, NaN and infinity too.

    Raises:
        InputError: a line is no event (the file was edited, or the disk is bad), or a newer version wrote the file.
    """
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is damaged: {line[:60]!r}") from error
        if number == 1 and event.get("version", 1) > VERSION:
            raise InputError(
                f"{path}: written in format {event['version']} by a newer trial-search; this one reads up to {VERSION}"
            )
        yield event
