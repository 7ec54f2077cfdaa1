"""The interface of searchers, which propose configurations.

A proposal depends on the seed, the trial's number and the trials that the searcher was told, and on nothing else: each
proposal gets a freshly seeded sampler. No random state has to be saved, and a resumed search proposes the same trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from search.core.state import Trial
from trainables import Objective, Params

if TYPE_CHECKING:
    from search.core.config import SearchConfig


class Searcher:
    """Proposes configurations. The running search calls it, and so does every replay of the journal.

    A searcher of another package subclasses it, overrides `from_config` and `ask` (and `tell`, `replay` where it
    learns), and is offered as an entry point of the group `search.searchers`.
    """

    #: Whether the trials that it is told change its proposals. Only such a searcher takes `--from NAME`.
    learns = False
    #: Whether the first trial has the priors' own configuration, and further trials are drawn from the priors.
    uses_priors = False
    #: Whether it takes several objectives.
    several_objectives = False
    #: Whether it has a finite number of configurations, so that a search needs neither trials nor a budget.
    is_finite = False
    #: Where the last proposal of `ask` comes from, in words, such as `the model of the ranks of 12 results`.
    source = ""

    @classmethod
    def from_config(cls, config: SearchConfig, objectives: Sequence[Objective]) -> Searcher:
        """Makes it from a configuration.

        Args:
            objectives: one, or several where `several_objectives`.
        """
        raise NotImplementedError

    @classmethod
    def note(cls, config: SearchConfig) -> str | None:
        """A sentence for the user on what it will do with this configuration; None where there is nothing to say."""
        return None

    @property
    def configurations(self) -> int | None:
        """The number of configurations that it has; None where there is no limit."""
        return None

    def ask(self, number: int) -> Params:
        """Proposes the configuration of trial `number`; numbers come in order."""
        raise NotImplementedError

    def replay(self, trial: Trial) -> None:
        """Takes in a trial that an earlier session proposed, as if `ask` had returned it."""

    def withdraw(self, number: int) -> None:
        """Takes back what `ask` returned: the trial gets another configuration, which `replay` brings."""

    def learn(self, trials: list[Trial], first: Sequence[Params] = ()) -> None:
        """Takes in the trials of an earlier search, before the first proposal.

        Args:
            trials: their numbers are below zero.
            first: configurations to try before others, as far as they lie in this space.
        """
        for trial in trials:
            self.replay(trial)
            self.tell(trial)

    def tell(self, trial: Trial) -> None:
        """Takes in a trial that is over or paused. A trial that continued since may be told again."""

    def prefer(self, waiting: Sequence[int]) -> int | None:
        """Which of these paused trials, the best first, may end best; None where no model says."""
        return None


class RecordedSearcher(Searcher):
    """Proposes the configurations of recorded trials again, for those who read or simulate a search."""

    source = "the recorded search"

    def __init__(self, trials: Mapping[int, Trial] | None = None) -> None:
        self._trials = trials or {}

    @property
    def configurations(self) -> int:
        return len(self._trials)

    def ask(self, number: int) -> Params:
        return self._trials[number].params
