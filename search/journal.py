"""The durable record of a search, and the state that follows from it.

Everything that happens is one JSON line, on disk before anything else acts on it. The state of a search (its
trials, and by replay its searcher and its rungs) is a function of those lines alone, so a driver killed at any
moment resumes exactly where the last line stands, and MLflow can be told again what it may have missed.

Events (all with `time`, milliseconds since 1970, never decreasing):
    session      {}                                              a driver took the search up
    warm_start   from, trials                                    what the searcher is told of an earlier search's trials
    trial        number, params, seed                            proposed
    result       number, epoch, metrics, outcome                 an epoch's end; `outcome` None: goes on
    checkpoint   number, epoch, path, bytes                      written completely
    retry        number, why, traceback, micro_batches           failed, to be taken up again
    failed       number, why, traceback                          failed for good
    timed_out    number                                          over its time in the middle of an epoch
    interrupted  number                                          stopped with the search, to be resumed
    reopened     number                                          was complete; the search was given more epochs
    repeat_started / repeat_result / repeat_finished             a balanced value's best trial again, by value and seed
    compared                                                     the comparison of the values is written
    final_started / final_result / final_finished                the final training, a run for each seed
    ended        status                                          searching | interrupted | finished | failed
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from search.space import Plain
from trainables.task import InputError, Objective, Params

Event = dict[str, Any]

#: Outcomes after which a trial is over and is never run again.
OVER = ("completed", "stopped_early", "timed_out", "diverged", "failed")


@dataclass(frozen=True)
class Checkpoint:
    """A trial's whole state after an epoch, in a file of so many bytes."""

    epoch: int
    path: Path
    bytes: int


@dataclass
class Trial:
    """What is known of one trial."""

    number: int
    params: Params
    seed: int
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    outcome: str | None = None
    #: Where the objective was best so far; 0 and NaN before the first result.
    best_epoch: int = 0
    best_value: float = math.nan
    #: Complete ones, oldest first; of those that were deleted since, the file is gone.
    checkpoints: list[Checkpoint] = field(default_factory=list)
    #: When its latest epoch was reported, and the device it was trained on.
    reported: int = 0
    device: str = "cpu"
    #: Why it was taken up again, each time since its last new epoch.
    retries: list[str] = field(default_factory=list)
    #: Parts in which it works through a batch, more than one once it ran out of memory.
    micro_batches: int = 1

    @property
    def over(self) -> bool:
        return self.outcome in OVER

    @property
    def epoch(self) -> int:
        return max(self.curve, default=0)

    @property
    def seconds(self) -> float:
        """Training and validation of its recorded epochs; of fused trials each one's share."""
        return sum(metrics.get("epoch_seconds", 0.0) for metrics in self.curve.values())

    def take(self, epoch: int, metrics: dict[str, float], objective: Objective) -> None:
        """An epoch's metrics; of equal ones the earlier stays the best."""
        self.curve[epoch] = metrics
        value = metrics.get(f"val_{objective.metric}")
        if value is not None and (not self.best_epoch or objective.better(value, self.best_value)):
            self.best_epoch, self.best_value = epoch, value

    @property
    def can_win(self) -> bool:
        return self.best_epoch > 0 and self.outcome not in ("diverged", "failed")


@dataclass
class FinalRun:
    """The final training with one seed: a trial's configuration, for so many epochs."""

    seed: int
    trial: int
    params: Params
    epochs: int
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    test: dict[str, float] | None = None
    baselines: dict[str, float] = field(default_factory=dict)

    def same_as(self, other: FinalRun | None) -> bool:
        """Whether both train the same; a search that went on may have found a better trial, or epoch, since."""
        return other is not None and (self.seed, self.trial, self.epochs) == (other.seed, other.trial, other.epochs)


@dataclass
class Repeat:
    """The best trial of one balanced value, trained again with another seed for the comparison; None once diverged."""

    value: Plain
    seed: int
    trial: int
    params: Params
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    best_epoch: int = 0
    parameters: int = 0
    test: dict[str, float] | None = None


