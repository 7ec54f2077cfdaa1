"""How many epochs a running search has still to train."""

import pytest

from search.core.config import load_config
from search.core.store import SearchFolder
from search.reports.remaining import epochs_to_go
from search.runtime.search import Search
from tests.search.runtime.test_search import result


def search_in(folder, *sets: str) -> Search:
    return Search(load_config("rnn", ["search.searcher=random", "search.balance=null", *sets]), SearchFolder(folder))


def left(search: Search) -> float | None:
    trials = list(search.state.trials.values())
    return epochs_to_go(trials, search.total, search.config, list(search.study.rungs()))


def train(search: Search) -> list[tuple[int, float | None]]:
    """Trains all trials, one after the other; after each epoch how many are trained, and how many the forecast says
    are left."""
    forecasts = []
    while (trial := search.propose()) is not None:
        for epoch in range(trial.epoch + 1, search.config.search.epochs + 1):
            told = result(trial.number, epoch, 1.0) | {"metrics": {"val_mse": 1.0 + trial.number, "epoch_seconds": 1.0}}
            over = search.report([told | {"checkpoint": None}], "cpu")
            forecasts.append((len(forecasts) + 1, left(search)))
            if over:
                break
    search.journal.close()
    return forecasts


@pytest.mark.parametrize("scheduler", ["asha-promote", "asha-predict"])
@pytest.mark.parametrize("trials", [1, 5, 18])
def test_where_trials_pause_the_forecast_is_what_the_search_then_trains(tmp_path, scheduler, trials):
    sets = (f"search.scheduler={scheduler}", f"search.trials={trials}", "search.epochs=24", "search.grace_period=2")
    search = search_in(tmp_path, *sets, "search.reduction_factor=3")
    forecasts = train(search)
    assert {trial.outcome for trial in search.state.trials.values()} <= {"paused", "completed"}
    total = len(forecasts)
    assert all(done + to_go == total for done, to_go in forecasts), forecasts[:3]


def test_without_early_stopping_every_trial_trains_all_epochs(tmp_path):
    search = search_in(tmp_path, "search.scheduler=none", "search.trials=4", "search.epochs=5")
    assert all(done + to_go == 20 for done, to_go in train(search))


def test_an_epoch_budget_is_a_basis_and_without_one_an_unlimited_search_has_none(tmp_path):
    search = search_in(tmp_path / "a", "search.trials=null", "search.epoch_budget=30")
    search.propose()
    assert left(search) == 30
    search = search_in(tmp_path / "b", "search.trials=null", "search.time_budget=1h")
    search.propose()
    assert left(search) is None


def test_where_trials_may_stop_there_is_no_forecast_before_one_is_over(tmp_path):
    search = search_in(tmp_path, "search.scheduler=asha", "search.trials=4", "search.epochs=8")
    forecasts = train(search)
    over = search.state.trials[0].epoch
    assert {to_go for _, to_go in forecasts[: over - 1]} == {None} and forecasts[-1][1] == 0
