"""The state of a search, built from its events."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from typing import assert_never

from search.core.events import (
    AuditEvent,
    Decided,
    Ended,
    Event,
    FinalEvent,
    LimitReached,
    Proposed,
    RepeatEvent,
    Requested,
    SessionBegun,
    TrialEvent,
)
from search.core.pareto import front, knee, losses_at_best, weighted
from search.core.space import Plain
from trainables import Objective, Params

#: Outcomes after which a trial does not run again, unless the search is given more.
OVER = ("completed", "stopped_early", "timed_out", "diverged", "infeasible", "failed")
#: The window of `Trial.improving`, as a share of the trial's epochs. Other shares were not measured.
IMPROVING_SHARE = 1 / 5


@dataclass(frozen=True)
class Checkpoint:
    """A file with the whole state of a trial after an epoch. `name` is its path in the storage of the search."""

    epoch: int
    name: str
    bytes: int
    #: The hash of the file (`storage.digest`); None in a search whose journal began without hashes.
    digest: str | None = None


@dataclass
class Trial:
    """A trial with its results so far."""

    number: int
    params: Params
    seed: int
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    outcome: str | None = None
    #: The epoch with the best objective so far, and the objective there; 0 and NaN before the first result. An epoch
    #: within the limits on outcomes is better than any epoch beyond them.
    best_epoch: int = 0
    best_value: float = math.nan
    #: Checkpoints, oldest first. Their files may have been deleted since.
    checkpoints: list[Checkpoint] = field(default_factory=list)
    #: The time of its latest report (milliseconds since 1970), and the device of its latest epoch.
    reported: int = 0
    device: str = "cpu"
    #: Why an epoch is beyond a limit on outcomes (`search.limits`), by epoch.
    infeasible: dict[int, str] = field(default_factory=dict)
    #: The figures that were known before its first epoch, if they made it infeasible.
    figures: dict[str, float] = field(default_factory=dict)
    #: The causes of its failures since its last new epoch.
    retries: list[str] = field(default_factory=list)
    #: The number of parts of a batch; a trial that ran out of memory has two.
    micro_batches: int = 1
    #: Whether its own loop ended before the most epochs of a trial, for example by its own early stopping.
    ended_itself: bool = False
    #: The id of the request that stops it, of the one that keeps it paused, and of the one that continues it now.
    stopped_by: str | None = None
    held_by: str | None = None
    released_by: str | None = None
    #: The epoch that it still trains after a request paused it, or the search, or ended the search; 0: none. A trial
    #: whose driver is killed meanwhile trains it after the resume, so that the results are the same.
    finishes: int = 0
    #: The trial and the epoch of the checkpoint from which its training starts; None: from the beginning.
    fork: tuple[int, int] | None = None
    #: The trial whose configuration it trains again with another seed (`search.core.race`); None: it has its own.
    rerun_of: int | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended and is not tried again."""
        return self.outcome in OVER

    @property
    def idle(self) -> bool:
        """Whether no worker trains it: it is over, or paused until it is promoted."""
        return self.over or self.outcome == "paused"

    @property
    def owes_epoch(self) -> bool:
        """Whether it trains the rest of an epoch before a request takes effect."""
        return self.outcome is None and self.epoch < self.finishes

    @property
    def epoch(self) -> int:
        """Its last recorded epoch; 0 before the first."""
        return max(self.curve, default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training and validation over its recorded epochs; a fused trial has a share of its group's."""
        return sum(metrics.get("epoch_seconds", 0.0) for metrics in self.curve.values())

    @property
    def epoch_seconds(self) -> float:
        """Mean seconds of an epoch, without the first if there are others; 0 before the first.

        The first epoch of a pretrained network may train its head alone, in a second instead of a minute.
        """
        later = [metrics.get("epoch_seconds", 0.0) for epoch, metrics in self.curve.items() if epoch > 1]
        return sum(later) / len(later) if later else self.seconds

    def take(self, epoch: int, metrics: dict[str, float], objective: Objective) -> None:
        """Adds an epoch's metrics. The earlier of two epochs with equal objectives stays the best."""
        self.curve[epoch] = metrics
        value = metrics.get(objective.key)
        if value is None:
            return
        feasible, was_feasible = epoch not in self.infeasible, self.best_epoch not in self.infeasible
        better = objective.better(value, self.best_value) if feasible == was_feasible else feasible
        if not self.best_epoch or better:
            self.best_epoch, self.best_value = epoch, value

    def steady(self, window: int, objective: Objective) -> tuple[float, int]:
        """The smallest moving average of the validation loss, and the middle epoch of its window.

        A single epoch may be lucky. With a window of 1, or a curve shorter than the window, it is the loss of the best
        epoch, and that epoch.

        Args:
            window: in epochs.
        """
        losses = self._losses(objective)
        if window < 2 or len(losses) < window:
            return objective.loss(self.best_value), self.best_epoch
        means = _moving_averages(list(losses.values()), window)
        first = min(range(len(means)), key=means.__getitem__)
        return means[first], list(losses)[first + window // 2]

    def improving(self, objective: Objective) -> bool:
        """Whether more epochs would improve the trial, as the mean loss of its last window of epochs is its smallest.

        The window is `IMPROVING_SHARE` of the epochs. It is compared with the windows before it that do not overlap it.
        A single epoch says less: with a few dozen validation samples an early epoch is often the best by luck.
        """
        losses = list(self._losses(objective).values())
        window = max(1, int(len(losses) * IMPROVING_SHARE))
        means = _moving_averages(losses, window)
        return bool(means) and means[-1] < min(means[:-window], default=math.inf)

    def _losses(self, objective: Objective) -> dict[int, float]:
        """The validation loss by epoch, in the order of the epochs; epochs without it, or infeasible, are left out."""
        key = objective.key
        able = {epoch: m for epoch, m in sorted(self.curve.items()) if key in m and epoch not in self.infeasible}
        return {epoch: objective.loss(metrics[key]) for epoch, metrics in able.items()}

    @property
    def judged(self) -> dict[str, float]:
        """The metrics that decide whether it is within the limits on outcomes. Empty if none are known.

        They are of its best epoch, or of the epoch that ended it as infeasible, or from before its first epoch.
        """
        return self.curve.get(self.epoch if self.outcome == "infeasible" else self.best_epoch, self.figures)

    @property
    def can_win(self) -> bool:
        """Whether it can be the best trial: it has a value, and a configuration of its own.

        A trial that was stopped, timed out, interrupted or failed can win by its epochs before. A configuration that
        diverged may diverge sooner the next time. A rerun counts for the trial whose configuration it has.
        """
        return self.has_value and self.rerun_of is None

    @property
    def has_value(self) -> bool:
        """Whether it has a result within the limits on outcomes, and did not diverge."""
        lost = self.outcome in ("diverged", "infeasible") or self.best_epoch in self.infeasible
        return self.best_epoch > 0 and not lost


@dataclass(frozen=True)
class Added:
    """A configuration that a request added, and that no trial has yet.

    Attributes:
        request, part: the id of the request, and the place of the configuration in it.
        params: values by hyperparameter; the search chooses those that are missing.
        fork: the trial and the epoch of the checkpoint from which the training starts; None: from the beginning.
    """

    request: str
    part: int
    params: Mapping[str, Plain]
    fork: tuple[int, int] | None = None


@dataclass
class FinalRun:
    """A final training: a trial's configuration, trained for `epochs` epochs with one seed.

    `merged`: trained on train and validation together; otherwise it is the trial's own model, trained on train alone.
    """

    seed: int
    trial: int
    params: Params
    epochs: int
    #: The folder of its files, relative to the folder of the search.
    folder: str
    merged: bool = True
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    test: dict[str, float] | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    #: The hashes of the files of its model, by name; see `FinalFinished`.
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def tested(self) -> bool:
        """Whether it is finished and has test figures; a function without a test has none."""
        return bool(self.test)

    def repeats(self, other: FinalRun) -> bool:
        """Whether another run of the same trial and seed is the same training."""
        return (self.epochs, self.merged) == (other.epochs, other.merged)


@dataclass
class Repeat:
    """The best trial of a balanced value, trained again with another seed. `test` stays None if it diverges."""

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
    """An audit of a stopped trial: its epochs after the stop, and its outcome when it is done."""

    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    outcome: str | None = None


class SearchState:
    """The trials of a search, built by applying its events in order."""

    def __init__(
        self, objective: Objective, objectives: Sequence[Objective] = (), preference: Mapping[str, float] | None = None
    ) -> None:  # fmt: skip
        """
        Args:
            objective: the first or only objective.
            objectives: of a search with several; empty for a search with one.
            preference: `search.preference`.
        """
        self.objective = objective
        self.objectives, self.preference = tuple(objectives) or (objective,), preference
        self.trials: dict[int, Trial] = {}
        #: The trials that train the configuration of another trial again.
        self.reruns: list[int] = []
        #: Final trainings by trial and seed.
        self.finals: dict[tuple[int, int], FinalRun] = {}
        #: The final training whose model is the result of the search.
        self.final: FinalRun | None = None
        #: The result of the comparison of finalists; None without a comparison.
        self.decision: Decided | None = None
        self.repeats: dict[tuple[Plain, int], Repeat] = {}
        self.compared = False
        #: Audits of stopped trials by trial number.
        self.audits: dict[int, Audit] = {}
        self.status = "searching"
        self.sessions = 0
        #: Seconds in which trials trained: from the start of a session, or from the result before, to each result.
        self.seconds = 0.0
        #: The time of the latest of these (milliseconds since 1970).
        self._heard = 0
        #: Tracebacks of the last trials of this session, if they failed one after the other.
        self.failed_in_a_row: list[str] = []
        #: The requests that were taken up, by id.
        self.requests: dict[str, Requested] = {}
        #: The id of the request that pauses the search, and of the request that ends it.
        self.paused_by: str | None = None
        self.stopped_by: str | None = None
        #: The limits that ended the trials.
        self.limits: list[LimitReached] = []
        #: The configurations that wait for a trial.
        self.added: list[Added] = []

    def by_request(self, name: str) -> str:
        """The source of a change by the request with the id `name`, in words."""
        at = datetime.fromtimestamp(self.requests[name].get("time", 0) / 1000)
        return f"by a request at {at:%Y-%m-%d %H:%M}"

    def params_again(self, trial: Trial) -> Params:
        """The trial's configuration for another training, with the values that its best epoch tuned on validation."""
        metrics = trial.curve[trial.best_epoch]
        tuned = {key: metrics[f"val_{key}"] for key in self.objective.tuned if f"val_{key}" in metrics}
        return {**trial.params, **tuned}

    def apply(self, event: Event) -> None:
        """Updates the state by an event, live or replayed."""
        match event["event"]:
            case "session" | "ended" | "limit":
                self._apply_session(event)
            case "warm_start":
                pass  # only the searcher reads it
            case "request":
                self._apply_request(event)
            case "trial":
                self._begin(event)
            case "result" | "checkpoint" | "retry" | "failed":
                self._apply_to_trial(self.trials[event["number"]], event)
            case (
                "promoted" | "stopped_early" | "paused" | "timed_out" | "interrupted" | "reopened" | "completed"
                | "infeasible"
            ):  # fmt: skip
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

    def _apply_session(self, event: SessionBegun | Ended | LimitReached) -> None:
        if event["event"] == "limit":
            self.limits.append(event)
            return
        if event["event"] == "session":
            self._heard = event.get("time", 0)
            self.sessions += 1
            self.status = "searching"
            self.failed_in_a_row = []
            return
        self.status = status = event["status"]
        ends = self.requests.get(self.stopped_by or "")
        if ends is not None and (status != "interrupted" or not ends["content"]["retrain"]):
            self.stopped_by = None  # the search ended as the request asked

    def _begin(self, event: Proposed) -> None:
        number, fork = event["number"], event.get("fork")
        self.trials[number] = Trial(number, event["params"], event["seed"])
        self.trials[number].fork = None if fork is None else (fork[0], fork[1])
        if (first := event.get("rerun_of")) is not None:
            self.trials[number].rerun_of = first
            self.reruns.append(number)
        mine = event.get("request"), event.get("part")
        self.added = [one for one in self.added if (one.request, one.part) != mine]

    def _apply_request(self, event: Requested) -> None:
        name, content = event["id"], event["content"]
        self.requests[name] = event
        match event["kind"]:
            case "stop search":
                self.stopped_by = name
                self._finish_epochs(self.trials)
            case "stop":
                for number in content["trials"]:
                    self.trials[number].stopped_by = name
            case "pause" if content["trials"]:
                for number in content["trials"]:
                    self.trials[number].held_by, self.trials[number].released_by = name, None
                self._finish_epochs(content["trials"])
            case "pause":
                self.paused_by = name
                self._finish_epochs(self.trials)
            case "set":
                self.preference = content.get("search", {}).get("preference", self.preference)
            case "continue":
                self._heard = event.get("time", 0)  # nothing trained while the search was paused
                self._release(name, content["trials"])
            case "add":
                self.added += [
                    Added(name, part, given["params"], None if given["fork"] is None else tuple(given["fork"]))
                    for part, given in enumerate(content["configurations"])
                ]

    def _finish_epochs(self, numbers: Iterable[int]) -> None:
        """Lets these trials finish the epoch in which they are."""
        for trial in (self.trials[number] for number in numbers):
            trial.finishes = trial.epoch + 1 if trial.outcome is None else 0

    def _release(self, name: str, numbers: list[int]) -> None:
        """Continues these trials; without numbers all that requests paused, and the search."""
        if not numbers:
            self.paused_by = None
        for trial in self.trials.values():
            if trial.number in numbers or (not numbers and trial.held_by):
                trial.held_by, trial.released_by = None, name if trial.outcome == "paused" else None

    def _apply_to_trial(self, trial: Trial, event: TrialEvent) -> None:
        match event["event"]:
            case "result":
                trial.reported, trial.device = event.get("time", 0), event["device"]
                self.seconds += max(0, trial.reported - self._heard) / 1000
                self._heard = max(trial.reported, self._heard)
                trial.outcome = event["outcome"]
                trial.held_by = event.get("request", trial.held_by)
                trial.retries = []
                if why := event.get("infeasible"):
                    trial.infeasible[event["epoch"]] = why
                if trial.outcome == "diverged":
                    trial.curve[event["epoch"]] = event["metrics"]
                else:
                    trial.take(event["epoch"], event["metrics"], self.objective)
            case "checkpoint":
                written = Checkpoint(event["epoch"], event["name"], event["bytes"], event.get("digest"))
                # An epoch that is trained again after its checkpoint was lost writes the same file again.
                trial.checkpoints = [*(old for old in trial.checkpoints if old.name != written.name), written]
            case "retry":
                trial.retries.append(event["why"])
                trial.micro_batches = event["micro_batches"]
            case "reopened" | "promoted":
                trial.outcome, trial.released_by = None, None
            case "completed":
                trial.outcome = "completed"
                trial.ended_itself = trial.epoch < event.get("of", trial.epoch)
            case "failed" | "timed_out" | "stopped_early" | "paused" | "interrupted" as outcome:
                trial.outcome = outcome
            case "infeasible":
                trial.outcome, trial.figures = "infeasible", event.get("figures", {})
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
            run = FinalRun(
                event["seed"], event["trial"], event["params"], event["epochs"],
                event.get("folder", final_name(event["trial"], event["seed"])), event.get("merged", True),
            )  # fmt: skip
            if known is None or not known.repeats(run):  # otherwise it continues after a kill
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
            if known is None or known.trial != event["trial"]:  # otherwise it continues after a kill
                self.repeats[key] = Repeat(*key, event["trial"], event["params"])
        elif known is not None and event["event"] == "repeat_result":
            known.curve[event["epoch"]] = event["metrics"]
        elif known is not None and event["event"] == "repeat_finished":
            known.test, known.best_epoch, known.parameters = event["test"], event["best_epoch"], event["parameters"]

    def best(self, parameter: str | None = None, value: Plain = None) -> Trial | None:
        """The trial that wins, the earliest of equal trials; None if no trial can win.

        `Trial.can_win` says which trials can win. The best trial has the best objective at any epoch. Of configurations
        that were trained again with other seeds, it has the one with the best mean (`search.core.race`). With several
        objectives this is the first objective, unless a preference is stated: then the best trial is the trial of the
        front with the smallest mean of `pareto.weighted`.

        Args:
            parameter: if given, only trials whose `parameter` is `value` count.
        """
        able = (t for t in self.trials.values() if t.can_win and (parameter is None or t.params[parameter] == value))
        return min(able, key=self._order(), default=None)

    @property
    def none_is_feasible(self) -> bool:
        """Whether trials have figures, but none is within all limits on outcomes."""
        beyond = any(t.infeasible or t.outcome == "infeasible" for t in self.trials.values())
        return beyond and self.best() is None

    def ranked(self) -> list[Trial]:
        """The trials that can win, the best first."""
        return sorted((t for t in self.trials.values() if t.can_win), key=self._order())

    def _order(self) -> Callable[[Trial], tuple[float, ...]]:
        """The sort key by which a trial is better than another."""
        if self.preference is None:
            raced = {number: fmean(values) for number, values in self.losses_over_seeds().items()}
            known, loss = {number for number, value in raced.items() if math.isfinite(value)}, self.objective.loss
            compared = len(known) > 1  # the value of one seed is too good beside the mean of several
            return lambda t: (
                compared and t.number not in known, raced.get(t.number, loss(t.best_value)), t.number
            )  # fmt: skip
        able = [t for t in self.trials.values() if t.can_win]
        losses = losses_at_best(able, self.objectives)
        means = weighted(losses, [self.preference.get(o.metric, 0.0) for o in self.objectives])
        # Of trials with equal means the first in the order of their losses is on the front.
        keys = {t.number: (mean, *own, t.number) for t, mean, own in zip(able, means, losses, strict=True)}
        return lambda trial: keys[trial.number]

    def losses_over_seeds(self) -> dict[int, list[float]]:
        """The losses of each configuration that was trained again, that of its first trial first.

        The keys are the numbers of the first trials. A rerun that is not over, or has no result, does not count. The
        loss of a rerun that diverged, or was infeasible, is infinite.
        """
        found: dict[int, list[float]] = {}
        for trial in (self.trials[number] for number in self.reruns):
            if trial.over and trial.curve and trial.rerun_of is not None:
                own = found.setdefault(trial.rerun_of, [self.objective.loss(self.trials[trial.rerun_of].best_value)])
                own.append(self.objective.loss(trial.best_value) if trial.has_value else math.inf)
        return found

    def front(self) -> list[Trial]:
        """The Pareto front of the trials that can win, sorted by the first objective, the best first."""
        return front(self.trials.values(), self.objectives)

    def knee(self) -> Trial | None:
        """The trial at the knee of the front; see `pareto.knee`. None if no trial can win."""
        on_front = self.front()
        return on_front[knee(losses_at_best(on_front, self.objectives))] if on_front else None

    def finalists(self, window: int) -> list[tuple[Trial, int]]:
        """Trials that can win, the best first, each with the number of epochs of its final training: `Trial.steady`."""
        steady = [(t, *t.steady(window, self.objective)) for t in self.ranked()]
        if self.preference is None and not self.losses_over_seeds():
            steady.sort(key=lambda item: (item[1], item[0].number))
        return [(trial, epoch) for trial, _, epoch in steady]

    def epochs_trained(self) -> int:
        """The epochs of trials, audits and final trainings together."""
        trained: list[Trial | Audit | FinalRun] = [*self.trials.values(), *self.audits.values(), *self.finals.values()]
        return sum(len(training.curve) for training in trained)

    def audited(self) -> list[int]:
        """The numbers of the stopped trials whose audit is done."""
        return [number for number, audit in self.audits.items() if audit.outcome]

    def tested(self, trial: int) -> list[FinalRun]:
        """The finished final trainings of a trial in the order of their seeds, all with the same number of epochs."""
        done = [f for key, f in sorted(self.finals.items()) if key[0] == trial and f.test is not None]
        return [f for f in done if f.epochs == done[0].epochs]

    def unfinished(self) -> list[Trial]:
        """The trials that train, or that will train again without a promotion."""
        return [t for t in self.trials.values() if not t.idle]

    def paused(self) -> dict[int, int]:
        """The epoch of each paused trial that no request keeps paused, by its number."""
        return {t.number: t.epoch for t in self.trials.values() if t.outcome == "paused" and not t.held_by}

    def forks(self) -> set[tuple[int, int]]:
        """The trial and the epoch of each checkpoint from which a trial will start."""
        begun = {t.fork for t in self.trials.values() if t.fork and not t.checkpoints and not t.over}
        return begun | {added.fork for added in self.added if added.fork}

    @property
    def added_in_all(self) -> int:
        """The number of configurations that requests added until now."""
        return sum(len(r["content"]["configurations"]) for r in self.requests.values() if r["kind"] == "add")

    @property
    def is_held(self) -> bool:
        """Whether a request paused the search, or one of its trials."""
        return self.paused_by is not None or any(t.held_by and not t.over for t in self.trials.values())

    @property
    def is_paused(self) -> bool:
        """Whether a request paused the trials, none ends them, and no training after them has begun."""
        after = self.repeats or self.audits or self.finals
        return self.paused_by is not None and self.stopped_by is None and not after

    @property
    def has_requested_work(self) -> bool:
        """Whether requests added configurations or continued trials that have not begun again."""
        return bool(self.added) or any(t.released_by and t.outcome == "paused" for t in self.trials.values())


def _moving_averages(values: list[float], window: int) -> list[float]:
    """The mean of every `window` neighbouring values."""
    return [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]


def final_name(trial: int, seed: int) -> str:
    """The path of the folder of a final training, below the folder of the search."""
    return f"final/trial-{trial:04d}-seed-{seed}"


def final_progress(run: FinalRun) -> str:
    """The path of the checkpoint of an unfinished final training, below the folder of the search."""
    return f"{final_name(run.trial, run.seed)}-epochs-{run.epochs}.pt"
