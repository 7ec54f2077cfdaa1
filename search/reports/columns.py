"""Which hyperparameters stand beside a trial, and in which order: for the terminal, the report and other pages."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from search.core.space import Parameter, Space
from search.core.state import Trial
from search.reports.importance import importances
from trainables import Objective

#: Number of trials with a result from which on importance orders columns; with fewer it is a guess.
ENOUGH = 20
#: Most trials that importance is worked out from, drawn at random: 80 take about a second of a processor.
MOST = 80
#: The learning rate by its usual names; it always comes first.
_LEARNING_RATE = ("lr", "learning_rate")


def varied(parameters: Iterable[Parameter], trials: Iterable[Trial]) -> list[Parameter]:
    """The searched parameters whose values differ between these trials; of a single trial those that it has."""
    configurations = [trial.params for trial in trials]
    searched = [p for p in parameters if p.searched]
    if len(configurations) < 2:
        return [p for p in searched if all(params.get(p.name) is not None for params in configurations)]
    return [p for p in searched if len({repr(params.get(p.name)) for params in configurations}) > 1]


def ordered(parameters: Iterable[Parameter], shares: Mapping[str, float]) -> list[Parameter]:
    """The parameters, the most important first.

    The learning rate comes first. The others follow by their share of the objective's variance, where that is known;
    then come numbers on a logarithmic scale, then the rest in the order of the space.

    Args:
        shares: by name, as `importances` returns them; empty where there are too few trials.
    """

    def key(parameter: Parameter) -> tuple[bool, float, bool]:
        return not is_learning_rate(parameter.name), -shares.get(parameter.name, 0.0), parameter.kind != "loguniform"

    return sorted(parameters, key=key)


def is_learning_rate(name: str) -> bool:
    """Whether a hyperparameter is the learning rate: `lr`, or `model.lr` in a group."""
    return name.rpartition(".")[2] in _LEARNING_RATE


class RunningImportance:
    """The shares of a search that runs, worked out in a thread of its own whenever the number of trials has doubled."""

    def __init__(self, space: Space, objective: Objective) -> None:
        self._space, self._objective = space, objective
        self._due = ENOUGH
        #: Of the last time; empty before the first.
        self.shares: dict[str, float] = {}

    def update(self, trials: Sequence[Trial]) -> None:
        """Called often, with the trials that have a result; returns at once."""
        if len(trials) >= self._due:
            self._due = 2 * len(trials)
            drawn = np.random.default_rng(0).permutation(len(trials))[:MOST]
            chosen = [trials[i] for i in sorted(drawn)]
            threading.Thread(target=self._work_out, args=(chosen,), name="importance", daemon=True).start()

    def _work_out(self, trials: Sequence[Trial]) -> None:
        try:
            self.shares = {one.name: one.share for one in importances(trials, self._space, self._objective)}
        except (ValueError, RuntimeError):  # all trials came to the same, say: the order stays as it is
            return
