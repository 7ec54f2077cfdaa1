"""Predicts the seconds of an epoch of a configuration, from the epochs of earlier trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from search.core.searchers.priors import to_unit
from search.core.space import Parameter, Space, all_numbers
from trainables import Params

#: Fewest trials for a prediction. It was not measured.
ENOUGH = 3
#: The ridge penalty of the weights; features are between 0 and 1. Measured on the test space after 6 trials: the ninth
#: decile of |log(predicted / actual)| for penalties of 0.1, 0.03 and 0.01. With noise of 5 % it is 0.61, 0.33, 0.20.
#: With noise of 20 % and a constant part of the seconds it is 0.53, 0.52, 0.58.
RIDGE = 0.03


class PaceModel:
    """Ridge regression of log(seconds) on features of the parameters.

    The features are the logarithm of a whole number or of a number of a choice (width, batch size), the position of
    another ordered value in its range, and another choice one-hot. A parameter that does not exist is 0.
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
            if not p.has_order:
                row += [float(value == choice) for choice in p.choices]
            elif value is None:
                row.append(0.0)
            elif (size := _size(p)) is not None:
                row.append(math.log(value / size[0]) / math.log(size[1] / size[0]))
            else:
                row.append(to_unit(p, value))
        return row

    def seconds(self, params: Params) -> float:
        """The predicted seconds of an epoch; 0 with fewer than `ENOUGH` trials."""
        if self._weights is None:
            return 0.0
        return math.exp(self._level + float((np.array(self._features(params)) - self._centre) @ self._weights))

    def first_within(self, limit: float, candidates: Iterable[Params]) -> Params | None:
        """The first candidate whose epoch takes at most `limit` seconds; the quickest candidate if none does.

        None without a candidate.
        """
        slow = []
        for params in candidates:
            if self.seconds(params) <= limit:
                return params
            slow.append(params)
        return min(slow, key=self.seconds, default=None)


def _size(parameter: Parameter) -> tuple[float, float] | None:
    """The bounds of a whole number or of a choice of numbers; None if they are not > 0 and for other parameters."""
    low, high = parameter.low, parameter.high
    if parameter.kind == "choice" and all_numbers(parameter.choices):
        low, high = (float(bound(parameter.choices)) for bound in (min, max))  # type: ignore[type-var, arg-type]
    elif parameter.kind != "int":
        return None
    return (low, high) if 0 < low < high else None
