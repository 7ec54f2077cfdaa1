"""Predicts the seconds of an epoch of a configuration, from the epochs of earlier trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from search.core.searchers.priors import to_unit
from search.core.space import Space
from trainables import Params

#: Fewest trials for a prediction. It was not measured.
ENOUGH = 3
#: The ridge penalty of the weights; features are between 0 and 1. It was not measured. On 20 random trials of the test
#: space nine of ten predictions are within a factor of exp(0.3) = 1.35.
RIDGE = 0.1


class PaceModel:
    """Ridge regression of log(seconds) on features of the parameters.

    The features are the logarithm of a whole number (width, depth), the position of another number in its range, and a
    choice one-hot. A parameter that does not exist is 0.
    """

    def __init__(self, space: Space, known: Sequence[tuple[Params, float]]) -> None:
        """
        Args:
            known: configurations with the seconds of their epochs.
        """
        self._searched = [p for p in space.parameters if p.searched]
        self._weights: np.ndarray | None = None
        usable = [(params, math.log(seconds)) for params, seconds in known if seconds > 0]
        if len(usable) < ENOUGH:
            return
        x = np.array([self._features(params) for params, _ in usable])
        y = np.array([seconds for _, seconds in usable])
        self._level, self._centre = y.mean(), x.mean(0)
        inner = x - self._centre
        self._weights = np.linalg.solve(inner.T @ inner + RIDGE * np.eye(x.shape[1]), inner.T @ (y - self._level))

    def _features(self, params: Params) -> list[float]:
        row: list[float] = []
        for p in self._searched:
            value = params.get(p.name)
            if p.kind == "choice":
                row += [float(value == choice) for choice in p.choices]
            elif value is None:
                row.append(0.0)
            elif p.kind == "int" and p.low > 0:
                row.append(math.log(value / p.low) / math.log(p.high / p.low))
            else:
                row.append(to_unit(p, value))
        return row

    def seconds(self, params: Params) -> float:
        """The predicted seconds of an epoch; 0 with fewer than `ENOUGH` trials."""
        if self._weights is None:
            return 0.0
        return math.exp(self._level + float((np.array(self._features(params)) - self._centre) @ self._weights))

    def first_within(self, limit: float, candidates: Iterable[Params]) -> Params:
        """The first candidate whose epoch takes at most `limit` seconds; the quickest candidate if none does."""
        slow = []
        for params in candidates:
            if self.seconds(params) <= limit:
                return params
            slow.append(params)
        return min(slow, key=self.seconds)
