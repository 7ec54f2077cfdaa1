"""What stops a search from outside: signals and the wall clock."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from search.config import parse_duration
from search.engine import Stop


class Interrupts:
    """Ctrl-C or SIGTERM once: finish the epochs, save, stop. Twice: at once."""

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
    """The wall-clock budget of the whole search, earlier sessions' time not counted; None: no limit."""

    def __init__(self, stop: Callable[[Stop], None], budget: str | None) -> None:
        self.stop, self.seconds = stop, None if budget is None else parse_duration(budget)

    def __enter__(self) -> None:
        self.timer = threading.Timer(self.seconds or 0, self.stop, ["time budget"])
        self.timer.daemon = True
        if self.seconds is not None:
            self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
