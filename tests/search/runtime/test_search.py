"""The decisions of a search, on results that are given here."""

import itertools
import random

import pytest

from search.core.config import load_config
from search.core.decision import is_over_time
from search.core.state import SearchState, Trial
from search.core.store import Store
from search.runtime import checkpoint_cleanup
from search.runtime.search import Search
from trainables import Objective


def search_in(folder, *sets: str) -> Search:
    search = Search(
        load_config("windows", ["search.epochs=4", "search.grace_period=1", *sets]), Store(folder).search("s")
    )
    search.record({"event": "session"})
    return search


def result(number: int, epoch: int, accuracy: float, checkpoint=None, seconds: float = 1.0) -> dict:
    metrics = {"val_accuracy": accuracy, "epoch_seconds": seconds}
    return {"number": number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": checkpoint}


def test_error_is_tried_again_as_often_as_allowed_and_anew_after_an_epoch(tmp_path):
    search = search_in(tmp_path, "search.max_failures=1")
    search.propose()
    assert search.fail(0, "error", "boom")
    search.report([result(0, 1, 0.5)], "cpu")
    assert search.fail(0, "error", "boom")
    assert not search.fail(0, "error", "boom")
    assert search.state.trials[0].outcome == "failed"


def test_lost_worker_has_a_limit_of_its_own(tmp_path):
    search = search_in(tmp_path, "search.max_failures=0", "search.max_lost_workers=2")
    search.propose()
    assert [search.fail(0, "lost", "") for _ in range(3)] == [True, True, False]


def test_out_of_memory_is_tried_once_in_two_parts(tmp_path):
    search = search_in(tmp_path, "search.max_failures=0")
    search.propose()
    assert search.fail(0, "memory", "CUDA out of memory")
    assert search.state.trials[0].micro_batches == 2
    search.report([result(0, 1, 0.5)], "cpu")
    assert not search.fail(0, "memory", "CUDA out of memory")


def test_mistake_of_a_training_is_not_tried_again_and_ends_a_search_without_a_result(tmp_path):
    search = search_in(tmp_path)
    for _ in range(3):
        search.propose()
    search.report([result(1, 1, 0.5)], "cpu")
    assert not search.fail(0, "mistake", "TrainingError: no metric")
    assert not search.stopping, "another trial came further"
    search = search_in(tmp_path / "other")
    search.propose()
    search.fail(0, "mistake", "TrainingError: no metric")
    assert search.stopping == "failures"


def test_failures_in_a_row_stop_the_search_and_a_success_between_does_not(tmp_path):
    search = search_in(tmp_path, "search.max_failures=0", "search.max_failed_in_a_row=2")
    for _ in range(4):
        search.propose()
    search.fail(0, "error", "boom 0")
    search.report([result(1, epoch, 0.5) for epoch in (1, 2, 3, 4)], "cpu")
    search.fail(2, "error", "boom 2")
    assert not search.stopping
    search.fail(3, "error", "boom 3")
    assert search.stopping == "failures"
    assert search.state.failed_in_a_row == ["boom 2", "boom 3"]
    assert search.propose() is None


def test_epoch_budget_counts_all_trials(tmp_path):
    search = search_in(tmp_path, "search.epoch_budget=3")
    search.propose(), search.propose()
    search.report([result(0, 1, 0.5), result(1, 1, 0.6)], "cpu")
    assert not search.stopping
    search.report([result(1, 2, 0.6)], "cpu")
    assert search.stopping == "epoch budget"


def test_trial_over_its_time_ends_with_what_it_has(tmp_path):
    search = search_in(tmp_path, "search.trial_timeout=10s", "search.scheduler=none")
    search.propose()
    assert search.report([result(0, 1, 0.5, seconds=8)], "cpu") == set()
    trial, section = search.state.trials[0], search.config.search
    assert is_over_time(trial, section, 3) and not is_over_time(trial, section, 1)
    assert search.report([result(0, 2, 0.7, seconds=4)], "cpu") == {0}
    assert search.state.trials[0].outcome == "timed_out"
    assert search.state.best().number == 0


def test_epochs_reported_together_are_judged_by_the_last_with_the_time_of_all(tmp_path):
    search = search_in(tmp_path, "search.trial_timeout=10s", "search.grace_period=3")
    search.propose(), search.propose()
    assert search.report([result(0, epoch, 0.9, seconds=3) for epoch in (1, 2, 3)], "cpu") == set()
    assert search.report([result(1, epoch, 0.5, seconds=6) for epoch in (1, 2)], "cpu") == {1}
    told = [event["outcome"] for event in search.journal.events if event["event"] == "result"]
    assert told == [None, None, None, None, "timed_out"]


def rounds(folder, rng: random.Random) -> dict:
    """A search of eight trials, three at once, whose trials report in an order of `rng`'s."""
    search = search_in(
        folder, "search.deterministic=true", "search.concurrency=3", "search.trials=8", "search.reduction_factor=2",
        "search.startup_trials=2",
    )  # fmt: skip
    running: dict[int, int] = {}
    while len(search.state.trials) < 8 or running:
        while len(running) < 3 and (trial := search.propose()):
            running[trial.number] = 0
        number = rng.choice(sorted(running))
        running[number] += 1
        params = search.state.trials[number].params
        accuracy = 1 - abs(params["lr"] - 0.004) * 100 + params["dropout"] * running[number] / 10
        if search.report([result(number, running[number], accuracy)], "cpu"):
            del running[number]
    return {n: (t.params, t.outcome, t.epoch) for n, t in search.state.trials.items()}


def test_rounds_make_the_same_search_whatever_trial_is_faster(tmp_path):
    found = [rounds(tmp_path / str(seed), random.Random(seed)) for seed in range(6)]
    assert all(one == found[0] for one in found[1:])
    assert len({outcome for _, outcome, _ in found[0].values()}) == 2, "some were stopped and some were not"


def saved(search: Search, number: int, epoch: int, accuracy: float, size: int) -> None:
    name = f"checkpoints/trial-{number:04d}/epoch-{epoch:04d}.pt"
    with search.files.write(name) as file:
        file.write(bytes(size))
    search.report([result(number, epoch, accuracy, {"name": name, "bytes": size})], "cpu")
    checkpoint_cleanup.limit(search, [number])


def kept(search: Search) -> set[tuple[int, int]]:
    files = (search.folder.path / "checkpoints").rglob("*.pt")
    return {(int(p.parent.name[6:]), int(p.stem[6:])) for p in files}


def test_trial_keeps_its_last_and_its_best_checkpoint(tmp_path):
    search = search_in(tmp_path, "search.scheduler=none")
    search.propose()
    for epoch, accuracy in ((1, 0.5), (2, 0.9), (3, 0.4)):
        saved(search, 0, epoch, accuracy, 10)
    assert kept(search) == {(0, 2), (0, 3)}


def test_oldest_checkpoints_make_room_but_never_the_best_or_what_runs(tmp_path):
    room = 45 / 2**30
    search = search_in(tmp_path, "search.scheduler=none", f"search.max_checkpoint_gb={room}")
    for _ in range(4):
        search.propose()
    for epoch in (1, 2, 3, 4):
        saved(search, 0, epoch, 0.5 + epoch / 100, 20)
    saved(search, 1, 1, 0.9, 20)  # the best, and it runs
    assert kept(search) == {(0, 4), (1, 1)}
    saved(search, 2, 1, 0.3, 20)
    assert kept(search) == {(1, 1), (2, 1)}, "the one that is over goes first"
    saved(search, 3, 1, 0.2, 20)
    assert kept(search) == {(1, 1), (2, 1), (3, 1)}, "what runs needs its last, whatever the limit"


def test_files_that_no_event_names_are_removed_before_a_session(tmp_path):
    search = search_in(tmp_path)
    search.propose()
    saved(search, 0, 1, 0.5, 10)
    for name in (
        ".epoch-0002.pt-abc", "epoch-0002.pt", "epoch-0001.files/model.bin", "epoch-0002.files/model.bin",
        "epoch-0003.files/index.json",
    ):  # fmt: skip
        path = search.folder.path / "checkpoints" / "trial-0000" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    checkpoint_cleanup.tidy(search)
    kept = {"checkpoints/trial-0000/epoch-0001.pt", "checkpoints/trial-0000/epoch-0001.files/model.bin"}
    assert search.files.names("checkpoints") == kept


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_replay_gives_the_state_again(tmp_path, order):
    search = search_in(tmp_path, "search.startup_trials=1")
    for _ in range(3):
        search.propose()
    for number in order:
        search.report([result(number, 1, number / 10)], "cpu")
    trials, rungs = search.state.trials, search.study.rungs()
    search.journal.close()
    again = Search(search.config, search.folder)
    assert again.state.trials == trials
    assert again.study.rungs() == rungs
    again.journal.close()


@pytest.mark.parametrize(
    ("accuracy", "improves"),
    [
        (lambda epoch: 0.9 if epoch == 20 else 0.6 + 0.004 * epoch, True),  # one lucky epoch in the middle
        (lambda epoch: 0.9 - 0.001 * abs(epoch - 20), False),
        (lambda epoch: 0.9, False),
    ],
)
def test_trial_improves_where_its_last_epochs_together_are_its_best(accuracy, improves):
    objective, trial = Objective("accuracy", "max"), Trial(0, {}, 0)
    assert not trial.improving(objective)
    for epoch in range(1, 41):
        trial.take(epoch, {"val_accuracy": accuracy(epoch)}, objective)
    assert trial.improving(objective) is improves


def test_final_training_is_chosen_by_several_epochs_where_there_are_many():
    objective = Objective("loss", "min")
    lucky, steady = Trial(0, {}, 0), Trial(1, {}, 0)
    for epoch in range(1, 41):
        lucky.take(epoch, {"val_loss": 0.1 if epoch == 7 else 1.0}, objective)
        steady.take(epoch, {"val_loss": 0.6 - 0.01 * epoch}, objective)
    state = SearchState(objective)
    state.trials = {0: lucky, 1: steady}
    assert state.best() is lucky and lucky.best_epoch == 7
    assert [(t.number, epoch) for t, epoch in state.finalists(1)] == [(0, 7), (1, 40)]
    assert [(t.number, epoch) for t, epoch in state.finalists(3)] == [(1, 39), (0, 6)], "its luck counts a third"
