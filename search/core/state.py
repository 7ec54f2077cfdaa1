"""The state of a search, built from its events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import assert_never

from search.core.events import AuditEvent, Decided, Event, FinalEvent, RepeatEvent, TrialEvent
from search.core.space import Plain
from trainables import Objective, Params

#: Outcomes after which a trial never runs again, unless the search is given more.
OVER = ("completed", "stopped_early", "timed_out", "diverged", "failed")


@dataclass(frozen=True)
class Checkpoint:
    """A file with a trial's whole state after an epoch; `name` is its path below the search's storage."""

    epoch: int
    name: str
    bytes: int
    #: As `storage.digest` makes it; None in searches that began before there were digests.
    digest: str | None = None


@dataclass
class Trial:
    """What is known of one trial."""

    number: int
    params: Params
    seed: int
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    outcome: str | None = None
    #: The epoch with the best objective so far, and that objective; 0 and NaN before the first result.
    best_epoch: int = 0
    best_value: float = math.nan
    #: Complete checkpoints, oldest first. The file of one that was deleted since is gone.
    checkpoints: list[Checkpoint] = field(default_factory=list)
    #: When its latest epoch was reported (milliseconds since 1970), and the device that trained it.
    reported: int = 0
    device: str = "cpu"
    #: The causes of its failures since its last new epoch.
    retries: list[str] = field(default_factory=list)
    #: Number of parts in which it works through a batch; more than one after it ran out of memory.
    micro_batches: int = 1
    #: Whether its own loop ended before the last epoch that it could have had, as early stopping of its own does.
    ended_itself: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return self.outcome in OVER

    @property
    def idle(self) -> bool:
        """Whether no worker trains it: it is over, or paused until it is promoted."""
        return self.over or self.outcome == "paused"

    @property
    def epoch(self) -> int:
        """Its last recorded epoch; 0 before the first."""
        return max(self.curve, default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training and validation over its recorded epochs; of fused trials its share."""
        return sum(metrics.get("epoch_seconds", 0.0) for metrics in self.curve.values())

    def take(self, epoch: int, metrics: dict[str, float], objective: Objective) -> None:
        """Adds an epoch's metrics. Of epochs with equal objectives the earlier stays the best."""
        self.curve[epoch] = metrics
        value = metrics.get(objective.key)
        if value is not None and (not self.best_epoch or objective.better(value, self.best_value)):
            self.best_epoch, self.best_value = epoch, value

    def steady(self, window: int, objective: Objective) -> tuple[float, int]:
        """The best mean loss of so many neighbouring epochs, and the middle one of these; of a window of one, or of a
        shorter curve, the best epoch's own. One epoch may be lucky."""
        losses = self._losses(objective)
        if window < 2 or len(losses) < window:
            return objective.loss(self.best_value), self.best_epoch
        means = _running_means(list(losses.values()), window)
        first = min(range(len(means)), key=means.__getitem__)
        return means[first], list(losses)[first + window // 2]

    def improving(self, objective: Objective) -> bool:
        """Whether its last fifth of epochs has a better mean than any as many before: it would gain by more of them.

        The best epoch alone says less: of a few dozen validation samples, one epoch in the middle is soon lucky.
        """
        losses = list(self._losses(objective).values())
        length = max(1, len(losses) // 5)
        means = _running_means(losses, length)
        return bool(means) and means[-1] < min(means[:-length], default=math.inf)

    def _losses(self, objective: Objective) -> dict[int, float]:
        """The validation loss of each epoch that has one, in order."""
        key = objective.key
        return {epoch: objective.loss(m[key]) for epoch, m in sorted(self.curve.items()) if key in m}

    @property
    def can_win(self) -> bool:
        """Whether its best epoch counts.

        What an epoch measured counts however the trial ended: completed, stopped, out of time, interrupted or failed.
        The exception is a trial that diverged: its training is not stable, and may diverge sooner the next time.
        """
        return self.best_epoch > 0 and self.outcome != "diverged"


@dataclass
class FinalRun:
    """A final training: a trial's configuration, trained for `epochs` epochs with one seed.

    `merged`: on train and validation together; else it is the trial's own model, of train alone.
    """

    seed: int
    trial: int
    params: Params
    epochs: int
    merged: bool = True
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    test: dict[str, float] | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    #: Of the files of its model, by name; see `FinalFinished`.
    digests: dict[str, str] = field(default_factory=dict)

    def repeats(self, other: FinalRun) -> bool:
        """Whether the other, of the same trial and seed, is the same training."""
        return (self.epochs, self.merged) == (other.epochs, other.merged)


@dataclass
class Repeat:
    """The best trial of one balanced value, trained again with another seed; `test` stays None if it diverges."""

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
    """A stopped trial that is trained on: its later epochs, and its outcome once it is done."""

    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    outcome: str | None = None


class SearchState:
    """The trials of a search, built by applying its events in order."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.trials: dict[int, Trial] = {}
        #: Final trainings by trial and seed.
        self.finals: dict[tuple[int, int], FinalRun] = {}
        #: The final training whose model stands for the search.
        self.final: FinalRun | None = None
        #: The verdict on the finalists, if they were compared.
        self.decision: Decided | None = None
        self.repeats: dict[tuple[Plain, int], Repeat] = {}
        self.compared = False
        #: Audits of stopped trials by trial number.
        self.audits: dict[int, Audit] = {}
        self.status = "searching"
        self.sessions = 0
        #: Tracebacks of the trials of this session that failed one after the other, up to now.
        self.failed_in_a_row: list[str] = []

    def params_again(self, trial: Trial) -> Params:
        """The trial's configuration for another training, with what its best epoch tuned on validation."""
        metrics = trial.curve[trial.best_epoch]
        tuned = {key: metrics[f"val_{key}"] for key in self.objective.tuned if f"val_{key}" in metrics}
        return {**trial.params, **tuned}

    def apply(self, event: Event) -> None:
        """Takes one event in, live or replayed."""
        match event["event"]:
            case "session":
                self.sessions += 1
                self.status = "searching"
                self.failed_in_a_row = []
            case "ended":
                self.status = event["status"]
            case "warm_start":
                pass  # what the searcher alone is told
            case "trial":
                number = event["number"]
                self.trials[number] = Trial(number, event["params"], event["seed"])
            case "result" | "checkpoint" | "retry" | "failed":
                self._apply_to_trial(self.trials[event["number"]], event)
            case "promoted" | "stopped_early" | "paused" | "timed_out" | "interrupted" | "reopened" | "completed":
                self._apply_to_trial(self.trials[event["number"]], event)
            case "repeat_started" | "repeat_result" | "repeat_finished":
                self._apply_repeat(event)
            case "compared":
                self.compared = True
            case "audit_started" | "audit_result" | "audit_finished":
                self._apply_audit(event)
            case "final_started" | "final_result" | "final_finished":
                self._apply_final(event)
            case "decided":
                self.decision, self.final = event, self.finals.get((event["champion"], 0))
            case _:
                assert_never(event)

    def _apply_to_trial(self, trial: Trial, event: TrialEvent) -> None:
        match event["event"]:
            case "result":
                trial.reported, trial.device = event.get("time", 0), event["device"]
                trial.outcome = event["outcome"]
                trial.retries = []
                if trial.outcome == "diverged":
                    trial.curve[event["epoch"]] = event["metrics"]
                else:
                    trial.take(event["epoch"], event["metrics"], self.objective)
            case "checkpoint":
                written = Checkpoint(event["epoch"], event["name"], event["bytes"], event.get("digest"))
                # The same file again, where an epoch was trained again after a checkpoint was lost.
                trial.checkpoints = [*(one for one in trial.checkpoints if one.name != written.name), written]
            case "retry":
                trial.retries.append(event["why"])
                trial.micro_batches = event["micro_batches"]
            case "reopened" | "promoted":
                trial.outcome = None
            case "completed":
                trial.outcome = "completed"
                trial.ended_itself = trial.epoch < event.get("of", trial.epoch)
            case "failed" | "timed_out" | "stopped_early" | "paused" | "interrupted" as outcome:
                trial.outcome = outcome
            case _:
                assert_never(event)
        if event["event"] == "failed":
            self.failed_in_a_row.append(event["traceback"])
        elif trial.over:
            self.failed_in_a_row = []

    def _apply_audit(self, event: AuditEvent) -> None:
        audit = self.audits.setdefault(event["number"], Audit())
        if event["event"] == "audit_result":
            audit.curve[event["epoch"]] = event["metrics"]
        audit.outcome = event["outcome"] if event["event"] == "audit_finished" else None

    def _apply_final(self, event: FinalEvent) -> None:
        key = (event["trial"], event["seed"])
        known = self.finals.get(key)
        if event["event"] == "final_started":
            run = FinalRun(event["seed"], event["trial"], event["params"], event["epochs"], event.get("merged", True))
            if known is None or not known.repeats(run):  # else it is taken up again after a kill
                self.finals[key] = run
        elif known is not None and event["event"] == "final_result":
            known.curve[event["epoch"]] = event["metrics"]
        elif known is not None and event["event"] == "final_finished":
            known.test, known.baselines, known.digests = event["test"], event["baselines"], event.get("digests", {})
            if event["chosen"]:
                self.final, self.decision = known, None

    def _apply_repeat(self, event: RepeatEvent) -> None:
        key = (event["value"], event["seed"])
        known = self.repeats.get(key)
        if event["event"] == "repeat_started":
            self.compared = False
            if known is None or known.trial != event["trial"]:  # else it is taken up again after a kill
                self.repeats[key] = Repeat(*key, event["trial"], event["params"])
        elif known is not None and event["event"] == "repeat_result":
            known.curve[event["epoch"]] = event["metrics"]
        elif known is not None and event["event"] == "repeat_finished":
            known.test, known.best_epoch, known.parameters = event["test"], event["best_epoch"], event["parameters"]

    def best(self, parameter: str | None = None, value: Plain = None) -> Trial | None:
        """The trial with the best objective at any epoch; of equal ones the earliest. None where no trial can win.

        Which trials can win: `Trial.can_win`.

        Args:
            parameter: if given, only trials whose `parameter` is `value` count.
        """
        winner: Trial | None = None
        for trial in self.trials.values():
            if parameter is not None and trial.params[parameter] != value:
                continue
            if trial.can_win and (winner is None or self.objective.better(trial.best_value, winner.best_value)):
                winner = trial
        return winner

    def ranked(self) -> list[Trial]:
        """The trials that can win, the best first."""
        able = [t for t in self.trials.values() if t.can_win]
        return sorted(able, key=lambda t: (self.objective.loss(t.best_value), t.number))

    def finalists(self, window: int) -> list[tuple[Trial, int]]:
        """Trials that can win, the best first, and the number of epochs for the final training of each; by `steady`."""
        able = [(*t.steady(window, self.objective), t) for t in self.trials.values() if t.can_win]
        return [(t, epoch) for _, epoch, t in sorted(able, key=lambda one: (one[0], one[2].number))]

    def epochs_trained(self) -> int:
        """The epochs of trials, audits and final trainings together."""
        trained: list[Trial | Audit | FinalRun] = [*self.trials.values(), *self.audits.values(), *self.finals.values()]
        return sum(len(one.curve) for one in trained)

    def audited(self) -> list[int]:
        """The numbers of the stopped trials whose audit is done."""
        return [number for number, audit in self.audits.items() if audit.outcome]

    def tested(self, trial: int) -> list[FinalRun]:
        """A trial's final trainings that are done, in the order of their seeds, all of the same number of epochs."""
        done = [f for key, f in sorted(self.finals.items()) if key[0] == trial and f.test is not None]
        return [f for f in done if f.epochs == done[0].epochs]

    def unfinished(self) -> list[Trial]:
        """The trials that are being trained or wait to be taken up again."""
        return [t for t in self.trials.values() if not t.idle]

    def paused(self) -> dict[int, int]:
        """The trials that wait to be promoted, and the epoch at which each waits."""
        return {t.number: t.epoch for t in self.trials.values() if t.outcome == "paused"}


def _running_means(values: list[float], window: int) -> list[float]:
    """The mean of every `window` neighbouring values."""
    return [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]
