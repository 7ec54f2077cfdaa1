"""Importances beside those of Optuna, and on functions whose order is known."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.core.searchers.encoding import Encoding
from search.core.space import Space, parse_space
from search.core.state import Trial
from search.reports.importance import importances
from trainables import Objective

LOSS = Objective("loss", "min")
CONDITIONAL = {
    "optimizer": {"choice": ["sgd", "adamw"]},
    "lr": {"loguniform": [1e-5, 1e-1]},
    "nothing": {"uniform": [0, 1]},
    "weight_decay": {"loguniform": [1e-6, 1], "when": {"optimizer": "adamw"}},
}


def trials_of(space: Space, loss, count: int, seed: int = 0) -> list[Trial]:
    """Trials at random configurations with the losses of a function."""
    rng, encoding, trials = np.random.default_rng(seed), Encoding(space), []
    for number, row in enumerate(encoding.draw(rng, count, {})):
        trial = Trial(number, encoding.params(row), 0)
        trial.take(1, {"val_loss": loss(trial.params, rng)}, LOSS)
        trials.append(trial)
    return trials


def found_in(space: Space, loss, count: int, seed: int = 0):
    return {one.name: one for one in importances(trials_of(space, loss, count, seed), space, LOSS)}


def test_importances_are_those_of_optuna():
    space = parse_space({**CONDITIONAL, "layers": {"int": [1, 6]}}, "test")

    def loss(params, rng):
        decay = abs(math.log10(params["weight_decay"]) + 3) if params["weight_decay"] else 2.0
        return abs(math.log10(params["lr"]) + 3) + decay + 0.1 * params["layers"]

    trials = trials_of(space, loss, 150)
    kinds = {
        "optimizer": CategoricalDistribution(["sgd", "adamw"]), "lr": FloatDistribution(1e-5, 1e-1, log=True),
        "nothing": FloatDistribution(0, 1), "weight_decay": FloatDistribution(1e-6, 1, log=True),
        "layers": IntDistribution(1, 6),
    }  # fmt: skip
    study = optuna.create_study()
    for trial in trials:
        params = {name: value for name, value in trial.params.items() if value is not None}
        study.add_trial(optuna.trial.create_trial(
            params=params, distributions={name: kinds[name] for name in params}, value=trial.best_value
        ))  # fmt: skip
    expected = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=list(kinds)
    )
    assert {one.name: one.share for one in importances(trials, space, LOSS)} == pytest.approx(expected, abs=1e-9)


def test_importance_of_a_log_range_is_that_of_its_exponent():
    space = parse_space({"lr": {"loguniform": [1e-5, 1e-1]}, "x": {"uniform": [0, 4]}}, "test")

    def loss(params, rng):
        return abs(math.log10(params["lr"]) + 3) + abs(params["x"] - 2)

    found = found_in(space, loss, 200)
    assert found["lr"].low < 0.5 < found["lr"].high, "both count the same: lr by its order of magnitude"


def test_importance_of_a_conditional_counts_the_trials_in_which_it_exists():
    def loss(params, rng):  # beside adamw the loss is that of the decay alone; beside sgd it is worse
        return abs(math.log10(params["weight_decay"]) + 3) if params["weight_decay"] else 3 + params["lr"]

    found = found_in(parse_space(CONDITIONAL, "test"), loss, 200)
    assert 60 < found["weight_decay"].trials < 140 and found["lr"].trials == 200
    assert found["weight_decay"].share > 0.5
    assert found["weight_decay"].low > found["nothing"].high


def test_importance_interval_holds_the_share_and_is_narrower_with_more_trials():
    space = parse_space({name: {"uniform": [0, 1]} for name in ("a", "b", "c")}, "test")

    def loss(params, rng):
        return 2 * params["a"] + params["b"] + 0.1 * rng.normal()

    few, many = found_in(space, loss, 12), found_in(space, loss, 300)
    assert many["a"].high - many["a"].low < 0.5 * (few["a"].high - few["a"].low)
    assert many["a"].low > many["b"].high > many["c"].share
    for found in (few, many):
        assert sum(one.share for one in found.values()) == pytest.approx(1)
        assert all(0 <= one.low <= one.share <= one.high <= 1 for one in found.values())


def test_importance_of_one_diverging_trial_changes_little():
    space = parse_space({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, "test")
    trials = trials_of(space, lambda params, rng: params["a"], 80)
    worst = max(trials, key=lambda t: t.params["b"])
    worst.best_value = 1e12
    found = {one.name: one for one in importances(trials, space, LOSS)}
    assert found["a"].low > found["b"].high


@pytest.mark.parametrize(("count", "same", "said"), [(3, False, "needs 4"), (9, True, "the same result")])
def test_importance_of_too_few_or_equal_trials_says_why_there_is_none(count, same, said):
    space = parse_space({"a": {"uniform": [0, 1]}}, "test")
    with pytest.raises(ValueError, match=said):
        importances(trials_of(space, lambda params, rng: 1.0 if same else params["a"], count), space, LOSS)
