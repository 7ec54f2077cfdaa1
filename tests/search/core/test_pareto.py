import numpy as np
import pytest

from search.core.config import load_config
from search.core.pareto import (
    dominated_share,
    front,
    hypervolume,
    knee,
    losses_of,
    nondominated,
    places,
    value_of,
    weighted,
)
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


@pytest.mark.parametrize("profile", ["data", "demo"])
def test_default_searcher_takes_several_objectives(profile):
    config = load_config("windows", ["search.objective=[accuracy max, parameters min]"], profile=profile)
    assert config.search.searcher == {"data": "ranks", "demo": "tpe"}[profile] and len(config.objectives) == 2


def test_places_are_by_non_dominated_rank_and_then_spread_from_the_knee():
    front_ = [[0, 10], [10, 0], [3, 3], [2, 5], [0.1, 9.9]]
    losses = np.array([*front_, [4, 4], [11, 11]])
    assert places(losses).tolist() == [1, 2, 0, 3, 4, 5, 6], "the knee and the ends, then between them"
    assert places(losses * [1e6, 1e-6] + [5, -3]).tolist() == places(losses).tolist(), "the scale does not matter"
    assert places(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]])).tolist() == [1, 2, 0]
    assert places(np.empty((0, 2))).tolist() == []


def test_places_agree_with_dominance_whatever_is_infinite():
    rng = np.random.default_rng(0)
    losses = rng.integers(0, 5, (60, 3)).astype(float)
    losses[rng.random(60) < 0.2, 1] = np.inf
    order = places(losses)
    assert sorted(order) == list(range(60))
    for i, a in enumerate(losses):
        for j, b in enumerate(losses):
            if (a <= b).all() and (a < b).any():
                assert order[i] < order[j]


def test_knee_is_furthest_below_the_line_between_the_ends():
    losses = np.array([[0.0, 1000.0], [1.0, 900.0], [3.0, 200.0], [6.0, 150.0], [10.0, 0.0], [50.0, 5000.0]])
    on_front = losses[:5] / [10, 1000]
    assert knee(losses) == int((1 - on_front.sum(1)).argmax()) == 2
    assert knee(np.array([[0.0, 1.0], [0.8, 0.8], [1.0, 0.0]])) == 0, "a front without a bend has its knee at an end"
    assert knee(np.array([[1.0, 2.0]])) == 0
    assert weighted(losses, [1, 0])[:5].tolist() == on_front[:, 0].tolist()


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_is_the_number_of_dominated_cells(objectives):
    rng, side = np.random.default_rng(objectives), 6
    losses = rng.integers(0, side + 2, (12, objectives)).astype(float)
    cells = np.stack(np.meshgrid(*[np.arange(side)] * objectives), -1).reshape(-1, 1, objectives)
    assert hypervolume(losses, [side] * objectives) == (cells >= losses).all(2).any(1).sum()
    assert hypervolume(np.empty((0, objectives)), [1.0] * objectives) == 0.0


def test_dominated_share_has_no_unit():
    losses = np.array([[0.0, 4.0], [2.0, 0.0], [4.0, 4.0]])
    assert dominated_share(losses) == dominated_share(losses * [10, 0.1] + 7) == pytest.approx(0.5)
    assert np.isnan(dominated_share(np.array([[1.0, 2.0], [1.0, 3.0]]))) and np.isnan(dominated_share(losses[:0]))


@pytest.mark.parametrize("shown", [{}, *({"parameters": value} for value in (np.nan, np.inf, -np.inf, 10**400, 1e300))])
def test_further_objective_that_is_missing_or_not_finite_is_the_worst(shown):
    assert losses_of({"val_accuracy": 0.5, "parameters": 3.0}, (ACCURACY, SIZE)) == (-0.5, 3.0)
    assert losses_of({"val_accuracy": 0.5, **shown}, (ACCURACY, SIZE)) == (-0.5, np.inf)
