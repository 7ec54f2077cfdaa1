"""Which hyperparameters matter: PED-ANOVA, with intervals.

PED-ANOVA (Watanabe et al. 2023) compares how the values of a hyperparameter are distributed among the best tenth of the
trials and among all trials: the importance is the Pearson divergence of the two densities. For a conditional
hyperparameter the divergence is computed over the trials in which it exists, and multiplied by b^2 / a: it exists in
the share b of the best trials and in the share a of all trials (conditional PED-ANOVA, arXiv 2601.20800). The shares
are those of Optuna's `PedAnovaImportanceEvaluator`; a test compares them. Optuna's class takes a study, and an interval
would need 40 resampled studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from search.core.searchers.encoding import Encoding
from search.core.space import Parameter, Space
from search.core.state import Trial
from trainables import Objective

Array = np.ndarray

#: Number of resampled sets of trials.
RESAMPLES = 40
#: The share of the trials that are compared with all, and the fewest of them: two trials would have no distribution.
TOP, FEWEST_TOP = 0.1, 5
#: Number of equal parts of a range.
STEPS = 50
#: Fewest trials, and fewest trials in which a conditional hyperparameter must exist.
FEWEST_TRIALS = 4
#: Share of the resampled sets whose importance is within the interval.
LEVEL = 0.9


@dataclass(frozen=True)
class Importance:
    """The share (0 to 1) of one hyperparameter in the importance of all.

    `low` and `high`: the interval that holds `LEVEL` of the shares of resampled trials, and the share itself. `trials`:
    number of trials in which the hyperparameter exists.
    """

    name: str
    share: float
    low: float
    high: float
    trials: int


def importances(trials: Sequence[Trial], space: Space, objective: Objective) -> list[Importance]:
    """The importance of each searched hyperparameter, the largest first.

    Hyperparameters that exist in fewer than `FEWEST_TRIALS` trials are left out.

    Args:
        trials: each has a result.

    Raises:
        ValueError: there are too few trials, or all have the same result.
    """
    losses = np.array([objective.loss(t.best_value) for t in trials])
    if len(trials) < FEWEST_TRIALS:
        raise ValueError(f"{len(trials)} trials have a result; an importance needs {FEWEST_TRIALS}")
    if (losses == losses[0]).all():
        raise ValueError("all trials came to the same result")
    encoding = Encoding(space)
    rows = np.array([encoding.row(t.params) for t in trials])
    counts = (~np.isnan(rows)).sum(0)
    chosen = [
        (parameter, _cells(parameter, rows[:, column]), int(counts[column]))
        for column, parameter in enumerate(space.parameters)
        if parameter.searched and counts[column] >= FEWEST_TRIALS
    ]
    if not chosen:
        return []
    rng = np.random.default_rng(0)
    sets = [np.arange(len(losses)), *(rng.integers(len(losses), size=len(losses)) for _ in range(RESAMPLES))]
    shares = np.array([_shares([(p, cells[drawn]) for p, cells, _ in chosen], losses[drawn]) for drawn in sets])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(shares[1:], [tail, 1 - tail], axis=0)
    result = [
        Importance(parameter.name, float(share), float(min(least, share)), float(max(most, share)), count)
        for (parameter, _, count), share, least, most in zip(chosen, shares[0], low, high, strict=True)
    ]
    return sorted(result, key=lambda importance: (-importance.share, importance.name))


def _size(parameter: Parameter) -> int:
    """The number of cells into which the values of a hyperparameter fall."""
    if not parameter.has_order:
        return len(parameter.choices)
    levels = parameter.levels()
    return STEPS if levels is None else min(STEPS, len(levels))


def _cells(parameter: Parameter, codes: Array) -> Array:
    """(n,): the cell of each value; -1 where the hyperparameter does not exist."""
    size = _size(parameter)
    if not parameter.has_order:
        cells = codes
    elif parameter.levels() is not None:  # the encoding has the middle of a value's share of the range
        cells = codes * size - 0.5
    else:
        cells = codes * (size - 1)
    return np.where(np.isnan(codes), -1, np.clip(np.round(np.nan_to_num(cells)), 0, size - 1)).astype(int)


def _shares(columns: Sequence[tuple[Parameter, Array]], losses: Array) -> Array:
    """The importance of each column, divided by their sum; zeros if no trial differs from another."""
    top = max(math.ceil(TOP * len(losses)), min(FEWEST_TOP, len(losses) // 2))
    best = losses <= np.partition(losses, top - 1)[top - 1]
    found = np.array([_importance(parameter, cells, best) for parameter, cells in columns])
    total = found.sum()
    return found / total if total > 0 else found


def _importance(parameter: Parameter, cells: Array, best: Array) -> float:
    """The divergence of the best trials from all, over the trials in which the hyperparameter exists."""
    there, size = cells >= 0, _size(parameter)
    among_best = there & best
    if not among_best.any() or size < 2:
        return 0.0
    density = _density if parameter.has_order else _choices_density
    of_best, of_all = (density(np.bincount(cells[some], minlength=size)) + 1e-12 for some in (among_best, there))
    weight = (among_best.sum() / best.sum()) ** 2 / there.mean()
    return float(weight * (of_all @ (of_best / of_all - 1) ** 2))


def _choices_density(counts: Array) -> Array:
    """(choices,): the share of each choice; each trial lends a part of its weight to the other choices."""
    seen = np.flatnonzero(counts)
    prior = 1.0 / (len(seen) + 1)
    kernels = np.full((len(seen), len(counts)), prior)
    kernels[np.arange(len(seen)), seen] += 1
    kernels /= kernels.sum(1, keepdims=True)
    density = counts[seen] @ kernels + np.full(len(counts), 1.0 / len(counts))
    return density / (counts.sum() + 1)


def _density(counts: Array) -> Array:
    """(cells,): a kernel density with the bandwidth of Scott's rule, and with a wide kernel over the whole range."""
    size, seen = len(counts), np.flatnonzero(counts)
    weights, number = counts[seen].astype(float), int(counts.sum())
    mean = seen @ weights / number
    deviation = math.sqrt((seen - mean) ** 2 @ weights / max(1, number - 1))
    summed = np.cumsum(weights)
    first = int(np.searchsorted(summed, number // 4, side="left"))
    third = min(len(seen) - 1, int(np.searchsorted(summed, number * 3 // 4, side="right")))
    width = 1.059 * min((seen[third] - seen[first]) / 1.34, deviation) * number**-0.2
    middles = np.append(seen, (size - 1) / 2)
    widths = np.append(np.full(len(seen), max(width, 0.5 / 1.64)), size)
    edges = ndtr((np.arange(size + 1)[:, None] - 0.5 - middles) / widths)  # (cells + 1, kernels)
    kernels = np.diff(edges, axis=0) / (edges[-1] - edges[0])
    return kernels @ np.append(weights, 1.0) / (number + 1)
