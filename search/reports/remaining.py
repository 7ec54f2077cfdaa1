"""Forecasts the epochs that the trials of a running search still have to train."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isinf
from statistics import fmean

from search.core.config import SearchConfig
from search.core.registry import SCHEDULERS
from search.core.state import Trial


def epochs_to_go(trials: Sequence[Trial], total: float, config: SearchConfig, rungs: Sequence[int]) -> float | None:
    """Forecasts the epochs that are left.

    Args:
        trials: the proposed trials.
        total: the number of trials of the search; infinite if a budget ends the search.
        rungs: the epochs at which trials are compared, ascending.

    Returns:
        None if no forecast is possible: only a time budget ends the search, or trials may stop early and no trial has
        ended.
    """
    search = config.search
    spent = sum(trial.epoch for trial in trials)
    left = inf if search.epoch_budget is None else max(0.0, search.epoch_budget - spent)
    if isinf(total):
        return None if isinf(left) else left
    scheduler = SCHEDULERS.get(search.scheduler)
    if scheduler.pauses_trials:
        expected = _promoted(trials, int(total), len(config.balanced), search.reduction_factor, [*rungs, search.epochs])
    else:
        over = [trial.epoch for trial in trials if trial.over]
        if not over and scheduler.compares:
            return None if isinf(left) else left
        each = fmean(over) if scheduler.compares else search.epochs
        coming = (total - len(trials)) * each
        expected = coming + sum(max(0.0, each - trial.epoch) for trial in trials if not trial.over)
    return min(left, expected)


def _promoted(trials: Sequence[Trial], total: int, kinds: int, factor: float, levels: Sequence[int]) -> float:
    """Epochs that are left if the best `1 / factor` of the trials at a rung continue to the next rung.

    Example: 18 trials, factor 3, levels 2, 6 and 12. Then 18 trials train 2 epochs, 6 of them train 4 more, and 2 of
    these train 6 more. If more trials have already passed a rung, their number is used instead.

    Args:
        kinds: the number of balanced values; each has its own rungs.
        levels: the epochs of the rungs, and the last epoch.
    """
    left, before, coming = 0.0, 0, float(total)
    for level in levels:
        begun = [trial for trial in trials if trial.epoch > before or (trial.epoch == before and not trial.idle)]
        missing = max(0.0, coming - (len(begun) if before else len(trials)))
        left += missing * (level - before)
        left += sum(level - trial.epoch for trial in begun if not trial.idle and trial.epoch < level)
        coming = kinds * max(1, int(max(coming, len(begun)) / kinds / factor))
        before = level
    return left
