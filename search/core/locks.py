"""Locks a search for one process at a time, through the library `filelock`.

The lock is a file beside the journal. The system frees the lock when the process dies, and a forked child does not
inherit it. The file names its holder; it is deleted when the lock is freed, and a file that a kill left behind is free.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO
from weakref import WeakSet

from filelock import lock_descriptor

from trainables.base.errors import InputError

#: Seconds: `is_held` takes a free lock for a moment, so a lock that is held is tried again for this long.
MOMENT = 0.1
#: The options of a mount with which NFS locks a file on this machine alone.
_LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock")
_held: WeakSet[Lock] = WeakSet()


class Lock:
    """A lock that this process holds until `release`."""

    def __init__(self, path: Path, wait_seconds: float = 0.0) -> None:
        """Creates the file if it is missing, and locks it.

        Args:
            wait_seconds: wait this long for another process that holds the lock.

        Raises:
            InputError: another process holds the lock, or the file system has no locks.
            OSError: the file cannot be opened.
        """
        self.path = path
        self._file = _locked(path, max(wait_seconds, MOMENT))
        _held.add(self)
        with suppress(OSError):  # the holder is only for messages
            self._file.truncate(0)
            # On Windows nobody else can read the first byte.
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time() * 1000)}
            self._file.write(f" {json.dumps(holder)}".encode())

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Deletes the file and frees the lock; does nothing if the lock is free."""
        if not self._file.closed:
            with suppress(OSError):  # its folder was renamed, or the file system deletes no open file
                if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                    self.path.unlink()
            self._file.close()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    until = time.monotonic() + MOMENT
    while True:
        try:
            with _open(path) as file:
                if lock_descriptor(file.fileno(), blocking=False):
                    return False
        except FileNotFoundError:
            return False
        if time.monotonic() > until:
            return True
        _pause()


def _pause() -> None:
    """Waits for 0.5 to 5 ms. The time is random, so that waiting processes do not march in step."""
    time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311


def _open(path: Path) -> IO[bytes]:
    """The existing file, for writing where that is allowed: NFS locks no file that is open only for reading."""
    try:
        return path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise
    except OSError:
        return path.open("rb", buffering=0)


def _locked(path: Path, wait_seconds: float) -> IO[bytes]:
    if (options := nfs_options(path.parent)) is not None:
        _warn_of_network(options)
    until = time.monotonic() + wait_seconds
    while True:
        file = path.open("a+b", buffering=0)
        try:
            if lock_descriptor(file.fileno(), blocking=False):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            elif time.monotonic() > until:
                raise InputError(f"{path.parent.name}: this search is running in another process{_holder(file)}")
            else:
                _pause()
        except FileNotFoundError:
            pass  # its last holder deleted the file before it was locked
        except InputError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise InputError(
                f"{path}: cannot be locked ({error.strerror}); keep the store on a file system that has file locks"
            ) from error
        file.close()


def _holder(file: IO[bytes]) -> str:
    """The process that wrote the file, for a message; empty if the file does not name it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        file.seek(1)
        holder = json.loads(file.read(1000))
        return f" (process {int(holder['pid'])} on {str(holder['host'])[:100]!r})"
    return ""


@cache
def _warn_of_network(options: str) -> None:
    """Logs a warning, once in a process, about a mount of NFS with these options."""
    local = any(option in options.split(",") for option in _LOCAL_LOCKS)
    why = "its locks do not reach other machines" if local else "not every server passes its locks on"
    logging.getLogger(__name__).warning(
        "the store is on NFS, and %s: run and change a search from one machine at a time", why
    )


def nfs_options(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The options with which the file system of a folder is mounted, if it is NFS; None for another file system.

    Args:
        mounts: the list of mounts, which only Linux has.
    """
    try:
        lines = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return None
    real = folder.resolve()
    places = [(Path(place.replace("\\040", " ")), kind, options) for _, place, kind, options, *_ in lines]
    above = [(place, kind, options) for place, kind, options in places if real.is_relative_to(place)]
    # Of two mounts on one folder the later is visible.
    _, kind, options = max(reversed(above), key=lambda mount: len(mount[0].parts), default=(None, "", ""))
    return options if kind.startswith("nfs") else None


def _forget() -> None:
    """Closes the files of the parent's locks in a forked child, which would keep the locks when the parent dies."""
    for lock in list(_held):
        lock._file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
