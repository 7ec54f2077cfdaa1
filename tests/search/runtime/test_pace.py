"""How the seconds of an epoch are measured, before the trials and before the final training."""

import time
from functools import partial
from types import SimpleNamespace

import pytest

from search import preparation
from search.core.config import load_config
from search.core.program_config import loop_config
from search.core.store import Store
from search.core.time_plan import TimePlan
from search.observer import Observer
from search.runtime import pace
from search.runtime.budget import Budget
from search.runtime.placement import Placement
from search.runtime.search import Search
from trainables import DataInfo, InputError, Splits, get_task
from trainables.base import training

SPLITS = Splits(None, None, None, DataInfo("s", "f", "t", {"train": 80, "val": 20, "test": 10}))
PLACEMENT = Placement(1.0, 0.0, 2)


@pytest.mark.parametrize("counted", [True, False])
def test_short_epoch_is_measured_several_times(counted):
    epochs = []

    def train_epoch():
        for step in (1, 2):
            time.sleep(0.01)
            if counted:
                training.step_ended(step, 2, step, lambda: 0.0)
        epochs.append(1)

    assert pace.time_epoch(train_epoch, least_seconds=0.2) >= 0.018
    assert len(epochs) > 1


def test_long_epoch_is_measured_in_part():
    ended = []

    def train_epoch():
        for step in range(1, 1001):
            time.sleep(0.01)
            training.step_ended(step, 1000, step, lambda: 0.0)
        ended.append(1)

    assert pace.time_epoch(train_epoch, least_seconds=0.2) >= 9.0
    assert not ended, "all of it would take ten seconds"


@pytest.mark.parametrize(("budget", "unfreeze"), [("90s", {0}), ("10m", {8, "all"})])
def test_budget_too_short_for_fine_tuning_trains_heads(monkeypatch, tmp_path, budget, unfreeze):
    """After an epoch of 40 s, 90 s do not hold two epochs of a final training."""
    config = load_config("windows", [], {"search.time_budget": budget}, profile="data")
    measured = []

    def measure(config, splits, placement, epochs, **_):
        measured.append(config)
        return pace.PaceMeasurement(2.0 if "model.unfreeze" in config.space.fixed() else 40.0, 0.6, 5.0)

    monkeypatch.setattr(pace, "measure_pace", measure)
    monkeypatch.setattr(preparation, "Budget", partial(Budget, began=time.monotonic()))
    said = Said()
    cluster = SimpleNamespace(placement=PLACEMENT)
    computed = []
    task = SimpleNamespace(precompute=lambda splits, choices, *_: computed.append(choices) or splits)
    fitted, _, _ = preparation.fit_epochs(said, Store(tmp_path), config, task, SPLITS, cluster)
    assert [choices["model.unfreeze"] for choices in computed] == ([(0,)] if unfreeze == {0} else [])
    assert {*fitted.space.choices()["model.unfreeze"]} == unfreeze
    assert len(measured) == (2 if unfreeze == {0} else 1)
    lines = "\n".join(said.lines)
    assert ("an epoch takes about 40 s, too long for 90s; so model.unfreeze=0, search.epochs=1" in lines) == (
        unfreeze == {0}
    )


