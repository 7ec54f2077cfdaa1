"""A search over a table, by simulated workers in simulated time."""

from __future__ import annotations

import heapq
import math

import numpy as np

from benchmarks.curves.systems import System
from benchmarks.curves.tables import EPOCHS, Array, Table
from search.algorithms.encoding import Encoding

#: Configurations that random search trains to the end.
RANDOM = 32


def target(table: Table, seed: int) -> float:
    """The best reading of random search."""
    draws, encoding = table.begin(), Encoding(table.parsed())
    rows = encoding.draw(np.random.default_rng([seed, 0, 2026]), RANDOM, {})
    curves = [_until_diverged(draws.take(encoding.params(row))[1]) for row in rows]
    return float(np.nanmin(curves))


def share(table: Table, system: System, workers: int, goal: float) -> float:
    """The share of random search's epochs that are spent until a reading is as good as `goal`; 1 where none is."""
    draws, budget = table.begin(), RANDOM * EPOCHS
    curves: dict[int, Array] = {}
    epochs: dict[int, int] = {}
    #: (when its next epoch ends, trial)
    running: list[tuple[int, int]] = []
    now = 0
    for spent in range(1, budget + 1):
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
        if not math.isnan(loss) and loss <= goal:
            return spent / budget
        if system.report(number, epochs[number], loss) == "goes on":
            heapq.heappush(running, (now + 1, number))
    return 1.0


def _until_diverged(curve: Array) -> Array:
    """A training ends where it diverges."""
    return np.where(np.cumsum(np.isnan(curve)) > 0, np.nan, curve)
