"""Importances on functions whose shares of variance are known by calculation."""

import math

import numpy as np
import pytest

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


def test_importance_of_a_log_range_is_that_of_its_exponent():
    # Both terms have the same variance by calculation, so each share is a half: lr counts by its order of magnitude.
    space = parse_space({"lr": {"loguniform": [1e-5, 1e-1]}, "x": {"uniform": [0, 4]}}, "test")

    def loss(params, rng):
        return math.log10(params["lr"]) + params["x"]

    found = found_in(space, loss, 150)
    assert found["lr"].share == pytest.approx(0.5, abs=0.12)
    assert found["x"].share == pytest.approx(0.5, abs=0.12)


def test_importance_of_a_conditional_counts_the_trials_in_which_it_exists():
    # Beside adamw the loss is that of the decay alone; beside sgd it is that of lr alone.
    def loss(params, rng):
        return abs(math.log10(params["weight_decay"]) + 3) if params["weight_decay"] else params["lr"] * 10

    space = parse_space(CONDITIONAL, "test")
    found = found_in(space, loss, 200)
    with_decay = found["weight_decay"]
    assert 60 < with_decay.trials < 140
    assert found["lr"].trials == 200
    assert with_decay.share > 0.6
    assert with_decay.low > found["nothing"].high


def test_importance_interval_of_few_trials_is_wide_and_of_many_is_narrow():
    space = parse_space({name: {"uniform": [0, 1]} for name in ("a", "b", "c")}, "test")

    def loss(params, rng):
        return 2 * params["a"] + params["b"] + 0.1 * rng.normal()

    few, many = found_in(space, loss, 12), found_in(space, loss, 300)
    assert many["a"].high - many["a"].low < 0.5 * (few["a"].high - few["a"].low)
    # By calculation 4/5, 1/5 and 0.
    assert many["a"].low < 0.8 < many["a"].high + 0.03
    assert many["b"].share == pytest.approx(0.2, abs=0.08)
    assert many["c"].share < 0.03
    for one in (*few.values(), *many.values()):
        assert 0 <= one.low <= one.share <= one.high <= 1


def test_importance_of_one_diverging_trial_is_not_the_whole_variance():
    space = parse_space({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, "test")
    trials = trials_of(space, lambda params, rng: params["a"], 80)
    worst = max(trials, key=lambda t: t.params["b"])
    worst.best_value = 1e12
    found = {one.name: one for one in importances(trials, space, LOSS)}
    assert found["a"].low > found["b"].high


def test_importance_of_a_maximized_objective_is_the_same():
    space = parse_space({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, "test")
    trials = trials_of(space, lambda params, rng: params["a"] + params["b"] / 3, 60)
    smaller = importances(trials, space, LOSS)
    for trial in trials:
        trial.best_value = -trial.best_value
    assert importances(trials, space, Objective("loss", "max")) == smaller


@pytest.mark.parametrize(("values", "message"), [([1.0, 2.0], "2 trials"), ([1.0] * 9, "the same")])
def test_importance_of_nothing_to_explain_is_an_error(values, message):
    space = parse_space({"a": {"uniform": [0, 1]}}, "test")
    trials = trials_of(space, lambda params, rng: 0.0, len(values))
    for trial, value in zip(trials, values, strict=True):
        trial.best_value = value
    with pytest.raises(ValueError, match=message):
        importances(trials, space, LOSS)
