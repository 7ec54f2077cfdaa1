"""The journal of a search: one JSON line for each event, which is on disk before anything acts on it.

The state of a search (its trials and, by replay, its searcher and its rungs) is a function of these lines alone. So a
driver that was killed at any moment resumes after the last line, and MLflow gets again the events that it missed.
`events.py` lists the kinds of events.

A line ends with a checksum of the bytes before it: `{"event": "session", "time": 1, "crc": "9ae0daaf"}`. Lines of
version 1 have none.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, cast

from search.core import locks
from search.core.events import VERSION, Event
from trainables import InputError
from trainables.base.errors import first_line

#: The content of a line, and its checksum.
_CHECKED = re.compile(rb'(.*), "crc": "([0-9a-f]{8})"}\n', re.DOTALL)


class Journal:
    """The file of events of one search, held by one process at a time: see `locks.py`."""

    def __init__(self, path: Path, reader: Reader | None = None, wait_seconds: float = 0.0) -> None:
        """Opens or creates the file, locks it, and drops a last line that a kill left unfinished.

        Args:
            reader: has read the first events of this file before; `events` are then those after them.
            wait_seconds: wait this long for another process that holds the file.

        Raises:
            InputError: another process is running this search, the file cannot be written, or `Reader` refuses it.
        """
        self.path = path
        self._read = reader or Reader(path)
        self._lock, self._file = _locked(path, wait_seconds)
        try:
            self.events = list(self._read.new())
        except InputError:
            self._file.close()
            self._lock.release()
            raise
        self._file.truncate(self._read.end)
        #: The error of the first write that failed; nothing is written after it.
        self.refused: OSError | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def append(self, *events: Event) -> list[Event]:
        """Adds the time to each event and writes them to disk, all or none.

        Returns:
            The events as they were written, without their checksums.

        Raises:
            OSError: the disk refuses them; from then on every call raises it.
        """
        now = max(self._read.time, int(time.time() * 1000))  # a clock that is set back moves no event back
        stamped = [cast(Event, {**_plain(event), "time": now}) for event in events]
        if not self._read.end and stamped:
            stamped[0]["version"] = VERSION
        written_lines = [*map(_line, stamped)]
        lines = b"".join(written_lines)
        if self.refused:
            raise self.refused
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            self.refused = error
            self._file.truncate(self._read.end)
            raise
        for event, line in zip(stamped, written_lines, strict=True):
            self._read.take(event, line)
        self.events += stamped
        return stamped

    def close(self) -> None:
        """Closes and unlocks the file.

        A file without events is deleted, as the search never began. The folders above it are deleted if they are empty:
        the folder of the search, the folder `searches` and the store.
        """
        if self._file.closed:
            return
        self._file.close()
        if self._read.end:
            self._lock.release()
            return
        with suppress(OSError):
            self.path.unlink()
        self._lock.release()
        with suppress(OSError):  # a folder is not empty
            self.path.parent.rmdir()
            if self.path.parents[1].name == "searches":
                self.path.parents[1].rmdir()
                self.path.parents[2].rmdir()


def lock_file(path: Path) -> Path:
    """The file whose lock is that of the journal `path`."""
    return path.with_suffix(".lock")


def is_held(path: Path) -> bool:
    """Whether a process holds the journal: it runs or changes the search now."""
    return locks.is_held(lock_file(path))


def _locked(path: Path, wait_seconds: float) -> tuple[locks.Lock, IO[bytes]]:
    """Creates or opens the file, after it is locked; raises InputError."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = locks.Lock(lock_file(path), wait_seconds)
            try:
                return lock, path.open("a+b", buffering=0)
            except OSError:
                lock.release()
                raise
        except FileNotFoundError:  # another process deleted the folder after `mkdir`: its search never began
            continue
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _line(event: Event) -> bytes:
    content = json.dumps(event)[:-1].encode()
    return b'%b, "crc": "%08x"}\n' % (content, zlib.crc32(content))


def _plain(event: Event) -> dict[str, Any]:
    """The event as `read_events` returns it, with Python's own types: a task may measure NumPy or torch scalars."""
    plain: dict[str, Any] = json.loads(json.dumps(event, default=_scalar), parse_int=_int)
    for key in ("metrics", "test", "baselines"):
        if key in plain:
            plain[key] = {name: _number(name, value) for name, value in plain[key].items()}
    return plain


def _number(name: str, value: Any) -> float:
    """The value of a metric as a float; true and false are 1 and 0. Raises InputError if it is no number."""
    if not isinstance(value, int | float):
        raise InputError(f"the metric {name!r} is {value!r}: expected a number")
    return float(value)


def _int(digits: str) -> float:
    """A whole number. A number beyond the largest float (1.8e308) becomes infinity: others cannot compare it."""
    return int(digits) if len(digits) <= sys.float_info.max_10_exp else float(digits)


