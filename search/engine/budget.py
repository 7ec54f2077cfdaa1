"""The time that a command may take, all of it: trials, final training and the way there and back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import psutil


def command_began() -> float:
    """When this process began, by `time.monotonic`: what was imported since is part of the budget."""
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
