"""Forecasts the epochs, hours and disk space of a search (`--plan`), from two epochs of the trials that run at once."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median

import numpy as np

from search.core.config import SearchConfig, check_config, parse_duration
from search.core.events import Event, Result
from search.core.overrides import change
from search.core.readable import duration
from search.core.registry import SEARCHERS
from search.core.searchers import make_searcher
from search.core.state import SearchState, Trial
from search.core.store import SearchFolder, read_json
from search.reports.simulate import simulate
from search.runtime.placement import Placement
from search.runtime.search import Search
from trainables import InputError, Splits, get_task
from trainables.base.files import replacing

#: A forecast simulates at most this many random orders of good and bad trials.
DRAWS = 20
#: If a budget decides the number of trials, a forecast simulates at most this many.
MOST = 500


@dataclass(frozen=True)
class Plan:
    """A forecast.

    Attributes:
        trials: the number of trials.
        epochs: their epochs: minimum, median and maximum over random orders of the trials.
        hours: their hours: minimum, median and maximum.
        final_hours: of the final training if the best epoch is the last one.
        peak_gb: the largest size of checkpoints and models at any time, in GB.
        kept_gb: their size after the search, in GB.
    """

    trials: int
    epochs: tuple[int, int, int]
    hours: tuple[float, float, float]
    final_hours: float
    peak_gb: float
    kept_gb: float

    def lines(self) -> list[str]:
        """The forecast as lines for the user."""
        least, epochs, most = self.epochs
        short, hours, long = (duration(3600 * h) for h in self.hours)
        return [
            f"plan: {self.trials} trials train about {epochs} epochs ({least} to {most}) in about {hours} "
            f"({short} to {long})",
            f"plan: then up to {duration(3600 * self.final_hours)} for the final training",
            f"plan: up to {_size(self.peak_gb)} on disk, of which {_size(self.kept_gb)} stay",
        ]

    def beside(self, events: Sequence[Event]) -> str:
        """A line with the forecast, and the epochs and hours that the trials took."""
        seconds = begun = last = 0
        for event in events:
            if event["event"] == "session":
                seconds, begun = seconds + last - begun, event["time"]
            last = event["time"] if event["event"] in ("session", "result") else last
        took = (seconds + last - begun) / 1000
        trained = sum(event["event"] == "result" for event in events)
        return (
            f"planned: {self.epochs[1]} epochs in {duration(3600 * self.hours[1])}; "
            f"it took {trained} in {duration(took)}"
        )

    @staticmethod
    def read(path: Path) -> Plan:
        """Reads a file of `save`; raises InputError if it is damaged."""
        remedy = "delete it, and make the plan again"
        content = read_json(path, remedy)
        if content.keys() != {field.name for field in fields(Plan)}:
            raise InputError(f"{path}: is damaged (it is no forecast); {remedy}")
        return Plan(**content)

    def save(self, path: Path) -> None:
        """Writes the forecast as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(json.dumps(asdict(self)).encode())


def _size(gb: float) -> str:
    return f"{gb:.1f} GB" if gb >= 1 else f"{max(1, round(1024 * gb))} MB"


