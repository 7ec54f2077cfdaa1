"""Simulates another scheduler, budget or number of workers on the recorded curves of a search."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from search.core.config import SearchConfig, check_config
from search.core.decision import TrialResult
from search.core.events import Event, Moved
from search.core.feasibility import infeasible
from search.core.overrides import change
from search.core.readable import figure
from search.core.replay import open_search, replay
from search.core.searchers.base import RecordedSearcher
from search.core.state import SearchState
from search.core.store import Store
from search.core.study import Study, reported_together
from search.reports.summary import tally
from search.runtime.placement import fits_here
from trainables import InputError


@dataclass
class Outcome:
    """The result of a simulated search.

    Attributes:
        trials: the outcome of each trial: completed, stopped_early, diverged or failed. unknown: the logged search
            stopped the trial earlier than the simulated search.
        epochs: the sum of the trials' epochs.
        seconds: wall-clock seconds of training alone.
        best: the number of the best trial.
        best_loss: its loss.
    """

    trials: dict[int, str] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    best: int | None = None
    best_loss: float = math.inf


def decisions(config: SearchConfig, events: Iterable[Event], state: SearchState) -> tuple[int, int]:
    """Makes the early-stopping decisions of a search again, in the order in which its trials reported.

    Returns:
        The number of decisions that equal the logged ones, and the number of all decisions.
    """
    study = Study(config, state.objective, searcher=RecordedSearcher(state.trials))
    same = total = 0
    events = list(events)
    undecided = _last_before_the_end(events)
    for together in reported_together(config, events):
        results = [event for event in together if event["event"] == "result"]
        again = study.decide([TrialResult.of(event) for event in results])
        for event in results:
            # A complete trial had no decision; if the search has more epochs now, its last epoch may be a rung.
            number = event["number"]
            if event["outcome"] not in ("diverged", "completed") and (number, event["epoch"]) not in undecided:
                same += (again[number].outcome == "stopped_early") == (event["outcome"] == "stopped_early")
                total += 1
        for logged in together:
            study.apply(logged)
    return same, total


def _last_before_the_end(events: Iterable[Event]) -> set[tuple[int, int]]:
    """The number and the last epoch of each trial whose own loop ended or that failed."""
    last: dict[int, int] = {}
    ends = set()
    for event in events:
        if event["event"] == "result":
            last[event["number"]] = event["epoch"]
        elif (event["event"] == "completed" or event["event"] == "failed") and event["number"] in last:
            ends.add((event["number"], last[event["number"]]))
    return ends


def simulate(config: SearchConfig, state: SearchState, concurrency: int, limit: float = math.inf) -> Outcome:
    """Runs the recorded trials again, in the order of their numbers, on `concurrency` simulated workers.

    `config` gives the scheduler, the epochs and the limits of the search but its time budget. Each epoch has its
    recorded metrics and duration.

    Args:
        limit: simulated seconds after which the simulation ends.
    """
    return _Simulation(config, state, concurrency).run(limit)


class _Simulation:
    """A study whose trials report their recorded epochs in simulated time."""

    def __init__(self, config: SearchConfig, recorded: SearchState, concurrency: int) -> None:
        self.recorded, self.concurrency, self.outcome = recorded, concurrency, Outcome()
        self.study = Study(config, recorded.objective, searcher=RecordedSearcher(recorded.trials))
        #: A heap of (time at which an epoch ends, trial number, epoch).
        self.running: list[tuple[float, int, int]] = []

    def run(self, limit: float) -> Outcome:
        self._fill(0.0)
        while self.running:
            now, number, epoch = heapq.heappop(self.running)
            self.outcome.seconds, self.outcome.epochs = now, self.outcome.epochs + 1
            self._report(number, epoch)
            if self.study.is_out_of_epochs or self.study.limit or now >= limit:
                break
            if not self.study.state.trials[number].idle:
                self._begin(number, epoch + 1, now)
            self._fill(now)
        for number, trial in self.study.state.trials.items():
            if trial.idle and number not in self.outcome.trials:
                self.outcome.trials[number] = "stopped_early" if trial.outcome == "paused" else str(trial.outcome)
        return self.outcome

    def _report(self, number: int, epoch: int) -> None:
        metrics = self.recorded.trials[number].curve[epoch]
        value = metrics.get(self.study.objective.key)
        diverged = None if value is not None else "the recorded epoch diverged"
        able = value is not None and not infeasible(self.study.config.search.outcome_limits, metrics)
        if able and (loss := self.study.objective.val_loss(metrics)) < self.outcome.best_loss:
            self.outcome.best, self.outcome.best_loss = number, loss
        events, _ = self.study.report([TrialResult(number, epoch, metrics, diverged)])
        self._apply(events)
        self._apply(self.study.reach_limit())

    def _fill(self, now: float) -> None:
        """Starts trials on the free workers."""
        while len(self.running) < self.concurrency and (event := self.study.propose()) is not None:
            self._apply([event])
            number = event["number"]  # type: ignore[typeddict-item]
            self._begin(number, self.study.state.trials[number].epoch + 1, now)

    def _begin(self, number: int, epoch: int, now: float) -> None:
        """Starts an epoch of a trial. A trial without this recorded epoch ends with its outcome or as `unknown`."""
        trial = self.recorded.trials[number]
        if epoch in trial.curve:
            heapq.heappush(self.running, (now + trial.curve[epoch].get("epoch_seconds", 0.0), number, epoch))
            return
        ended = trial.outcome in ("diverged", "failed") or trial.ended_itself or (epoch == 1 and trial.outcome)
        self.outcome.trials[number] = str(trial.outcome) if ended else "unknown"
        self._apply([Moved(event="stopped_early", number=number)])

    def _apply(self, events: Iterable[Event]) -> None:
        for event in events:
            self.study.apply(event)


def simulated_beside_logged(
    store: Store, name: str, flags: dict[str, Any], sets: list[str], concurrency: int | None
) -> list[str]:
    """Lines that compare the simulated search with the logged search.

    Args:
        flags: changed values by dotted key.
        sets: changes as `KEY=VALUE`.
        concurrency: the number of simulated workers; None: of the search, else as many as fit this machine.

    Raises:
        InputError: there is no such search, it has no result, or a change is wrong.
    """
    folder, _, config = open_search(store, name)
    state, events = replay(folder)
    best = state.best()
    if best is None:
        raise InputError(f"{name}: no trial has a result")
    same, total = decisions(config, events, state)
    other = check_config(config.task, change(config.raw, sets, flags), f"{config.place} with --set")
    workers = concurrency or other.search.concurrency or fits_here(config).concurrency
    spent = sum(t.epoch for t in state.trials.values())
    outcome = simulate(other, state, workers)
    unknown = list(outcome.trials.values()).count("unknown")
    metric = state.objective.metric
    lines = [
        f"the logged search: {same} of {total} early-stopping decisions are the same when made again",
        f"logged:    {tally(t.outcome for t in state.trials.values())}; {spent} epochs; "
        f"best {metric} {figure(best.best_value)} (trial {best.number})",
        f"simulated: {tally(outcome.trials.values())}; {outcome.epochs} epochs; {outcome.seconds:.0f} s of training on "
        f"{workers} workers",
    ]
    if outcome.best is not None:
        value = state.objective.loss(outcome.best_loss)
        lines[2] += f"; best {metric} {figure(value)} (trial {outcome.best})"
    if unknown:
        lines.append(
            f"the logged search stopped {unknown} trials earlier than the simulated search: their recorded epochs count"
        )
    return lines
