"""What follows the trials is cut to the time budget: the comparison first, then the final training."""

import time

import pytest

from search.config.load import load_config
from search.engine.budget import Budget
from search.engine.placement import Placement
from search.engine.search import Search
from search.finals.ending import AROUND, EVERYTHING, FORWARD, GROWING, MARGIN, MOST_AROUND, RETRAIN, plan_ending
from search.record.store import Store
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
    ending = plan_ending(search_with(tmp_path, 100.0), SPLITS, PLACEMENT, Budget(), 1.0, 10)
    assert (ending.seeds, ending.retrain, ending.seconds) == (5, True, 0.0)


def test_final_training_is_forecast_from_the_best_trials_epochs(tmp_path):
    search = search_with(tmp_path, 2.0, "search.balance=null")
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(1000.0, time.monotonic()), 0.5, 10)
    assert ending.retrain and ending.seeds == 0
    # Ten epochs of two seconds, half as long with the cores of both workers.
    assert ending.seconds == pytest.approx(AROUND + MARGIN * 10 * 2.0 * LONGER * 0.5)


def test_training_that_would_take_most_of_the_budget_is_left_out(tmp_path):
    search = search_with(tmp_path, 20.0, "search.balance=null")
    assert plan_ending(search, SPLITS, PLACEMENT, Budget(1000.0, time.monotonic()), 1.0, 10).retrain
    fewer = plan_ending(search, SPLITS, PLACEMENT, Budget(600.0, time.monotonic() - 310), 1.0, 10)
    assert fewer.retrain and fewer.epochs == 9, "ten do not fit, and nine are as many steps as the trial's ten"
    early = plan_ending(search, SPLITS, PLACEMENT, Budget(600.0, time.monotonic()), 1.0, 10)
    assert early.epochs is None and early.seconds == AROUND + RETRAIN * 600, "if the trials ended now, all would fit"
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(500.0, time.monotonic()), 1.0, 10)
    assert not ending.retrain and ending.seconds == AROUND


@pytest.mark.parametrize("budget", [300.0, 600.0, 1200.0, 4000.0])
def test_comparison_has_the_seeds_that_fit_and_never_a_single_one(tmp_path, budget):
    ending = plan_ending(search_with(tmp_path, 3.0), SPLITS, PLACEMENT, Budget(budget, time.monotonic()), 1.0, 10)
    assert ending.seeds in (0, 2, 3, 4, 5)
    assert ending.seconds <= max(EVERYTHING * budget, AROUND + RETRAIN * budget)
    if budget == 4000.0:
        assert ending.seeds == 5


def test_final_training_has_more_epochs_where_they_were_cut_for_the_trials_and_more_fit(tmp_path):
    search = search_with(tmp_path, 2.0, "search.balance=null")
    each = MARGIN * 2.0 * LONGER
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(200.0, time.monotonic()), 1.0, 80)
    assert ending.epochs == int((200 - AROUND) / each) == 70, "if the trials ended now"
    assert ending.seconds == pytest.approx(AROUND + GROWING * 200)
    plenty = Budget(2000.0, time.monotonic())
    assert plan_ending(search, SPLITS, PLACEMENT, plenty, 1.0, 80).epochs == 80
    assert plan_ending(search, SPLITS, PLACEMENT, plenty, 1.0, 10).epochs is None, "they were not cut"
    late = Budget(200.0, time.monotonic() - 99)
    left = int((101 - MOST_AROUND) / each)
    assert plan_ending(search, SPLITS, PLACEMENT, late, 1.0, 80).epochs == left, "no more than the time that is left"


@pytest.mark.parametrize(("complete_best_at", "epochs"), [(10, 10), (4, None)])
def test_final_training_of_a_trial_that_was_cut_off_goes_on_where_complete_trials_show_that_it_helps(
    tmp_path, complete_best_at, epochs
):
    search = search_of(tmp_path, 10, (10, complete_best_at, 0.5), (6, 6, 0.1))
    best = search.state.best()
    assert (best.number, best.epoch) == (1, 6)
    assert plan_ending(search, SPLITS, PLACEMENT, Budget(2000.0, time.monotonic()), 1.0, 10).epochs == epochs


@pytest.mark.parametrize(("improves", "epochs"), [(True, 11), (False, 2)])
def test_time_is_kept_for_the_final_training_of_a_trial_that_runs_while_it_improves(tmp_path, improves, epochs):
    search = search_of(tmp_path, 80, (4, 2, 0.1), (10, 10 if improves else 1, 0.5))
    ending = plan_ending(search, SPLITS, PLACEMENT, Budget(1000.0, time.monotonic()), 1.0, 80)
    assert ending.seconds == pytest.approx(AROUND + MARGIN * epochs * 2.0 * LONGER)


def test_a_machine_that_takes_long_to_begin_is_given_longer_to_end(tmp_path):
    search = search_with(tmp_path, 2.0, "search.balance=null")
    quick, slow = (Budget(1000.0, time.monotonic() - seconds) for seconds in (5, 30))
    taken = [plan_ending(search, SPLITS, PLACEMENT, budget, 1.0, 10).seconds for budget in (quick, slow)]
    assert taken[1] - taken[0] == pytest.approx(30 - AROUND, abs=1)
