"""How long an epoch takes, and how many epochs a time budget gives a full trial."""

import time

import pytest

from search.core.config import load_config
from search.runtime import pace
from search.runtime.pace import Pace
from trainables import Splits
from trainables.base import training


@pytest.mark.parametrize(("seconds", "epochs", "first"), [(3.0, 60, 5), (6.0, 30, 2), (100.0, 4, 1)])
def test_budget_gives_a_full_trial_three_tenths_and_the_first_rung_moves_with_its_epochs(seconds, epochs, first):
    config = load_config("rnn", ["search.grace_period=5"], profile="data")
    fitted = Pace(seconds, alone=1.0, start=5.0).fit(config, 600.0).search
    assert (fitted.epochs, fitted.grace_period, fitted.fit_epochs) == (epochs, first, False)
    assert fitted.max_epoch_seconds * fitted.epochs == pytest.approx(1.5 * 0.3 * 600)


@pytest.mark.parametrize(("samples", "epochs"), [(172, 320), (1000, 160), (2000, 80), (300_000, 80)])
def test_final_training_may_have_more_epochs_where_samples_are_few(samples, epochs):
    assert pace.most_epochs(load_config("windows", profile="data"), samples) == epochs


class Sleeper:
    """A task whose epoch is `steps` steps of ten milliseconds; it tells of them if it is `told`."""

    def __init__(self, steps, told):
        self.steps, self.told, self.epochs = steps, told, 0

    def build(self, params, splits, epochs, device):
        return training.Learner(None, None, None, device, params)

    def train_epoch(self, learner, split):
        for step in range(1, self.steps + 1):
            time.sleep(0.01)
            if self.told:
                training.step_ended(step, self.steps, step, lambda: 0.0)
        self.epochs += 1

    def evaluate(self, learner, split):
        pass


@pytest.mark.parametrize(("steps", "told", "whole"), [(2, True, True), (2, False, True), (1000, True, False)])
def test_short_epochs_are_measured_several_times_and_of_a_long_one_a_part(monkeypatch, steps, told, whole):
    task = Sleeper(steps, told)
    monkeypatch.setattr(pace, "get_task", lambda name: task)
    monkeypatch.setattr(pace, "MEASURED", 0.2)
    probe = pace._Probe("rnn", {}, 10, 0, {"gpus": 0.0, "precision": "fp32"})
    seconds = probe.train(Splits(None, None, None, None), 1.0)
    assert task.epochs > 1 if whole else task.epochs == 0
    assert seconds >= 0.009 * steps
