"""What follows the trials within a time budget: how much of it fits, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, isinf

from search.core.state import Trial
from search.runtime.budget import Budget
from search.runtime.pace import measure_final
from search.runtime.placement import Placement
from search.runtime.search import Search
from trainables import Fusable, Splits

#: Shares of a budget that the final training, and everything after the trials, may take at most; and the final training
#: where it gains by more epochs than its trial had, which is more than a few more trials would bring, and where no
#: comparison was asked for.
RETRAIN, EVERYTHING, GROWING = 0.4, 0.5, 0.6
#: Seconds around the final training (a worker's start, test, pictures, export, registration, the way out): so many
#: starts of a worker, which tells this machine's pace, between these.
STARTS, AROUND, MOST_AROUND = 4.0, 20.0, 45.0
#: With less time left than this after the trials, an epoch of the final training is not measured: it takes ten seconds.
SHORT = 60.0
#: What several seeds that train as one batched model take, as a share of what they take one after the other.
FUSED = 0.6
#: What a sample takes in validation, as a share of what it takes in training: the way there without the way back. An
#: epoch of a trial has both.
FORWARD = 1 / 3
#: Trainings are forecast from the epochs of trials, whose speed varies.
MARGIN = 1.1


@dataclass(frozen=True)
class Measured:
    """What the command measured.

    Attributes:
        most_epochs: that the final training may have.
        alone: how many times as long an epoch takes as the only training, with the cores of all.
        worker_start: seconds in which a worker starts.
        epoch: seconds of an epoch of the final training; None: not measured, it is forecast from those of trials.
    """

    most_epochs: int
    alone: float = 1.0
    worker_start: float = 0.0
    epoch: float | None = None


@dataclass(frozen=True)
class Ending:
    """What follows the trials.

    Attributes:
        seeds: number of seeds of the comparison of balanced values.
        retrain: whether the best configuration is trained on train and validation; else its trial's model is tested.
        epochs: of the final training, where the budget says so; None: as many as were best in the search.
        seconds: that it will take; 0 without a budget.
    """

    seeds: int
    retrain: bool
    epochs: int | None
    seconds: float


def plan_ending(search: Search, splits: Splits, placement: Placement, budget: Budget, measured: Measured) -> Ending:
    """Plans what follows the trials, as the search stands; the comparison gives way first, then the final training.

    Where the best trial still improved at the end of its epochs (and, where it was cut off, most complete trials at
    theirs), the final training has more of them: `measured.most_epochs`, if the time that is left holds them. Where
    that does not hold the best trial's own, it has as many as fit, if these are as many steps: its epochs have
    validation in them too.
    """
    settings, state = search.config.search, search.state
    wanted = settings.compare_seeds if len(search.config.balanced) > 1 else 0
    window = search.config.window
    found = state.finalists(window)
    around = min(MOST_AROUND, max(AROUND, STARTS * measured.worker_start))
    if isinf(budget.seconds) or not found:
        return Ending(wanted, True, None, 0.0 if isinf(budget.seconds) else around)
    (best, epochs), sizes = found[0], splits.info.sizes
    merged = sizes["train"] + sizes["val"]
    more, longer = merged / sizes["train"], merged / (sizes["train"] + FORWARD * sizes["val"])
    rounds = ceil(settings.retrain_seeds / placement.concurrency)
    speed = measured.alone if settings.retrain_seeds == 1 else 1.0
    growing = best.epoch < measured.most_epochs and best.improving(search.objective)
    if growing and best.epoch != settings.epochs:
        complete = [trial.improving(search.objective) for trial, _ in found if trial.epoch == settings.epochs]
        growing = 2 * sum(complete) >= len(complete) > 0
    each = MARGIN * rounds * (measured.epoch or _pace(best) * longer * speed)
    share, left = (GROWING if growing and not wanted else RETRAIN) * budget.seconds, budget.left - around
    # Measured after the trials, it may have all that they left.
    retrain = each * ceil(epochs / more) <= (max(share, left) if measured.epoch else share)
    planned = None
    if retrain and growing:
        planned = max(epochs, min(measured.most_epochs, int(left / each)))
    if retrain and each * epochs > max(share, left):
        planned = int(max(share, left) / each)
    # A trial that runs and still improves may be the best at its next epoch, and its final training then takes as many.
    coming = [trial.epoch + 1 for trial in state.unfinished() if trial.improving(search.objective)]
    final = min(share, each * (measured.most_epochs if growing else max([epochs, *coming])))
    seconds = around + (final if retrain else 0.0)
    seeds = wanted
    while seeds and seconds + _comparison(search, placement, seeds) > EVERYTHING * budget.seconds:
        seeds -= 1
    if seeds < 2:  # one seed says nothing of the spread
        return Ending(0, retrain, planned, seconds)
    return Ending(seeds, retrain, planned, seconds + _comparison(search, placement, seeds))


def settle_ending(search: Search, splits: Splits, placement: Placement, budget: Budget, measured: Measured) -> Ending:
    """`plan_ending` after the last trial. Where the plan depends on how long an epoch of the final training takes, this
    is measured first: trials, which ran side by side, foretell it to within a third."""
    ending = plan_ending(search, splits, placement, budget, measured)
    found, cut = search.state.finalists(search.config.window), ending.epochs is not None or not ending.retrain
    if isinf(budget.seconds) or not (found and cut) or search.config.search.retrain_seeds > 1 or budget.left < SHORT:
        return ending
    trial, epochs = found[0]
    seconds = measure_final(
        search.config, splits, placement, trial.params, trial.micro_batches, ending.epochs or epochs
    )
    return plan_ending(search, splits, placement, budget, replace(measured, epoch=seconds))


def _pace(trial: Trial) -> float:
    return trial.seconds / trial.epoch


def _comparison(search: Search, placement: Placement, seeds: int) -> float:
    """Seconds of the comparison of the balanced values with so many seeds."""
    config, state = search.config, search.state
    best = [state.best(config.search.balance, value) for value in config.balanced]
    together = isinstance(search.task, Fusable)
    share = FUSED if together else 1.0
    each = [MARGIN * share * seeds * config.search.epochs * _pace(trial) for trial in best if trial is not None]
    return max([sum(each) / placement.concurrency, *(each if together else ())], default=0.0) + AROUND / 2
