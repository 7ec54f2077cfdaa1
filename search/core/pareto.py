"""Several objectives: which trials no other trial dominates, the knee of this front, and its hypervolume.

A trial dominates another if it is nowhere worse and somewhere better. The front is the trials that no other trial
dominates. All functions take losses: values, negated where larger is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from trainables import InputError, Objective

Array = np.ndarray
#: Larger losses are infinite: the difference of two losses, and its square, must be finite.
LARGEST = 1e150


class Tried(Protocol):
    """What this module reads of a `Trial`. The state of a search, which has the trials, uses this module."""

    number: int
    best_epoch: int
    curve: dict[int, dict[str, float]]

    @property
    def can_win(self) -> bool: ...


T = TypeVar("T", bound=Tried)


def value_of(trial: Tried, objective: Objective) -> float:
    """The trial's value of an objective at its best epoch; see `measured`."""
    return measured(trial.curve[trial.best_epoch], objective)


def measured(metrics: Mapping[str, float], objective: Objective) -> float:
    """An epoch's value of an objective: the validation metric of this name, or another metric such as `parameters`.

    Raises:
        InputError: the epoch has no metric of this name.
    """
    for key in (objective.key, objective.metric):
        if key in metrics:
            return metrics[key]
    raise InputError(f"search.objective: {no_metric(objective.metric, metrics)}")


def no_metric(name: str, metrics: Mapping[str, float]) -> str:
    """The error that an epoch has no metric of this name, with the names that it has."""
    names = ", ".join(sorted(key.removeprefix("val_") for key in metrics if not key.startswith("train_")))
    return f"{name!r}: no metric of this task; there are {names}"


def losses_of(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """An epoch's losses, one for each objective; infinite for a further objective that is missing or not finite."""
    first, *further = objectives
    others = (o.loss(metrics.get(o.key, metrics.get(o.metric, math.nan))) for o in further)
    return (first.loss(metrics[first.key]), *(loss if abs(loss) < LARGEST else math.inf for loss in others))


def losses_at_best(trials: Sequence[Tried], objectives: Sequence[Objective]) -> Array:
    """(trials, objectives): the losses of each trial at its best epoch."""
    rows = [losses_of(t.curve[t.best_epoch], objectives) for t in trials]
    return np.reshape(np.array(rows, float), (len(rows), len(objectives)))


def front(trials: Iterable[T], objectives: Sequence[Objective]) -> list[T]:
    """The Pareto front of the trials that can win, sorted by the first objective, the best first."""
    able = [t for t in trials if t.can_win]
    losses = losses_at_best(able, objectives)
    best = [(tuple(losses[i]), able[i].number, able[i]) for i in np.flatnonzero(nondominated(losses))]
    return [trial for *_, trial in sorted(best)]


def nondominated(losses: Array) -> Array:
    """Marks the rows that no other row dominates. A row dominates if it is nowhere larger and somewhere smaller.

    Args:
        losses: (n, objectives), smaller is better.

    Returns:
        (n,) of bool.
    """
    marks, kept, count = np.zeros(len(losses), dtype=bool), np.empty_like(losses), 0
    # In this order a row can only be dominated by rows before it, and then also by one of the kept rows.
    for index in np.lexsort(losses.T[::-1]):
        row, front_ = losses[index], kept[:count]
        if not ((front_ <= row).all(1) & (front_ < row).any(1)).any():
            marks[index], kept[count], count = True, row, count + 1
    return marks


def _dominance(losses: Array) -> Array:
    """(n, n) of bool: whether row i dominates row j."""
    no_larger = np.ones((len(losses), len(losses)), dtype=bool)
    for column in losses.T:
        no_larger &= column[:, None] <= column
    return no_larger & ~no_larger.T


def places(losses: Array) -> Array:
    """The place (n,) of each row among all rows, 0 the best: first by non-dominated rank, then spread over the front.

    Rows of rank 0 are dominated by no row, rows of rank 1 only by rows of rank 0, and so on. In a rank the knee comes
    first, and then each time the row that is furthest from the rows before it (the epsilon-net of Schmucker et al.
    2021, arXiv:2106.12639). The earlier of two equal rows comes first.

    Args:
        losses: (n, objectives), smaller is better.
    """
    dominance = _dominance(losses)
    dominators = dominance.sum(0)
    result, placed = np.zeros(len(losses), dtype=int), 0
    left = np.ones(len(losses), dtype=bool)
    while left.any():
        rank = np.flatnonzero(left & (dominators == 0))
        result[rank[_spread(losses[rank])]] = np.arange(placed, placed + len(rank))
        placed += len(rank)
        left[rank] = False
        dominators -= dominance[rank].sum(0)
    return result


def _spread(losses: Array) -> list[int]:
    """The indices of the rows of a front: the knee, then each time the row that is furthest from the rows before."""
    points = np.minimum(scaled(losses, losses), 1.0)  # an infinite loss counts as the worst finite loss
    order = [int(points.sum(1).argmin())]
    distances = ((points - points[order[0]]) ** 2).sum(1)
    for _ in range(len(points) - 1):
        distances[order[-1]] = -1.0
        order.append(int(distances.argmax()))
        distances = np.minimum(distances, ((points - points[order[-1]]) ** 2).sum(1))
    return order


def scaled(losses: Array, front_losses: Array) -> Array:
    """Losses (n, objectives) in units of a front: 0 is its smallest loss of an objective, and 1 its largest.

    An objective in which the whole front is equal is not scaled. Infinite losses of the front do not count.
    """
    finite = np.isfinite(front_losses)
    low = np.where(finite, front_losses, np.inf).min(0, initial=np.inf)
    high = np.where(finite, front_losses, -np.inf).max(0, initial=-np.inf)
    return (losses - np.where(low < np.inf, low, 0.0)) / np.where(high > low, high - low, 1.0)


def weighted(losses: Array, weights: Sequence[float]) -> Array:
    """The weighted mean (n,) of losses (n, objectives), each in units of the front; the smallest is on the front."""
    points = scaled(losses, losses[nondominated(losses)])
    return np.asarray(sum(w * column for w, column in zip(weights, points.T, strict=True) if w) / sum(weights))


def knee(losses: Array) -> int:
    """The row (n, objectives) with the smallest sum of losses, each in units of the front: it is on the front.

    With two objectives it is the row of the front that lies furthest below the line between the two ends of the front.
    A front without a bend has its knee at an end.
    """
    return int(weighted(losses, [1.0] * losses.shape[1]).argmin())


def hypervolume(losses: Array, reference: Sequence[float]) -> float:
    """The volume that the rows (n, objectives) dominate, up to the point `reference`: exact, for any dimension.

    Slices along the last objective; the time grows with n^(objectives - 1).
    """
    points = losses[(losses < np.asarray(reference)).all(1)]
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.diff(points[:, -1], append=reference[-1])
    if losses.shape[1] == 2:
        areas = reference[0] - np.minimum.accumulate(points[:, 0])
    else:
        areas = np.array([hypervolume(points[: i + 1, :-1], reference[:-1]) for i in range(len(points))])
    return float(heights @ areas)


def dominated_share(losses: Array) -> float:
    """The share of the box between the best and the worst finite loss of each objective that the rows dominate.

    NaN if all rows are equal in an objective, as the box is then empty.
    """
    finite = losses[np.isfinite(losses).all(1)]
    if not len(finite) or (np.ptp(finite, axis=0) == 0).any():
        return math.nan
    points = (finite - finite.min(0)) / np.ptp(finite, axis=0)
    return hypervolume(points[nondominated(points)], [1.0] * losses.shape[1])
