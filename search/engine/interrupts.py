"""Stops a search on signals."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from search.engine.search import Stop


class Interrupts:
    """While entered, SIGINT or SIGTERM stops the search after the running epochs; a second one raises
    KeyboardInterrupt."""

    def __init__(self, stop: Callable[[Stop], None]) -> None:
        self.stop, self.signalled = stop, False

    def __enter__(self) -> None:
        self.previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        for number in self.previous:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        self.stop("interrupted")

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
