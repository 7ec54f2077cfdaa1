"""The disk and the database below a store, on which faults can be placed at any write.

`Disk` counts the operations that change something below its root: each write to a file, each sync, rename, deletion and
new folder, and each statement and commit of MLflow's database. A fault names the number of an operation. What happens
there is one of

    kill     the process is gone: neither this operation nor any later one happens, clean-ups included
    torn     as `kill`, but half of the bytes that were to be written are on disk
    full     the disk has no room, from this operation on; what was written stays, and files can be deleted
    once     as `full`, for this operation alone
    call     a function runs first, such as a second command or a signal

Reading is free, and so is everything outside the root.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import Engine

Kind = Literal["kill", "torn", "full", "once", "call"]
_TEMPORARY = re.compile(r"\.(.+)-[0-9a-f]{12}")
_CHANGING = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class Killed(BaseException):
    """The process was killed. It passes every `except Exception`; what a `finally` writes is refused."""


class Disk:
    """The operations on files below `root`, and the fault that is placed on one of them."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root}{os.sep}"
        #: The operations of the process, such as `write journal.jsonl`, in their order.
        self.done: list[str] = []
        #: Whether the process is dead.
        self.dead = False
        self._fault: tuple[Kind, int] | None = None
        self._call: Callable[[], None] = lambda: None
        self._paused = False
        #: The raw files that are open for writing; a process that ends closes them.
        self._open: list[io.FileIO] = []

    def begin(self, kind: Kind | None = None, at: int = 0, call: Callable[[], None] = lambda: None) -> None:
        """A new process begins: the fault, if there is one, comes at the operation number `at`, counted from here."""
        self.done, self.dead, self._paused = [], False, False
        self._fault, self._call = (kind, at) if kind else None, call

    def end(self) -> None:
        """The process is over: its files are closed, and locks on them are free."""
        self._fault, self.dead = None, False
        for file in self._open:
            file.close()
        self._open.clear()

    def operate(self, what: str, frees: bool = False, torn: Callable[[], None] = lambda: None) -> None:
        """Called before an operation.

        Args:
            what: the operation, and the name of its file.
            frees: whether it makes room, so that a full disk allows it.
            torn: does half of the operation.

        Raises:
            Killed: the process is dead.
            OSError: the disk is full.
        """
        if self._paused:
            return
        if self.dead:
            raise Killed
        self.done.append(what)
        if self._fault is None:
            return
        kind, at = self._fault
        if len(self.done) < at or (kind == "once" and frees):
            return
        if kind == "call":
            if threading.current_thread() is threading.main_thread():
                self._fault = None
                self._call()
            return
        if kind in ("kill", "torn"):
            self.dead = True
            if kind == "torn":
                torn()
            raise Killed
        if kind == "once":
            self._fault = None
        if not frees:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def other_process(self) -> Iterator[None]:
        """While entered, another process does the operations, which has no faults."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def holds(self, path: Any, folder: int | None = None) -> bool:
        """Whether a path, which may be relative to an open folder, lies below the root."""
        if not isinstance(path, str | os.PathLike):
            return False
        where = Path() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
        return os.path.abspath(where / path).startswith(self.root)  # noqa: PTH100 - a link is not followed

    def open(self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
             newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
        """`open`, which counts files below the root that are opened for writing."""
        if not set(mode) & set("wax+") or not self.holds(file):
            return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        self.operate(f"open {_label(file)}")
        raw = _File(self, file, mode.replace("b", "").replace("t", ""))
        self._open.append(raw)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While entered, the operations of this process are counted."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", self.open)
            patch.setattr(io, "open", self.open)
            for name, frees in (("replace", True), ("rename", True), ("unlink", True), ("remove", True),
                                ("rmdir", True), ("mkdir", False)):  # fmt: skip
                patch.setattr(os, name, self._counted(getattr(os, name), frees))
            patch.setattr(os, "fsync", lambda descriptor: self.operate("sync"))  # the files are gone in a second
            listeners = (("before_cursor_execute", self._statement), ("commit", self._commit))
            for name, listener in listeners:
                event.listen(Engine, name, listener)
            event.listen(Engine, "connect", _unsynced)
            try:
                yield
            finally:
                for name, listener in listeners:
                    event.remove(Engine, name, listener)
                event.remove(Engine, "connect", _unsynced)

    def _counted(self, real: Callable[..., Any], frees: bool) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            if self.holds(path, named.get("dir_fd")):
                self.operate(f"{real.__name__} {_label(path)}", frees)
            return real(path, *arguments, **named)

        return call

    def _statement(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(_CHANGING):
            self._of_database(statement)

    def _commit(self, connection: Any) -> None:
        self._of_database("COMMIT")

    def _of_database(self, statement: str) -> None:
        try:
            self.operate(statement.split(maxsplit=1)[0])
        except OSError:
            full = sqlite3.OperationalError("database or disk is full")
            raise sqlalchemy.exc.OperationalError(statement, {}, full) from None


_OPEN = io.open


class _File(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._disk, self._label = disk, _label(path)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._disk.operate(f"write {self._label}", torn=lambda: super(_File, self).write(view[: len(view) // 2]))
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._disk.operate(f"truncate {self._label}", frees=True)
        return super().truncate(size)


def _label(path: Any) -> str:
    """The name of a file; of one that takes another's place once it is whole, the other's."""
    name = Path(path).name
    return _TEMPORARY.sub(r"\1", name)


def _unsynced(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")
