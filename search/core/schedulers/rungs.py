"""Rungs: the epochs at which trials are compared, and whether the ranks at a rung are reliable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from search.core.pareto import places

#: Epoch -> trial number -> loss.
Losses = dict[int, dict[int, float]]
#: Judge a rung unreliable only after this many of its trials reached a later epoch. On the tables of the benchmark
#: `curves` where early epochs mislead, searches took 0.705 of the epochs of random search with 8 trials, 0.587 with 7,
#: 0.609 with 6 and 0.612 with 5. On the other tables 6 instead of 8 changed 0.000 +- 0.007 (benchmarks/tried.md).
MIN_TRIALS = 6
#: Compare at most this many trials, the newest. It bounds the cost of a decision: 0.04 ms for 100 trials.
MAX_TRIALS = 100
#: A rung is unreliable below this rank correlation (Spearman) with the later epoch. Trials reached the later epoch
#: because they were good at the rung. This selection lowers the correlation of reliable rungs too, but rarely this far.
#: The thresholds 0, -0.25 and -0.4 took 0.590, 0.609 and 0.600 of the epochs of random search (benchmarks/tried.md).
UNRELIABLE = -0.25


class Standings(Mapping[int, dict[int, float]]):
    """Epoch -> trial number -> the number by which trials are compared at this epoch; the smaller number is better.

    With one objective it is the loss. With several objectives it is the place among the trials at this epoch (see
    `pareto.places`), which changes when other trials report. The epochs are in the order of the reports.
    """

    def __init__(self) -> None:
        #: Epoch -> trial number -> the loss of each objective.
        self.losses: dict[int, dict[int, tuple[float, ...]]] = {}
        #: The standings of the epochs that did not change since they were read.
        self._known: Losses = {}

    def add(self, number: int, epoch: int, losses: tuple[float, ...]) -> None:
        """Adds the losses of an epoch, or replaces the same losses."""
        self.losses.setdefault(epoch, {})[number] = losses
        if len(losses) == 1 and epoch in self._known:  # no other trial changes: with many trials a rebuild takes long
            self._known[epoch][number] = losses[0]
        else:
            self._known.pop(epoch, None)

    def remove(self, number: int) -> None:
        """Forgets a trial."""
        for epoch, losses in self.losses.items():
            if losses.pop(number, None) is not None:
                self._known.pop(epoch, None)

    def among(self, numbers: Callable[[int], bool]) -> Standings:
        """The standings of some of the trials among each other."""
        some = Standings()
        for epoch, losses in self.losses.items():
            some.losses[epoch] = {number: own for number, own in losses.items() if numbers(number)}
        return some

    def __getitem__(self, epoch: int) -> dict[int, float]:
        if epoch not in self._known:
            self._known[epoch] = _compared(self.losses[epoch])
        return self._known[epoch]

    def __iter__(self) -> Iterator[int]:
        return iter(self.losses)

    def __len__(self) -> int:
        return len(self.losses)


def _compared(losses: dict[int, tuple[float, ...]]) -> dict[int, float]:
    """The numbers of one epoch, in the order of the reports. Their order does not change the places."""
    if all(len(own) == 1 for own in losses.values()):
        return {number: own[0] for number, own in losses.items()}
    numbers = sorted(losses)
    by_number = dict(zip(numbers, places(np.array([losses[number] for number in numbers])).tolist(), strict=True))
    return {number: by_number[number] for number in losses}


def rung_epochs(grace_period: int, reduction_factor: float, max_epochs: int) -> list[int]:
    """The epochs `grace_period * reduction_factor^k` below `max_epochs`.

    >>> rung_epochs(2, 3, 20)
    [2, 6, 18]
    """
    epochs, level = [], float(grace_period)
    while level < max_epochs:
        epochs.append(round(level))
        level *= reduction_factor
    return epochs


def merge_rungs(parts: Iterable[Losses]) -> Losses:
    """The losses of several sets of trials together, by ascending epoch."""
    merged: Losses = {}
    for losses in parts:
        for epoch, rung in losses.items():
            merged.setdefault(epoch, {}).update(rung)
    return dict(sorted(merged.items()))


def first_reliable_rung(
    rungs: Sequence[int], losses: Mapping[int, Mapping[int, float]], before: float = math.inf
) -> int:
    """The epoch of the first reliable rung; 0 if the first rung is reliable, or if no rung is.

    A rung is unreliable if its ranks contradict the ranks at a later epoch: the furthest epoch that at least
    `MIN_TRIALS` of its trials reached. They contradict each other if their rank correlation is below `UNRELIABLE`.

    Args:
        rungs: epochs, ascending.
        losses: at any epochs.
        before: compare only trials with smaller numbers.
    """
    for index, rung in enumerate(rungs):
        if not _is_unreliable(rung, losses, before):
            return rung if index else 0
    return 0


def _is_unreliable(rung: int, losses: Mapping[int, Mapping[int, float]], before: float) -> bool:
    here = losses.get(rung, {})
    for later in sorted((epoch for epoch in losses if epoch > rung), reverse=True):
        there = losses[later]
        both = list(islice((n for n in reversed(list(there)) if n in here and n < before), MAX_TRIALS))
        if len(both) >= MIN_TRIALS:
            # Ranks by double argsort: 0.04 ms for 100 trials, where scipy.stats.spearmanr takes 1.9 ms.
            ranks = [np.argsort(np.argsort([at[n] for n in both], kind="stable")) for at in (here, there)]
            squares = int(((ranks[0] - ranks[1]) ** 2).sum())
            return 1 - 6 * squares / (len(both) * (len(both) ** 2 - 1)) < UNRELIABLE
    return False
