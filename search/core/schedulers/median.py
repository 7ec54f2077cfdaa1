"""The median stopping rule."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from search.core.decision import CONTINUE, Decision, go_on, stop
from search.core.schedulers.base import Scheduler, View
from search.core.state import Trial

if TYPE_CHECKING:
    from search.core.settings import SearchSection


class MedianStopping(Scheduler):
    """The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    From `grace_period` on, a trial stops at an epoch if its best loss so far is worse than the median of the other
    trials' running average losses up to that epoch.
    """

    compares = True

    #: The rule needs this many other trials. The paper gives no number; the default of Ray Tune is 3 too.
    min_trials = 3

    def __init__(self, grace_period: int) -> None:
        self.grace_period = grace_period

    @classmethod
    def from_settings(cls, settings: SearchSection) -> MedianStopping:
        return cls(settings.grace_period)

    def decides(self, number: int, epoch: int) -> bool:
        return epoch >= self.grace_period

    def decide(self, study: View, trial: Trial) -> Decision:
        if trial.epoch < self.grace_period:
            return CONTINUE
        averages = self._averages(study, trial)
        if len(averages) < self.min_trials:
            unit = study.unit.name
            return go_on(f"{len(averages)} others reached this {unit}, and the rule needs {self.min_trials}")
        best = min(rung[trial.number] for rung in study.losses.values() if trial.number in rung)
        worse = best > statistics.median(averages)
        side = "worse" if worse else "no worse"
        reason = f"its best is {side} than the median of the {len(averages)} others' averages"
        return stop(reason) if worse else go_on(reason)

    def _averages(self, study: View, trial: Trial) -> list[float]:
        """The running averages up to this epoch of the other trials that reached it."""
        before = study.before(trial)
        others = [n for n in study.losses.get(trial.epoch, {}) if n != trial.number and n < before]
        until = [rung for epoch, rung in study.losses.items() if epoch <= trial.epoch]
        return [statistics.fmean(rung[n] for rung in until if n in rung) for n in others]
