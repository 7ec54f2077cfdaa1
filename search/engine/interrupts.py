"""Stops a search from outside: on signals, and when its time budget ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from search.config.load import parse_duration
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


class Deadline:
    """While entered, stops the search after `budget`, such as `30m`; earlier sessions do not count. None: no limit."""

    def __init__(self, stop: Callable[[Stop], None], budget: str | None) -> None:
        self.stop, self.seconds = stop, None if budget is None else parse_duration(budget)

    def __enter__(self) -> None:
        self.timer = threading.Timer(self.seconds or 0, self.stop, ["time budget"])
        self.timer.daemon = True
        if self.seconds is not None:
            self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
