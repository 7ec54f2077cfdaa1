"""Chooses and orders the hyperparameters that a table shows for a trial."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from search.core.space import Parameter, Space
from search.core.state import Trial
from search.reports.importance import importances
from trainables import Objective

#: Hyperparameters are ordered by importance only if at least this many trials have a result.
ENOUGH = 20
#: Importance is computed from at most this many trials, drawn at random. 80 trials take about a second.
MOST = 80
#: Names of the learning rate, which always comes first.
_LEARNING_RATE = ("lr", "learning_rate")


def varied(parameters: Iterable[Parameter], trials: Iterable[Trial]) -> list[Parameter]:
    """The searched parameters whose values differ between the trials; for a single trial all parameters it has."""
    configurations = [trial.params for trial in trials]
    searched = [p for p in parameters if p.searched]
    if len(configurations) < 2:
        return [p for p in searched if all(params.get(p.name) is not None for params in configurations)]
    return [p for p in searched if len({repr(params.get(p.name)) for params in configurations}) > 1]


def ordered(parameters: Iterable[Parameter], shares: Mapping[str, float]) -> list[Parameter]:
    """The parameters, the most important first.

    The order: the learning rate; then by share of the variance of the objective; parameters with the same share or
    without one: first numbers on a logarithmic scale, then the order of the space.

    Args:
        shares: `Importance.share` by name; empty where there are too few trials.
    """

    def key(parameter: Parameter) -> tuple[bool, float, bool]:
        return not is_learning_rate(parameter.name), -shares.get(parameter.name, 0.0), not parameter.is_log

    return sorted(parameters, key=key)


def is_learning_rate(name: str) -> bool:
    """Whether a hyperparameter is the learning rate: `lr`, or `model.lr` in a group."""
    return name.rpartition(".")[2] in _LEARNING_RATE


class RunningImportance:
    """The importance of hyperparameters while a search runs. A thread computes it each time the trials have doubled."""

    def __init__(self, space: Space, objective: Objective) -> None:
        self._space, self._objective = space, objective
        self._due = ENOUGH
        #: `Importance.share` by name; empty before the first computation.
        self.shares: dict[str, float] = {}

    def update(self, trials: Sequence[Trial]) -> None:
        """Starts a computation if it is due, and returns at once.

        Args:
            trials: those that have a result.
        """
        if len(trials) >= self._due:
            self._due = 2 * len(trials)
            drawn = np.random.default_rng(0).permutation(len(trials))[:MOST]
            chosen = [trials[i] for i in sorted(drawn)]
            threading.Thread(target=self._compute, args=(chosen,), name="importance", daemon=True).start()

    def _compute(self, trials: Sequence[Trial]) -> None:
        try:
            self.shares = {item.name: item.share for item in importances(trials, self._space, self._objective)}
        except (ValueError, RuntimeError):  # such as equal results of all trials: the order stays
            return
