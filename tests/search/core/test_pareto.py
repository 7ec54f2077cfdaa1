import numpy as np
import pytest

from search.core.config import load_config
from search.core.pareto import front, nondominated, value_of
from search.core.state import Trial
from trainables.base.errors import InputError
from trainables.base.task import Objective

ACCURACY, SIZE = Objective("accuracy", "max"), Objective("parameters", "min")


def trial(number, accuracy, parameters, outcome="completed"):
    curve = {1: {"val_accuracy": accuracy, "parameters": parameters, "train_loss": 1.0}}
    return Trial(number, {}, 0, curve, outcome, 1, accuracy)


def test_front_by_hand():
    trials = [trial(0, 0.9, 50), trial(1, 0.8, 10), trial(2, 0.8, 20), trial(3, 0.7, 10), trial(4, 0.95, 90)]
    trials += [trial(5, 0.99, 1, "diverged"), trial(6, 0.9, 50)]
    assert [t.number for t in front(trials, (ACCURACY, SIZE))] == [4, 0, 6, 1], "equal ones are both on it"
    assert front([], (ACCURACY, SIZE)) == []


def test_nondominated_is_what_comparing_all_pairs_gives():
    losses = np.random.default_rng(0).integers(0, 6, (80, 3)).astype(float)
    by_pairs = [not any((a <= b).all() and (a < b).any() for a in losses) for b in losses]
    assert nondominated(losses).tolist() == by_pairs


def test_metric_that_no_epoch_measures_is_refused_with_those_that_are():
    with pytest.raises(InputError, match=r"'speed': no metric of this task; there are accuracy, parameters$"):
        value_of(trial(0, 0.9, 50), Objective("speed", "max"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("[accuracy]", "expected a metric and min or max"), ("[accuracy max]", "expected two or more different ones"),
     ("[accuracy max, accuracy min]", "expected two or more different ones"),
     ("[accuracy max, parameters least]", "expected a metric and min or max")],
)  # fmt: skip
def test_wrong_objectives_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        load_config("windows", [f"search.objective={text}", "search.searcher=nsga2"])


def test_searcher_of_one_objective_is_refused_for_several():
    with pytest.raises(InputError, match="searcher: tpe: has one objective; for several: random, grid, nsga2"):
        load_config("windows", ["search.objective=[accuracy max, parameters min]"])
