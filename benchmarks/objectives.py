"""Claim: two objectives, searched with the defaults, span more hypervolume after equal epochs than Optuna's samplers.

The objectives are the error (1 - balanced accuracy on validation) and the seconds of an epoch (their logarithm) of
networks on LCBench's data sets, by the surrogate of the benchmark `curves`; every sixth data set, none of which chose a
setting. All systems train with four simulated workers until they have trained 64 x 24 epochs together. A trial counts
with the best error that it has shown so far, whether it is complete or not.

The hypervolume is that of all trials so far, as a share of that of 512 random complete trainings. Its reference point
is their median in each objective.

Optuna's samplers train each configuration to the end, as Optuna prunes no trial of several objectives. NSGA-II has
generations of 16, as its default of 50 would leave hardly one. Syne Tune is not installed beside this project: its rule
MO-ASHA is written here from its description. It draws configurations at random. At a rung the best third continues, by
non-dominated rank and then by an epsilon-net that begins at the smallest first objective.

`benchmarks/objectives.csv` keeps a row for each search, so that it can be run in parts.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.curves import tables
from benchmarks.curves.systems import Fate, Ours
from benchmarks.curves.tables import BALANCED, SECONDS, Array, Table
from benchmarks.rows import Rows, means_by_task, missing
from search.core.pareto import hypervolume, nondominated
from search.core.schedulers.rungs import rung_epochs
from search.core.searchers.encoding import Encoding
from search.core.searchers.optuna_searcher import distribution
from trainables import Params

#: Complete trainings whose epochs a search may spend; random trainings that give the scale; workers.
BUDGET, SCALE, WORKERS = 64, 512, 4
#: The shares of the budget after which the hypervolume is measured.
AT = (0.25, 0.5, 1.0)
RESULTS = Rows(
    Path(__file__).with_name("objectives.csv"), ("system", "task", "seed", *(f"at {share:g}" for share in AT))
)


class Curves:
    """The objectives of configurations of one data set."""

    def __init__(self, table: Table) -> None:
        self.table, self._surrogate, self._encoding = table, table.begin(), Encoding(table.parsed())

    def take(self, params: Params) -> Array:
        """(epochs, 2): error, and logarithm of the mean seconds of an epoch until this epoch."""
        outputs = self._surrogate.outputs(params)  # type: ignore[attr-defined]
        epochs = np.round(52 * np.arange(1, self.table.epochs + 1) / self.table.epochs)
        return np.column_stack([1 - outputs[:, BALANCED], np.log(np.maximum(outputs[:, SECONDS], 0.01) / epochs)])

    def draw(self, rng: np.random.Generator) -> Params:
        """A random configuration."""
        return self._encoding.params(self._encoding.draw(rng, 1, {})[0])

    def scale(self) -> tuple[Array, float]:
        """The reference point (2,), and the hypervolume of the random complete trainings."""
        rng = np.random.default_rng(2026)
        points = np.array([_shown(self.take(self.draw(rng))) for _ in range(SCALE)])
        reference = np.median(points, axis=0)
        return reference, hypervolume(points[nondominated(points)], reference.tolist())


def _shown(curve: Array) -> Array:
    """The objectives (2,) that a trial has shown: its smallest error, and the seconds of its last epoch."""
    return np.array([curve[:, 0].min(), curve[-1, 1]])


class System(Protocol):
    """A way to search. Trials are numbered from 0."""

    def next(self) -> tuple[int, Params | None]:
        """The trial that trains next: a new trial with its configuration, or a trial that was paused."""
        ...

    def report(self, number: int, curve: Array) -> Fate:
        """Takes in the newest epoch of a trial, the last of `curve` (epochs so far, 2)."""
        ...


class Search:
    """A searcher and a scheduler of this project."""

    def __init__(self, curves: Curves, seed: int, **settings: Any) -> None:
        own = {"objective": ["loss min", "seconds min"], "grace_period": 1, "reduction_factor": 3, **settings}
        self._ours = Ours(curves.table, seed, own)

    def next(self) -> tuple[int, Params | None]:
        number, params = self._ours.next()
        if params is not None:
            self._ours.takes(number, params)
        return number, params

    def report(self, number: int, curve: Array) -> Fate:
        return self._ours.report(number, len(curve), float(curve[-1, 0]), {"seconds": float(curve[-1, 1])})


class Optuna:
    """A sampler of Optuna, whose trials are all complete."""

    def __init__(self, curves: Curves, seed: int, sampler: Literal["tpe", "nsga2"]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
            "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=16),
        }
        self._study = optuna.create_study(directions=["minimize"] * 2, sampler=samplers[sampler]())
        self._space = {p.name: distribution(p) for p in curves.table.parsed().parameters}
        self._epochs = curves.table.epochs
        self._trials: list[Any] = []

    def next(self) -> tuple[int, Params | None]:
        self._trials.append(self._study.ask(self._space))
        return len(self._trials) - 1, self._trials[-1].params

    def report(self, number: int, curve: Array) -> Fate:
        if len(curve) < self._epochs:
            return "goes on"
        self._study.tell(self._trials[number], _shown(curve).tolist())
        return "is over"


class MoAsha:
    """Random configurations, stopped as Syne Tune's MO-ASHA does (Schmucker et al. 2021)."""

    def __init__(self, curves: Curves, seed: int) -> None:
        self._curves, self._rng, self._started = curves, np.random.default_rng([seed, 7]), 0
        self._rungs: dict[int, list[Array]] = {epoch: [] for epoch in rung_epochs(1, 3, curves.table.epochs)}

    def next(self) -> tuple[int, Params | None]:
        self._started += 1
        return self._started - 1, self._curves.draw(self._rng)

    def report(self, number: int, curve: Array) -> Fate:
        if len(curve) >= self._curves.table.epochs:
            return "is over"
        if (rung := self._rungs.get(len(curve))) is None:
            return "goes on"
        rung.append(curve[-1])
        return "goes on" if self._order(np.array(rung)).index(len(rung) - 1) < len(rung) / 3 else "is over"

    def _order(self, losses: Array) -> list[int]:
        """The rows by non-dominated rank, and each rank by the epsilon-net."""
        order, left = list[int](), np.arange(len(losses))
        while len(left):
            rank = left[nondominated(losses[left])]
            gaps, row = np.full(len(rank), np.inf), int(losses[rank, 0].argmin())
            for _ in rank:
                order.append(int(rank[row]))
                gaps = np.minimum(gaps, ((losses[rank] - losses[rank[row]]) ** 2).sum(1))
                gaps[row] = -1.0
                row = int(gaps.argmax())
            left = np.setdiff1d(left, rank)
        return order


