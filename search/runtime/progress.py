"""The progress of long epochs: workers write it to an actor, and the driver reads it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import ray

from search.core.events import StepsDone

#: Seconds: the progress of an epoch is read after `LONG` seconds, and then every `EVERY` seconds.
LONG, EVERY = 15.0, 5.0


class _Board:
    """The latest progress of each trial."""

    def __init__(self) -> None:
        self._latest: dict[int, dict[str, Any]] = {}

    def tell(self, numbers: list[int], about: dict[str, Any]) -> None:
        """Stores the progress of trials that train together; `trainables/base/trainable.py` calls it."""
        self._latest |= dict.fromkeys(numbers, about)

    def read(self) -> dict[int, dict[str, Any]]:
        """The progress by trial number since the last call."""
        latest, self._latest = self._latest, {}
        return latest


class EpochProgress:
    """Reads the progress without waiting for it. It starts the actor in the first long epoch."""

    def __init__(self, name: str, announce: Callable[[StepsDone], None]) -> None:
        """
        Args:
            name: the name of the actor, by which workers find it.
            announce: gets the progress of each trial.
        """
        self._name, self._announce = name, announce
        self._board: Any = None
        self._answer: Any = None
        self._asked = 0.0

    def ask(self, silent: float) -> None:
        """Announces the progress that has arrived, and asks for the next. Call it often.

        Args:
            silent: seconds since the last epoch of the trial that has been silent longest.
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
