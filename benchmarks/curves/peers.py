"""Peers in an environment of their own (peers.txt): reads a question a line, answers a line, as JSON.

It runs under another interpreter and imports nothing of this project. Each peer decides through its own code; where it
would train a configuration again from the start at the next fidelity, the training goes on instead, which is to its
advantage.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import random
import sys
import tempfile
import warnings
from typing import Any

import numpy as np

LOSS, EPOCH = "loss", "epoch"
#: Of each parameter its name, its kind (uniform, loguniform, int or choice) and its bounds or values.
Ranges = list[tuple[str, str, list[Any]]]


class SyneTune:
    """ASHA as Syne Tune stops it, with random draws or conformalised quantile regression (Salinas et al. 2023)."""

    def __init__(self, space: Ranges, seed: int, epochs: int, model: bool) -> None:
        from syne_tune.backend.trial_status import Trial
        from syne_tune.config_space import choice, loguniform, randint, uniform
        from syne_tune.optimizer.baselines import ASHA, ASHACQR
        from syne_tune.optimizer.scheduler import SchedulerDecision

        kinds = {"uniform": uniform, "loguniform": loguniform, "int": randint}
        domains = {name: choice(values) if kind == "choice" else kinds[kind](*values) for name, kind, values in space}
        make = ASHACQR if model else ASHA
        self._scheduler = make(
            domains, LOSS, time_attr=EPOCH, max_t=epochs, grace_period=1, reduction_factor=4, random_seed=seed
        )
        self._trial, self._go_on, self._trials = Trial, SchedulerDecision.CONTINUE, []

    def next(self) -> tuple[int, dict[str, Any] | None]:
        number = len(self._trials)
        trial = self._trial(number, self._scheduler.suggest().config, datetime.datetime.now())
        self._scheduler.on_trial_add(trial)
        self._trials.append(trial)
        return number, trial.config

    def takes(self, number: int, params: dict[str, Any]) -> None:
        self._trials[number].config = params

    def report(self, number: int, epoch: int, loss: float | None) -> str:
        trial = self._trials[number]
        if loss is None:
            self._scheduler.on_trial_error(trial)
            return "is over"
        if self._scheduler.on_trial_result(trial, {LOSS: loss, EPOCH: epoch}) == self._go_on:
            return "goes on"
        self._scheduler.on_trial_remove(trial)
        return "is over"


class Neps:
    """PriorBand on Hyperband (Mallik et al. 2023); without priors it draws uniformly and around the best.

    On ASHA, as NePS 0.17 has it, nearly every configuration is promoted to the end: 30 of 38 on a smooth function.
    """

    def __init__(self, space: Ranges, seed: int, epochs: int) -> None:
        import neps
        import torch

        torch.manual_seed(seed)
        domains: dict[str, Any] = {EPOCH: neps.IntegerFidelity(1, epochs)}
        for name, kind, values in space:
            if kind == "choice":
                domains[name] = neps.Categorical(values)
            elif kind == "int":
                domains[name] = neps.Integer(*values)
            else:
                domains[name] = neps.Float(*values, log=kind == "loguniform")
        searched = type("Searched", (neps.PipelineSpace,), domains)()
        self._optimizer = neps.AskAndTell(neps.algorithms.priorband(searched, base="hyperband", eta=4))
        #: The latest evaluation of each configuration, and the number of the configuration of each evaluation.
        self._latest: list[Any] = []
        self._numbers: dict[str, int] = {}

    def next(self) -> tuple[int, dict[str, Any] | None]:
        trial = self._optimizer.ask()
        before = trial.metadata.previous_trial_id
        number = len(self._latest) if before is None else self._numbers[before]
        self._numbers[trial.id] = number
        if before is None:
            self._latest.append(trial)
            return number, {name: value for name, value in trial.config.items() if name != EPOCH}
        self._latest[number] = trial
        return number, None

    def takes(self, number: int, params: dict[str, Any]) -> None:
        trial = self._latest[number]
        trial.config = {**params, EPOCH: trial.config[EPOCH]}

    def report(self, number: int, epoch: int, loss: float | None) -> str:
        trial = self._latest[number]
        if loss is None:
            self._optimizer.tell(trial, RuntimeError("diverged"))
            return "is over"
        if epoch < trial.config[EPOCH]:
            return "goes on"
        self._optimizer.tell(trial, loss)
        return "pauses"


class Smac:
    """SMAC3's multi-fidelity facade: Hyperband and random forests. What it asks for cannot be rounded to a table."""

    def __init__(self, space: Ranges, seed: int, epochs: int) -> None:
        from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
        from smac import BlackBoxFacade, MultiFidelityFacade, Scenario
        from smac.runhistory import StatusType, TrialValue

        searched = ConfigurationSpace(seed=seed)
        for name, kind, values in space:
            if kind == "choice":
                searched.add(Categorical(name, values))
            elif kind == "int":
                searched.add(Integer(name, tuple(values)))
            else:
                searched.add(Float(name, tuple(values), log=kind == "loguniform"))
        folder = tempfile.mkdtemp()
        levels = {"min_budget": 1, "max_budget": epochs} if epochs > 1 else {}
        scenario = Scenario(searched, n_trials=10**6, seed=seed, deterministic=True, output_directory=folder, **levels)
        facade = MultiFidelityFacade if epochs > 1 else BlackBoxFacade
        self._facade = facade(scenario, lambda config, seed=0, budget=0: 0.0, overwrite=True, logging_level=False)
        self._value, self._crashed = TrialValue, StatusType.CRASHED
        self._epochs = epochs
        self._latest: list[Any] = []
        self._numbers: dict[Any, int] = {}
        #: How far each configuration was trained, and what it showed there.
        self._come: list[tuple[int, float | None]] = []

    def next(self) -> tuple[int, dict[str, Any] | None]:
        while True:
            info = self._facade.ask()
            number = self._numbers.setdefault(info.config, len(self._latest))
            if number == len(self._latest):
                self._latest.append(info)
                self._come.append((0, 0.0))
                return number, {name: _plain(value) for name, value in dict(info.config).items()}
            self._latest[number] = info
            epoch, loss = self._come[number]
            if loss is not None and epoch < self._budget(info):
                return number, None
            self._tell(number, loss)  # it is known already

    def takes(self, number: int, params: dict[str, Any]) -> None:
        pass

    def report(self, number: int, epoch: int, loss: float | None) -> str:
        self._come[number] = epoch, loss
        if loss is not None and epoch < self._budget(self._latest[number]):
            return "goes on"
        self._tell(number, loss)
        return "is over" if loss is None else "pauses"

    def _budget(self, info: Any) -> int:
        return self._epochs if info.budget is None else round(info.budget)

    def _tell(self, number: int, loss: float | None) -> None:
        value = self._value(np.inf, status=self._crashed) if loss is None else self._value(loss)
        self._facade.tell(self._latest[number], value, save=False)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


PEERS = {
    "Syne Tune ASHA": lambda **about: SyneTune(**about, model=False),
    "Syne Tune ASHA + CQR": lambda **about: SyneTune(**about, model=True),
    "NePS PriorBand": Neps,
    "SMAC3": Smac,
}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints is no answer
    peer: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("what")
        if what == "begin":
            random.seed(asked["seed"])
            np.random.seed(asked["seed"])
            peer, answer = PEERS[asked.pop("peer")](**asked), None
        else:
            answer = getattr(peer, what)(**asked)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
