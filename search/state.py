"""The state of a search: what its events add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from search.journal import Event
from search.space import Plain
from trainables.task import Objective, Params

#: Outcomes after which a trial is over and is never run again.
OVER = ("completed", "stopped_early", "timed_out", "diverged", "failed")


@dataclass(frozen=True)
class Checkpoint:
    """A trial's whole state after an epoch, in a file of the search of so many bytes."""

    epoch: int
    name: str
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
    def idle(self) -> bool:
        """Whether it is no worker's now: over, or paused until it is promoted."""
        return self.over or self.outcome == "paused"

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
    """A final training: a trial's configuration, for so many epochs, with one seed."""

    seed: int
    trial: int
    params: Params
    epochs: int
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    test: dict[str, float] | None = None
    baselines: dict[str, float] = field(default_factory=dict)


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


@dataclass
class Audit:
    """A stopped trial trained on, to see what it would have come to: its later epochs, and whether it is done."""

    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    outcome: str | None = None


class SearchState:
    """The trials of a search, built by applying its events in order."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.trials: dict[int, Trial] = {}
        #: By trial and seed.
        self.finals: dict[tuple[int, int], FinalRun] = {}
        #: The one whose model stands for the search.
        self.final: FinalRun | None = None
        #: What came of comparing finalists, where that was asked for.
        self.decision: Event | None = None
        self.repeats: dict[tuple[Plain, int], Repeat] = {}
        self.compared = False
        #: Stopped trials that are trained on, by number.
        self.audits: dict[int, Audit] = {}
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
        elif kind.startswith("audit_"):
            audit = self.audits.setdefault(event["number"], Audit())
            if kind == "audit_result":
                audit.curve[event["epoch"]] = event["metrics"]
            audit.outcome = event.get("outcome")
        elif kind == "decided":
            self.decision, self.final = event, self.finals[event["champion"], 0]
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
            trial.checkpoints.append(Checkpoint(event["epoch"], event["name"], event["bytes"]))
        elif kind == "retry":
            trial.retries.append(event["why"])
            trial.micro_batches = event["micro_batches"]
        elif kind in ("reopened", "promoted"):
            trial.outcome = None
        else:
            trial.outcome = kind  # failed, timed_out, stopped_early, interrupted
        if kind == "failed":
            self.failed_in_a_row.append(event["traceback"])
        elif trial.over:
            self.failed_in_a_row = []

    def _apply_final(self, kind: str, event: Event) -> None:
        key = (event["trial"], event["seed"])
        known = self.finals.get(key)
        if kind == "final_started":
            if known is None or known.epochs != event["epochs"]:  # else it is taken up again after a kill
                self.finals[key] = FinalRun(event["seed"], event["trial"], event["params"], event["epochs"])
        elif known is not None and kind == "final_result":
            known.curve[event["epoch"]] = event["metrics"]
        elif known is not None:
            known.test, known.baselines = event["test"], event["baselines"]
            if event["chosen"]:
                self.final, self.decision = known, None

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

    def epochs_trained(self) -> int:
        """Of trials, audits and final trainings together: how far the search has come."""
        trained: list[Trial | Audit | FinalRun] = [*self.trials.values(), *self.audits.values(), *self.finals.values()]
        return sum(len(one.curve) for one in trained)

    def audited(self) -> list[int]:
        """Stopped trials of which it is known what they would have come to."""
        return [number for number, audit in self.audits.items() if audit.outcome]

    def tested(self, trial: int) -> list[FinalRun]:
        """A trial's final trainings that are done, by seed, of equally many epochs."""
        done = [f for key, f in sorted(self.finals.items()) if key[0] == trial and f.test is not None]
        return [f for f in done if f.epochs == done[0].epochs]

    def unfinished(self) -> list[Trial]:
        """Trials that are being trained, or wait to be taken up again."""
        return [t for t in self.trials.values() if not t.idle]

    def paused(self) -> dict[int, int]:
        """Trials that wait to be promoted, and the epoch they wait at."""
        return {t.number: t.epoch for t in self.trials.values() if t.outcome == "paused"}
