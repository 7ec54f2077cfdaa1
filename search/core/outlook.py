"""What more search is expected to bring: the improvement of the best value within the next hour.

The trials of the last half show what trials bring now, each with its value and its seconds. Another hour trains as many
more as the search trained per hour until now. Their best values follow the tail of the values: a generalized Pareto
distribution beyond a threshold, so that values better than all before are possible. The tail and the rate are drawn
anew many times by resampling the trials, as a few trials tell little about them.

`python -m benchmarks.curves.outlook` measures how many of the intervals hold the gain that comes.

No clock is read: all seconds come from the journal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.core.config import SearchConfig
from search.core.readable import value
from search.core.registry import SEARCHERS
from search.core.state import SearchState
from trainables import Objective

#: The fewest finished trials with which an outlook is given: the last half are then ten, and their tail three.
FEWEST = 20
#: The share of the last half's values that the tail is fitted to, and their fewest number. In twenty searches over
#: recorded curves 95 % of the intervals held the gain with a share of 0.2 or 0.25, 85 % with 0.15, and 79 % with 0.33.
TAIL, FEWEST_BEYOND = 0.2, 3
#: The shape of the tail, which ends at a best possible value. Near the optimum of a smooth function of d
#: hyperparameters it is -2 / d; usually few of them matter. In these searches the expected gains were 1.8 times those
#: that came with -0.5, and more with -0.33 and -0.25. With -0.67 only 80 % of the intervals held the gain.
SHAPE = -0.5
#: Draws of the trials of the next hour, and most trials of the last half, the newest. They bound the time of an
#: outlook, which `search.worth` asks for after each result. Other numbers were not measured.
DRAWS, NEWEST = 1000, 200
HOUR = 3600.0


@dataclass(frozen=True)
class Outlook:
    """The expected improvement of the best value, in units of the objective; never negative.

    Attributes:
        gain: the mean.
        low, high: an interval that holds the improvement with a probability of 95 %, by the model of this module. Of 82
            intervals of searches over recorded trainings 88 % held it; the others were too low.
    """

    gain: float
    low: float
    high: float


def outlook(state: SearchState, seed: int, seconds: float = HOUR) -> Outlook | None:
    """The improvement of the best value that `seconds` more of search are expected to bring.

    It is a function of the state alone.

    Args:
        seed: of the search.

    Returns:
        None if fewer than `FEWEST` trials have finished, or if the journal has no times.
    """
    finished = [trial for trial in state.trials.values() if trial.idle and trial.curve]
    best, trained = state.best(), sum(trial.seconds for trial in state.trials.values())
    if len(finished) < FEWEST or best is None or not (trained and state.seconds):
        return None
    finished.sort(key=lambda trial: (trial.reported, trial.number))
    last = finished[len(finished) // 2 :][-NEWEST:]
    losses = np.array([state.objective.loss(trial.best_value) if trial.can_win else math.inf for trial in last])
    # The trials that train at once, and the seconds between trials, are in the seconds of training for each second.
    more = seconds * trained / state.seconds
    rng = np.random.default_rng([seed, len(finished)])
    gains = drawn_gains(losses, np.array([t.seconds for t in last]), state.objective.loss(best.best_value), more, rng)
    if gains is None:
        return None
    low, high = np.quantile(gains, [0.025, 0.975])
    return Outlook(float(gains.mean()), float(low), float(high))


def outlook_line(config: SearchConfig, state: SearchState) -> str:
    """`one more hour: +0.002, 95 %: 0 to 0.006`; empty without an outlook, for several objectives and for a grid."""
    if config.objectives or SEARCHERS.get(config.search.searcher).is_finite:  # a grid may have no trial left
        return ""
    expected = outlook(state, config.search.seed)
    return "" if expected is None else in_words(expected, state.objective)


def in_words(expected: Outlook, objective: Objective) -> str:
    """An outlook in a line; a metric that is minimized gets smaller.

    >>> in_words(Outlook(0.0021, 0.0, 0.00634), Objective("accuracy", "max"))
    'one more hour: +0.0021, 95 %: 0 to 0.0063'
    >>> in_words(Outlook(0.0021, 0.0, 0.00634), Objective("loss", "min"))
    'one more hour: -0.0021, 95 %: -0.0063 to 0'
    """

    def shown(gain: float) -> str:
        return value(float(f"{objective.loss(-gain):.2g}"))

    low, high = sorted((expected.low, expected.high), key=lambda gain: objective.loss(-gain))
    sign = "+" if objective.mode == "max" and expected.gain else ""
    return f"one more hour: {sign}{shown(expected.gain)}, 95 %: {shown(low)} to {shown(high)}"


def drawn_gains(
    losses: NDArray[np.float64], seconds: NDArray[np.float64], best: float, more: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Gains of the best loss that `more` seconds of training bring, one for each draw (draws,); None without a tail.

    Args:
        losses: (trials,), infinity for a trial without a value.
        seconds: of the training of each trial (trials,).
        best: the best loss of the search.
    """
    count = len(losses)
    beyond = max(FEWEST_BEYOND, int(count * TAIL))
    rows = rng.integers(count, size=(DRAWS, count))
    drawn = np.sort(losses[rows], axis=1)
    threshold = drawn[:, beyond]
    mean_seconds = seconds[rows].mean(1)
    usable = np.isfinite(threshold) & (mean_seconds > 0)
    if not usable.any():
        return None
    drawn, threshold, mean_seconds = drawn[usable], threshold[usable], mean_seconds[usable]
    farthest = (threshold[:, None] - drawn[:, :beyond]).mean(1) * (1 - SHAPE) / -SHAPE
    # A tail of which k values are seen goes on beyond the best of them, by about a k-th.
    farthest = np.maximum(farthest, (threshold - best) * (1 + 1 / beyond))
    trials = rng.poisson(more / mean_seconds * beyond / count)
    # The largest of n values of the tail, by the inverse of its distribution function.
    exceeds = 1 - rng.random(len(farthest)) ** (1 / np.maximum(trials, 1))
    reached = np.where(trials > 0, farthest * (1 - exceeds**-SHAPE), 0.0)
    return np.maximum(0.0, best - (threshold - reached))
