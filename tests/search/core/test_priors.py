"""Proposals from priors: the first trial is the prior's own, evidence overrules it, and a wrong one costs little."""

import math
from collections import Counter

import numpy as np
import pytest

from search.core.searchers import priors
from search.core.searchers.optuna_searcher import TpeSearcher
from search.core.searchers.rank_searcher import RankSearcher
from search.core.space import parse_space
from search.core.state import Trial
from trainables import Objective

OBJECTIVE = Objective("loss", "min")
RANGES = {
    "lr": {"loguniform": [1e-5, 1e-1]},
    "dropout": {"uniform": [0.0, 1.0]},
    "width": {"int": [16, 256], "step": 16},
    "kind": {"choice": ["a", "b", "c"]},
    "decay": {"loguniform": [1e-4, 1.0]},
}
GOOD = {"lr": 1e-3, "dropout": 0.3, "width": 128, "kind": "a", "decay": 1e-2}
WORST = {"lr": 1e-1, "dropout": 1.0, "width": 16, "kind": "c", "decay": 1.0}


def space(prior=None, **more):
    specs = {name: {**spec, "prior": prior[name]} if prior else spec for name, spec in RANGES.items()}
    return parse_space({**specs, **more}, "x.yaml")


def searcher(prior, seed=0, balance=None, kind="tpe", **more):
    if kind == "ranks":
        return RankSearcher(space(prior, **more), OBJECTIVE, seed, 1, 10, balance=balance)
    return TpeSearcher(space(prior, **more), [OBJECTIVE], seed, 10, 1000, balance)


def loss(params):
    away = (
        (math.log10(params["lr"]) + 3) / 2,
        params["dropout"] - 0.35,
        (params["width"] - 140) / 240,
        {"a": 0, "b": 0.3, "c": 0.5}[params["kind"]],
        (math.log10(params["decay"]) + 2.3) / 4,
    )
    return sum(x * x for x in away)


def told(number, params):
    trial = Trial(number, params, 0, outcome="completed")
    trial.take(1, {"val_loss": loss(params)}, OBJECTIVE)
    return trial


def ask_and_tell(search, numbers):
    trials = []
    for number in numbers:
        trials.append(told(number, search.ask(number)))
        search.tell(trials[-1])
    return trials


def test_first_trial_is_the_priors_own_configuration():
    assert searcher(GOOD).ask(0) == GOOD


def test_with_balanced_values_each_has_the_prior_first():
    search = searcher(GOOD, balance=("kind", ("a", "b", "c")))
    assert [search.ask(number) for number in range(3)] == [{**GOOD, "kind": kind} for kind in "abc"]


def test_replayed_searcher_proposes_what_the_uninterrupted_one_does():
    whole = ask_and_tell(searcher(GOOD), range(40))
    resumed = searcher(GOOD)
    for trial in whole[:23]:
        resumed.replay(trial)
        resumed.tell(trial)
    assert [t.params for t in ask_and_tell(resumed, range(23, 40))] == [t.params for t in whole[23:]]


def test_shares_move_from_the_prior_to_the_model():
    one, rng = space(GOOD), np.random.default_rng(0)
    near = [priors.draw_from_prior(one, np.random.default_rng(i)) for i in range(100)]

    def shares(count):
        drawn = Counter(priors.choose_source(one, near[:count], rng) for _ in range(600))
        return [drawn[source] / 600 for source in ("prior", "best", "model", "uniform")]

    early, later = shares(2), shares(100)
    assert early[0] > 0.6 > 0.2 > later[0], "the prior's share falls"
    assert later[2] > 0.5 > 0.1 > early[2], "the model's grows"
    assert 0.1 < early[3] < 0.2 and 0.1 < later[3] < 0.2, "and what is uniform stays"


def test_priors_far_from_the_best_trials_lose_their_share():
    one = space(WORST)
    rng = np.random.default_rng(0)
    some = [one.sample(lambda p: priors.draw_uniform(p, rng)) for _ in range(30)]
    assert priors.agreement(one, sorted(some, key=loss)) < 0.7
    assert priors.agreement(space(GOOD), sorted(some, key=loss)) == 1.0


@pytest.mark.parametrize("source", ["prior", "best", "uniform"])
def test_every_value_lies_in_its_range_and_exists_where_it_may(source):
    conditional = {"momentum": {"uniform": [0.5, 0.9], "prior": 0.8, "when": {"kind": "b"}}}
    one, rng = space(GOOD, **conditional), np.random.default_rng(0)
    for _ in range(300):
        params = {
            "prior": lambda: priors.draw_from_prior(one, rng),
            "best": lambda: priors.draw_near_best(one, {**GOOD, "momentum": None}, rng),
            "uniform": lambda: one.sample(lambda parameter: priors.draw_uniform(parameter, rng)),
        }[source]()
        for p in one.parameters:
            assert p.allows(params[p.name]) if p.exists(params) else params[p.name] is None


def trials_until(prior, seed, kind, target=0.1, most=150):
    search = searcher(prior, seed, kind=kind)
    for number in range(most):
        trial = told(number, search.ask(number))
        search.tell(trial)
        if trial.best_value < target:
            return number + 1
    return most


@pytest.mark.parametrize("kind", ["tpe", "ranks"])
def test_priors_at_the_worst_end_cost_at_most_half_as_much_again(kind):
    seeds = range(4)
    without, wrong, right = (
        np.mean([trials_until(prior, seed, kind) for seed in seeds]) for prior in (None, WORST, GOOD)
    )
    assert wrong <= 1.5 * without
    assert right < 0.2 * without
