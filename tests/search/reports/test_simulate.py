from search.core.config import load_config
from search.core.state import SearchState
from search.reports.simulate import decisions, simulate
from tests.search.runtime.test_search import result, search_in
from trainables.base.task import Objective

CURVES = {  # val_accuracy by epoch
    0: [0.50, 0.60, 0.70, 0.80],
    1: [0.40, 0.45, 0.50, 0.55],
    2: [0.60, 0.61, 0.62, 0.63],
    3: [0.30, 0.95, 0.96, 0.97],
}


def recorded(folder, *sets: str):
    """A search of these curves, one trial after the other."""
    search = search_in(folder, "search.trials=4", *sets)
    while (trial := search.propose()) is not None:
        for epoch, accuracy in enumerate(CURVES[trial.number], 1):
            if search.report([result(trial.number, epoch, accuracy, seconds=2.0)], "cpu"):
                break
    return search


def test_logged_decisions_come_out_again(tmp_path):
    search = recorded(tmp_path, "search.reduction_factor=2")
    same, total = decisions(search.config, search.journal.events, search.state)
    assert same == total > 4
    other = load_config("windows", ["search.epochs=4", "search.grace_period=2", "search.reduction_factor=4"])
    same, total = decisions(other, search.journal.events, search.state)
    assert same < total


def test_full_search_under_asha_is_what_asha_would_have_done(tmp_path):
    full = recorded(tmp_path / "full", "search.scheduler=none")
    stopping = recorded(tmp_path / "asha", "search.reduction_factor=2")
    found = simulate(stopping.config, full.state, concurrency=1)
    assert found.trials == {n: t.outcome for n, t in stopping.state.trials.items()}
    assert found.epochs == sum(t.epoch for t in stopping.state.trials.values())
    assert found.best == stopping.state.best().number
    assert found.seconds == 2.0 * found.epochs


def test_workers_share_the_time_and_budgets_hold(tmp_path):
    full = recorded(tmp_path, "search.scheduler=none")
    assert simulate(full.config, full.state, concurrency=1).seconds == 32.0
    assert simulate(full.config, full.state, concurrency=4).seconds == 8.0
    short = load_config("windows", ["search.epochs=4", "search.scheduler=none", "search.epoch_budget=5"])
    assert simulate(short, full.state, concurrency=1).epochs == 5


def test_trial_that_was_stopped_is_used_as_far_as_it_went(tmp_path):
    stopped = recorded(tmp_path, "search.reduction_factor=2")
    full = load_config("windows", ["search.epochs=4", "search.scheduler=none"])
    found = simulate(full, stopped.state, concurrency=2)
    unknown = {n for n, t in stopped.state.trials.items() if t.outcome == "stopped_early"}
    assert unknown and {n for n, outcome in found.trials.items() if outcome == "unknown"} == unknown


def test_nothing_recorded_is_nothing_simulated():
    config = load_config("windows")
    assert simulate(config, SearchState(Objective("accuracy", "max")), 2).trials == {}
