"""A `View` of trials whose losses a test gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from search.core.decision import Decision
from search.core.schedulers.base import Scheduler
from search.core.state import Trial
from trainables.base.unit import Unit


class Losses:
    """Trials with a loss at each epoch, as `schedulers.base.View` shows them."""

    def __init__(self) -> None:
        self.losses: dict[int, dict[int, float]] = {}
        self.waiting: dict[int, int] = {}
        self.is_last, self.unit = False, Unit(None)
        self.compared_before = math.inf
        self.prefer: Callable[[Sequence[int]], int | None] = lambda waiting: None

    def add(self, epoch: int, losses: Mapping[int, float]) -> Losses:
        for number, loss in losses.items():
            self.losses.setdefault(epoch, {})[number] = loss
        return self

    def loss(self, trial: Trial) -> float:
        return trial.curve[trial.epoch]["loss"]

    def before(self, trial: Trial) -> float:
        return self.compared_before

    def paused(self) -> dict[int, int]:
        return self.waiting

    def report(self, scheduler: Scheduler, number: int, epoch: int, loss: float) -> Decision:
        """Adds a loss and returns the scheduler's decision on the trial."""
        self.add(epoch, {number: loss})
        return scheduler.decide(self, Trial(number, {}, 0, curve={epoch: {"loss": loss}}))
