"""Claim: with a race at the end, a search rarely chooses a configuration that is worse on test than the first guess.

Real trainings of scikit-learn's small networks on data that its package brings, with little validation data: there luck
decides most. A search has two workers and the time for `FULL` trials of nine epochs. The clock counts epochs, so that
nothing depends on the machine. `Study` and `TimePlan` decide, as in the command. The winner and the configuration of
the priors then train on train and validation with five seeds. Each search adds a row to benchmarks/race.csv, so that
the benchmark may be stopped at any time. Exits with 1 if more than 2 % of the winners are worse than the first guess,
or more than without a race.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.rows import Rows
from search.core.decision import TrialResult
from search.core.program_config import loop_config
from search.core.race import RACERS
from search.core.state import Trial
from search.core.study import Study
from search.core.time_plan import Shares, TimePlan, TrialsSoFar
from trainables import Objective

ROWS = Rows(
    Path(__file__).parent / "race.csv", ["data", "seed", "race", "trials", "reruns", "winner", "first_guess", "gain"]
)
WORKERS, EPOCHS, FULL, FINAL_SEEDS = 2, 9, 40, 5
ACCURACY = Objective("accuracy", "max")
SPACE = {
    "hidden": {"int": [4, 128], "log": True, "prior": 32}, "lr": {"loguniform": [1e-4, 1e-1], "prior": 1e-2},
    "alpha": {"loguniform": [1e-6, 1.0], "prior": 1e-3}, "batch": {"choice": [8, 16, 32, 64], "prior": 16},
    "activation": {"choice": ["relu", "tanh"], "prior": "relu"},
}  # fmt: skip


@cache
def data(name: str, seed: int) -> tuple[np.ndarray, ...]:
    """The rows and classes of train, validation and test. A tenth of the data is validation, half of it is test."""
    if name.startswith("made"):
        rows, classes = datasets.make_classification(
            1200, 20, n_informative=8, n_classes=4, flip_y=0.1, class_sep=0.8, random_state=int(name[4:])
        )  # fmt: skip
    else:
        rows, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    first, test, labels, test_labels = train_test_split(
        rows, classes, test_size=0.5, random_state=seed, stratify=classes
    )
    train, val, train_labels, val_labels = train_test_split(
        first, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    scale = StandardScaler().fit(train)
    return scale.transform(train), train_labels, scale.transform(val), val_labels, scale.transform(test), test_labels


@dataclass
class Training:
    """A training of a configuration, an epoch at a time."""

    params: dict[str, Any]
    seed: int
    network: Any = field(init=False)

    def __post_init__(self) -> None:
        own = self.params
        self.network = MLPClassifier(
            (own["hidden"],), own["activation"], learning_rate_init=own["lr"], alpha=own["alpha"],
            batch_size=own["batch"], random_state=self.seed % 2**31,
        )  # fmt: skip

    def epoch(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.network.partial_fit(rows, labels, classes=np.unique(labels))


def searched(name: str, seed: int, race: bool) -> Study:
    """A whole search, on a clock that counts epochs."""
    flags = {"search.epochs": EPOCHS, "search.seed": seed, "search.grace_period": 1, "search.time_budget": "1h"}
    study = Study(loop_config("mlp", SPACE, "accuracy max", flags, (), "here"), ACCURACY)
    train, labels, val, val_labels, *_ = data(name, seed)
    budget = FULL * EPOCHS / WORKERS
    plan = TimePlan(
        budget, EPOCHS, EPOCHS, train_samples=len(train), validation_samples=len(val), workers=WORKERS,
        shares=Shares(fewest_around_seconds=0, least_around_seconds=0),
    )  # fmt: skip
    trainings: dict[int, Training] = {}
    running: list[int | None] = [None] * WORKERS
    for now in range(int(budget)):
        left = budget - now
        so_far = TrialsSoFar.from_state(study.config, study.state)
        reserved = plan.after_trials(so_far, left).seconds
        if plan.must_stop_trials(left, reserved, [1.0]):
            break
        if study.state.best() is not None:
            follows = plan.next_trainings(left, reserved, 1.0, RACERS + 1 if race else 0)
            study.closed, study.races = follows != "trials", follows == "race"
        for worker in range(WORKERS):
            if running[worker] is None and (event := study.propose()) is not None:
                study.apply(event)
                running[worker] = event["number"]  # type: ignore[typeddict-item]
                trial = study.state.trials[running[worker]]  # type: ignore[index]
                if trial.number not in trainings:
                    trainings[trial.number] = Training(trial.params, trial.seed)
            if (number := running[worker]) is not None:
                trainings[number].epoch(train, labels)
                value = trainings[number].network.score(val, val_labels)
                metrics = {"accuracy": value, "val_accuracy": value, "epoch_seconds": 1.0}
                events, decisions = study.report([TrialResult(number, study.state.trials[number].epoch + 1, metrics)])
                for event in events:
                    study.apply(event)
                if decisions[number].kind != "continue":
                    running[worker] = None
    return study


def tested(name: str, seed: int, trial: Trial, epochs: int) -> float:
    """The mean test accuracy of a configuration, trained on train and validation with several seeds."""
    train, labels, val, val_labels, test, test_labels = data(name, seed)
    rows, both = np.concatenate([train, val]), np.concatenate([labels, val_labels])
    scores = []
    for number in range(FINAL_SEEDS):
        training = Training(trial.params, 10_000 + number)
        for _ in range(epochs):
            training.epoch(rows, both)
        scores.append(training.network.score(test, test_labels))
    return fmean(scores)


def measure(which: tuple[str, int, bool]) -> dict[str, Any]:
    warnings.simplefilter("ignore", ConvergenceWarning)
    name, seed, race = which
    study = searched(*which)
    finalists = {trial.number: (trial, epochs) for trial, epochs in study.state.finalists(study.config.window)}
    winner = tested(name, seed, *next(iter(finalists.values())))
    first = tested(name, seed, *finalists[0])
    return {
        "data": name, "seed": seed, "race": race, "trials": len(study.state.trials),
        "reruns": len(study.state.reruns), "winner": winner, "first_guess": first, "gain": winner - first,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    names = ["digits", "breast_cancer", "wine", *(f"made{n}" for n in range(3))]
    wanted = [(name, seed, race) for seed in range(options.seeds) for name in names for race in (False, True)]
    known = {(row["data"], int(row["seed"]), row["race"] == "True") for row in ROWS.read()}
    ROWS.add(measure, [which for which in wanted if which not in known], options.processes)
    rows, worse = ROWS.read(), {}
    for race in ("False", "True"):
        gains = [float(row["gain"]) for row in rows if row["race"] == race]
        worse[race] = fmean(gain < 0 for gain in gains)
        print(
            f"race {race}: {len(gains)} searches; winners worse than the first guess {worse[race]:.1%}, by "
            f"{-fmean([g for g in gains if g < 0] or [0.0]):.4f}; mean gain {fmean(gains):.4f}"
        )
    return int(worse["True"] > 0.02 or worse["True"] > worse["False"])


if __name__ == "__main__":
    sys.exit(main())