def _scalar(value: Any) -> Any:
    if not hasattr(value, "item"):
        raise TypeError(f"{value!r}: expected text, a number, true, false or null")
    return value.item()


def read_events(path: Path) -> Iterator[Event]:
    """Yields the complete events of a journal; none if there is no file. Floats are exact, NaN and infinity included.

    Raises:
        InputError: as `Reader`.
    """
    return Reader(path).new()


class Reader:
    """Reads a journal that grows: `new` yields each complete event once.

    Attributes:
        end: the size, in bytes, of the lines of the events so far.
        time: the time of the latest event, in milliseconds since 1970.

    Raises:
        InputError: a line is damaged (the file was edited, or the disk is bad), or a newer program wrote the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = self.time = 0
        self._lines = self._trials = 0
        self._version, self._checked = 1, False

    def new(self) -> Iterator[Event]:
        """Yields the complete events that were added since the last call; none if there is no file."""
        try:
            for line in self._whole_lines():
                try:
                    event = self._parse(line)
                except InputError:
                    raise
                except (ValueError, RecursionError) as error:
                    why, number = first_line(error), self._lines + 1
                    raise InputError(
                        f"{self.path}: line {number} is damaged ({why}): {line[:60]!r}; put a copy of the file back, "
                        f"or delete this line and all after it, and the search goes on from line {number - 1}"
                    ) from error
                self.take(event, line)
                yield event
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error

    def take(self, event: Event, line: bytes) -> None:
        """Counts an event as read: it is the next line of the file."""
        self.end += len(line)
        self.time = event.get("time", 0)
        self._lines += 1
        self._trials += event["event"] == "trial"
        self._checked = self._checked or _CHECKED.fullmatch(line) is not None

    def _whole_lines(self) -> Iterator[bytes]:
        if not self.path.exists():  # killed before the first event
            return
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.end:
                raise InputError(f"{self.path}: lost lines while it was open; put a copy of it back, and open it again")
            file.seek(self.end)
            for line in file:
                if line.endswith(b"\n"):
                    yield line

    def _parse(self, line: bytes) -> Event:
        """The event in a line; raises ValueError if it is damaged, and InputError if a newer program wrote it."""
        content = _CHECKED.fullmatch(line)
        if content is None and self._checked:
            raise ValueError("its checksum is missing")
        if content is not None and zlib.crc32(content[1]) != int(content[2], 16):
            raise ValueError("its checksum does not match")
        event = json.loads(line if content is None else content[1] + b"}")
        if not self._lines and isinstance(event, dict):
            self._version = event.get("version", 1)
        if isinstance(self._version, int) and self._version > VERSION:
            raise InputError(
                f"{self.path}: written in format {self._version} by a newer trial-search; this one reads up to "
                f"{VERSION}"
            )
        if content is None and self._version > 1:
            raise ValueError("its checksum is missing")
        _check(event, self._trials)
        return cast(Event, event)


class Tail:
    """Reads a journal that another process writes, without a lock: each call returns the events since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader, self._file = Reader(path), 0

    def read(self) -> tuple[list[Event], bool]:
        """The new events, and whether they are the journal from its beginning.

        A journal loses its last lines if the disk refused a part of them, and may be replaced by another file. It is
        then read from its beginning.

        Raises:
            InputError: as `Reader`.
        """
        file = self.path.stat().st_ino if self.path.exists() else 0
        if file != self._file:
            self._reader, self._file = Reader(self.path), file
        first = not self._reader.end
        try:
            events = list(self._reader.new())
        except InputError:
            if first:
                raise
            first, self._reader = True, Reader(self.path)
            events = list(self._reader.new())
        return events, first and bool(events)


@cache
def _kinds() -> Any:
    """Checks an event against the kinds of `events.py`. It is made when it is first needed, as that takes 30 ms."""
    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[Event, Field(discriminator="event")])


def _check(event: Any, trials: int) -> None:
    """Raises ValueError if this is no event, or no event that can follow `trials` proposals."""
    from pydantic import ValidationError

    try:
        _kinds().validate_python(event, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"].startswith("union_tag"):
            raise ValueError(f"no kind of event is {event.get('event')!r}") from None
        place = ".".join(map(str, first["loc"][1:]))
        raise ValueError(f"{place}: {first['msg']}" if place else "it is no event") from None
    if event["event"] == "trial":
        if event["number"] != trials:
            raise ValueError(f"it proposes trial {event['number']}, where trial {trials} comes next")
        return
    for key in ("number", "trial", "champion"):
        if key in event and not 0 <= event[key] < trials:
            raise ValueError(f"its {key} is {event[key]}, and there are {trials} trials by then")
