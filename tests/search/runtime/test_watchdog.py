"""When the epoch of a running trial is expected to end."""

import time

import pytest
from ray.tune.experiment import Trial as TuneTrial

from search.core.config import load_config
from search.core.store import Store
from search.runtime.search import Search
from search.runtime.watchdog import Watchdog


class OnTune:
    """The part of a trial of Tune that the watchdog reads."""

    def __init__(self, number: int) -> None:
        self.config = {"trials": [{"number": number}]}
        self.status = TuneTrial.PENDING


@pytest.fixture
def search(tmp_path):
    """A search whose first two trials have the given seconds of their epochs."""
    search = Search(load_config("rnn", ["search.balance=null"]), Store(tmp_path).search("s"))

    def trained(*seconds: list[float]) -> Search:
        for epochs in seconds:
            trial = search.propose()
            for epoch, taken in enumerate(epochs, 1):
                metrics = {"val_mse": 1.0, "epoch_seconds": taken}
                search.report([{"number": trial.number, "epoch": epoch, "metrics": metrics, "diverged": None}], "cpu")
        return search

    yield trained
    search.journal.close()


@pytest.mark.parametrize(
    ("epochs", "left"),
    [
        ([[1.0, 40.0, 42.0], [1.0]], [41.0, 41.0]),  # the second trial goes on to its first long epoch
        ([[1.0], [3.0]], [1.0, 3.0]),
        ([[1.0, 40.0], []], [40.0]),  # nothing is known of a trial without an epoch
    ],
)
def test_second_epoch_takes_as_long_as_that_of_other_trials(search, epochs, left):
    watchdog = Watchdog(search(*epochs))
    for number in range(len(epochs)):
        watchdog.since[OnTune(number)] = time.monotonic()
    assert watchdog.epochs_left() == pytest.approx(left, abs=0.5)


def test_time_of_a_trial_begins_when_it_has_a_worker(search):
    watchdog, waiting, failed = Watchdog(search([1.0])), OnTune(0), OnTune(0)
    watchdog.expect(waiting)
    watchdog.expect(failed)
    watchdog.check()
    assert not watchdog.since
    waiting.status, failed.status = TuneTrial.RUNNING, TuneTrial.ERROR
    watchdog.check()
    assert list(watchdog.since) == [waiting]
    watchdog.forget(waiting)
    watchdog.check()
    assert not watchdog.since, "a trial that ended is not expected again"