class Said(Observer):
    """Keeps the lines for the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def search(tmp_path):
    """A search with one trial of ten epochs of two seconds that improved until its end."""
    search = Search(load_config("rnn", ["search.epochs=10", "search.balance=null"]), Store(tmp_path).search("s"))
    trial = search.propose()
    for epoch in range(1, 11):
        metrics = {"val_mse": 1.0 / epoch, "epoch_seconds": 2.0}
        result = {"number": trial.number, "epoch": epoch, "metrics": metrics, "diverged": None, "checkpoint": None}
        search.report([result], "cpu")
    search.journal.close()
    return search


@pytest.mark.parametrize(("measured_seconds", "epochs"), [(1.0, 150), (4.0, 37), (None, 64)])
def test_final_training_goes_by_its_own_pace_once_the_trials_are_over(search, monkeypatch, measured_seconds, epochs):
    """165 s are left for it; an epoch is forecast to take 2.54 s."""
    monkeypatch.setattr(pace, "measure_final_epoch", lambda *_: measured_seconds)
    plan = TimePlan.from_config(search.config, SPLITS.info.sizes, 2, budget_seconds=400, most_final_epochs=1000)
    final = pace.plan_final(plan, search, SPLITS, PLACEMENT, Budget(400.0, time.monotonic() - 200))
    assert final.epochs == pytest.approx(epochs, abs=1)


def test_nothing_is_measured_if_it_would_change_nothing(search, monkeypatch):
    monkeypatch.setattr(pace, "measure_final_epoch", lambda *_: pytest.fail("measured"))
    for budget in (Budget(), Budget(1000.0, time.monotonic() - 500), Budget(500.0, time.monotonic() - 450)):
        plan = TimePlan.from_config(search.config, SPLITS.info.sizes, 2, budget_seconds=budget.seconds)
        pace.plan_final(plan, search, SPLITS, PLACEMENT, budget)


def test_first_epoch_that_loads_libraries_is_not_measured():
    begun = []

    def train_epoch():
        time.sleep(0.01 if begun else 0.5)
        begun.append(1)

    assert pace.time_epoch(train_epoch, least_seconds=0.1, warm_up_seconds=5.0) < 0.2


def test_progress_of_a_function_and_of_a_command_is_a_part_of_an_epoch():
    """A function counts its own steps, several at once; a command tells the share that is done."""
    for tell in (lambda part: training.step_ended(part * 50, 1000), lambda part: training.step_ended(part / 20, 1.0)):
        ended = []

        def train_epoch(tell=tell, ended=ended):
            for part in range(1, 21):
                time.sleep(0.05)
                tell(part)
            ended.append(1)

        assert pace.time_epoch(train_epoch, least_seconds=0.1) >= 0.95
        assert not ended, "an epoch takes a second, and a part of it was measured"


@pytest.mark.parametrize("reported", [True, False])
def test_budget_alone_fits_the_epochs_of_a_function(monkeypatch, tmp_path, reported):
    """Three tenths of 100 s hold 15 epochs of two seconds."""
    config = loop_config("mine", {"lr": 0.1}, "loss min", {"search.time_budget": "100s"}, (), "here")
    monkeypatch.setattr(pace, "measure_pace", lambda *_, **__: pace.PaceMeasurement(2.0, 0.6, 5.0, reported))
    said = Said()
    splits = Splits(None, None, None, DataInfo("function mine", "f", "t", {}))
    fitted, _, about = preparation.fit_epochs(
        said, Store(tmp_path), config, get_task(config.task), splits, SimpleNamespace(placement=PLACEMENT)
    )
    assert (fitted.search.epochs, fitted.search.grace_period, about["most_epochs"]) == (15, 1, 80)
    assert any("trial.progress(done, of)" in line for line in said.lines) != reported


def test_given_epochs_of_a_function_stay():
    flags = {"search.time_budget": "100s", "search.epochs": 7}
    config = loop_config("mine", {"lr": 0.1}, "loss min", flags, (), "here")
    assert config.search.epochs == 7 and not config.search.fit_epochs


def test_function_that_cannot_be_measured_keeps_its_epochs(monkeypatch, tmp_path):
    config = loop_config("mine", {"lr": 0.1}, "loss min", {"search.time_budget": "100s"}, (), "here")

    def fails(*_, **__):
        raise InputError("here: the first configuration cannot be trained: ZeroDivisionError")

    monkeypatch.setattr(pace, "measure_pace", fails)
    said = Said()
    splits = Splits(None, None, None, DataInfo("function mine", "f", "t", {}))
    fitted, _, about = preparation.fit_epochs(
        said, Store(tmp_path), config, get_task(config.task), splits, SimpleNamespace(placement=PLACEMENT)
    )
    assert fitted.search.epochs == 10 and about == {} and "cannot be trained" in said.lines[0]
