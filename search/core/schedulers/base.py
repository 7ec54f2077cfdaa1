"""What a rule for stopping trials early is asked, and told."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from search.core.schedulers.rungs import Losses

#: Of some trials, the best first by what they showed, the one that a model would train on.
Preference = Callable[[Sequence[int]], int | None]


def no_preference(waiting: Sequence[int]) -> int | None:
    return None


class Scheduler:
    """Decides whether a trial goes on; this one gives each its full budget.

    `loss` is the objective, turned so that smaller is better.
    """

    def decides(self, number: int, epoch: int) -> bool:
        """Whether the trial may have to stop or pause after this epoch. The answer never changes, so that workers know
        ahead when they have to ask."""
        return False

    def should_stop(self, number: int, epoch: int, loss: float, before: float = math.inf) -> bool:
        """Whether the trial stops with this loss after this epoch; changes nothing.

        Args:
            before: only trials with smaller numbers are compared with.
        """
        return False

    def pauses(self, number: int, epoch: int) -> bool:
        """Whether the trial pauses after this epoch until it is promoted."""
        return False

    def standing(self, number: int, epoch: int, loss: float, before: float = math.inf) -> str:
        """In words, how the trial stands with this loss among those that it is compared with; see `should_stop`."""
        return ""

    def promoted(
        self, paused: Mapping[int, int], left: Collection[int] | None, prefer: Preference = no_preference
    ) -> int | None:
        """The number of the paused trial that goes on now, if one does; changes nothing.

        Args:
            paused: the epoch at which each paused trial waits, by number.
            left: the trials that are neither paused nor over; None while new ones will come.
            prefer: chooses among trials that wait at the same rung; None where it cannot say.
        """
        return None

    def record(self, number: int, epoch: int, loss: float) -> None:
        """Takes in a result, whatever was decided."""

    def remove(self, number: int) -> None:
        """Forgets a trial that diverged, as its results mean nothing."""

    def rungs(self) -> Losses:
        """The losses at each rung."""
        return {}
