"""Every point of a finite space, each once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.core.config import SearchConfig
from search.core.searchers.base import Searcher
from search.core.state import Trial
from trainables import Objective, Params


class GridSearcher(Searcher):
    """Proposes every point of a finite space, each once.

    A search that may end before the last point tries the points in random order: so they are spread over the grid.
    Otherwise the order is that of the file.
    """

    several_objectives = True
    is_finite = True
    source = "the next point of the grid"

    def __init__(self, points: list[Params], seed: int, partial: bool) -> None:
        """
        Args:
            partial: whether the search may end before the last point.
        """
        order = np.random.default_rng(seed).permutation(len(points)) if partial else range(len(points))
        self._left = [points[index] for index in order]
        #: The number of trials so far, with those outside the grid that a request added.
        self._tried = 0
        #: The points that it proposed, by the number of the trial.
        self._asked: dict[int, Params] = {}

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> GridSearcher:
        points = config.space.grid(config.place)
        return cls(points, config.search.seed, _is_partial(config, len(points)))

    @classmethod
    def note(cls, config: SearchConfig) -> str | None:
        """The number of points that the search tries, if it does not try all.

        Example: `the grid has 36 points, of which the search tries 8 in random order (--trials 36 tries all)`.
        """
        points, trials = len(config.space.grid(config.place)), config.search.trials
        if not _is_partial(config, points):
            return None
        tried = (
            f"{trials} in random order (--trials {points} tries all)"
            if trials and trials < points
            else "as many as its budget allows, in random order"
        )
        return f"the grid has {points} points, of which the search tries {tried}"

    @property
    def configurations(self) -> int:
        return self._tried + len(self._left)

    def ask(self, number: int) -> Params:
        self._tried += 1
        self._asked[number] = point = self._left.pop(0)
        return point

    def withdraw(self, number: int) -> None:
        self._tried -= 1
        if (point := self._asked.pop(number, None)) is not None:
            self._left.insert(0, point)

    def replay(self, trial: Trial) -> None:
        self._tried += 1
        # An earlier session may have tried the points in another order, as it had another number of trials.
        if trial.params in self._left:
            self._left.remove(trial.params)


def _is_partial(config: SearchConfig, points: int) -> bool:
    search = config.search
    return (search.trials or points) < points or bool(search.time_budget or search.epoch_budget)
