"""The clock of a time budget, which `search/core/time_plan.py` divides."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

import psutil

_CALLED: ContextVar[float | None] = ContextVar("called", default=None)


def call_begins() -> None:
    """Starts the clock for a search that a script or a notebook calls: its process may be hours old."""
    _CALLED.set(time.monotonic())


def command_began() -> float:
    """The time when this command began, by `time.monotonic`: at `call_begins`, or else at the start of this process.

    So the imports of a command are part of its budget.
    """
    if (called := _CALLED.get()) is not None:
        return called
    return time.monotonic() - (time.time() - psutil.Process().create_time())


@dataclass
class Budget:
    """The clock of a command's time budget.

    Attributes:
        seconds: seconds of the whole command; infinite without a budget. A request may change it.
        began: the time when the command began, by `time.monotonic`.
    """

    seconds: float = math.inf
    began: float = field(default_factory=command_began)

    @property
    def left(self) -> float:
        """Seconds until the budget ends; negative after it."""
        return self.seconds - (time.monotonic() - self.began)
