"""What is tried next: the interface of searchers, a grid, and which one a configuration names.

A proposal depends on the seed, the trial's number and what the searcher was told, and on nothing else: each gets a
freshly seeded sampler. No random state has to be saved, and a resumed search proposes what it would have proposed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from search.core.config import SearchConfig
from search.core.schedulers.rungs import rung_epochs
from search.core.searchers.optuna_searcher import OptunaSearcher
from search.core.searchers.rank_searcher import RankSearcher
from search.core.state import Trial
from trainables import Objective, Params


class Searcher(Protocol):
    """Proposes configurations. The engine calls it, live and while it replays a journal."""

    #: Where the configuration that `ask` returned last came from, in words.
    source: str

    def ask(self, number: int) -> Params:
        """Proposes the configuration of trial `number`; numbers come in order."""
        ...

    def replay(self, trial: Trial) -> None:
        """Takes in a trial that an earlier session proposed, as if `ask` had returned it."""
        ...

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        """Takes in the trials of an earlier search, before the first proposal.

        Args:
            first: configurations that are tried before others, as far as they lie in this space.
        """
        ...

    def tell(self, trial: Trial) -> None:
        """Takes in a trial that is over or paused; one that has gone on since may be told again."""
        ...

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """Which of these paused trials, the best first, may come out best in the end; None where no model says."""
        ...


class Grid:
    """Every point of a finite space, each once.

    A search that may end before the last point tries the points in random order, so that the tried ones are spread over
    the grid. Otherwise they come in the order of the file. What the searcher is told changes nothing.
    """

    source = "the next point of the grid"

    def __init__(self, points: list[Params], seed: int, partial: bool) -> None:
        """
        Args:
            partial: whether the search may end before every point was tried.
        """
        order = np.random.default_rng(seed).permutation(len(points)) if partial else range(len(points))
        self._left = [points[index] for index in order]

    def ask(self, number: int) -> Params:
        return self._left.pop(0)

    def replay(self, trial: Trial) -> None:
        # An earlier session may have tried the points in another order, as it had another number of trials.
        if trial.params in self._left:
            self._left.remove(trial.params)

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        pass

    def tell(self, trial: Trial) -> None:
        pass

    def prefer(self, waiting: Sequence[int]) -> int | None:
        return None


def _is_partial(config: SearchConfig, points: int) -> bool:
    search = config.search
    return (search.trials or points) < points or bool(search.time_budget or search.epoch_budget)


def grid_note(config: SearchConfig) -> str | None:
    """A sentence for the user where a search of a grid does not try every point; None otherwise.

    An example: `the grid has 36 points, of which the search tries 8 in random order (--trials 36 tries all)`.
    """
    points = len(config.space.grid(config.place)) if config.search.searcher == "grid" else 0
    if not points or not _is_partial(config, points):
        return None
    trials = config.search.trials
    tried = (
        f"{trials} in random order (--trials {points} tries all)"
        if trials and trials < points
        else ("as many as its budget allows, in random order")
    )
    return f"the grid has {points} points, of which the search tries {tried}"


def make_searcher(config: SearchConfig, objective: Objective) -> tuple[Searcher, float]:
    """The searcher that the configuration names, and the number of trials; infinity where a budget ends the search."""
    search = config.search
    if search.searcher == "grid":
        points = config.space.grid(config.place)
        return Grid(points, search.seed, _is_partial(config, len(points))), min(
            len(points), search.trials or len(points)
        )
    balance = (search.balance, config.balanced) if search.balance and len(config.balanced) > 1 else None
    objectives = config.objectives or (objective,)
    if search.searcher == "ranks":
        return RankSearcher(
            config.space, objectives[0], search.seed, search.epochs, search.startup_trials, search.model_trials,
            balance, search.max_epoch_seconds, rung_epochs(search.grace_period, search.reduction_factor, search.epochs),
        ), search.trials or math.inf  # fmt: skip
    searcher = OptunaSearcher(
        search.searcher, config.space, objectives, search.seed, search.startup_trials, search.model_trials, balance,
        search.max_epoch_seconds,
    )  # fmt: skip
    return searcher, search.trials or math.inf
