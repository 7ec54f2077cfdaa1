"""What searches over a table: this project's searchers and schedulers, and those of others."""

from __future__ import annotations

import json
import math
import os
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from benchmarks.curves.tables import Table
from search.core.config import check_config, load_config
from search.core.decision import TrialResult
from search.core.events import Event
from search.core.searchers.encoding import Encoding
from search.core.searchers.optuna_searcher import distribution
from search.core.state import SearchState
from search.core.study import Study
from trainables import Objective, Params

OBJECTIVE = Objective("loss", "min")
Fate = Literal["goes on", "pauses", "is over"]


class System(Protocol):
    """A way to search. Trials are numbered from 0 as they come."""

    def next(self) -> tuple[int, Params | None]:
        """The trial that trains next: a new one with its configuration, or one that was paused."""
        ...

    def takes(self, number: int, params: Params) -> None:
        """A new trial's configuration was rounded to one of the table."""
        ...

    def report(self, number: int, epoch: int, loss: float) -> Fate:
        """Takes in an epoch, whose loss is NaN where the training diverged."""
        ...


class Ours:
    """A searcher and a scheduler as a search makes them from its configuration."""

    def __init__(self, table: Table, seed: int, settings: dict[str, Any], first: Sequence[Params] = ()) -> None:
        raw = load_config("rnn", profile="data").raw  # whose space is replaced
        own = {"seed": seed, "epochs": table.epochs, "trials": None, "balance": None, "time_budget": None,
               "epoch_budget": 1, "fit_epochs": False}  # fmt: skip
        config = check_config(
            "rnn", {**raw, "search": {**raw["search"], **own, **settings}, "space": table.space}, table.name
        )
        self._study = Study(config, OBJECTIVE)
        self._study.searcher.learn([], first)
        #: The time of the next report, in milliseconds.
        self.time = 0
        #: The trial that was proposed and not taken yet.
        self._proposed: Event | None = None

    @property
    def state(self) -> SearchState:
        """The trials so far."""
        return self._study.state

    def next(self) -> tuple[int, Params | None]:
        event = self._study.propose()
        assert event is not None  # a search without an end always has a trial to train
        if event["event"] == "trial":
            self._proposed = event
            return event["number"], event["params"]
        self._study.apply(event)
        return event["number"], None  # type: ignore[typeddict-item]

    def takes(self, number: int, params: Params) -> None:
        assert self._proposed is not None
        self._study.apply({**self._proposed, "params": params})  # type: ignore[misc, typeddict-item]

    def report(self, number: int, epoch: int, loss: float, others: Mapping[str, float] | None = None) -> Fate:
        """As of `System`. `others` are further objectives by metric, which `search.objective` in `settings` names."""
        diverged = math.isnan(loss)
        metrics = {} if diverged else {"val_loss": loss, "epoch_seconds": 1.0, **(others or {})}
        events, decisions = self._study.report(
            [TrialResult(number, epoch, metrics, "loss is nan" if diverged else None)]
        )
        for event in events:
            self._study.apply({**event, "time": self.time})  # type: ignore[arg-type, misc]
        fates: dict[str, Fate] = {"continue": "goes on", "pause": "pauses", "stop": "is over"}
        return fates[decisions[number].kind]


class OneEpoch:
    """Trains batches of random configurations for one epoch, and the best of each batch to the end.

    Egele et al. 2023 (arXiv:2307.15422) show how far this simple rule gets.
    """

    #: Configurations of a batch, and those of them that train to the end: 169 of the 768 epochs of a search.
    BATCH, BEST = 100, 3

    def __init__(self, table: Table, seed: int) -> None:
        self._encoding, self._epochs = Encoding(table.parsed()), table.epochs
        self._rng = np.random.default_rng([seed, 1])
        self._started = 0
        #: (loss, trial) of a batch after its first epoch, and the trials that go on.
        self._batch: list[tuple[float, int]] = []
        self._waiting: list[int] = []

    def next(self) -> tuple[int, Params | None]:
        if self._waiting:
            return self._waiting.pop(0), None
        self._started += 1
        return self._started - 1, self._encoding.params(self._encoding.draw(self._rng, 1, {})[0])

    def takes(self, number: int, params: Params) -> None:
        """A random draw does not depend on earlier configurations."""

    def report(self, number: int, epoch: int, loss: float) -> Fate:
        if epoch > 1:
            return "is over" if math.isnan(loss) or epoch >= self._epochs else "goes on"
        self._batch.append((math.inf if math.isnan(loss) else loss, number))
        if len(self._batch) == self.BATCH:
            self._waiting += [trial for loss, trial in sorted(self._batch)[: self.BEST] if loss < math.inf]
            self._batch = []
        return "pauses"


