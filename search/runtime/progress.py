"""How far running epochs are, where they take long: workers tell an actor, which the driver asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import ray

from search.core.events import StepsDone

#: Seconds without the end of an epoch after which workers are asked how far they are, and between two questions.
LONG, EVERY = 15.0, 5.0


class _Board:
    """The latest word of each trial."""

    def __init__(self) -> None:
        self.told: dict[int, dict[str, Any]] = {}

    def tell(self, numbers: list[int], about: dict[str, Any]) -> None:
        self.told |= dict.fromkeys(numbers, about)

    def read(self) -> dict[int, dict[str, Any]]:
        told, self.told = self.told, {}
        return told


class EpochProgress:
    """Asks the workers of a search, without waiting for an answer; the actor is started with the first long epoch."""

    def __init__(self, name: str, announce: Callable[[StepsDone], None]) -> None:
        """
        Args:
            name: of the actor, by which workers find it.
            announce: is told what there is to tell.
        """
        self._name, self._announce = name, announce
        self._board: Any = None
        self._answer: Any = None
        self._asked = 0.0

    def ask(self, silent: float) -> None:
        """Called often.

        Args:
            silent: seconds for which some trial has ended no epoch.
        """
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # its machine is gone: the next long epoch starts another
                for number, about in sorted(ray.get(self._answer).items()):
                    self._announce(cast(StepsDone, {"event": "progress", "number": number, **about}))
            self._answer = None
        if self._answer is None and silent > LONG and time.monotonic() - self._asked > EVERY:
            self._asked = time.monotonic()
            if self._board is None:
                self._board = ray.remote(_Board).options(name=self._name, num_cpus=0, max_restarts=-1).remote()
            self._answer = self._board.read.remote()
