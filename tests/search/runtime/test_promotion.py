"""asha-promote: trials pause at rungs, and the best of a rung go on."""

import pytest

from search.core.config import load_config
from search.core.schedulers.rungs import first_reliable_rung
from search.core.store import SearchFolder
from search.reports.simulate import simulate
from search.runtime import checkpoint_cleanup
from search.runtime.search import Search
from tests.search.runtime.test_search import result

CURVES = [
    [0.3, 0.4, 0.5, 0.6],
    [0.5, 0.6, 0.7, 0.8],
    [0.4, 0.5, 0.55, 0.6],
    [0.2, 0.3, 0.9, 0.95],
    [0.6, 0.65, 0.66, 0.67],
]


def search_in(folder, *sets: str) -> Search:
    scheduler = ("search.scheduler=asha-promote", "search.reduction_factor=2", "search.grace_period=1")
    config = load_config("windows", [*scheduler, "search.trials=5", "search.epochs=4", *sets])
    folder.mkdir(parents=True, exist_ok=True)
    return Search(config, SearchFolder(folder))


#: Forty trials whose first epoch shows the reverse of the later ones.
MISLEADING = [[0.1 - q / 10, q + 0.1, q + 0.11, q + 0.12] for q in (number * 7 % 40 / 50 for number in range(40))]


def train(search: Search, jobs: int = 1000, curves: list[list[float]] = CURVES) -> list[int]:
    """One job after the other, as one worker would; returns whose they were."""
    done = []
    while len(done) < jobs and (trial := search.propose()) is not None:
        done.append(trial.number)
        for epoch in range(trial.epoch + 1, 5):
            told = result(trial.number, epoch, curves[trial.number][epoch - 1])
            name = f"checkpoints/{trial.number}-{epoch}.pt"
            with search.files.write(name) as file:
                file.write(bytes(1000))
            if search.report([told | {"checkpoint": {"name": name, "bytes": 1000}}], "cpu"):
                break
        checkpoint_cleanup.limit(search, [trial.number])
    return done


def test_the_best_trial_is_trained_to_the_end_however_few_there_are(tmp_path):
    search = search_in(tmp_path, "search.reduction_factor=8", "search.trials=2")
    assert train(search) == [0, 1, 1]
    assert (search.state.trials[1].outcome, search.state.trials[0].outcome) == ("completed", "paused")


PREDICTING = ("search.scheduler=asha-predict", "search.searcher=ranks", "search.startup_trials=3")


def test_where_no_new_trial_has_time_those_that_wait_go_on_the_furthest_and_best_first(tmp_path):
    search = search_in(tmp_path, "search.trials=9", "search.reduction_factor=3")
    train(search, jobs=3)
    assert search.state.paused() == {0: 1, 1: 1, 2: 1} and search.study.promote() == 1
    search.study.closed = True
    assert train(search) == [1, 1, 2, 2, 0, 0]
    assert not search.state.paused()


MISLED = ("search.searcher=ranks", "search.trials=40", "search.reduction_factor=3", "search.startup_trials=3")


@pytest.mark.parametrize(
    ("sets", "curves"),
    [((), CURVES), (PREDICTING, CURVES), (MISLED, MISLEADING)],
    ids=["by rank", "by model", "misled at first"],
)
def test_a_resumed_search_promotes_what_an_uninterrupted_one_does(tmp_path, sets, curves):
    whole = search_in(tmp_path / "whole", *sets)
    jobs = train(whole, curves=curves)
    assert len(jobs) > 5 and whole.state.best().outcome == "completed"
    rungs = whole.study.rungs()
    assert (first_reliable_rung(list(rungs), rungs) > 0) == (curves is MISLEADING)
    for killed_after in range(1, len(jobs), 1 + len(jobs) // 10):
        folder = tmp_path / str(killed_after)
        begun = search_in(folder, *sets)
        assert train(begun, killed_after, curves) == jobs[:killed_after]
        begun.journal.close()
        resumed = search_in(folder, *sets)
        assert resumed.study.rungs() == begun.study.rungs()
        assert train(resumed, curves=curves) == jobs[killed_after:]
        assert {n: (t.outcome, t.curve) for n, t in resumed.state.trials.items()} == {
            n: (t.outcome, t.curve) for n, t in whole.state.trials.items()
        }


def test_a_finished_search_given_more_trials_promotes_whom_it_had_given_up(tmp_path):
    search = search_in(tmp_path, "search.trials=3", "search.reduction_factor=1.6")
    train(search)
    assert search.state.paused() == {0: 1, 2: 1}, "of three at the first rung one went on"
    search.give_up(0, 2)
    search.journal.close()
    again = search_in(tmp_path, "search.reduction_factor=1.6")
    again.reopen()
    assert again.state.paused() == {0: 1, 2: 1}
    train(again)
    assert again.state.trials[2].epoch > 1, "the third of five, of which three go on"
    again.give_up(*again.state.paused())
    again.reopen()
    assert not again.state.paused(), "nothing more is asked for"


def test_checkpoints_of_paused_trials_keep_to_the_room_there_is(tmp_path):
    search = search_in(tmp_path, f"search.max_checkpoint_gb={3500 / 2**30}", "search.reduction_factor=5")
    train(search, 5)
    assert len(search.files.names("checkpoints")) == 3
    outcomes = {n: t.outcome for n, t in search.state.trials.items()}
    assert outcomes == {3: "stopped_early", 0: "stopped_early", 2: "paused", 1: "paused", 4: "paused"}, "the worst went"
    assert search_in_again(search, tmp_path).state.paused() == search.state.paused()


def search_in_again(search: Search, folder) -> Search:
    search.journal.close()
    return search_in(folder)


def test_a_promoted_trial_is_told_to_the_searcher_once_with_what_it_came_to(tmp_path):
    search = search_in(tmp_path)
    train(search)
    told = search.study.searcher.study.get_trials(deepcopy=False)
    assert sorted(t.user_attrs["number"] for t in told) == [0, 1, 2, 3, 4]
    best = search.state.best()
    (known,) = [t for t in told if t.user_attrs["number"] == best.number]
    assert known.value == best.best_value


def test_full_search_simulated_with_promotion_is_what_promotion_would_have_done(tmp_path):
    full = search_in(tmp_path / "full", "search.scheduler=none")
    train(full)
    promoting = search_in(tmp_path / "promoting")
    train(promoting)
    promoting.give_up(*promoting.state.paused())
    found = simulate(promoting.config, full.state, concurrency=1)
    assert found.trials == {n: t.outcome for n, t in promoting.state.trials.items()}
    assert found.epochs == sum(t.epoch for t in promoting.state.trials.values())
