"""The time that a command may take, all of it: trials, final training and the way there and back."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

import psutil

_CALLED: ContextVar[float | None] = ContextVar("called", default=None)


def call_begins() -> None:
    """Marks the begin of a search that a script or a notebook calls for: its process may be hours old."""
    _CALLED.set(time.monotonic())


def command_began() -> float:
    """When this command began, by `time.monotonic`: with the call, else with this process, so that what was imported
    since is part of the budget."""
    if (called := _CALLED.get()) is not None:
        return called
    return time.monotonic() - (time.time() - psutil.Process().create_time())


@dataclass(frozen=True)
class Budget:
    """The wall-clock budget of a command.

    Attributes:
        seconds: of the whole command; infinite without a budget.
        began: when the command began, by `time.monotonic`.
    """

    seconds: float = math.inf
    began: float = field(default_factory=command_began)

    @property
    def left(self) -> float:
        """Seconds until the budget ends; negative after it."""
        return self.seconds - (time.monotonic() - self.began)
