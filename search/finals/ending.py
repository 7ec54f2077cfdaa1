"""What follows the trials within a time budget: how much of it fits, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isinf

from search.engine.placement import Placement
from search.engine.search import Search
from search.record.state import Trial
from trainables import Fusable, Splits, get_task

#: Shares of a budget that the final training, and everything after the trials, may take at most.
RETRAIN, EVERYTHING = 0.4, 0.5
#: Seconds around the trainings: a worker's start, test, pictures, export, registration, the way out.
AROUND = 25.0
#: What several seeds that train as one batched model take, as a share of what they take one after the other.
FUSED = 0.6
#: Trainings are forecast from the epochs of trials, whose speed varies.
MARGIN = 1.1


@dataclass(frozen=True)
class Ending:
    """What follows the trials.

    Attributes:
        seeds: number of seeds of the comparison of balanced values.
        retrain: whether the best configuration is trained on train and validation; else its trial's model is tested.
        seconds: that it will take; 0 without a budget.
    """

    seeds: int
    retrain: bool
    seconds: float


def plan_ending(search: Search, splits: Splits, placement: Placement, budget: float, alone: float) -> Ending:
    """Plans what follows the trials, as the search stands; the comparison gives way first, then the final training.

    Args:
        budget: seconds of the whole command; infinite without one.
        alone: how many times as long an epoch takes as the only training, with the cores of all.
    """
    settings, state = search.config.search, search.state
    wanted = settings.compare_seeds if len(search.config.balanced) > 1 else 0
    found = state.finalists(search.config.window)
    if isinf(budget) or not found:
        return Ending(wanted, True, 0.0 if isinf(budget) else AROUND)
    (best, epochs), sizes = found[0], splits.info.sizes
    more = (sizes["train"] + sizes["val"]) / sizes["train"]
    rounds = ceil(settings.retrain_seeds / placement.concurrency)
    speed = alone if settings.retrain_seeds == 1 else 1.0
    final = MARGIN * rounds * _pace(best) * epochs * more * speed
    retrain = final <= RETRAIN * budget
    seconds = AROUND + (final if retrain else 0.0)
    seeds = wanted
    while seeds and seconds + _comparison(search, placement, seeds) > EVERYTHING * budget:
        seeds -= 1
    if seeds < 2:  # one seed says nothing of the spread
        return Ending(0, retrain, seconds)
    return Ending(seeds, retrain, seconds + _comparison(search, placement, seeds))


def _pace(trial: Trial) -> float:
    return trial.seconds / trial.epoch


def _comparison(search: Search, placement: Placement, seeds: int) -> float:
    """Seconds of the comparison of the balanced values with so many seeds."""
    config, state = search.config, search.state
    best = [state.best(config.search.balance, value) for value in config.balanced]
    together = isinstance(get_task(config.task), Fusable)
    share = FUSED if together else 1.0
    each = [MARGIN * share * seeds * config.search.epochs * _pace(trial) for trial in best if trial is not None]
    return max([sum(each) / placement.concurrency, *(each if together else ())], default=0.0) + AROUND / 2
