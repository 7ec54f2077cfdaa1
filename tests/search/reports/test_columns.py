"""Which hyperparameters stand beside a trial, and in which order."""

import time

from search.core.space import parse_space
from search.core.state import Trial
from search.reports.columns import ENOUGH, RunningImportance, ordered, varied
from trainables import Objective

SPACE = parse_space(
    {
        "optimizer": {"choice": ["sgd", "adamw"]},
        "width": {"int": [1, 64]},
        "weight_decay": {"loguniform": [1e-4, 1.0], "when": {"optimizer": "adamw"}},
        "momentum": {"uniform": [0.0, 0.9], "when": {"optimizer": "sgd"}},
        "epochs_frozen": 3,
        "model.lr": {"loguniform": [1e-4, 1e-1]},
    },
    "test",
)
LOSS = Objective("loss", "min")


def trial(number: int, **params) -> Trial:
    full = {
        "optimizer": "adamw",
        "width": 8,
        "weight_decay": 0.1,
        "momentum": None,
        "epochs_frozen": 3,
        "model.lr": 1e-3,
    }
    found = Trial(number, full | params, 0)
    found.take(1, {"val_loss": float(found.params["width"])}, LOSS)
    return found


def names(trials) -> list[str]:
    return [p.name for p in varied(SPACE.parameters, trials)]


def test_only_hyperparameters_that_differ_between_the_trials_are_shown():
    assert names([trial(0), trial(1, width=9)]) == ["width"]
    assert names([trial(0), trial(1, optimizer="sgd", weight_decay=None, momentum=0.5)]) == [
        "optimizer", "weight_decay", "momentum",
    ]  # fmt: skip
    assert names([trial(0)]) == ["optimizer", "width", "weight_decay", "model.lr"], "those that a single trial has"


def test_order_is_learning_rate_then_importance_then_logarithmic_then_the_space():
    def order(shares):
        return [p.name for p in ordered([p for p in SPACE.parameters if p.searched], shares)]

    assert order({}) == ["model.lr", "weight_decay", "optimizer", "width", "momentum"]
    assert order({"width": 0.7, "optimizer": 0.2, "model.lr": 0.1}) == [
        "model.lr", "width", "optimizer", "weight_decay", "momentum",
    ]  # fmt: skip


def test_importance_is_worked_out_once_there_are_enough_trials_and_again_when_they_doubled():
    importance = RunningImportance(SPACE, LOSS)
    trials = [trial(n, width=n * 7 % 64 + 1, **{"model.lr": 1e-3 + n * 1e-4}) for n in range(2 * ENOUGH)]
    importance.update(trials[: ENOUGH - 1])
    assert not importance.shares
    importance.update(trials[:ENOUGH])
    deadline = time.monotonic() + 120
    while not importance.shares and time.monotonic() < deadline:
        time.sleep(0.05)
    first = importance.shares
    assert max(first, key=first.__getitem__) == "width", "the loss is the width"
    importance.update(trials[: 2 * ENOUGH - 1])
    assert importance.shares is first
