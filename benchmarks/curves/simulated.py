"""A search over a table: the real searcher and scheduler, simulated workers and time."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.curves.tables import EPOCHS, Array, Table
from search.algorithms.schedulers import make_scheduler
from search.algorithms.searchers import make_searcher
from search.config.load import SearchConfig, check_config, load_config
from search.record.state import Trial
from trainables import Objective

OBJECTIVE = Objective("loss", "min")
#: Configurations that random search trains to the end.
RANDOM = 32


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        share: of random search's epochs until a reading was as good as its best; 1 where none was.
        curve: (epochs spent, best reading) whenever a reading was better than all before.
    """

    share: float
    curve: list[tuple[int, float]]


def target(table: Table, seed: int) -> float:
    """The best reading of random search: `RANDOM` configurations, each trained to the end."""
    draws, space, rng = table.begin(), table.parsed(), np.random.default_rng([seed, 0, 2026])
    from search.algorithms.encoding import Encoding

    encoding = Encoding(space)
    best = math.inf
    for row in encoding.draw(rng, RANDOM, {}):
        _, curve = draws.take(encoding.params(row))
        best = min(best, float(np.nanmin(np.append(_until_diverged(curve), np.inf))))
    return best


def configuration(table: Table, settings: dict[str, Any], seed: int) -> SearchConfig:
    """The search's configuration for this table: the defaults, and these settings."""
    raw = load_config("rnn", profile="data").raw
    search = {**raw["search"], **settings, "seed": seed, "epochs": EPOCHS, "trials": None, "balance": None,
              "epoch_budget": RANDOM * EPOCHS, "time_budget": None, "fit_epochs": False}  # fmt: skip
    return check_config("rnn", {**raw, "search": search, "space": table.space}, table.name)


def run(table: Table, settings: dict[str, Any], workers: int, seed: int, goal: float) -> Found:
    """Searches until a reading is as good as `goal`, or random search's epochs are spent."""
    config = configuration(table, settings, seed)
    (searcher, _), scheduler, draws = make_searcher(config, OBJECTIVE), make_scheduler(config), table.begin()
    trials: dict[int, Trial] = {}
    curves: dict[int, Array] = {}
    paused: dict[int, int] = {}
    running: list[tuple[float, int]] = []
    spent, best, found = 0, math.inf, []

    def begin(now: float) -> None:
        number = scheduler.promoted(paused, None)
        if number is None:
            number = len(trials)
            params, curve = draws.take(searcher.ask(number))
            trials[number], curves[number] = Trial(number, params, 0), _until_diverged(curve)
            _asked(searcher, trials[number])
        else:
            del paused[number]
            trials[number].outcome = None
        heapq.heappush(running, (now + 1, number))

    while spent < RANDOM * EPOCHS:
        while len(running) < workers:
            begin(running[0][0] - 1 if running else float(spent))
        now, number = heapq.heappop(running)
        trial, epoch = trials[number], trials[number].epoch + 1
        spent += 1
        loss = float(curves[number][epoch - 1])
        if math.isnan(loss):
            trial.take(epoch, {}, OBJECTIVE)
            trial.outcome = "diverged"
            scheduler.remove(number)
        else:
            trial.take(epoch, {"val_loss": loss, "epoch_seconds": 1.0}, OBJECTIVE)
            scheduler.record(number, epoch, loss)
            if loss < best:
                best = loss
                found.append((spent, best))
                if best <= goal:
                    return Found(spent / (RANDOM * EPOCHS), found)
            if epoch >= EPOCHS:
                trial.outcome = "completed"
            elif scheduler.should_stop(number, epoch, loss):
                trial.outcome = "stopped_early"
            elif scheduler.pauses(number, epoch):
                trial.outcome = "paused"
                paused[number] = epoch
        if trial.idle:
            searcher.tell(trial)
        else:
            heapq.heappush(running, (now + 1, number))
    return Found(1.0, found)


def _asked(searcher: Any, trial: Trial) -> None:
    """Tells a searcher that its proposal was rounded to a configuration of the table."""
    if (asked := getattr(searcher, "_asked", {}).pop(trial.number, None)) is not None:
        searcher.study.tell(asked, state=searcher._optuna.trial.TrialState.FAIL)
    searcher.replay(trial)


def _until_diverged(curve: Array) -> Array:
    """A training ends where it diverges."""
    bad = np.isnan(curve)
    return np.where(np.cumsum(bad) > 0, np.nan, curve)
