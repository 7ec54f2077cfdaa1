"""Asynchronous Hyperband: brackets of ASHA with different first rungs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from search.core.decision import CONTINUE, Decision
from search.core.schedulers.asha import Asha
from search.core.schedulers.base import Scheduler, View
from search.core.schedulers.rungs import Losses, merge_rungs
from search.core.state import Trial

if TYPE_CHECKING:
    from search.core.settings import SearchSection


class Hyperband(Scheduler):
    """Asynchronous Hyperband (Li et al. 2020, section 3.3): brackets of ASHA, each with a later first rung.

    The bracket of a trial depends only on its number. The share of bracket `s` is proportional to
    `reduction_factor^-s`: each of its trials trains `reduction_factor^s` times longer before its first rung.
    """

    compares = True

    def __init__(self, grace_period: int, reduction_factor: float, max_epochs: int, brackets: int) -> None:
        first_rungs = [grace_period * reduction_factor**s for s in range(brackets)]
        self._brackets = [Asha(round(f), reduction_factor, max_epochs) for f in first_rungs if f < max_epochs]
        weights = [reduction_factor**-s for s in range(len(self._brackets))]
        self._shares = [w / sum(weights) for w in weights]
        self._assigned: list[int] = []

    @classmethod
    def from_settings(cls, settings: SearchSection) -> Hyperband:
        return cls(settings.grace_period, settings.reduction_factor, settings.epochs, settings.brackets)

    def bracket(self, number: int) -> int:
        """The bracket of trial `number`: the one that is furthest below its share of the trials before."""
        while len(self._assigned) <= number:
            total = len(self._assigned) + 1
            behind = [total * share - self._assigned.count(s) for s, share in enumerate(self._shares)]
            self._assigned.append(behind.index(max(behind)))
        return self._assigned[number]

    def decides(self, number: int, epoch: int) -> bool:
        return bool(self._brackets) and self._brackets[self.bracket(number)].decides(number, epoch)

    def decide(self, study: View, trial: Trial) -> Decision:
        if not self.decides(trial.number, trial.epoch):
            return CONTINUE
        bracket = self.bracket(trial.number)
        decision = self._brackets[bracket].decide(_BracketView(study, self, bracket), trial)
        return decision._replace(reason=f"{decision.reason} (bracket {bracket})")

    def rungs(self, study: View) -> Losses:
        return merge_rungs(b.rungs(_BracketView(study, self, number)) for number, b in enumerate(self._brackets))


class _BracketView:
    """A study with the trials of one bracket."""

    def __init__(self, study: View, hyperband: Hyperband, bracket: int) -> None:
        self._study = study
        self.loss, self.before, self.paused, self.prefer = study.loss, study.before, study.paused, study.prefer
        self.is_last, self.unit = study.is_last, study.unit
        self.losses: Mapping[int, dict[int, float]] = _BracketLosses(study.losses, hyperband, bracket)


class _BracketLosses(Mapping[int, dict[int, float]]):
    """The losses of one bracket. An epoch is filtered when it is read, as most epochs are never read."""

    def __init__(self, losses: Mapping[int, dict[int, float]], hyperband: Hyperband, bracket: int) -> None:
        self._losses, self._hyperband, self._bracket = losses, hyperband, bracket

    def __getitem__(self, epoch: int) -> dict[int, float]:
        return {n: v for n, v in self._losses[epoch].items() if self._hyperband.bracket(n) == self._bracket}

    def __iter__(self) -> Iterator[int]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)
