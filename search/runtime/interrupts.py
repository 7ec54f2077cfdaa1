"""Stops a search on signals, but never in the middle of a record."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

#: How many blocks of `recording` are entered, and whether a signal waits for their end.
_recording = 0
_waits = False


@contextmanager
def recording() -> Iterator[None]:
    """Puts a KeyboardInterrupt off until the block ends. An event that is on disk and not in the state, or not told to
    the listeners, would move the number of every later one."""
    global _recording, _waits
    _recording += 1
    try:
        yield
    finally:
        _recording -= 1
        if _waits and not _recording:
            _waits = False
            raise KeyboardInterrupt


#: Ctrl-C, the end of a job by a cluster's scheduler, and the end of the terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, a signal stops the search after the running epochs; a second one raises KeyboardInterrupt.

    A signal that the process ignores stays ignored, as SIGHUP is under `nohup`. Outside the main thread Python cannot
    handle signals, and nothing changes.
    """

    def __init__(self, stop: Callable[[Literal["interrupted"]], None]) -> None:
        self.stop, self.signalled = stop, False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        global _waits
        if self.signalled and _recording:
            _waits = True
            return
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        self.stop("interrupted")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
