"""A search over a table, by simulated workers in simulated time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

import numpy as np

from benchmarks.curves.systems import System
from benchmarks.curves.tables import Array, Table
from search.core.searchers.encoding import Encoding
from trainables import Params

#: Configurations that random search trains to the end.
RANDOM = 32


def random_search(table: Table, seed: int) -> list[tuple[float, Params]]:
    """What a random search finds: configurations that do not diverge, with the best reading of each, the best first."""
    draws, encoding = table.begin(), Encoding(table.parsed())
    rows = encoding.draw(np.random.default_rng([seed, 0, 2026]), RANDOM, {})
    shown = []
    for row in rows:
        params, curve = draws.take(encoding.params(row))
        shown.append((float(np.nanmin(np.append(_until_diverged(curve), np.inf))), params))
    return sorted((one for one in shown if one[0] < np.inf), key=lambda one: one[0])


def best_so_far(table: Table, system: System, workers: int, goal: float = -math.inf) -> Array:
    """The best reading after each epoch that is spent, until one is as good as `goal` or random search's epochs are."""
    budget, best = RANDOM * table.epochs, []
    for reading in readings(table, system, workers):
        best.append(reading)
        if len(best) == budget or reading <= goal:
            break
    return np.array(best)


def readings(table: Table, system: System, workers: int) -> Iterator[float]:
    """The best reading after each epoch that is spent, without an end."""
    draws = table.begin()
    curves: dict[int, Array] = {}
    epochs: dict[int, int] = {}
    #: (when its next epoch ends, trial)
    running: list[tuple[int, int]] = []
    now, best = 0, math.inf
    while True:
        while len(running) < workers:
            number, params = system.next()
            if params is not None:
                taken, curve = draws.take(params)
                curves[number], epochs[number] = _until_diverged(curve), 0
                system.takes(number, taken)
            heapq.heappush(running, (now + 1, number))
        now, number = heapq.heappop(running)
        epochs[number] += 1
        loss = float(curves[number][epochs[number] - 1])
        best = min(best, math.inf if math.isnan(loss) else loss)
        if system.report(number, epochs[number], loss) == "goes on":
            heapq.heappush(running, (now + 1, number))
        yield best


def share(best: Array, goal: float, table: Table) -> float:
    """The share of random search's epochs until a reading is as good as `goal`; 1 where none is."""
    there = np.flatnonzero(best <= goal)
    return float(there[0] + 1) / (RANDOM * table.epochs) if there.size else 1.0


def _until_diverged(curve: Array) -> Array:
    """A training ends where it diverges."""
    return np.where(np.cumsum(np.isnan(curve)) > 0, np.nan, curve)
