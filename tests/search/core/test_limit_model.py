"""Searchers with limits on outcomes: what they propose, and that a proposal is a function of what was told."""

import numpy as np
import pytest

from search.core.config import load_config
from search.core.decision import TrialResult
from search.core.feasibility import excess, limits_of
from search.core.searchers.limit_model import LimitModel
from search.core.searchers.optuna_searcher import GpSearcher, Nsga2Searcher, TpeSearcher
from search.core.searchers.rank_searcher import RankSearcher
from search.core.space import parse_space
from search.core.state import Trial
from search.core.study import Study
from trainables import Objective

OBJECTIVE = Objective("loss", "min")
SPACE = parse_space({"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}, "z": {"uniform": [0, 1]}}, "x.yaml")
SIZE = limits_of({"parameters": "<= 40"})
RECALL = limits_of({"recall": ">= 0.6"})
LEARNERS = {"ranks": RankSearcher, "tpe": TpeSearcher, "gp": GpSearcher, "nsga2": Nsga2Searcher}


def searcher(name="ranks", limits=SIZE, seed=1, startup=6):
    if name == "ranks":
        return RankSearcher(SPACE, OBJECTIVE, seed, 4, startup, outcome_limits=limits)
    return LEARNERS[name](SPACE, [OBJECTIVE], seed, startup, 500, outcome_limits=limits)


def told(number, params, limits=SIZE, before=False):
    """A trial of a problem whose best configurations, with large x and y, are beyond the limits.

    Args:
        before: whether a trial beyond the limit on the parameters ends before its first epoch.
    """
    x, y = params["x"], params["y"]
    figures = {"parameters": 100 * x * x, "val_recall": 1 - y}
    trial = Trial(number, params, 0)
    beyond = excess(limits, figures) > 0
    if beyond and before:
        trial.outcome, trial.figures = "infeasible", {"parameters": figures["parameters"]}
        return trial
    for epoch in (1, 2, 3, 4):
        if beyond:
            trial.infeasible[epoch] = "beyond"
        trial.take(epoch, figures | {"val_loss": 2 - x - y + 1 / epoch, "epoch_seconds": 1.0}, OBJECTIVE)
        if beyond and limits[0].is_figure:
            break
    trial.outcome = "infeasible" if beyond and limits[0].is_figure else "completed"
    return trial


def play(search, numbers, limits=SIZE, before=False):
    trials = []
    for number in numbers:
        trials.append(told(number, search.ask(number), limits, before))
        search.tell(trials[-1])
    return trials


@pytest.mark.parametrize("limits", [SIZE, RECALL], ids=["size", "recall"])
@pytest.mark.parametrize("name", LEARNERS)
def test_replayed_searcher_with_limits_proposes_what_the_uninterrupted_one_does(name, limits):
    whole = play(searcher(name, limits), range(12), limits)
    resumed = searcher(name, limits)
    for trial in whole[:9]:
        resumed.replay(trial)
        resumed.tell(trial)
    assert [t.params for t in play(resumed, range(9, 12), limits)] == [t.params for t in whole[9:]]


@pytest.mark.parametrize("before", [False, True], ids=["after an epoch", "before training"])
@pytest.mark.parametrize("name", ["ranks", "tpe"])
def test_searcher_learns_where_the_limits_are(name, before):
    """The limit is at x = 0.63. Without limits the searchers go to x = 1."""
    trials = play(searcher(name), range(30), before=before)
    assert sum(trial.params["x"] > 0.8 for trial in trials[15:]) <= 3
    best = max(t.params["x"] + t.params["y"] for t in trials if t.can_win)
    assert best > (1.6 if name == "ranks" else 1.45), "the best that is possible is 1.63"


def test_model_without_a_feasible_trial_comes_nearer_to_the_limits():
    limits = limits_of({"parameters": "<= 1"})  # one configuration in ten is within it
    first = {"x": 0.9, "y": 0.5, "z": 0.5}
    search = searcher(limits=limits, startup=4)
    for number, x in enumerate((0.9, 0.7, 0.5, 0.4)):
        trial = told(number, {**first, "x": x}, limits, before=True)
        search.replay(trial)
        search.tell(trial)
    asked = play(search, range(4, 16), limits, before=True)
    assert sum(t.params["x"] < 0.4 for t in asked) > 8
    assert any(t.can_win for t in asked)


def test_limits_that_no_trial_exceeds_change_no_proposal():
    far = limits_of({"parameters": "<= 1e9", "recall": ">= -1"})
    limited, free = searcher(limits=far), searcher(limits=())
    for number in range(14):
        params = free.ask(number)
        assert limited.ask(number) == params
        for search in (limited, free):
            search.tell(told(number, params, far))


def test_probability_follows_the_limit_and_is_one_without_a_trial_beyond_it():
    points = np.linspace(0, 1, 12)[:, None]
    model = LimitModel(SIZE, lambda numbers: points[list(numbers)], lambda epochs: np.zeros(len(epochs)), 200)
    assert model.probability(points).tolist() == [1.0] * 12
    for number, (x,) in enumerate(points):
        model.tell(Trial(number, {}, 0, outcome="infeasible", figures={"parameters": 100 * x}))
    chances = model.probability(np.array([[0.05], [0.25], [0.41], [0.6], [0.95]]))
    assert chances[0] > 0.9 and chances[1] > 0.75 and 0.3 < chances[2] < 0.7 and chances[3] < 0.25 > chances[4]
    assert [model.rank(11) > model.rank(6) > 0, model.known] == [True, set(range(12))]


@pytest.mark.parametrize("name", ["ranks", "tpe"])
def test_killed_study_with_limits_proposes_and_decides_as_the_uninterrupted_one(name):
    """Every prefix of the journal gives the same events: those are all that a kill leaves."""
    sets = [
        "search.trials=14", "search.epochs=4", "search.balance=null", "search.scheduler=asha-predict",
        "search.startup_trials=4", "search.grace_period=1", f"search.searcher={name}",
        "search.limits.parameters=<= 2e4", "search.limits.recall=>= 0.5",
    ]  # fmt: skip
    config = load_config("rnn", sets, profile="demo")

    def step(study):
        """The events of one more step of a search with one worker."""
        running = next((t for t in study.state.trials.values() if not t.idle), None)
        if running is None:
            return [event] if (event := study.propose()) is not None else []
        hidden, lr = running.params["hidden"], running.params["lr"]
        figures = {"parameters": float(hidden**2 * 10)}
        if not running.epoch and (ended := study.begin({running.number: figures})):
            return ended
        epoch = running.epoch + 1
        metrics = figures | {"val_mse": abs(np.log10(lr) + 2) + 1 / epoch, "val_recall": min(1.0, 0.2 * epoch + lr * 9)}
        events, _ = study.report([TrialResult(running.number, epoch, metrics | {"epoch_seconds": 1.0})])
        return events

    study, journal = Study(config, Objective("mse", "min")), []
    while events := step(study):
        for event in events:
            study.apply(event)
        journal += events
    kinds = {event["event"] for event in journal} | {event.get("outcome") for event in journal}
    assert {"infeasible", "paused", "promoted"} <= kinds and any("infeasible" in event for event in journal)
    for length in range(0, len(journal), 7):
        resumed = Study(config, Objective("mse", "min"), events=journal[:length])
        assert step(resumed)[0] == journal[length], f"after {length} events"
