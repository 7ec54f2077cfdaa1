"""Searches with several objectives: what is proposed, compared and chosen, and that a resume changes nothing."""

from itertools import count

import pytest

from search.core.changes import resolved
from search.core.config import check_config, load_config
from search.core.decision import TrialResult
from search.core.searchers.rank_searcher import RankSearcher
from search.core.space import parse_space
from search.core.state import SearchState, Trial
from search.core.study import Study
from search.core.warm_start import as_trials
from trainables import InputError, Objective

LOSS, SIZE = Objective("loss", "min"), Objective("size", "min")
SPACE = {"x": {"uniform": [0, 1]}, "kind": {"choice": ["a", "b"]}}


def configured(**settings):
    raw = load_config("rnn", profile="data").raw
    search = {
        "objective": ["loss min", "size min"], "epochs": 9, "grace_period": 1, "reduction_factor": 3, "trials": 24,
        "startup_trials": 4, "balance": None, "time_budget": None, "concurrency": 1, "scheduler": "asha-predict",
        **settings,
    }  # fmt: skip
    return check_config("rnn", {**raw, "search": {**raw["search"], **search}, "space": SPACE}, "x.yaml")


def metrics(trial, epoch):
    """A loss that falls with `x` and the epochs, and a size that grows with `x`."""
    x = trial.params["x"] + (trial.params["kind"] == "b") / 4
    return {"val_loss": (1 - x) ** 2 + 1 / epoch, "size": x**2, "epoch_seconds": 1.0}


def play(study, steps=None):
    """The next events of a search with one worker: those of `steps` epochs or proposals, or of the rest."""
    events = []
    for _ in range(steps) if steps is not None else count():
        trial = next((t for t in study.state.trials.values() if not t.idle), None)
        if trial is None:
            event = study.propose()
            new = [event] if event else []
        else:
            new, _ = study.report([TrialResult(trial.number, trial.epoch + 1, metrics(trial, trial.epoch + 1))])
        if not new:
            return events
        for event in new:
            study.apply(event)
        events += new
    return events


