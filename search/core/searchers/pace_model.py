"""Predicts how long an epoch of a configuration takes, from the epochs of the trials that were told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search.core.searchers.priors import to_unit
from search.core.space import Space
from trainables import Params

#: Trials from which on there is a prediction, and the ridge on the weights of the scaled parameters.
ENOUGH, RIDGE = 3, 0.1


class PaceModel:
    """Ridge regression of the logarithm of the seconds on the parameters.

    Whole numbers (widths, depths) enter by their logarithm, other numbers on their own scale, choices one by one; what
    does not exist in a configuration is zero.
    """

    def __init__(self, space: Space, known: Sequence[tuple[Params, float]]) -> None:
        """
        Args:
            known: configurations and the seconds of their epochs.
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
        """The predicted seconds of an epoch; 0 while too little is known."""
        if self._weights is None:
            return 0.0
        return math.exp(self._level + float((np.array(self._features(params)) - self._centre) @ self._weights))
