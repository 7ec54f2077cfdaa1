"""When a trial stops early. Each rule is a function of the results that it was told; a replay restores it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from search.core.config import SearchConfig
from search.core.schedulers.asha import Asha
from search.core.schedulers.base import Preference, Scheduler, no_preference
from search.core.schedulers.rungs import Losses
from search.core.searchers.priors import first_from_priors
from search.core.settings import SearchSection


class Hyperband(Scheduler):
    """Asynchronous Hyperband (Li et al. 2020, section 3.3): brackets of ASHA, each with a later first rung.

    A trial's bracket follows from its number alone. Bracket s gets a share of the trials in proportion to
    `reduction_factor^-s`, as each of its trials costs that many times more before it may be stopped.
    """

    def __init__(self, grace_period: int, reduction_factor: float, max_epochs: int, brackets: int) -> None:
        firsts = [grace_period * reduction_factor**s for s in range(brackets)]
        self._brackets = [Asha(round(f), reduction_factor, max_epochs) for f in firsts if f < max_epochs]
        weights = [reduction_factor**-s for s in range(len(self._brackets))]
        self._shares = [w / sum(weights) for w in weights]
        self._assigned: list[int] = []

    def bracket(self, number: int) -> int:
        """The bracket of trial `number`: the one that was furthest behind its share when the trial came."""
        while len(self._assigned) <= number:
            total = len(self._assigned) + 1
            behind = [total * share - self._assigned.count(s) for s, share in enumerate(self._shares)]
            self._assigned.append(behind.index(max(behind)))
        return self._assigned[number]

    def decides(self, number: int, epoch: int) -> bool:
        return bool(self._brackets) and self._brackets[self.bracket(number)].decides(number, epoch)

    def should_stop(self, number: int, epoch: int, loss: float, before: float = math.inf) -> bool:
        if not self._brackets:
            return False
        return self._brackets[self.bracket(number)].should_stop(number, epoch, loss, before)

    def standing(self, number: int, epoch: int, loss: float, before: float = math.inf) -> str:
        bracket = self.bracket(number)
        return f"{self._brackets[bracket].standing(number, epoch, loss, before)} (bracket {bracket})"

    def record(self, number: int, epoch: int, loss: float) -> None:
        if self._brackets:
            self._brackets[self.bracket(number)].record(number, epoch, loss)

    def remove(self, number: int) -> None:
        for bracket in self._brackets:
            bracket.remove(number)

    def rungs(self) -> Losses:
        return _merged(self._brackets)


class MedianStopping(Scheduler):
    """The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    A trial stops at an epoch if its best loss so far is worse than the median of the other trials' running
    average losses up to that epoch; not before `grace_period`, nor with fewer than `min_trials` to compare with.
    """

    min_trials = 3

    def __init__(self, grace_period: int) -> None:
        self.grace_period = grace_period
        self._curves: dict[int, dict[int, float]] = {}

    def decides(self, number: int, epoch: int) -> bool:
        return epoch >= self.grace_period

    def should_stop(self, number: int, epoch: int, loss: float, before: float = math.inf) -> bool:
        others = self._averages(number, epoch, before)
        if not self.decides(number, epoch) or len(others) < self.min_trials:
            return False
        return self._best(number, epoch, loss) > statistics.median(others)

    def standing(self, number: int, epoch: int, loss: float, before: float = math.inf) -> str:
        others = self._averages(number, epoch, before)
        if len(others) < self.min_trials:
            return f"{len(others)} others got here, and the rule waits for {self.min_trials}"
        side = "worse" if self._best(number, epoch, loss) > statistics.median(others) else "no worse"
        return f"its best is {side} than the median of the {len(others)} others' averages"

    def _best(self, number: int, epoch: int, loss: float) -> float:
        """The trial's best loss, this one included."""
        return min({**self._curves.get(number, {}), epoch: loss}.values())

    def _averages(self, number: int, epoch: int, before: float) -> list[float]:
        """The running averages up to this epoch of the other trials that got here."""
        return [
            statistics.fmean(value for at, value in other.items() if at <= epoch)
            for trial, other in self._curves.items()
            if trial != number and trial < before and epoch in other
        ]

    def record(self, number: int, epoch: int, loss: float) -> None:
        self._curves.setdefault(number, {})[epoch] = loss

    def remove(self, number: int) -> None:
        self._curves.pop(number, None)


