"""Claim: with a limit on the latency, the default searcher finds a better feasible configuration than Optuna's samplers
with the same constraint, in equal numbers of trials.

The objective is the balanced accuracy on validation of networks on LCBench's data sets, by the surrogate of the
benchmark `curves`; every sixth data set. The latency is the seconds of an epoch. Its limit is the quantile `QUANTILE`
of `SCALE` random configurations: about so many of them are feasible. The latency is known before the training, so an
infeasible trial trains no epoch. Every other trial is trained completely.

A search is measured by the share of feasible trials, and by its best feasible accuracy: how far it is below the best of
the feasible random configurations. `benchmarks/limits.csv` keeps a row for each search, so that it can be
run in parts.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.curves import tables
from benchmarks.curves.tables import BALANCED, SECONDS, Array, Table
from benchmarks.rows import Rows, means_by_task, missing
from search.core.config import check_config, load_config
from search.core.decision import TrialResult
from search.core.searchers.encoding import Encoding
from search.core.searchers.optuna_searcher import distribution
from search.core.study import Study
from trainables import Objective, Params

#: Random configurations that give the limit and the scale; the share of them that is feasible; trials of a search.
SCALE, QUANTILE, TRIALS = 512, 0.2, 50
RESULTS = Rows(Path(__file__).with_name("limits.csv"), ("system", "task", "seed", "feasible", "below"))


class Network:
    """A data set: the accuracy and the latency of any configuration of its network."""

    def __init__(self, table: Table) -> None:
        self.table, self._surrogate, self._encoding = table, table.begin(), Encoding(table.parsed())
        rng = np.random.default_rng(2026)
        drawn = [self._encoding.params(row) for row in self._encoding.draw(rng, SCALE, {})]
        trained = [self.train(params) for params in drawn]
        self.limit = float(np.quantile([latency for latency, _ in trained], QUANTILE))
        #: The smallest loss of a feasible random configuration.
        self.best = min(float(losses.min()) for latency, losses in trained if latency <= self.limit)

    def train(self, params: Params) -> tuple[float, Array]:
        """The seconds of an epoch, and the loss after each epoch (epochs,): the negative balanced accuracy."""
        outputs = self._surrogate.outputs(params)  # type: ignore[attr-defined]
        return max(0.01, float(outputs[-1, SECONDS])) / self.table.epochs, -outputs[:, BALANCED]


class System(Protocol):
    """A way to search, one trial after the other."""

    def ask(self) -> Params:
        """The next configuration."""
        ...

    def tell(self, latency: float, losses: Array | None) -> None:
        """Takes the result of the last configuration in; an infeasible one has no losses."""
        ...


class Ours:
    """A searcher of this project."""

    def __init__(self, network: Network, seed: int, searcher: str) -> None:
        raw, table = load_config("rnn", profile="data").raw, network.table
        own = {
            "seed": seed, "epochs": table.epochs, "trials": TRIALS, "balance": None, "time_budget": None,
            "fit_epochs": False, "searcher": searcher, "scheduler": "none",
            "limits": {"latency_ms": f"<= {network.limit!r}"},
        }  # fmt: skip
        config = check_config("rnn", {**raw, "search": {**raw["search"], **own}, "space": table.space}, table.name)
        self._study, self._number = Study(config, Objective("loss", "min")), -1

    def ask(self) -> Params:
        self._number += 1
        event = self._study.propose()
        assert event is not None and event["event"] == "trial"
        self._study.apply(event)
        return event["params"]

    def tell(self, latency: float, losses: Array | None) -> None:
        for event in self._study.begin({self._number: {"latency_ms": latency}}):
            self._study.apply(event)
        for epoch, loss in enumerate([] if losses is None else losses, 1):
            metrics = {"val_loss": float(loss), "latency_ms": latency, "epoch_seconds": 1.0}
            events, _ = self._study.report([TrialResult(self._number, epoch, metrics)])
            for event in events:
                self._study.apply(event)


class Optuna:
    """A sampler of Optuna with the limit as its constraint. An infeasible trial is pruned, or has the worst value."""

    def __init__(self, network: Network, seed: int, sampler: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        samplers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        }
        self._limit, self._needs_value = network.limit, sampler == "gp"
        self._study, self._pruned = optuna.create_study(sampler=samplers[sampler]()), optuna.trial.TrialState.PRUNED
        self._space = {p.name: distribution(p) for p in network.table.parsed().parameters}
        self._worst = 0.0

    def ask(self) -> Params:
        self._trial = self._study.ask(self._space)
        params: Params = self._trial.params
        return params

    def tell(self, latency: float, losses: Array | None) -> None:
        self._trial.set_constraint("latency", latency / self._limit - 1)
        if losses is not None:
            self._worst = max(self._worst, float(losses.min()))
            self._study.tell(self._trial, float(losses.min()))
        elif self._needs_value:
            self._study.tell(self._trial, self._worst)
        else:
            self._study.tell(self._trial, state=self._pruned)


#: The first system is the default; the claim is about it.
SYSTEMS: dict[str, Callable[[Network, int], System]] = {
    "ranks": lambda network, seed: Ours(network, seed, "ranks"),
    "tpe of this project": lambda network, seed: Ours(network, seed, "tpe"),
    "random": lambda network, seed: Ours(network, seed, "random"),
    "Optuna TPE": lambda network, seed: Optuna(network, seed, "tpe"),
    "Optuna GP": lambda network, seed: Optuna(network, seed, "gp"),
}


@cache
def _networks() -> dict[str, Network]:
    return {table.name: Network(table) for table in tables.lcbench()[1::6]}


def measure(asked: tuple[str, str, int]) -> dict[str, Any]:
    """The row of one search: its system, task and seed."""
    name, task, seed = asked
    network = _networks()[task]
    system, feasible, best = SYSTEMS[name](network, seed), 0, math.inf
    with threadpool_limits(1):
        for _ in range(TRIALS):
            params = system.ask()
            latency, losses = network.train(params)
            within = latency <= network.limit
            system.tell(latency, losses if within else None)
            if within:
                feasible, best = feasible + 1, min(best, float(losses.min()))
    below = best - network.best
    return {"system": name, "task": task, "seed": seed, "feasible": feasible / TRIALS, "below": f"{below:.4f}"}


def _mean(rows: list[dict[str, Any]], system: str, key: str) -> float:
    """The mean over the tasks; NaN without a search."""
    means = means_by_task(rows, system, key)
    return float(np.mean(means)) if means else math.nan


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, help="the first so many data sets")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if reason := missing(tables.CURVES, "onnxruntime"):
        print(reason)
        return 1
    done = {(row["system"], row["task"], int(row["seed"])) for row in RESULTS.read()}
    wanted = [
        one for seed in range(options.seeds) for task in [*_networks()][: options.tasks] for system in options.systems
        if (one := (system, task, seed)) not in done
    ]  # fmt: skip
    RESULTS.add(measure, wanted, options.processes)
    rows = RESULTS.read()
    print(f"{TRIALS} trials each, {QUANTILE:.0%} of random configurations are feasible")
    print(f"{'':22}{'feasible trials':>16}{'below':>14}{'searches':>10}")
    ends = {}
    for system in SYSTEMS:
        if searches := sum(row["system"] == system for row in rows):
            ends[system] = _mean(rows, system, "below")
            print(f"{system:22}{_mean(rows, system, 'feasible'):>16.0%}{ends[system]:>14.4f}{searches:>10}")
    own, peers = next(iter(SYSTEMS)), [name for name in ends if name.startswith("Optuna")]
    if own not in ends or not peers:
        print("a system of the claim has no searches yet")
        return 1
    print(f"{own}: {ends[own]:.4f} below, " + ", ".join(f"{name} {ends[name]:.4f}" for name in peers))
    return 0 if ends[own] < min(ends[name] for name in peers) else 1


if __name__ == "__main__":
    sys.exit(main())
