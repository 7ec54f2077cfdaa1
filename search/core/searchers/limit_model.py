"""The probability that a configuration is within the limits on outcomes (Gardner et al. 2014).

Each limited metric has a model of its own: the model of ranks (`rank_model`) of how far trials are beyond the limit.
The ranks need no scale: a network may have a hundred times the allowed parameters. The limit lies between two ranks.
The probability is the share of the model's normal distribution below it. Limits count as independent.

A figure of the configuration (`feasibility.FIGURES`) does not depend on the epoch. Of another metric the model knows
the epoch of each value, as the model of the objective does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from search.core.feasibility import OutcomeLimit, excess
from search.core.searchers.encoding import Array
from search.core.searchers.rank_model import RankModel, normal_scores
from search.core.state import Trial

#: Standard normal scores of a limit that no trial keeps: the quantile of this share of a rank below the best rank.
BELOW = 0.25


@dataclass(frozen=True)
class _Fitted:
    """The model of one limit. `bound` is the score of the limit; `furthest` the fidelity for which it forecasts."""

    model: RankModel
    bound: float
    furthest: float

    def probability(self, features: Array) -> Array:
        """(m,): the probability that configurations (m, features) are within the limit."""
        from scipy.special import ndtr

        mean, deviation = self.model.predict(np.column_stack([features, np.full(len(features), self.furthest)]))
        return np.asarray(ndtr((self.bound - mean) / deviation))


class LimitModel:
    """What the trials of a search tell about its limits on outcomes."""

    def __init__(
        self, limits: Sequence[OutcomeLimit], features: Callable[[Sequence[int]], Array],
        fidelity: Callable[[np.ndarray], Array], most: int,
    ) -> None:  # fmt: skip
        """
        Args:
            features: the rows of the configurations of trials, by their numbers.
            fidelity: the fidelities of epochs.
            most: the largest number of trials that a model is fitted to, the newest.
        """
        self.limits, self._features, self._fidelity, self._most = limits, features, fidelity, most
        #: The last epoch of each trial that has figures, and its figures there.
        self._told: dict[int, tuple[int, dict[str, float]]] = {}
        #: Trials that cannot become the best any more because of a limit.
        self._lost: set[int] = set()
        self._models: list[_Fitted] | None = None

    def tell(self, trial: Trial) -> None:
        """Adds what a trial has measured so far."""
        epoch = max((epoch for epoch, metrics in trial.curve.items() if metrics), default=0)  # a diverged one has none
        metrics = trial.curve.get(epoch, trial.figures)
        if not self.limits or not metrics:
            return
        self._told[trial.number], self._models = (epoch, metrics), None
        if trial.outcome == "infeasible" or (trial.infeasible and not trial.can_win):
            self._lost.add(trial.number)
        else:
            self._lost.discard(trial.number)

    @property
    def known(self) -> set[int]:
        """The numbers of the trials that have figures."""
        return set(self._told)

    def rank(self, number: int) -> float:
        """A sort key: 0 for a trial with a feasible epoch, else how far it is beyond the limits."""
        if number not in self._lost:
            return 0.0
        return excess(self.limits, self._told[number][1]) or math.ulp(0.0)

    def probability(self, features: Array) -> Array:
        """(m,): the probability that configurations (m, features) are within all limits. It is 1 as long as all trials
        are within them."""
        if self._models is None:
            self._models = [fitted for limit in self.limits if (fitted := self._fit(limit)) is not None]
        product = np.ones(len(features))
        for fitted in self._models:
            product *= fitted.probability(features)
        return product

    def _fit(self, limit: OutcomeLimit) -> _Fitted | None:
        """The model of a limit; None if no trial was beyond it."""
        from scipy.special import ndtri

        excesses = {n: limit.excess(metrics) for n, (_, metrics) in self._told.items()}
        trials = sorted(n for n, excess in excesses.items() if excess is not None)[-self._most :]
        beyond = np.array([excesses[n] for n in trials], dtype=float)
        within, total = int((beyond <= 0).sum()), len(trials)
        if within == total:
            return None
        epochs = np.array([1 if limit.is_figure else self._told[n][0] for n in trials])
        fidelities = self._fidelity(epochs)
        model = RankModel.fit(np.column_stack([self._features(trials), fidelities]), normal_scores(beyond))
        return _Fitted(model, float(ndtri(max(within, BELOW) / total)), float(fidelities.max()))
