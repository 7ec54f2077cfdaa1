"""Pareto fronts of searches with several objectives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from search.core.state import Trial
from trainables import InputError, Objective


def value_of(trial: Trial, objective: Objective) -> float:
    """The trial's value of an objective at its best epoch; see `measured`."""
    return measured(trial.curve[trial.best_epoch], objective)


def measured(metrics: dict[str, float], objective: Objective) -> float:
    """An epoch's value of an objective: the validation metric of this name, or another metric such as `parameters`.

    Raises:
        InputError: the epoch has no metric of this name.
    """
    for key in (objective.key, objective.metric):
        if key in metrics:
            return metrics[key]
    names = ", ".join(sorted(key.removeprefix("val_") for key in metrics if not key.startswith("train_")))
    raise InputError(f"search.objective: {objective.metric!r}: no metric of this task; there are {names}")


def front(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The Pareto front of the trials that can win, sorted by the first objective, the best first."""
    able = [t for t in trials if t.can_win]
    losses = np.array([[o.loss(value_of(t, o)) for o in objectives] for t in able]).reshape(len(able), len(objectives))
    best = [(tuple(losses[i]), able[i].number, able[i]) for i in np.flatnonzero(nondominated(losses))]
    return [trial for *_, trial in sorted(best)]


def nondominated(losses: np.ndarray) -> np.ndarray:
    """Marks the rows that no other row dominates. A row dominates if it is nowhere larger and somewhere smaller.

    Args:
        losses: (n, objectives), smaller is better.

    Returns:
        (n,) of bool.
    """
    return np.array([not ((losses <= row).all(1) & (losses < row).any(1)).any() for row in losses], dtype=bool)
