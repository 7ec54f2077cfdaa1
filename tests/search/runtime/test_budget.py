"""When the time budget of a command begins, and when it ends the trials."""

import time
from contextvars import copy_context
from dataclasses import replace

import pytest

from search.core.config import load_config
from search.core.store import Store
from search.core.time_plan import TimePlan
from search.runtime.budget import Budget, call_begins
from search.runtime.search import Search
from search.runtime.tune_runner import TuneRunner


def test_budget_of_a_call_begins_with_the_call_and_that_of_a_command_with_its_process():
    before = time.monotonic()

    def call() -> Budget:
        call_begins()
        return Budget(3600.0)

    assert copy_context().run(call).began >= before, "a notebook may be hours old"
    assert Budget(3600.0).began < before, "imports are part of a command"


class TuneTrial:
    """A running trial of Tune that trains the search's trial 1."""

    config = {"trials": [{"number": 1}]}  # noqa: RUF012 - Tune's own is a dictionary


@pytest.mark.parametrize(
    ("seconds_left", "epoch_running", "stops", "starts_trials"),
    [
        (600, 5, False, True),
        (420, 5, False, False),  # a new trial takes 270 s, and 195 s are reserved
        (220, 10, False, False),  # the running epoch ends in 20 s: 200 s are left then
        (220, 1, True, False),  # the running epoch ends in 29 s: 191 s are left then
        (180, 10, True, False),
    ],
)
def test_trials_of_a_quarter_of_an_hour_end_when_the_final_training_is_due(
    tmp_path, seconds_left, epoch_running, stops, starts_trials
):
    """The example of `TimePlan`: the best trial had nine epochs of 30 s and was best after seven."""
    search = Search(load_config("rnn", ["search.epochs=9", "search.balance=null"]), Store(tmp_path).search("s"))
    for epochs in (9, 1):
        number = search.propose().number
        for epoch in range(1, epochs + 1):
            metrics = {"val_mse": 1.0 + abs(epoch - 7), "epoch_seconds": 30.0}
            result = {"number": number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}
            search.report([result], "cpu")
    search.journal.close()
    plan = TimePlan.from_config(
        search.config, {"train": 1600, "val": 400}, 2, 900, most_final_epochs=40, alone_ratio=0.6,
        worker_start_seconds=6,
    )  # fmt: skip
    runner = TuneRunner(search, 2, Budget(900, time.monotonic() - (900 - seconds_left)), plan)
    runner.watchdog.since[TuneTrial()] = time.monotonic() - epoch_running
    runner.settle()
    assert (search.stopping == "time budget") == stops
    assert stops or search.study.has_more == starts_trials


@pytest.mark.parametrize(
    ("balance", "seconds_left", "closed", "races"),
    [
        ("null", 200, False, False),  # 27 s for a trial, 90 s for a race, and 51 s for what follows
        ("null", 160, True, True),
        ("null", 75, True, False),  # another trial does not fit
        ("variant", 160, False, False),
    ],
)
def test_last_trials_are_a_race(tmp_path, balance, seconds_left, closed, races):
    """Full trials of nine epochs of 3 s. The final training has seven epochs of 2.3 s, with 35 s around it."""
    sets = ["search.epochs=9", f"search.balance={balance}"]
    search = Search(load_config("rnn", sets), Store(tmp_path).search("s"))
    for _ in range(2):
        number = search.propose().number
        for epoch in range(1, 10):
            metrics = {"val_mse": 1.0 + abs(epoch - 7), "epoch_seconds": 3.0}
            result = {"number": number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}
            search.report([result], "cpu")
    search.journal.close()
    plan = TimePlan.from_config(
        search.config, {"train": 1600, "val": 400}, 2, 900, most_final_epochs=40, alone_ratio=0.6
    )  # fmt: skip
    runner = TuneRunner(
        search, 2, Budget(900, time.monotonic() - (900 - seconds_left)), replace(plan, comparison_seeds=0)
    )
    runner.settle()
    assert (search.study.closed, search.study.races) == (closed, races)
    assert (search.study.next_rerun() is not None) == races
