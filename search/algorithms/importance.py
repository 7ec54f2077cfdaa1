"""Which hyperparameters matter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna

from search.algorithms.optuna_searcher import distribution
from search.config.space import Parameter
from search.record.state import Trial
from trainables import Objective


def importances(trials: Sequence[Trial], parameters: Sequence[Parameter], objective: Objective) -> dict[str, float]:
    """The share of the objective's variance that each parameter explains (fANOVA, Hutter et al. 2014).

    Args:
        trials: with a result each.
        parameters: searched ones that exist in every trial.

    Returns:
        Shares by name, the largest first.

    Raises:
        ValueError, RuntimeError: there is nothing to explain, for instance as all trials came to the same.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize" if objective.mode == "min" else "maximize")
    distributions = {p.name: distribution(p) for p in parameters}
    study.add_trials(
        [
            optuna.create_trial(
                params={p.name: t.params[p.name] for p in parameters}, distributions=distributions, value=t.best_value
            )
            for t in trials
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found
