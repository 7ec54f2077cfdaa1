"""Configurations whose epochs would take too long are predicted from those that were trained."""

import numpy as np

from search.core.searchers import priors
from search.core.searchers.optuna_searcher import TpeSearcher
from search.core.searchers.pace_model import ENOUGH, PaceModel
from search.core.space import parse_space
from search.core.state import Trial
from trainables import Objective

SPACE = parse_space(
    {
        "width": {"int": [16, 64], "step": 8, "prior": 24},
        "size": {"choice": [48, 96, 128], "prior": 48},
        "lr": {"loguniform": [1e-4, 1e-1], "prior": 1e-2},
    },
    "x.yaml",
)
OBJECTIVE = Objective("loss", "min")


def seconds(params):
    return (params["width"] / 16) ** 1.5 * (params["size"] / 48) ** 2


def drawn(count):
    rng = np.random.default_rng(0)
    return [SPACE.sample(lambda p: priors.draw_uniform(p, rng)) for _ in range(count)]


def test_nothing_is_predicted_from_too_little():
    assert PaceModel(SPACE, [(p, seconds(p)) for p in drawn(ENOUGH - 1)]).seconds(drawn(1)[0]) == 0.0


def test_prediction_is_within_a_third_after_twenty_trials():
    model = PaceModel(SPACE, [(p, seconds(p)) for p in drawn(20)])
    ratios = [model.seconds(p) / seconds(p) for p in drawn(100)[20:]]
    assert np.quantile(np.abs(np.log(ratios)), 0.9) < 0.3


def search_of(limit, count=40):
    searcher = TpeSearcher(SPACE, [OBJECTIVE], 0, 10, 1000, limit=limit)
    trials = []
    for number in range(count):
        trial = Trial(number, searcher.ask(number), 0, outcome="completed")
        # The slowest are the best, so that the model would go for them.
        trial.take(1, {"val_loss": -seconds(trial.params), "epoch_seconds": seconds(trial.params)}, OBJECTIVE)
        searcher.tell(trial)
        trials.append(trial)
    return trials


def test_slow_configurations_are_not_proposed_once_their_time_can_be_predicted():
    free, limited = search_of(None), search_of(6.0)
    assert sum(seconds(t.params) > 7 for t in free[7:]) > 10
    assert len({t.params["size"] for t in limited[:7]}) > 1, "what a larger size costs is known"
    assert not [t.number for t in limited[7:] if seconds(t.params) > 7.5]


def test_replayed_searcher_with_a_limit_proposes_what_the_uninterrupted_one_does():
    whole = search_of(6.0)
    resumed = TpeSearcher(SPACE, [OBJECTIVE], 0, 10, 1000, limit=6.0)
    for trial in whole[:25]:
        resumed.replay(trial)
        resumed.tell(trial)
    for trial in whole[25:]:
        assert resumed.ask(trial.number) == trial.params
        resumed.tell(trial)
