"""A search as pandas frames: a row for each trial, and a row for each epoch of each trial.

`compare`, the report and `trials()` and `curves()` of a search in Python show these frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from search.core.cost import cost
from search.core.pareto import value_of
from search.core.settings import Resources
from search.core.state import SearchState, Trial
from trainables import InputError, Objective
from trainables.base.unit import EPOCHS, Unit


def trials_frame(
    state: SearchState, *, metric: str | None = None, objectives: Sequence[Objective] = (),
    resources: Resources | None = None, parameters: Iterable[str] | None = None, unit: Unit = EPOCHS,
    limited: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """A row for each trial, indexed by `trial` (its number).

    Columns:
        `outcome`: `running` for a trial that has not ended. `feasible`: only with `limited`; whether the trial has a
        result within all limits on outcomes. `epochs`: number of trained epochs. `best_epoch`: 0 before
        the first result. METRIC: the objective at the best epoch. A column for each further objective, at the best
        epoch. `seconds`: of training and validation. `cost`: only with `resources`. A column for each hyperparameter;
        one whose name is taken, such as `epochs`, has the column `params_epochs`.

    Args:
        metric: the name of the column METRIC; by default `val_` and the objective, such as `val_loss`.
        objectives: of a search with several objectives; the first one is the search's own.
        resources: CPUs, GPUs and prices of a trial.
        parameters: names of the hyperparameters; by default those of any trial.
        unit: with steps, `steps` and `best_step` replace `epochs` and `best_epoch`.
        limited: whether the search has limits on outcomes.
    """
    trials = [state.trials[number] for number in sorted(state.trials)]
    further = objectives[1:]
    own = ["trial", "outcome", *(["feasible"] if limited else [])]
    own += [f"{unit.name}s", f"best_{unit.name}", metric or state.objective.key]
    own += [*(objective.metric for objective in further), "seconds", *(["cost"] if resources else [])]
    if parameters is None:
        parameters = dict.fromkeys(name for trial in trials for name in trial.params)
    columns = free_columns(parameters, own)
    rows = [
        (
            trial.number, trial.outcome or "running", *([trial.can_win] if limited else []),
            unit(trial.epoch), unit(trial.best_epoch), trial.best_value,
            *(_at_best(trial, objective) for objective in further),
            trial.seconds, *([cost(trial, resources)["cost"]] if resources else []),
            *(_without_surrogates(trial.params.get(name)) for name in columns),
        )
        for trial in trials
    ]  # fmt: skip
    names = [_without_surrogates(name) for name in (*own, *columns.values())]
    return pd.DataFrame(rows, columns=names).set_index("trial")


def curves_frame(state: SearchState, unit: Unit = EPOCHS) -> pd.DataFrame:
    """A row for each epoch of each trial.

    Columns:
        `trial`, `epoch` (or `step`), and one for each metric; a metric called `trial` or `epoch` has the column
        `metrics_trial` or `metrics_epoch`.
    """
    trials, own = [state.trials[number] for number in sorted(state.trials)], ["trial", unit.name]
    names = dict.fromkeys(name for trial in trials for metrics in trial.curve.values() for name in metrics)
    columns = free_columns(names, own, "metrics_")
    rows = [
        {
            "trial": trial.number,
            unit.name: unit(epoch),
            **{_without_surrogates(columns[name]): value for name, value in metrics.items()},
        }
        for trial in trials
        for epoch, metrics in trial.curve.items()
    ]
    return pd.DataFrame(rows, columns=[*own, *map(_without_surrogates, columns.values())])


def free_columns(names: Iterable[str], taken: Iterable[str], prefix: str = "params_") -> dict[str, str]:
    """The column of each name: the name itself, or the name behind `prefix` where it is taken.

    >>> free_columns(["lr", "epochs"], ["trial", "epochs"])
    {'lr': 'lr', 'epochs': 'params_epochs'}
    """
    used, columns = {*taken}, {}
    for name in sorted(names := [*names], key=lambda name: name in used):  # first the names that stay as they are
        columns[name] = name
        while columns[name] in used:
            columns[name] = prefix + columns[name]
        used.add(columns[name])
    return {name: columns[name] for name in names}


def _without_surrogates(value: Any) -> Any:
    """A text with escapes such as `\\ud800` for lone surrogates, which pandas refuses; other values unchanged."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _at_best(trial: Trial, objective: Objective) -> float:
    """The trial's value of an objective at its best epoch; NaN if the trial has no result or no such metric."""
    if not trial.best_epoch:
        return math.nan
    try:
        return value_of(trial, objective)
    except InputError:
        return math.nan
