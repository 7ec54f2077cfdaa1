"""Stops a search on signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from search.engine.search import Stop

#: Ctrl-C, the end of a job by a cluster's scheduler, and the end of the terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, a signal stops the search after the running epochs; a second one raises KeyboardInterrupt.

    A signal that the process ignores stays ignored, as SIGHUP is under `nohup`. Outside the main thread Python cannot
    handle signals, and nothing changes.
    """

    def __init__(self, stop: Callable[[Stop], None]) -> None:
        self.stop, self.signalled = stop, False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        self.stop("interrupted")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
