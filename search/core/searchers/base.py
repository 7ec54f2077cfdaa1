"""The interface of searchers, which propose configurations.

A proposal depends only on the seed, the number of the trial and the results so far: each proposal has a freshly seeded
random generator. No random state has to be saved, and a resumed search proposes the same trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from search.core.space import Plain
from search.core.state import Trial
from trainables import Objective, Params

if TYPE_CHECKING:
    from search.core.config import SearchConfig

#: The name of the balanced parameter (`search.balance`), and its values.
Balance = tuple[str, tuple[Plain, ...]]


class Searcher:
    """Proposes configurations. The running search and every replay of the journal call it.

    A searcher of another package subclasses it and overrides `from_config` and `ask` (and `tell` and `replay` if it
    learns). The package offers it as an entry point of the group `search.searchers`.
    """

    #: Whether results change its proposals. Only then `--from NAME` is allowed.
    learns = False
    #: Whether the first trial has the configuration of the priors, and a share of the other trials is drawn from them.
    uses_priors = False
    #: Whether it supports several objectives.
    several_objectives = False
    #: Whether it has a finite number of configurations, so that a search needs neither trials nor a budget.
    is_finite = False
    #: The source of the last proposal in words that follow "proposed:", such as `drawn at random`.
    source = ""
    #: The number of the first trial that it proposes; trials before it have starting configurations of the user.
    begins_at = 0
    #: Configurations of earlier searches to propose before others; see `learn`.
    first: Sequence[Params] = ()

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> Searcher:
        """Makes the searcher of a configuration.

        Args:
            objectives: one objective, or several if `several_objectives`.
        """
        raise NotImplementedError

    @classmethod
    def note(cls, config: SearchConfig) -> str | None:
        """A note for the user about this configuration, such as a grid that is larger than the search; or None."""
        return None

    @property
    def configurations(self) -> int | None:
        """The number of its configurations; None without a limit."""
        return None

    def ask(self, number: int) -> Params:
        """Proposes the configuration of trial `number`. The calls have ascending numbers."""
        raise NotImplementedError

    def replay(self, trial: Trial) -> None:
        """Adds a trial that an earlier session proposed, as if `ask` had returned it."""

    def withdraw(self, number: int) -> None:
        """Removes the proposal of `ask`: the trial has another configuration, which `replay` adds."""

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        """Adds the trials of an earlier search, before the first proposal.

        Args:
            trials: trials with negative numbers. They may have other parameters than this space.
            first: configurations to propose before others. The prior, or a random value, replaces a value outside this
                space.
        """
        self.first = first
        for trial in trials:
            self.replay(trial)
            self.tell(trial)

    def tell(self, trial: Trial) -> None:
        """Adds the results of a trial that is over or paused. A trial that continues is added again later."""

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """The paused trial that may end best; None without a model.

        Args:
            waiting: numbers of paused trials, the best first.
        """
        return None


class WrappedSearcher(Searcher):
    """Proposes what another searcher proposes. A subclass changes some proposals."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    @property
    def configurations(self) -> int | None:
        return self._searcher.configurations

    def ask(self, number: int) -> Params:
        params = self._searcher.ask(number)
        self.source = self._searcher.source
        return params

    def replay(self, trial: Trial) -> None:
        self._searcher.replay(trial)

    def withdraw(self, number: int) -> None:
        self._searcher.withdraw(number)

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        self._searcher.learn(trials, first)
        self.first = self._searcher.first

    def tell(self, trial: Trial) -> None:
        self._searcher.tell(trial)

    def prefer(self, waiting: Sequence[int]) -> int | None:
        return self._searcher.prefer(waiting)


def turn_of(balance: Balance | None, number: int) -> Params:
    """The balanced parameter with its value for trial `number`: the values take turns. Empty without `balance`."""
    if balance is None:
        return {}
    parameter, values = balance
    return {parameter: values[number % len(values)]}


class RecordedSearcher(Searcher):
    """Proposes the configurations of recorded trials again, to read or to simulate a search."""

    source = "the recorded search"

    def __init__(self, trials: Mapping[int, Trial] | None = None) -> None:
        self._trials = trials or {}

    @property
    def configurations(self) -> int:
        return len(self._trials)

    def ask(self, number: int) -> Params:
        return self._trials[number].params