class Separate(Scheduler):
    """One scheduler for each kind of trial, where trial `number` is of kind `number % len(kinds)`."""

    def __init__(self, kinds: list[Scheduler]) -> None:
        self._kinds = kinds

    def _of(self, number: int) -> Scheduler:
        return self._kinds[number % len(self._kinds)]

    def decides(self, number: int, epoch: int) -> bool:
        return self._of(number).decides(number, epoch)

    def pauses(self, number: int, epoch: int) -> bool:
        return self._of(number).pauses(number, epoch)

    def promoted(
        self, paused: Mapping[int, int], left: Collection[int] | None, prefer: Preference = no_preference
    ) -> int | None:
        """A trial of the kind with the fewest recorded results, so that each kind gets its share."""
        for kind in sorted(self._kinds, key=lambda kind: sum(len(rung) for rung in kind.rungs().values())):
            own = None if left is None else [number for number in left if self._of(number) is kind]
            if (number := kind.promoted(paused, own, prefer)) is not None:
                return number
        return None

    def should_stop(self, number: int, epoch: int, loss: float, before: float = math.inf) -> bool:
        return self._of(number).should_stop(number, epoch, loss, before)

    def standing(self, number: int, epoch: int, loss: float, before: float = math.inf) -> str:
        return self._of(number).standing(number, epoch, loss, before)

    def record(self, number: int, epoch: int, loss: float) -> None:
        self._of(number).record(number, epoch, loss)

    def remove(self, number: int) -> None:
        self._of(number).remove(number)

    def rungs(self) -> Losses:
        return _merged(self._kinds)


class Trusting(Scheduler):
    """A scheduler that never stops or pauses the first `count` trials: the configurations that experts would try first.

    Whatever early epochs say, the result is then no worse than theirs.
    """

    def __init__(self, inner: Scheduler, count: int) -> None:
        self._inner, self._count = inner, count
        self.decides, self.promoted = inner.decides, inner.promoted  # type: ignore[method-assign]
        self.record, self.remove, self.rungs = inner.record, inner.remove, inner.rungs  # type: ignore[method-assign]

    def should_stop(self, number: int, epoch: int, loss: float, before: float = math.inf) -> bool:
        return number >= self._count and self._inner.should_stop(number, epoch, loss, before)

    def pauses(self, number: int, epoch: int) -> bool:
        return number >= self._count and self._inner.pauses(number, epoch)

    def standing(self, number: int, epoch: int, loss: float, before: float = math.inf) -> str:
        said = self._inner.standing(number, epoch, loss, before)
        return said if number >= self._count else f"{said}; as what an expert would try first it goes on anyway"


def _merged(schedulers: Sequence[Scheduler]) -> Losses:
    merged: Losses = {}
    for scheduler in schedulers:
        for epoch, rung in scheduler.rungs().items():
            merged.setdefault(epoch, {}).update(rung)
    return dict(sorted(merged.items()))


def make_scheduler(config: SearchConfig) -> Scheduler:
    """The scheduler that the configuration names; one for each balanced value."""
    kinds = [_make_one(config.search) for _ in config.balanced]
    scheduler = kinds[0] if len(kinds) == 1 else Separate(kinds)
    expert = config.search.searcher in ("ranks", "tpe", "gp")
    first = first_from_priors(config.space, len(config.balanced)) if expert else 0
    return Trusting(scheduler, first) if first else scheduler


def _make_one(search: SearchSection) -> Scheduler:
    if search.scheduler in ("asha", "asha-promote", "asha-predict"):
        promotes, predicts = search.scheduler != "asha", search.scheduler == "asha-predict"
        return Asha(search.grace_period, search.reduction_factor, search.epochs, promotes, predicts)
    if search.scheduler == "hyperband":
        return Hyperband(search.grace_period, search.reduction_factor, search.epochs, search.brackets)
    if search.scheduler == "median":
        return MedianStopping(search.grace_period)
    return Scheduler()
