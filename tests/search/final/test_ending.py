"""What follows the trials is cut to the time budget: the comparison first, then the final training."""

import time

import pytest

from search.core.config import load_config
from search.core.store import Store
from search.final.ending import (
    AROUND,
    EVERYTHING,
    FORWARD,
    GROWING,
    MARGIN,
    MOST_AROUND,
    RETRAIN,
    STARTS,
    Measured,
    plan_ending,
    settle_ending,
)
from search.runtime.budget import Budget
from search.runtime.placement import Placement
from search.runtime.search import Search
from trainables import DataInfo, Splits

SPLITS = Splits(None, None, None, DataInfo("s", "f", "t", {"train": 80, "val": 20, "test": 10}))
PLACEMENT = Placement(1.0, 0.0, 2)
#: An epoch of the final training beside one of a trial: a quarter more to train on, and no validation.
LONGER = 100 / (80 + FORWARD * 20)


def search_with(tmp_path, seconds, *sets):
    """A search with one trial that trained ten epochs of so many seconds."""
    search = Search(load_config("rnn", ["search.epochs=10", *sets]), Store(tmp_path).search("s"))
    trial = search.propose()
    metrics = {"val_mse": 1.0, "epoch_seconds": seconds}
    for epoch in range(1, 11):
        metrics = {**metrics, "val_mse": 1.0 / epoch}
        result = {"number": trial.number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}
        search.report([result], "cpu")
    search.journal.close()
    return search


def search_of(tmp_path, epochs, *trials):
    """A search of trials of up to so many epochs: how many each has trained, its best one, and its loss there."""
    search = Search(load_config("rnn", [f"search.epochs={epochs}", "search.balance=null"]), Store(tmp_path).search("s"))
    for last, best_at, lowest in trials:
        number = search.propose().number
        for epoch in range(1, last + 1):
            metrics = {"val_mse": lowest + abs(epoch - best_at), "epoch_seconds": 2.0}
            result = {"number": number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}
            search.report([result], "cpu")
    search.journal.close()
    return search


def test_without_a_budget_everything_is_done(tmp_path):
    ending = plan_ending(search_with(tmp_path, 100.0), SPLITS, PLACEMENT, Budget(), Measured(10))
    assert (ending.seeds, ending.retrain, ending.seconds) == (5, True, 0.0)


def test_final_training_is_forecast_from_the_best_trials_epochs(tmp_path):
    search = search_with(tmp_path, 2.0, "search.balance=null")
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(1000.0, time.monotonic()), Measured(10, 0.5))
    assert ending.retrain and ending.seeds == 0
    # Ten epochs of two seconds, half as long with the cores of both workers.
    assert ending.seconds == pytest.approx(AROUND + MARGIN * 10 * 2.0 * LONGER * 0.5)


def test_training_that_would_take_most_of_the_budget_is_left_out(tmp_path):
    search = search_with(tmp_path, 20.0, "search.balance=null")
    assert plan_ending(search, SPLITS, PLACEMENT, Budget(1000.0, time.monotonic()), Measured(10)).retrain
    fewer = plan_ending(search, SPLITS, PLACEMENT, Budget(600.0, time.monotonic() - 340), Measured(10))
    assert fewer.retrain and fewer.epochs == 9, "ten do not fit, and nine are as many steps as the trial's ten"
    early = plan_ending(search, SPLITS, PLACEMENT, Budget(600.0, time.monotonic()), Measured(10))
    assert early.epochs is None and early.seconds == AROUND + RETRAIN * 600, "if the trials ended now, all would fit"
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(500.0, time.monotonic()), Measured(10))
    assert not ending.retrain and ending.seconds == AROUND


@pytest.mark.parametrize("budget", [300.0, 600.0, 1200.0, 4000.0])
def test_comparison_has_the_seeds_that_fit_and_never_a_single_one(tmp_path, budget):
    ending = plan_ending(search_with(tmp_path, 3.0), SPLITS, PLACEMENT, Budget(budget, time.monotonic()), Measured(10))
    assert ending.seeds in (0, 2, 3, 4, 5)
    assert ending.seconds <= max(EVERYTHING * budget, AROUND + RETRAIN * budget)
    if budget == 4000.0:
        assert ending.seeds == 5


