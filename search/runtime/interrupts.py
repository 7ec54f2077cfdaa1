"""Stops a search on signals, but never while it records an event."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

#: The number of entered blocks of `recording`, and whether a signal waits until they end.
_recording = 0
_waits = False


@contextmanager
def recording() -> Iterator[None]:
    """Delays a KeyboardInterrupt until the block ends.

    Otherwise an event could be on disk and not in the state, or the listeners could miss it: MLflow identifies an event
    by the number of events before it.
    """
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

    A signal that the process ignores stays ignored, as SIGHUP under `nohup`. Outside the main thread it does nothing:
    there Python cannot handle signals.
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
