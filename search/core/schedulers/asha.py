"""Asynchronous successive halving (ASHA): the stopping variant, the promoting variant, and one with a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from search.core.decision import CONTINUE, Decision, go_on, pause, stop
from search.core.schedulers.base import Scheduler, View
from search.core.schedulers.rungs import Losses, first_reliable_rung, rung_epochs
from search.core.state import Trial

if TYPE_CHECKING:
    from search.core.settings import SearchSection


class Asha(Scheduler):
    """The stopping variant of asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    The rungs are the epochs `grace_period * reduction_factor^k` below `max_epochs`. A trial continues if its loss is
    among the best `1 / reduction_factor` (rounded up) of all losses at the rung so far. It stops otherwise.

    Not in the paper: while a rung is unreliable (`first_reliable_rung`), trials pass it, and trials that are paused
    there are not promoted.
    """

    compares = True

    def __init__(self, grace_period: int, reduction_factor: float, max_epochs: int) -> None:
        """
        Args:
            grace_period: epoch of the first rung.
            reduction_factor: one in `reduction_factor` trials at a rung continues.
            max_epochs: epochs of a complete trial.
        """
        self.reduction_factor = reduction_factor
        self.epochs = rung_epochs(grace_period, reduction_factor, max_epochs)

    @classmethod
    def from_settings(cls, settings: SearchSection) -> Asha:
        return cls(settings.grace_period, settings.reduction_factor, settings.epochs)

    def decides(self, number: int, epoch: int) -> bool:
        return epoch in self.epochs

    def decide(self, study: View, trial: Trial) -> Decision:
        if trial.epoch not in self.epochs:
            return CONTINUE
        before, loss = study.before(trial), study.loss(trial)
        # Ranks instead of an interpolated percentile: equal losses then have equal decisions. The trial itself counts:
        # of the first `reduction_factor` trials at a rung only the best so far continues.
        others = [v for n, v in study.losses.get(trial.epoch, {}).items() if n != trial.number and n < before]
        better, trials = sum(value < loss for value in others), len(others) + 1
        rank = f"{_ordinal(1 + better)} of {trials} at {study.unit.at(trial.epoch)}"
        if trial.epoch < first_reliable_rung(self.epochs, study.losses, before):
            return go_on(f"{rank}; ranks there contradict later ones, so trials pass without being compared")
        return self._by_rank(study, rank, better, trials)

    def _by_rank(self, study: View, rank: str, better: int, trials: int) -> Decision:
        """The decision at a reliable rung.

        Args:
            rank: the trial's rank in words.
            better: number of trials with a smaller loss.
            trials: number of trials at the rung, this one included.
        """
        places = math.ceil(trials / self.reduction_factor)
        reason = f"{rank}; the best {'trial continues' if places == 1 else f'{places} continue'}"
        return stop(reason) if better >= places else go_on(reason)

    def rungs(self, study: View) -> Losses:
        return {epoch: study.losses.get(epoch, {}) for epoch in self.epochs}


class PromotingAsha(Asha):
    """The promoting variant (algorithm 2 of the paper): a trial pauses at each rung.

    It is promoted once its loss is among the best `1 / reduction_factor` (rounded down) at its rung. Trials at the
    highest rung come first. When nothing else is left to train, the best trial of each rung is promoted.
    """

    pauses_trials = True

    def _by_rank(self, study: View, rank: str, better: int, trials: int) -> Decision:
        return pause(f"{rank}; {self._promoted_in_words(self._places(study, trials))}")

    def _places(self, study: View, trials: int) -> int:
        """The number of trials at a rung that may be promoted. At the end it is at least 1."""
        return max(int(trials / self.reduction_factor), int(study.is_last))

    def _promoted_in_words(self, places: int) -> str:
        if not places:
            return "too few trials to promote one"
        return "the best trial is promoted" if places == 1 else f"the best {places} are promoted"

    def next_promotion(self, study: View) -> int | None:
        paused, reliable = study.paused(), first_reliable_rung(self.epochs, study.losses)
        for epoch, rung in reversed(self.rungs(study).items()):
            if epoch < reliable and not study.is_last:
                continue
            places = self._places(study, len(rung))
            ranked = sorted(rung, key=lambda n: (rung[n], n))
            if study.is_last and ranked and paused.get(ranked[0]) == epoch:
                return ranked[0]  # a worse trial may have taken the only place before this trial reported
            waiting = [number for number in ranked if paused.get(number) == epoch]
            if waiting and (number := self._choose(study, ranked, waiting, places)) is not None:
                return number
        return None

    def _choose(self, study: View, ranked: list[int], waiting: list[int], places: int) -> int | None:
        """The trial at a rung that is promoted next; None if no place is free.

        Args:
            ranked: numbers of all trials at the rung, the best first.
            waiting: those of them that are paused.
            places: number of trials at the rung that may be promoted.
        """
        return next((number for number in ranked[:places] if number in waiting), None)


class PredictingAsha(PromotingAsha):
    """Promotes the same number of trials as `PromotingAsha`; rank and the searcher's model take turns.

    So a configuration that begins slowly can be promoted if similar configurations ended well. The ranks and the model
    both make errors, so they take turns. Searches of the benchmark `curves` took on average 0.24 of the epochs of
    random search, and 0.28 by ranks alone (benchmarks/early_stopping.md).
    """

    def _promoted_in_words(self, places: int) -> str:
        if places > 1:
            return f"{places} are promoted, alternately the best by rank and the best by the model's forecast"
        return super()._promoted_in_words(places)

    def _choose(self, study: View, ranked: list[int], waiting: list[int], places: int) -> int | None:
        promoted = len(ranked) - len(waiting)
        if promoted >= places:
            return None
        preferred = study.prefer(waiting) if promoted % 2 else None
        return waiting[0] if preferred is None else preferred


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if number % 100 in (11, 12, 13) else number % 10, "th")
    return f"{number}{ending}"
