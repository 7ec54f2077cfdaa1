"""The journal of a search: one JSON line for each event, which is on disk before anything acts on it.

The state of a search (its trials and, by replay, its searcher and its rungs) is a function of these lines alone. So a
driver that was killed at any moment resumes after the last line, and MLflow gets again the events that it missed.
`events.py` lists the kinds of events.

A line ends with a checksum of the bytes before it: `{"event": "session", "time": 1, "crc": "9ae0daaf"}`. Lines of
version 1 have none.
"""

from __future__ import annotations

import fcntl
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

from search.core.events import VERSION, Event
from trainables import InputError
from trainables.base.errors import first_line

#: The content of a line, and its checksum.
_CHECKED = re.compile(rb'(.*), "crc": "([0-9a-f]{8})"}\n', re.DOTALL)


class Journal:
    """The file of events of one search, held by one process at a time.

    The lock is `flock`. Linux passes it on to an NFS server, so it also works between machines. With the mount option
    `nolock` or `local_lock` it works only between the processes of a machine.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, locks it, and drops a last line that a kill left unfinished.

        Raises:
            InputError: another process is running this search, the file cannot be written, or `read_events` refuses it.
        """
        self.path = path
        self._file = _locked(path)
        try:
            self.events = list(read_events(path))
        except InputError:
            self._file.close()
            raise
        self._end = sum(len(line) for line in _whole_lines(path))
        self._file.truncate(self._end)
        #: The error of the first write that failed; nothing is written after it.
        self.refused: OSError | None = None
        self._last = self.events[-1].get("time", 0) if self.events else 0

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
        self._last = max(self._last, int(time.time() * 1000))  # a clock that is set back moves no event back
        stamped = [cast(Event, {**_plain(event), "time": self._last}) for event in events]
        if not self.events and stamped:
            stamped[0]["version"] = VERSION
        lines = b"".join(map(_line, stamped))
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
        """Closes and unlocks the file.

        A file without events is deleted, as the search never began. The folders above it are deleted if they are empty:
        the folder of the search, the folder `searches` and the store.
        """
        if not self._file.closed and not self._end:
            with suppress(OSError):  # a folder is not empty
                self.path.unlink()
                self.path.parent.rmdir()
                if self.path.parents[1].name == "searches":
                    self.path.parents[1].rmdir()
                    self.path.parents[2].rmdir()
        self._file.close()


def is_held(path: Path) -> bool:
    """Whether a process holds the journal: it runs or changes the search now."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _locked(path: Path) -> IO[bytes]:
    """Creates or opens the file, and locks it; raises InputError."""
    name = path.parent.name
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        except FileNotFoundError:  # another process deleted the folder after `mkdir`: its search never began
            continue
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass  # another process deleted the file before it was locked: its search never began
        except BlockingIOError as error:
            file.close()
            raise InputError(f"{name}: this search is running in another process") from error
        except OSError as error:
            file.close()
            raise InputError(
                f"{path}: cannot be locked ({error.strerror}); keep the store on a file system that has file locks"
            ) from error
        file.close()


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


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():  # killed before the first event
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def read_events(path: Path) -> Iterator[Event]:
    """Yields the complete events of a journal; none if there is no file. Floats are exact, NaN and infinity included.

    Raises:
        InputError: a line is damaged (the file was edited, or the disk is bad), or a newer program wrote the file.
    """
    parser = _Parser(path)
    try:
        for line in _whole_lines(path):
            yield parser.event(line)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


class Tail:
    """Reads a journal that another process writes, without a lock: each call returns the events since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parser, self._end, self._file = _Parser(path), 0, 0

    def read(self) -> tuple[list[Event], bool]:
        """The new events, and whether they are the journal from its beginning.

        A journal loses its last lines if the disk refused a part of them, and may be replaced by another file. It is
        then read from its beginning.

        Raises:
            InputError: as `read_events`.
        """
        try:
            return self._new()
        except InputError:
            if not self._end:
                raise
            self._restart()
            return self._new()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _new(self) -> tuple[list[Event], bool]:
        if not self.path.exists():
            return [], False
        with self.path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_size < self._end or about.st_ino != self._file:
                self._restart()
                self._file = about.st_ino
            first, events = not self._end, []
            if about.st_size > self._end:
                file.seek(self._end)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    events.append(self._parser.event(line))
                    self._end += len(line)
        return events, first and bool(events)

    def _restart(self) -> None:
        self._parser, self._end = _Parser(self.path), 0


class _Parser:
    """Turns the lines of a journal into events, from the first line on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines, self._version, self._checked, self._trials = 0, 1, False, 0

    def event(self, line: bytes) -> Event:
        """The event of the next line; raises InputError if the line is damaged, or a newer program wrote it."""
        number = self._lines + 1
        try:
            content = _CHECKED.fullmatch(line)
            if content is None and self._checked:
                raise ValueError("its checksum is missing")
            if content is not None and zlib.crc32(content[1]) != int(content[2], 16):
                raise ValueError("its checksum does not match")
            event = json.loads(line if content is None else content[1] + b"}")
            if number == 1 and isinstance(event, dict):
                self._version = event.get("version", 1)
            if isinstance(self._version, int) and self._version > VERSION:
                raise InputError(
                    f"{self._path}: written in format {self._version} by a newer trial-search; this one reads up to "
                    f"{VERSION}"
                )
            if content is None and self._version > 1:
                raise ValueError("its checksum is missing")
            self._checked = self._checked or content is not None
            _check(event, self._trials)
        except (ValueError, RecursionError) as error:
            why = first_line(error)
            raise InputError(
                f"{self._path}: line {number} is damaged ({why}): {line[:60]!r}; put a copy of the file back, or "
                f"delete this line and all after it, and the search goes on from line {number - 1}"
            ) from error
        self._lines = number
        self._trials += event["event"] == "trial"
        return cast(Event, event)


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