class Optuna:
    """A study by ask and tell, with one of Optuna's samplers and one of its pruners."""

    def __init__(self, table: Table, seed: int, sampler: str, pruner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
            "default": lambda: optuna.samplers.TPESampler(seed=seed),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        }
        pruners = {
            "hyperband": lambda: optuna.pruners.HyperbandPruner(1, table.epochs, 3),
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(1, 4),
            "median": optuna.pruners.MedianPruner,
            "none": optuna.pruners.NopPruner,
        }
        self._states = optuna.trial.TrialState
        self._study = optuna.create_study(sampler=samplers[sampler](), pruner=pruners[pruner]())
        self._epochs = table.epochs
        self._space = {p.name: distribution(p) for p in table.parsed().parameters}
        self._trials: list[Any] = []

    def next(self) -> tuple[int, Params | None]:
        self._trials.append(self._study.ask(self._space))
        return len(self._trials) - 1, self._trials[-1].params

    def takes(self, number: int, params: Params) -> None:
        if params != self._trials[number].params:
            self._study.tell(self._trials[number], state=self._states.FAIL)
            self._study.enqueue_trial(params)
            self._trials[number] = self._study.ask(self._space)

    def report(self, number: int, epoch: int, loss: float) -> Fate:
        trial = self._trials[number]
        if math.isnan(loss):
            self._study.tell(trial, state=self._states.FAIL)
            return "is over"
        trial.report(loss, epoch)
        if epoch >= self._epochs:
            self._study.tell(trial, loss)
        elif trial.should_prune():
            self._study.tell(trial, state=self._states.PRUNED)
        else:
            return "goes on"
        return "is over"


class RayTune:
    """Ray Tune's ASHA with its OptunaSearch, called as its event loop calls them."""

    def __init__(self, table: Table, seed: int) -> None:
        import optuna
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)

        self._search = OptunaSearch(
            {p.name: distribution(p) for p in table.parsed().parameters}, metric="loss", mode="min", seed=seed
        )
        self._scheduler = ASHAScheduler(
            "training_iteration", metric="loss", mode="min", max_t=table.epochs, grace_period=1, reduction_factor=4
        )
        self._epochs = table.epochs
        self._go_on = ASHAScheduler.CONTINUE
        self._trials: list[_RayTrial] = []

    def next(self) -> tuple[int, Params | None]:
        trial = _RayTrial(str(len(self._trials)))
        self._trials.append(trial)
        params = self._search.suggest(trial.trial_id)
        self._scheduler.on_trial_add(None, trial)
        return len(self._trials) - 1, params

    def takes(self, number: int, params: Params) -> None:
        """OptunaSearch has no way to be told; its trials keep the values that they asked for."""

    def report(self, number: int, epoch: int, loss: float) -> Fate:
        trial = self._trials[number]
        if math.isnan(loss):
            self._search.on_trial_complete(trial.trial_id, error=True)
            return "is over"
        result = {"loss": loss, "training_iteration": epoch}
        if epoch < self._epochs and self._scheduler.on_trial_result(None, trial, result) == self._go_on:
            self._search.on_trial_result(trial.trial_id, result)
            return "goes on"
        self._scheduler.on_trial_complete(None, trial, result)
        self._search.on_trial_complete(trial.trial_id, result)
        return "is over"


class Elsewhere:
    """A peer of `peers.py` in a process of its own environment, as its packages do not install beside this project."""

    def __init__(self, table: Table, seed: int, peer: str, python: str) -> None:
        program = Path(__file__).with_name("peers.py")
        self._process = subprocess.Popen(
            [python, program],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        ranges = [
            (p.name, p.kind, p.choices if p.kind == "choice" else (p.low, p.high))
            for p in table.parsed().parameters if p.searched
        ]  # fmt: skip
        self._call("begin", peer=peer, space=ranges, seed=seed, epochs=table.epochs)

    def _call(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"what": what, **arguments}), file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{what}: the peer's process has ended, with {self._process.wait()}")
        return json.loads(line)

    def next(self) -> tuple[int, Params | None]:
        number, params = self._call("next")
        return number, params

    def takes(self, number: int, params: Params) -> None:
        self._call("takes", number=number, params=params)

    def report(self, number: int, epoch: int, loss: float) -> Fate:
        fate: Fate = self._call("report", number=number, epoch=epoch, loss=None if math.isnan(loss) else loss)
        return fate

    def close(self) -> None:
        self._process.communicate()


class _RayTrial:
    """What Tune's schedulers read of a trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
