"""Simulates another scheduler, budget or number of workers on the recorded curves of a search."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rich.console import Console

from search.core.config import SearchConfig, check_config
from search.core.events import Event
from search.core.overrides import change
from search.core.readable import figure
from search.core.replay import open_search, replay
from search.core.schedulers.registry import make_scheduler
from search.core.state import SearchState, Trial
from search.core.store import Store
from search.reports.summary import tally
from search.runtime.placement import fits_here
from search.runtime.search import first_of_round
from trainables import InputError


@dataclass
class Outcome:
    """The result of a simulated search."""

    #: The outcome of each trial: completed, stopped_early, diverged, failed, or unknown where the logged search stopped
    #: it before the simulated one would have.
    trials: dict[int, str] = field(default_factory=dict)
    epochs: int = 0
    #: Wall-clock seconds of training alone.
    seconds: float = 0.0
    best: int | None = None
    best_loss: float = float("inf")


def decisions(config: SearchConfig, events: Iterable[Event], state: SearchState) -> tuple[int, int]:
    """Makes the early-stopping decisions of a search again, in the order in which its trials reported.

    Returns:
        How many decisions come out as they were logged, and how many there are.
    """
    scheduler, objective = make_scheduler(config), state.objective
    same = total = 0
    events = list(events)
    undecided = _last_before_the_end(events)
    # Fused trials report together, in one write of the journal, and so have the same time.
    results = (event for event in events if event["event"] == "result")
    for _, group in groupby(results, key=lambda e: e["time"] if config.search.fuse > 1 else e):
        together = list(group)
        for event in together:
            if event["outcome"] == "diverged":
                scheduler.remove(event["number"])
            else:
                scheduler.record(event["number"], event["epoch"], objective.val_loss(event["metrics"]))
        for event in together:
            # A complete trial had no decision; if the search has more epochs now, its last epoch may be a rung.
            number = event["number"]
            if event["outcome"] not in ("diverged", "completed") and (number, event["epoch"]) not in undecided:
                loss = objective.val_loss(event["metrics"])
                stop = scheduler.should_stop(number, event["epoch"], loss, first_of_round(config, number))
                same, total = same + (stop == (event["outcome"] == "stopped_early")), total + 1
    return same, total


def _last_before_the_end(events: Iterable[Event]) -> set[tuple[int, int]]:
    """The numbers and last epochs of trials that came to an end of their own, or failed."""
    last: dict[int, int] = {}
    found = set()
    for event in events:
        if event["event"] == "result":
            last[event["number"]] = event["epoch"]
        elif (event["event"] == "completed" or event["event"] == "failed") and event["number"] in last:
            found.add((event["number"], last[event["number"]]))
    return found


def simulate(config: SearchConfig, state: SearchState, concurrency: int, limit: float = math.inf) -> Outcome:  # noqa: C901
    """Runs the recorded trials again, in the order of their numbers, on `concurrency` simulated workers.

    The scheduler, epochs and epoch budget are those of `config`. Each epoch takes as long and measures the same as
    recorded.

    Args:
        limit: seconds after which it ends.
    """
    scheduler, objective, outcome = make_scheduler(config), state.objective, Outcome()
    waiting = sorted(state.trials.values(), key=lambda t: -t.number)
    paused: dict[int, int] = {}
    budget = config.search.epoch_budget
    #: (when its next epoch ends, trial number, that epoch)
    running: list[tuple[float, int, int]] = []

    def begin(trial: Trial, epoch: int, now: float) -> bool:
        """Starts an epoch; returns whether it is on record."""
        if epoch not in trial.curve:
            return False
        heapq.heappush(running, (now + trial.curve[epoch].get("epoch_seconds", 0.0), trial.number, epoch))
        return True

    def fill(now: float) -> None:
        while len(running) < concurrency:
            number = scheduler.promoted(paused, None if waiting else [number for _, number, _ in running])
            if number is None and not waiting:
                return
            trial, epoch = (waiting.pop(), 0) if number is None else (state.trials[number], paused.pop(number))
            if not begin(trial, epoch + 1, now):
                outcome.trials[trial.number] = trial.outcome if trial.outcome and not epoch else "unknown"

    fill(0.0)
    while running:
        now, number, epoch = heapq.heappop(running)
        trial = state.trials[number]
        value = trial.curve[epoch].get(f"val_{objective.metric}")
        outcome.seconds, outcome.epochs = now, outcome.epochs + 1
        if value is None:
            outcome.trials[number] = "diverged"
            scheduler.remove(number)
        else:
            loss = objective.loss(value)
            if loss < outcome.best_loss:
                outcome.best, outcome.best_loss = number, loss
            if epoch >= config.search.epochs:
                outcome.trials[number] = "completed"
            elif scheduler.should_stop(number, epoch, loss, first_of_round(config, number)):
                outcome.trials[number] = "stopped_early"
            scheduler.record(number, epoch, loss)
            if number not in outcome.trials and scheduler.pauses(number, epoch):
                paused[number] = epoch
        if (budget is not None and outcome.epochs >= budget) or now >= limit:
            break
        if number not in outcome.trials and number not in paused and not begin(trial, epoch + 1, now):
            known = trial.outcome in ("diverged", "failed") or trial.ended_itself
            outcome.trials[number] = ended = str(trial.outcome) if known else "unknown"
            if ended == "diverged":
                scheduler.remove(number)
        fill(now)
    outcome.trials |= dict.fromkeys(paused, "stopped_early")
    return outcome


def show(
    console: Console, store: Store, name: str, flags: dict[str, Any], sets: list[str], concurrency: int | None
) -> None:
    """Prints the simulated search beside the logged one.

    Raises:
        InputError: there is no such search, it has no result, or a key cannot be changed in that way.
    """
    folder, _, config = open_search(store, name)
    state, events = replay(folder)
    best = state.best()
    if best is None:
        raise InputError(f"{name}: no trial of it has a result to go by")
    same, total = decisions(config, events, state)
    console.print(f"the logged search: {same} of {total} early-stopping decisions come out as they were logged")
    other = check_config(config.task, change(config.raw, sets, flags), f"{config.place} with --set")
    workers = concurrency or other.search.concurrency or fits_here(config).concurrency
    spent = sum(t.epoch for t in state.trials.values())
    found = simulate(other, state, workers)
    unknown = list(found.trials.values()).count("unknown")
    metric = state.objective.metric
    lines = [
        f"logged:    {tally(t.outcome for t in state.trials.values())}; {spent} epochs; "
        f"best {metric} {figure(best.best_value)} (trial {best.number})",
        f"simulated: {tally(found.trials.values())}; {found.epochs} epochs; {found.seconds:.0f} s of training on "
        f"{workers} workers",
    ]
    if found.best is not None:
        value = state.objective.loss(found.best_loss)
        lines[1] += f"; best {metric} {figure(value)} (trial {found.best})"
    if unknown:
        lines.append(
            f"{unknown} trials were stopped in the logged search before the simulated one would have: they "
            "are used as far as they went"
        )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
