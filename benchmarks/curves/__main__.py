"""Runs the searches that results.csv lacks, and prints the table; see the package."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import curves
from benchmarks.curves import simulated
from benchmarks.curves.systems import Optuna, Ours, RayTune, System
from benchmarks.curves.tables import CURVES, Table, lcbench, taskset

RESULTS = Path(__file__).with_name("results.csv")
FIELDS = ("system", "family", "task", "workers", "seed", "share")
CLAIM = 0.25


def _ours(searcher: str, scheduler: str, first: int, factor: int) -> Callable[[Table, int], System]:
    settings = {"searcher": searcher, "scheduler": scheduler, "grace_period": first, "reduction_factor": factor}
    return partial(Ours, settings=settings)  # type: ignore[call-arg]


SYSTEMS: dict[str, Callable[[Table, int], System]] = {
    "ranks + asha-promote 1/4": _ours("ranks", "asha-promote", 1, 4),
    "tpe + asha-promote 1/4": _ours("tpe", "asha-promote", 1, 4),
    "random + asha-promote 1/4": _ours("random", "asha-promote", 1, 4),
    "ranks + asha 1/4": _ours("ranks", "asha", 1, 4),
    "tpe + asha 3/3": _ours("tpe", "asha", 3, 3),
    "Optuna TPE + Hyperband": partial(Optuna, sampler="default", pruner="hyperband"),  # type: ignore[call-arg]
    "Optuna TPE (multivariate, liar) + halving 1/4": partial(Optuna, sampler="tpe", pruner="halving"),  # type: ignore[call-arg]
    "Ray Tune ASHA 1/4 + OptunaSearch": RayTune,
}
_TABLES: dict[str, Table] = {}


def held_out() -> dict[str, Table]:
    """Every other task, by name: the six of TaskSet and seventeen of LCBench that no setting was chosen on."""
    if not _TABLES:
        _TABLES.update({table.name: table for table in [*taskset()[1::2], *lcbench()[1::2]]})
    return _TABLES


def measure(asked: tuple[str, str, int, int]) -> dict[str, Any]:
    """One search: its system, task, workers and seed."""
    system, task, workers, seed = asked
    table = held_out()[task]
    with threadpool_limits(1):
        found = simulated.share(table, SYSTEMS[system](table, seed), workers, simulated.target(table, seed))
    return dict(zip(FIELDS, (system, table.family, task, workers, seed, f"{found:.4f}"), strict=True))


def known() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open() as file:
        return list(csv.DictReader(file))


def lines(rows: list[dict[str, Any]], workers: int) -> list[str]:
    """The table of one number of workers."""
    shown = [f"{f'{workers} workers':46} median  quartiles    mean (95 %)           never  searches"]
    for system in SYSTEMS:
        own = [row for row in rows if row["system"] == system and int(row["workers"]) == workers]
        if not own:
            continue
        shares = np.array([float(row["share"]) for row in own])
        quarter, middle, most = np.quantile(shares, [0.25, 0.5, 0.75])
        mean, low, high = average(own)
        figures = f"{middle:6.2f}   {quarter:.2f}-{most:.2f}    {mean:.3f} ({low:.3f}-{high:.3f})"
        shown.append(f"{system:46} {figures}   {np.mean(shares >= 1):5.0%}    {len(own):6}")
    return shown


def average(rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The mean share, both families counting the same, and 95 % of it over tasks drawn with repetition."""
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
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if not CURVES.exists():
        print(f"{CURVES}: not there, so nothing is measured")
        return 1
    done = {(row["system"], row["task"], int(row["workers"]), int(row["seed"])) for row in known()}
    missing = [
        (system, task, workers, seed)
        for seed in range(options.seeds) for workers in options.workers for system in options.systems
        for task in held_out() if (system, task, workers, seed) not in done
    ]  # fmt: skip
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file, Pool(options.processes) as pool:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        for row in pool.imap_unordered(measure, missing, chunksize=2):
            writer.writerow(row)
            file.flush()
    rows = known()
    for workers in options.workers:
        print("\n".join(lines(rows, workers)), flush=True)
    first = [row for row in rows if row["system"] == next(iter(SYSTEMS)) and row["workers"] == str(options.workers[0])]
    mean, *_ = average(first)
    print(f"{next(iter(SYSTEMS))}, {options.workers[0]} workers: {mean:.3f} of random's epochs, claimed {CLAIM:g}")
    return 0 if mean <= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