#: The first system has the defaults; the claim is about it.
SYSTEMS: dict[str, Callable[[Curves, int], System]] = {
    "ranks + asha-predict": lambda curves, seed: Search(curves, seed, searcher="ranks", scheduler="asha-predict"),
    "ranks + asha": lambda curves, seed: Search(curves, seed, searcher="ranks", scheduler="asha"),
    "ranks, complete trainings": lambda curves, seed: Search(curves, seed, searcher="ranks", scheduler="none"),
    "random + asha-promote": lambda curves, seed: Search(curves, seed, searcher="random", scheduler="asha-promote"),
    "Optuna TPE": lambda curves, seed: Optuna(curves, seed, "tpe"),
    "Optuna NSGA-II": lambda curves, seed: Optuna(curves, seed, "nsga2"),
    "MO-ASHA, as Syne Tune": MoAsha,
}


@cache
def _tasks() -> dict[str, Curves]:
    return {table.name: Curves(table) for table in tables.lcbench()[1::6]}


@cache
def _scale(task: str) -> tuple[Array, float]:
    return _tasks()[task].scale()


def points(curves: Curves, system: System) -> Iterator[Array]:
    """The objectives (trials, 2) that all trials have shown after each epoch, without an end."""
    known: dict[int, Array] = {}
    epochs: dict[int, int] = {}
    shown: dict[int, Array] = {}
    #: (when its next epoch ends, trial)
    running: list[tuple[int, int]] = []
    now = 0
    while True:
        while len(running) < WORKERS:
            number, params = system.next()
            if params is not None:
                known[number], epochs[number] = curves.take(params), 0
            heapq.heappush(running, (now + 1, number))
        now, number = heapq.heappop(running)
        epochs[number] += 1
        curve = known[number][: epochs[number]]
        shown[number] = _shown(curve)
        if system.report(number, curve) == "goes on":
            heapq.heappush(running, (now + 1, number))
        yield np.array([*shown.values()])


def measure(asked: tuple[str, str, int]) -> dict[str, Any]:
    """The row of one search: its system, task and seed."""
    name, task, seed = asked
    curves, (reference, scale) = _tasks()[task], _scale(task)
    row: dict[str, Any] = {"system": name, "task": task, "seed": seed}
    ends = {math.ceil(share * BUDGET * curves.table.epochs): f"at {share:g}" for share in AT}
    with threadpool_limits(1):
        for spent, found in enumerate(points(curves, SYSTEMS[name](curves, seed)), 1):
            if spent in ends:
                volume = hypervolume(found[nondominated(found)], reference.tolist())
                row[ends[spent]] = f"{volume / scale:.4f}"
            if spent == max(ends):
                return row
    raise AssertionError("the points have no end")


def _mean(rows: list[dict[str, Any]], system: str, key: str) -> tuple[float, float]:
    """The mean hypervolume over the tasks, and its standard error."""
    means = np.array(means_by_task(rows, system, key))
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if reason := missing(tables.CURVES, "onnxruntime"):
        print(reason)
        return 1
    done = {(row["system"], row["task"], int(row["seed"])) for row in RESULTS.read()}
    wanted = [
        one for seed in range(options.seeds) for task in _tasks() for system in options.systems
        if (one := (system, task, seed)) not in done
    ]  # fmt: skip
    RESULTS.add(measure, wanted, options.processes)
    rows = RESULTS.read()
    heads = "".join(f"{f'at {share:g} of the epochs':>26}" for share in AT)
    print(f"{'hypervolume, mean +- standard error':38}{heads}  searches")
    for system in SYSTEMS:
        if searches := sum(row["system"] == system for row in rows):
            cells = "".join(f"{'{:.3f} +- {:.3f}'.format(*_mean(rows, system, f'at {share:g}')):>26}" for share in AT)
            print(f"{system:38}{cells}{searches:>10}")
    ends = {system: _mean(rows, system, "at 1")[0] for system in SYSTEMS if any(r["system"] == system for r in rows)}
    own = next(iter(SYSTEMS))
    peers = {name: ends[name] for name in ends if name.startswith("Optuna")}
    if own not in ends or not peers:
        print("a system of the claim has no searches yet")
        return 1
    print(f"{own}: {ends[own]:.3f}, " + ", ".join(f"{name} {value:.3f}" for name, value in peers.items()))
    return 0 if ends[own] > max(peers.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