class SearchState:
    """The trials of a search, built by applying its events in order."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.trials: dict[int, Trial] = {}
        self.finals: dict[int, FinalRun] = {}
        self.repeats: dict[tuple[Plain, int], Repeat] = {}
        self.compared = False
        self.status = "searching"
        self.sessions = 0
        #: The tracebacks of the trials that failed one after the other up to now, in this session.
        self.failed_in_a_row: list[str] = []

    def params_again(self, trial: Trial) -> Params:
        """The configuration for another training: with what the trial's best epoch tuned on validation."""
        metrics = trial.curve[trial.best_epoch]
        tuned = {key: metrics[f"val_{key}"] for key in self.objective.tuned if f"val_{key}" in metrics}
        return {**trial.params, **tuned}

    def apply(self, event: Event) -> None:
        kind = event["event"]
        if kind == "session":
            self.sessions += 1
            self.status = "searching"
            self.failed_in_a_row = []
        elif kind == "trial":
            number = event["number"]
            self.trials[number] = Trial(number, event["params"], event["seed"])
        elif kind == "ended":
            self.status = event["status"]
        elif kind.startswith("final_"):
            self._apply_final(kind, event)
        elif kind.startswith("repeat_"):
            self._apply_repeat(kind, event)
        elif kind == "compared":
            self.compared = True
        elif kind != "warm_start":
            self._apply_to_trial(kind, self.trials[event["number"]], event)

    def _apply_to_trial(self, kind: str, trial: Trial, event: Event) -> None:
        if kind == "result":
            trial.reported, trial.device = event["time"], event["device"]
            trial.outcome = event["outcome"]
            trial.retries = []
            if trial.outcome == "diverged":
                trial.curve[event["epoch"]] = event["metrics"]
            else:
                trial.take(event["epoch"], event["metrics"], self.objective)
        elif kind == "checkpoint":
            trial.checkpoints.append(Checkpoint(event["epoch"], Path(event["path"]), event["bytes"]))
        elif kind == "retry":
            trial.retries.append(event["why"])
            trial.micro_batches = event["micro_batches"]
        elif kind == "reopened":
            trial.outcome = None
        else:
            trial.outcome = kind  # failed, timed_out, interrupted
        if kind == "failed":
            self.failed_in_a_row.append(event["traceback"])
        elif trial.over:
            self.failed_in_a_row = []

    def _apply_final(self, kind: str, event: Event) -> None:
        if kind == "final_started":
            started = FinalRun(event["seed"], event["trial"], event["params"], event["epochs"])
            if not started.same_as(self.finals.get(started.seed)):  # else it is taken up again after a kill
                self.finals[started.seed] = started
        elif kind == "final_result":
            self.finals[event["seed"]].curve[event["epoch"]] = event["metrics"]
        else:
            self.finals[event["seed"]].test = event["test"]
            self.finals[event["seed"]].baselines = event["baselines"]

    def _apply_repeat(self, kind: str, event: Event) -> None:
        key = (event["value"], event["seed"])
        known = self.repeats.get(key)
        if kind == "repeat_started":
            self.compared = False
            if known is None or known.trial != event["trial"]:  # else it is taken up again after a kill
                self.repeats[key] = Repeat(*key, event["trial"], event["params"])
        elif known is not None and kind == "repeat_result":
            known.curve[event["epoch"]] = event["metrics"]
        elif known is not None:
            known.test, known.best_epoch, known.parameters = event["test"], event["best_epoch"], event["parameters"]

    def best(self, parameter: str | None = None, value: Plain = None) -> Trial | None:
        """The trial with the best objective at any epoch, of those where `parameter` is `value`; of equals the
        earliest."""
        winner: Trial | None = None
        for trial in self.trials.values():
            if parameter is not None and trial.params[parameter] != value:
                continue
            if trial.can_win and (winner is None or self.objective.better(trial.best_value, winner.best_value)):
                winner = trial
        return winner

    def ranked(self) -> list[Trial]:
        """Trials that can win, best first."""
        able = [t for t in self.trials.values() if t.can_win]
        return sorted(able, key=lambda t: (self.objective.loss(t.best_value), t.number))

    def unfinished(self) -> list[Trial]:
        return [t for t in self.trials.values() if not t.over]


class Journal:
    """The file of events of one search, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Opens or creates it, drops a last line that a kill left unfinished, and locks it.

        Raises:
            InputError: another process is running this search.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path.parent.name}: this search is running in another process") from error
        self.events = list(read_events(path))
        self._end = sum(len(line) for line in _whole_lines(path))
        self._file.truncate(self._end)
        #: Why an event could not be kept; after that nothing is.
        self.refused: OSError | None = None
        self._last = self.events[-1]["time"] if self.events else 0

    def append(self, *events: Event) -> list[Event]:
        """Stamps events and puts them on disk, all or none; raises OSError where the disk refuses them."""
        self._last = max(self._last, int(time.time() * 1000))  # a clock that is set back moves no event back
        stamped = [{**event, "time": self._last} for event in events]
        lines = b"".join(json.dumps(event).encode() + b"\n" for event in stamped)
        if self.refused:
            raise self.refused
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            self.refused = error
            self._file.truncate(self._end)
            raise
        self._end += len(lines)
        self.events += stamped
        return stamped

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():  # killed before the first event
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def read_events(path: Path) -> Iterator[Event]:
    """The complete events of a journal, none where there is none; floats to the last bit, NaN and infinity too.

    Raises:
        InputError: a line that is no event: the file was edited or the disk is bad.
    """
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is damaged: {line[:60]!r}") from error
        yield event