def test_final_training_has_more_epochs_where_they_were_cut_for_the_trials_and_more_fit(tmp_path):
    search = search_with(tmp_path, 2.0, "search.balance=null")
    each = MARGIN * 2.0 * LONGER
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(200.0, time.monotonic()), Measured(80))
    assert ending.epochs == int((200 - AROUND) / each) == 70, "if the trials ended now"
    assert ending.seconds == pytest.approx(AROUND + GROWING * 200)
    plenty = Budget(2000.0, time.monotonic())
    assert plan_ending(search, SPLITS, PLACEMENT, plenty, Measured(80)).epochs == 80
    assert plan_ending(search, SPLITS, PLACEMENT, plenty, Measured(10)).epochs is None, "they were not cut"
    late = Budget(200.0, time.monotonic() - 99)
    left = int((101 - AROUND) / each)
    assert plan_ending(search, SPLITS, PLACEMENT, late, Measured(80)).epochs == left, (
        "no more than the time that is left"
    )


@pytest.mark.parametrize(("complete_best_at", "epochs"), [(10, 10), (4, None)])
def test_final_training_of_a_trial_that_was_cut_off_goes_on_where_complete_trials_show_that_it_helps(
    tmp_path, complete_best_at, epochs
):
    search = search_of(tmp_path, 10, (10, complete_best_at, 0.5), (6, 6, 0.1))
    best = search.state.best()
    assert (best.number, best.epoch) == (1, 6)
    assert plan_ending(search, SPLITS, PLACEMENT, Budget(2000.0, time.monotonic()), Measured(10)).epochs == epochs


@pytest.mark.parametrize(("improves", "epochs"), [(True, 11), (False, 2)])
def test_time_is_kept_for_the_final_training_of_a_trial_that_runs_while_it_improves(tmp_path, improves, epochs):
    search = search_of(tmp_path, 80, (4, 2, 0.1), (10, 10 if improves else 1, 0.5))
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(1000.0, time.monotonic()), Measured(80))
    assert ending.seconds == pytest.approx(AROUND + MARGIN * epochs * 2.0 * LONGER)


def test_a_machine_that_takes_long_to_start_a_worker_is_given_longer_to_end(tmp_path):
    search, budget = search_with(tmp_path, 2.0, "search.balance=null"), Budget(1000.0, time.monotonic())
    taken = {start: plan_ending(search, SPLITS, PLACEMENT, budget, Measured(10, 1.0, start)) for start in (1, 8, 60)}
    training = taken[1].seconds - AROUND
    assert taken[8].seconds == pytest.approx(STARTS * 8 + training)
    assert taken[60].seconds == pytest.approx(MOST_AROUND + training)


def test_where_balanced_values_are_compared_a_growing_final_training_leaves_room_for_it(tmp_path):
    alone, balanced = (search_with(tmp_path / str(sets), 2.0, *sets) for sets in (["search.balance=null"], []))
    budget, measured = Budget(300.0, time.monotonic()), Measured(1000)
    assert plan_ending(alone, SPLITS, PLACEMENT, budget, measured).seconds == pytest.approx(AROUND + GROWING * 300)
    assert plan_ending(balanced, SPLITS, PLACEMENT, budget, measured).seconds == pytest.approx(AROUND + RETRAIN * 300)


@pytest.mark.parametrize(("measured", "epochs"), [(1.0, 163), (4.0, 40), (None, 70)])
def test_epochs_of_the_final_training_go_by_its_own_pace_once_the_trials_are_over(
    tmp_path, monkeypatch, measured, epochs
):
    search = search_with(tmp_path, 2.0, "search.balance=null")
    monkeypatch.setattr("search.final.ending.measure_final", lambda *_: measured)
    budget = Budget(400.0, time.monotonic() - 200)
    assert settle_ending(search, SPLITS, PLACEMENT, budget, Measured(1000)).epochs == pytest.approx(epochs, abs=1)


def test_a_training_that_was_forecast_not_to_fit_takes_place_where_its_own_pace_says_so(tmp_path, monkeypatch):
    search = search_with(tmp_path, 20.0, "search.balance=null")
    budget = Budget(500.0, time.monotonic() - 250)
    assert not plan_ending(search, SPLITS, PLACEMENT, budget, Measured(10)).retrain
    monkeypatch.setattr("search.final.ending.measure_final", lambda *_: 20.0)
    settled = settle_ending(search, SPLITS, PLACEMENT, budget, Measured(10))
    assert settled.retrain and settled.epochs is None


def test_nothing_is_measured_where_it_would_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("search.final.ending.measure_final", lambda *_: pytest.fail("measured"))
    search = search_with(tmp_path, 2.0, "search.balance=null")
    for budget in (Budget(), Budget(1000.0, time.monotonic() - 500), Budget(500.0, time.monotonic() - 450)):
        settle_ending(search, SPLITS, PLACEMENT, budget, Measured(10))
