"""Claim: what random search finds in 32 complete trainings is found for 0.3 of its epochs, in the median.

On the spaces and data of three tasks' demos, five seeds each, through the real command. Random search trains 32
configurations to the end; its target is the one that ended best. The searcher and scheduler of people's own data then
get as many epochs, with seeds of their own; the rungs and everything else are the demo's. The target and their
incumbents, the trials that in turn showed the best reading so far, are trained with the same three fresh seeds; the
first incumbent whose mean is as good as the target's says for how many epochs the search was there. One that has none
counts 1. So no lucky reading is a target or reaches one. The interval is of the median, searches drawn with repetition
(95 %).

Means are compared at the last epoch, which the claim is for, and at the epoch where each is best, for which a final
training would train: most trials of lyrics are best at their second epoch and lose 0.02 until the last.

Runs what benchmarks/compute.jsonl does not hold yet and adds to it, so that it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Events, run_search
from benchmarks.hour import epochs, prepared
from trainables import Params, get_task

RESULTS = Path(__file__).with_name("compute.jsonl")
CLAIM, TRIALS = 0.3, 32
#: Those whose epochs are cheapest: the windows' 32 random trials alone take 20 minutes a seed on two cores.
TASKS = ("rnn", "tweets", "lyrics")
#: The first seed: the settings of early stopping were chosen by searches of other seeds.
FIRST = 10
#: What searches has seeds of its own: its startup trials would be the first of random's, and thereby often the best.
APART = 100
#: Seeds of the three trainings that judge a configuration.
FRESH = (1001, 1002, 1003)
#: As defaults.yaml has them for people's own data.
SEARCHED = ("--searcher", "ranks", "--scheduler", "asha-predict", "--trials", "10000")
SETS = ("resources.dashboard=false", "search.compare_seeds=0", "search.balance=null")
#: Where in the three trainings configurations are compared.
AT = {"last": lambda losses: float(losses[-1]), "best": lambda losses: float(losses.min())}


class Judge:
    """Trains configurations of a task with fresh seeds, on the demo's data."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, params: Params, count: int) -> np.ndarray:
        """The mean loss (count,) after each epoch; infinite from where one diverges."""
        key = json.dumps(params, sort_keys=True)
        if key not in self._known:
            with get_context("spawn").Pool(2) as pool:
                losses = pool.starmap(curve, [(self._task, params, count, seed) for seed in FRESH])
            self._known[key] = np.mean(losses, axis=0)
        return self._known[key]


@cache
def _demo(task: str) -> tuple[Any, Any, Any]:
    return prepared(task, Path(tempfile.mkdtemp()), profile="demo")


def curve(name: str, params: Params, count: int, seed: int) -> np.ndarray:
    task, config, splits = _demo(name)
    losses = [task.objective.loss(v) for v in epochs(task, splits, params, count, seed, config.resources.precision)]
    return np.array(losses + [np.inf] * (count - len(losses)))


def incumbents(events: Events, task: str) -> Iterator[tuple[int, int]]:
    """Epochs that the search had spent, and the trial that then showed the best reading so far, when it changes."""
    objective, best, holder = get_task(task).objective, float("inf"), None
    results = [event for event in events if event["event"] == "result"]
    for spent, event in enumerate(results, 1):
        reading = event["metrics"].get(f"val_{objective.metric}")
        if reading is not None and objective.loss(reading) < best:
            best = objective.loss(reading)
            if event["number"] != holder:
                holder = event["number"]
                yield spent, holder


def compare(task: str, seed: int, store: str) -> dict[str, Any]:
    """The share of the random search's epochs until the search was there, judged at each of `AT`."""
    judge, metric, objective = Judge(task), f"val_{get_task(task).objective.metric}", get_task(task).objective

    def searched(seed: int, *arguments: str) -> Events:
        return run_search(task, "--seed", str(seed), "--concurrency", "2", *arguments, sets=SETS, store=store)

    def configurations(events: Events) -> dict[int, Params]:
        return {event["number"]: event["params"] for event in events if event["event"] == "trial"}

    full = searched(seed, "--searcher", "random", "--scheduler", "none", "--trials", str(TRIALS))
    results = [event for event in full if event["event"] == "result" and metric in event["metrics"]]
    count = max(event["epoch"] for event in results)
    ended = [event for event in results if event["epoch"] == count]
    best = min(ended, key=lambda event: objective.loss(event["metrics"][metric]))
    target = judge(configurations(full)[best["number"]], count)
    events = searched(seed + APART, *SEARCHED, "--set", f"search.epoch_budget={len(results)}")
    tried, shares = configurations(events), {}
    for place, at in AT.items():
        there = (spent for spent, number in incumbents(events, task) if at(judge(tried[number], count)) <= at(target))
        shares[place] = min(1.0, next(there, len(results)) / len(results))
    goals = {place: at(target) for place, at in AT.items()}
    return {"task": task, "seed": seed, "epochs": len(results), "goals": goals, "shares": shares}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="seeds")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    options = parser.parse_args()
    RESULTS.touch()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    with RESULTS.open("a") as file, tempfile.TemporaryDirectory() as store:  # one, so that a frozen encoder is run once
        for seed in range(FIRST, FIRST + options.pairs):
            for task in options.tasks:
                if any((row["task"], row["seed"]) == (task, seed) for row in rows):
                    continue
                rows.append(compare(task, seed, store))
                print(json.dumps(rows[-1]), file=file, flush=True)
    for row in rows:
        found = "; ".join(f"{place} {row['goals'][place]:.4f} after {row['shares'][place]:.2f}" for place in AT)
        print(f"{row['task']}, seed {row['seed']}: random {row['epochs']} epochs; {found}")
    for task in sorted({row["task"] for row in rows}):
        print(f"{task}: {_said([row for row in rows if row['task'] == task])}")
    print(f"{_said(rows)} of random's epochs, claimed {CLAIM:g}")
    return 0 if np.median([row["shares"]["last"] for row in rows]) <= CLAIM else 1


def _said(rows: list[dict[str, Any]]) -> str:
    """Medians of the shares with their intervals."""
    said = []
    for place in AT:
        shares = np.array([row["shares"][place] for row in rows])
        drawn = np.median(shares[np.random.default_rng(0).integers(len(shares), size=(2000, len(shares)))], axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        said.append(f"{place} {np.median(shares):.3f} ({low:.2f}-{high:.2f}), never {np.mean(shares >= 1):.0%}")
    return f"median of {len(rows)}: " + "; ".join(said)


if __name__ == "__main__":
    sys.exit(main())