def measure_plan(config: SearchConfig, splits: Splits, placement: Placement) -> Plan:
    """Trains random configurations for two epochs, as many as run at once, and forecasts the search from their times.

    The epochs that early stopping saves depend on the order of good and bad trials. The forecast simulates random
    orders. A simulated trial has the same rank at every epoch.

    Raises:
        InputError: no trial finished its first epoch.
    """
    from search.runtime.trials import run_trials

    together, searcher = placement.concurrency * config.search.fuse, config.search.searcher
    flags = {
        "search.trials": together, "search.epochs": min(2, config.search.epochs), "search.scheduler": "none",
        "search.searcher": searcher if SEARCHERS.get(searcher).is_finite else "random",
    }  # fmt: skip
    without = [f"search.{key}=null" for key in ("time_budget", "epoch_budget", "objective", "storage")]
    raw = change(config.raw, without, flags)
    with tempfile.TemporaryDirectory(prefix="search-plan-") as folder:
        probe = Search(check_config(config.task, raw, config.place), SearchFolder(Path(folder) / "plan"))
        begun = time.time()
        probe.record({"event": "session"})
        run_trials(probe, splits, placement)
        probe.journal.close()
        events, state = probe.journal.events, probe.state
    results = [event for event in events if event["event"] == "result"]
    if not results:
        failed = [event["traceback"] for event in events if event["event"] == "failed"]
        raise InputError(f"--plan: no trial got through its first epoch:\n{failed[-1] if failed else ''}")
    first = min(results, key=lambda event: event["time"])
    start = max(0.0, first["time"] / 1000 - begun - first["metrics"]["epoch_seconds"])
    size = fmean([event["bytes"] for event in events if event["event"] == "checkpoint"] or [0]) / 2**30
    return forecast(config, splits, placement, _seconds(state, results), start, size)


def _seconds(state: SearchState, results: list[Result]) -> list[tuple[float, float]]:
    """Seconds of the first epoch and of a later epoch of each trial, with the time between two epochs."""
    times = {(event["number"], event["epoch"]): event["time"] / 1000 for event in results}
    seconds = []
    for trial in state.trials.values():
        epochs = [metrics["epoch_seconds"] for _, metrics in sorted(trial.curve.items())]
        if epochs:
            between = times[trial.number, 2] - times[trial.number, 1] if len(epochs) > 1 else epochs[0]
            seconds.append((epochs[0] + max(0.0, between - epochs[-1]), max(between, epochs[-1])))
    return seconds


def forecast(
    config: SearchConfig, splits: Splits, placement: Placement, seconds: list[tuple[float, float]], start: float,
    size: float,
) -> Plan:  # fmt: skip
    """Forecasts a search from measured trials.

    Args:
        seconds: the seconds of the first epoch and of a later epoch, for each measured trial.
        start: the seconds until the first trial trains.
        size: the size of a checkpoint in GB.
    """
    objective = get_task(config.task).objective
    _, total = make_searcher(config, objective)
    search, rng = config.search, np.random.default_rng(config.search.seed)
    epochs, hours = [], []
    workers, limit = placement.concurrency * search.fuse, math.inf
    if search.time_budget:
        limit = max(0.0, parse_duration(search.time_budget) - start)
    if math.isinf(total):  # the number of first epochs that the budget holds
        most = search.epoch_budget or limit * workers / min(first for first, _ in seconds)
        total = max(1, min(MOST, round(most)))
    total = int(total)
    for _ in range(max(3, min(DRAWS, 2000 // total))):
        state = SearchState(objective)
        for number, quality in enumerate(rng.permutation(total)):
            first, later = seconds[rng.integers(len(seconds))]
            value = {objective.key: objective.loss(float(quality))}
            curve = {e: {**value, "epoch_seconds": first if e == 1 else later} for e in range(1, search.epochs + 1)}
            state.trials[number] = Trial(number, {}, 0, curve)
        outcome = simulate(config, state, workers, limit)
        epochs.append(outcome.epochs)
        hours.append((start + outcome.seconds) / 3600)
    sizes = splits.info.sizes
    more = (sizes["train"] + sizes["val"]) / sizes["train"]
    final = search.retrain_seeds * search.epochs * more * fmean(later for _, later in seconds) / 3600
    models = search.retrain_seeds * 3 * size  # a checkpoint, the model, and the model in MLflow
    return Plan(
        total,
        (min(epochs), round(median(epochs)), max(epochs)),
        (min(hours), median(hours), max(hours)),
        final,
        min(search.max_checkpoint_gb, 2 * total * size) + models,
        2 * min(search.keep_checkpoints, total) * size + models,
    )