@pytest.mark.parametrize(
    ("searcher", "scheduler"),
    [*(("ranks", name) for name in ("asha", "asha-promote", "asha-predict", "hyperband", "median", "none")),
     ("tpe", "asha-predict")],
)  # fmt: skip
def test_resumed_search_of_several_objectives_equals_the_uninterrupted_one(searcher, scheduler):
    config = configured(searcher=searcher, scheduler=scheduler)
    whole = play(Study(config, LOSS))
    assert len([event for event in whole if event["event"] == "trial"]) == 24
    for kept in (7, len(whole) // 2, len(whole) - 9):
        assert whole[:kept] + play(Study(config, LOSS, events=whole[:kept])) == whole


def test_rung_keeps_both_ends_of_the_front_and_drops_the_dominated():
    study = Study(configured(scheduler="asha-promote", reduction_factor=2, searcher="random"), LOSS)
    shown = [(1.0, 9.0), (9.0, 1.0), (3.0, 3.0), (9.0, 9.0), (3.5, 8.0), (9.5, 9.5)]
    for _ in shown:
        study.apply(study.propose())
    for number, (loss, size) in enumerate(shown):
        for event in study.report([TrialResult(number, 1, {"val_loss": loss, "size": size})])[0]:
            study.apply(event)
    assert {study.state.trials[n].outcome for n in range(6)} == {"paused"}
    promoted = []
    for _ in range(3):
        promoted.append(study.promote())
        study.apply({"event": "promoted", "number": promoted[-1], "reason": ""})
    assert promoted == [2, 0, 1], "the knee, then the ends; by loss alone it would be 0, 2 and 4"
    assert study.rungs()[1] == {number: loss for number, (loss, _) in enumerate(shown)}, "reports show the objective"


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_decisions_of_a_round_do_not_depend_on_which_trial_is_faster(scheduler):
    decided = []
    for order in (1, -1):
        study = Study(configured(scheduler=scheduler, deterministic=True, concurrency=4, searcher="random"), LOSS)
        reasons = {}
        for _ in range(4):
            while (event := study.propose()) is not None:
                study.apply(event)
            for trial in list(study.state.trials.values())[::order]:
                while not trial.idle:
                    result = TrialResult(trial.number, trial.epoch + 1, metrics(trial, trial.epoch + 1))
                    events, decisions = study.report([result])
                    reasons[trial.number, result.epoch] = decisions[trial.number]
                    for event in events:
                        study.apply(event)
        decided.append(reasons)
    assert decided[0] == decided[1]
    assert {decision.outcome for decision in decided[0].values()} >= {"stopped_early", "completed"}


def told(number, x):
    trial = Trial(number, {"x": x, "kind": "a"}, 0, outcome="completed")
    for epoch in (1, 2, 3):
        trial.take(epoch, metrics(trial, epoch), LOSS)
    return trial


def test_proposals_are_spread_over_the_front():
    """Every `x` is on the front: small ones have a small size, large ones a small loss."""
    proposed = {}
    for name, further in (("one", ()), ("two", (SIZE,))):
        search = RankSearcher(parse_space(SPACE, "x.yaml"), LOSS, 1, 3, 4, further=further)
        for number in range(40):
            search.tell(told(number, search.ask(number)["x"]))
        proposed[name] = [search.ask(number)["x"] for number in range(40, 80)]
    # With other seeds 10 to 35 of the 40 proposals for two objectives are small.
    assert sum(x < 0.5 for x in proposed["one"]) < 8 <= sum(x < 0.5 for x in proposed["two"]) <= 36


def test_reason_names_the_weights_of_a_proposal():
    search = RankSearcher(parse_space(SPACE, "x.yaml"), LOSS, 1, 3, 2, further=(SIZE,))
    for number in range(12):
        search.tell(told(number, search.ask(number)["x"]))
    sources = {}
    for number in range(12, 24):
        search.ask(number)
        sources[number] = search.source
    weights = [source.partition(" with the weights ")[2] for source in sources.values() if "weights" in source]
    assert len(set(weights)) > 5, "each proposal draws its own"
    assert all(text.startswith("loss 0.") and ", size 0." in text for text in weights)


def finished(shown, **more):
    state = SearchState(LOSS, (LOSS, SIZE), **more)
    for number, (loss, size) in enumerate(shown):
        state.trials[number] = trial = Trial(number, {"x": 0.0, "kind": "ab"[number % 2]}, 0, outcome="completed")
        trial.take(1, {"val_loss": loss, "size": size}, LOSS)
    return state


SHOWN = [(1.0, 100.0), (2.0, 20.0), (5.0, 10.0), (3.0, 90.0), (1.0, 100.0)]


@pytest.mark.parametrize(
    ("preference", "ranked"),
    [(None, [0, 4, 1, 3, 2]), ({"loss": 1, "size": 1}, [1, 0, 4, 2, 3]), ({"size": 1}, [2, 1, 3, 0, 4]),
     ({"loss": 5, "size": 1}, [0, 4, 1, 3, 2]), ({"loss": 1, "size": 4}, [1, 2, 0, 4, 3])],
)  # fmt: skip
def test_preference_chooses_the_best_trial(preference, ranked):
    state = finished(SHOWN, preference=preference)
    assert [trial.number for trial in state.ranked()] == ranked
    assert state.best().number == ranked[0] == state.finalists(1)[0][0].number
    assert state.best("kind", "b").number == next(number for number in ranked if number % 2)


def test_front_and_knee_are_the_same_for_every_preference():
    for preference in (None, {"loss": 1, "size": 4}):
        state = finished(SHOWN, preference=preference)
        assert [trial.number for trial in state.front()] == [0, 4, 1, 2] and state.knee().number == 1
    empty = SearchState(LOSS, (LOSS, SIZE), {"loss": 1})
    assert (empty.front(), empty.knee(), empty.best(), empty.ranked()) == ([], None, None, [])


def test_preference_changes_by_a_request():
    config = configured(preference={"loss": 1})
    study = Study(config, LOSS)
    play(study, 40)
    changes = resolved(config, {"preference": {"size": 1}}, len(study.state.trials))
    study.apply({"event": "request", "id": "a", "kind": "set", "content": changes, "time": 0})
    assert study.state.preference == {"size": 1.0} == study.config.search.preference
    sizes = [trial.curve[trial.best_epoch]["size"] for trial in study.state.trials.values() if trial.can_win]
    best = study.state.best()
    assert best.curve[best.best_epoch]["size"] == min(sizes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"objective": None, "preference": {"loss": 1}}, "preference: .*: needs several objectives"),
     ({"preference": {"loss": 1, "speed": 2}}, "preference: .*: 'speed': no objective; there are loss, size"),
     ({"preference": {"loss": 0}}, "preference: .*: expected a weight above 0 of at least one objective"),
     ({"preference": {"loss": -1}}, "preference.loss: -1: input should be greater than or equal to 0"),
     ({"searcher": "gp"}, "searcher: gp: has one objective; for several: ranks, tpe, random, grid, nsga2")],
)  # fmt: skip
def test_wrong_preference_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        configured(**settings)


def test_earlier_trials_have_every_objective():
    earlier = {"params": {"x": 0.5, "kind": "a"}, "outcome": "completed", "values": {"1": 2.0}}
    event = {"event": "warm_start", "from": "a", "trials": [earlier, {**earlier, "others": {"1": {"size": 7.0}}}]}
    old, new = as_trials(event, LOSS)
    assert old.curve == {1: {"val_loss": 2.0}} and new.curve == {1: {"val_loss": 2.0, "size": 7.0}}
