"""Asynchronous successive halving, which stops trials or pauses them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from search.core.schedulers.base import Preference, Scheduler, no_preference
from search.core.schedulers.rungs import Losses, rung_epochs, trusted_from


class Asha(Scheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    Rungs stand at the epochs `grace_period * reduction_factor^k` below `max_epochs`. A trial that reaches a rung is
    recorded there. The stopping variant lets it go on if it is among the best `1 / reduction_factor` (rounded up) of
    those recorded so far, and ends it otherwise. The promoting variant (their algorithm 2) pauses it, and lets it go on
    once it is among the best `1 / reduction_factor` (rounded down); trials at the highest rung come first.

    With `predicts`, as many go on, but the searcher's model chooses every second one: configurations that begin slowly
    are not lost where it has seen such ones come out well.

    Trials pass a rung, and none of those that wait there goes on, while it misleads (`trusted_from`).
    """

    def __init__(
        self,
        grace_period: int,
        reduction_factor: float,
        max_epochs: int,
        promotes: bool = False,
        predicts: bool = False,
    ) -> None:
        self.reduction_factor, self.promotes, self.predicts = reduction_factor, promotes, predicts
        self._epochs = rung_epochs(grace_period, reduction_factor, max_epochs)
        self._losses: Losses = {epoch: {} for epoch in self._epochs}

    def decides(self, number: int, epoch: int) -> bool:
        return epoch in self._epochs

    def should_stop(self, number: int, epoch: int, loss: float, before: float = math.inf) -> bool:
        if self.promotes or not self.decides(number, epoch) or epoch < self._trusted_from(before):
            return False
        # By rank, not by an interpolated percentile: it is exact, and equal losses share a fate. The trial itself
        # counts, so that among the first reduction_factor trials only the best so far goes on.
        others = [value for trial, value in self._losses[epoch].items() if trial != number and trial < before]
        places = math.ceil((len(others) + 1) / self.reduction_factor)
        return sum(value < loss for value in others) >= places

    def pauses(self, number: int, epoch: int) -> bool:
        return self.promotes and self.decides(number, epoch) and epoch >= self._trusted_from()

    def standing(self, number: int, epoch: int, loss: float, before: float = math.inf) -> str:
        others = [value for trial, value in self._losses[epoch].items() if trial != number and trial < before]
        rank, of = 1 + sum(value < loss for value in others), len(others) + 1
        places = int(of / self.reduction_factor) if self.promotes else math.ceil(of / self.reduction_factor)
        if epoch < self._trusted_from(before):
            return f"{_ordinal(rank)} of {of} at this rung, whose ranks do not hold later: trials pass it for now"
        goes = f"{_counted(places, 'goes', 'go')} on" if places else "none goes on yet"
        if self.predicts and places > 1:
            goes = f"{places} go on, every second one by the model"
        return f"{_ordinal(rank)} of {of} at this rung, where {goes}"

    def promoted(
        self, paused: Mapping[int, int], left: Collection[int] | None, prefer: Preference = no_preference
    ) -> int | None:
        since = self._trusted_from()
        for epoch, rung in reversed(self.rungs().items()):
            if epoch < since and (left is None or left):
                continue
            # With nothing else left to do, the best of each rung goes on; with few trials none would get far otherwise.
            last = left is not None and not left
            places = max(int(len(rung) / self.reduction_factor), int(last))
            ranked = sorted(rung, key=lambda n: (rung[n], n))
            if last and ranked and paused.get(ranked[0]) == epoch:
                return ranked[0]  # another one may have taken its place before it came
            if self.predicts:
                waiting = [number for number in ranked if paused.get(number) == epoch]
                if waiting and (gone_on := len(ranked) - len(waiting)) < places:
                    preferred = prefer(waiting) if gone_on % 2 else None  # in turns, as rank and model both err
                    return waiting[0] if preferred is None else preferred
            elif promotable := [number for number in ranked[:places] if paused.get(number) == epoch]:
                return promotable[0]
        return None

    def record(self, number: int, epoch: int, loss: float) -> None:
        self._losses.setdefault(epoch, {})[number] = loss

    def remove(self, number: int) -> None:
        for losses in self._losses.values():
            losses.pop(number, None)

    def rungs(self) -> Losses:
        return {epoch: self._losses[epoch] for epoch in self._epochs}

    def _trusted_from(self, before: float = math.inf) -> int:
        return trusted_from(self._epochs, self._losses, before)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if number % 100 in (11, 12, 13) else number % 10, "th")
    return f"{number}{ending}"


def _counted(count: int, one: str, several: str) -> str:
    return f"the best {one}" if count == 1 else f"the best {count} {several}"
