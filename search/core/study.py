"""The decisions of a search: which trial trains next, and whether a trial continues, pauses or stops.

`Study` is a function of its events. The running search, a resumed search, `why`, `simulate`, the report and the
benchmark `curves` use it:

    study = Study(config, objective)
    for event in journal:
        study.apply(event)                      # resume, why, simulate, report
    event = study.propose()                     # a `trial` or a `promoted` event, or None
    events, decisions = study.report(results)   # `result` events, and a Decision for each trial

A method returns events and changes nothing until `apply` takes them in. The caller writes them to the journal first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Literal, cast

import numpy as np

from search.core import race
from search.core.changes import with_changes
from search.core.config import SearchConfig
from search.core.decision import CONTINUE, Decision, TrialResult, complete_reason, decide, decide_before, go_on
from search.core.events import (
    CheckpointWritten,
    Event,
    Failed,
    LimitReached,
    Moved,
    Proposed,
    Result,
    Retried,
    WarmStarted,
)
from search.core.failures import Failure, may_retry, sign
from search.core.feasibility import check_measured, infeasible, infeasible_for_good, ranked_last
from search.core.limits import in_force, reached
from search.core.pareto import losses_of, measured
from search.core.registry import SCHEDULERS, SEARCHERS
from search.core.schedulers.base import Scheduler
from search.core.schedulers.rungs import Losses, Standings, merge_rungs
from search.core.searchers import make_searcher
from search.core.searchers.base import Searcher, turn_of
from search.core.searchers.constrained import moved
from search.core.searchers.priors import complete, first_from_priors
from search.core.seeds import trial_seed
from search.core.state import Added, SearchState, Trial
from search.core.warm_start import as_trials
from trainables import Objective, Params

#: A search without a result ends after this many consecutive trials with the same failure. Two trials may share the bad
#: value of a hyperparameter; other numbers were not measured.
SAME_FAILURES = 3


def reported_together(config: SearchConfig, events: Iterable[Event]) -> Iterator[list[Event]]:
    """Splits events into groups whose results were decided together.

    Fused trials report together, in one write of the journal. Their results have the same time. Without `search.fuse`
    each event is a group of its own: separate trials may report in the same millisecond.
    """
    fused = config.search.fuse > 1
    for _, group in groupby(events, key=lambda e: (e["event"] == "result", e.get("time")) if fused else id(e)):
        yield list(group)


class Study:
    """The trials, the searcher and the scheduler of a search: a function of the applied events."""

    def __init__(
        self,
        config: SearchConfig,
        objective: Objective,
        *,
        ends_itself: bool = False,
        searcher: Searcher | None = None,
        events: Iterable[Event] = (),
    ) -> None:
        """
        Args:
            objective: of the task; without `search.objective` early stopping compares its values.
            ends_itself: whether trials run their own loop, as functions and commands do. A trial is then complete when
                its loop ends, and not when it reports its last epoch.
            searcher: replaces the searcher of the configuration.
            events: events to apply, such as those of a journal.
        """
        self.config, self.objective, self.ends_itself = config, objective, ends_itself
        self._makes_searcher = searcher is None
        self.searcher = searcher or make_searcher(config, objective)[0]
        self._warm: WarmStarted | None = None
        #: Trials with a value outside the space, which the searcher does not see.
        self._outside: set[int] = set()
        self.scheduler: Scheduler = SCHEDULERS.get(config.search.scheduler).from_settings(config.search)
        self.state = SearchState(objective, config.objectives, config.search.preference)
        #: True if no new trial begins, as a trial takes more time than is left.
        self.closed = False
        #: True if the time that is left holds a race.
        self.races = False
        #: The trials that have the configuration of the priors; they follow the starting configurations. The scheduler
        #: does not end them: so the result is never worse than the configuration of an expert, even if their early
        #: epochs look bad.
        self._experts = self._first_from_priors()
        #: A view for each balanced value. Trial `number` belongs to view `number % len(views)`.
        self._views = [_View(self, turn) for turn in range(len(config.balanced))]
        #: Proposals of the searcher whose event is not applied yet, by trial number.
        self._asked: dict[int, Params] = {}
        for event in events:
            self.apply(event)

    # Events

    def apply(self, event: Event) -> None:
        """Updates the state, the searcher and the losses of the scheduler by an event, live or replayed."""
        self.state.apply(event)
        match event["event"]:
            case "warm_start":
                self._learn(event)
            case "request" if event["kind"] == "set":
                self._change(with_changes(self.config, event["content"]))
            case "trial":
                self._take_trial(self.state.trials[event["number"]])
            case "result" | "failed" | "timed_out" | "completed" | "infeasible":
                self._take_result(event)

    def _learn(self, event: WarmStarted) -> None:
        self._warm = event
        trials = as_trials(event, self.objective, self.config.search.outcome_limits)
        self.searcher.learn(trials, event.get("first", []))

    def _change(self, config: SearchConfig) -> None:
        """Takes a changed configuration. A new searcher learns the trials that are inside its space.

        The searcher is always new: whatever happened before, it depends only on the configuration and on the trials.
        """
        self.config = config
        if not self._makes_searcher:
            return
        self._experts = self._first_from_priors()
        self.searcher, _ = make_searcher(config, self.objective)
        self._asked.clear()
        self._outside.clear()
        if self._warm is not None:
            self._learn(self._warm)
        for trial in self.state.trials.values():
            self._take_trial(trial)
            if trial.idle:
                self._tell(trial)

    def _first_from_priors(self) -> range:
        uses_priors = SEARCHERS.get(self.config.search.searcher).uses_priors
        count = first_from_priors(self.config.space, len(self.config.balanced)) if uses_priors else 0
        return range(begin := len(self.config.search.first or ()), begin + count)

    def _take_trial(self, trial: Trial) -> None:
        """Shows the searcher a trial that it has not proposed itself."""
        asked = self._asked.pop(trial.number, None)
        if asked is not None and asked != trial.params:
            self.searcher.withdraw(trial.number)
        if trial.rerun_of is not None or (self._makes_searcher and not self.config.space.holds(trial.params)):
            self._outside.add(trial.number)
        elif asked != trial.params:
            self.searcher.replay(trial)

    def _tell(self, trial: Trial) -> None:
        if trial.number not in self._outside:
            self.searcher.tell(trial)

    def _take_result(self, event: Result | Failed | Moved) -> None:
        trial = self.state.trials[event["number"]]
        view = self._view(trial.number)
        if event["event"] == "result" and event["outcome"] != "diverged":
            self._compare(trial, event["epoch"], event["metrics"])
        if trial.outcome in ("diverged", "infeasible"):
            view.losses.remove(trial.number)  # they mean nothing
        if trial.idle:
            self._tell(trial)

    def _compare(self, trial: Trial, epoch: int, metrics: dict[str, float]) -> None:
        """Adds an epoch to those that early stopping compares, except the epochs of a rerun."""
        if trial.rerun_of is None:
            self._view(trial.number).losses.add(trial.number, epoch, self._losses(metrics))

    # The next trial

    @property
    def total(self) -> float:
        """The number of trials, with those that requests added; infinity if only a budget ends the search."""
        limits = []
        if self._makes_searcher and self.config.search.trials is not None:
            limits.append(self.config.search.trials + self.state.added_in_all + len(self.state.reruns))
        if self.searcher.configurations is not None:
            limits.append(self.searcher.configurations + len(self._outside))
        return min(limits, default=math.inf)

    @property
    def has_more(self) -> bool:
        """Whether new trials will come."""
        return bool(self.state.added) or (len(self.state.trials) < self.total and not self.closed)

    @property
    def _is_short_of_time(self) -> bool:
        """Whether new trials would come if more time were left."""
        return self.closed and len(self.state.trials) < self.total

    def promote(self) -> int | None:
        """The number of the paused trial that continues now, or None.

        Balanced values get equal shares: the value with the fewest results at its rungs comes first.
        """
        released = (t.number for t in self.state.trials.values() if t.released_by and t.outcome == "paused")
        if (number := next(released, None)) is not None:
            return number
        views = self._views
        if len(views) > 1:
            views = sorted(views, key=lambda view: sum(map(len, self.scheduler.rungs(view).values())))
        for view in views:
            if (number := self.scheduler.next_promotion(view)) is not None:
                return number
        waiting = self.state.paused()
        if self._is_short_of_time:
            # A new trial takes more time than is left, a paused trial less. The furthest goes first, then the best.
            losses = {n: self._view(n).loss(self.state.trials[n]) for n in waiting}
            return min(waiting, key=lambda n: (-waiting[n], losses[n], n), default=None)
        return None

    def next_rerun(self) -> int | None:
        """The trial whose configuration trains again now with another seed, or None."""
        return race.next_rerun(self.state, self._experts) if self.races else None

    def propose(self) -> Event | None:
        """The event of the next trial: `promoted`, or else `trial`; None if no trial can begin now.

        A race goes before both.

        In a deterministic search no trial of the next round begins before the round ends. A configuration that a
        request added comes first, but after those of experts and of earlier searches.
        """
        if self.state.paused_by or self.state.stopped_by:
            return None
        number = len(self.state.trials)
        if (first := self.next_rerun()) is not None:
            again, seed = self.state.trials[first], trial_seed(self.config.search.seed, number)
            reason = f"trains the configuration of trial {first} again with another seed"
            return Proposed(
                event="trial", number=number, params=again.params, seed=seed, reason=reason, rerun_of=first
            )  # fmt: skip
        if (promoted := self.promote()) is not None:
            return Moved(event="promoted", number=promoted, reason=self.promotion_reason(promoted))
        if not self.has_more or (first_of_round(self.config, number) == number and self.state.unfinished()):
            return None
        seed = trial_seed(self.config.search.seed, number)
        last = self.closed or len(self.state.trials) >= self.total
        if self.state.added and (last or number >= self._experts.stop + len(self.searcher.first)):
            return self._proposed(self.state.added[0], number, seed)
        params = self.searcher.ask(number)
        self._asked[number] = params
        return Proposed(event="trial", number=number, params=params, seed=seed, reason=self.proposal_reason())

    def _proposed(self, added: Added, number: int, seed: int) -> Proposed:
        """The event of a trial with a configuration that a request added."""
        given = dict(added.params)
        turn = {name: given.get(name, value) for name, value in turn_of(self.config.turns, number).items()}
        space = self.config.space.fix(turn)
        params = complete(space.fix(given), given, np.random.default_rng(seed))
        params = moved(space, params, given, seed)
        reason = self.state.by_request(added.request)
        event = Proposed(
            event="trial", number=number, params=params, seed=seed, reason=reason, request=added.request,
            part=added.part,
        )  # fmt: skip
        if added.fork is not None:
            trial, epoch = added.fork
            event["fork"] = [trial, epoch]
            event["reason"] = f"{reason}, from the checkpoint of trial {trial} at {self.config.search.unit.at(epoch)}"
        return event

    def proposal_reason(self) -> str:
        """The source of the searcher's last proposal."""
        return self.searcher.source or f"by searcher {self.config.search.searcher}"

    def promotion_reason(self, number: int) -> str:
        """The rank of a paused trial at its rung now; or the request that continues it."""
        if (released := self.state.trials[number].released_by) is not None:
            return self.state.by_request(released)
        reason = self.scheduler.decide(self._view(number), self.state.trials[number]).reason
        return f"{reason}; the time that is left is too short for a new trial" if self._is_short_of_time else reason

    def give_up_reason(self, number: int) -> str:
        """Why a paused trial is stopped at the end of a search."""
        if (limit := self.limit) is not None:
            return f"{limit['why']}: {limit['reason']}"
        epoch = self.state.trials[number].epoch
        rung = self._view(number).losses.get(epoch, {})
        continued = sum(self.state.trials[other].epoch > epoch for other in rung)
        started = len(self.state.trials)
        end = f"all {started} trials had started" if started >= self.total else "the time left was too short"
        at = self.config.search.unit.at(epoch)
        return f"{continued} of {len(rung)} trials had already continued from {at}, and {end}"

    # Results

    def report(
        self, results: Sequence[TrialResult], device: str = "cpu", ended: Sequence[int] = ()
    ) -> tuple[list[Event], dict[int, Decision]]:
        """Decides on trials that report together, each at its last epoch.

        An epoch that the state has already was trained again after a failure. Its first record stays. A trial that a
        request stopped inside an epoch may report once more, which is ignored.

        Args:
            results: in the order of the epochs.
            device: the name of the device that trained them.
            ended: trials whose own loop ended after these epochs.

        Returns:
            The events to record, and a decision for each trial with a new epoch.

        Raises:
            InputError: the search has an objective or a limit that the epochs do not measure.
        """
        trials, limits = self.state.trials, self.config.search.outcome_limits
        results = [r for r in results if not (trials[r.number].stopped_by and trials[r.number].over)]
        new = [r for r in results if r.epoch not in trials[r.number].curve]
        for objective in self.config.objectives if new and not new[0].diverged else ():
            measured(new[0].metrics, objective)
        for r in new:
            if not r.diverged:
                check_measured(limits, r.metrics)
        decisions = self.decide(new)
        last = {r.number: r.epoch for r in new}
        events: list[Event] = []
        for r in new:
            decision = decisions[r.number] if r.epoch == last[r.number] else CONTINUE
            result = Result(
                event="result", number=r.number, epoch=r.epoch, metrics=r.metrics, diverged=r.diverged,
                outcome=decision.outcome, device=device,
            )  # fmt: skip
            if decision.reason and not r.diverged:
                result["reason"] = decision.reason
            if why := "" if r.diverged else infeasible(limits, r.metrics):
                result["infeasible"] = why
            if decision.request:
                result["request"] = decision.request
            events.append(result)
        events += [
            cast(CheckpointWritten, {"event": "checkpoint", "number": r.number, "epoch": r.epoch, **r.checkpoint})
            for r in results
            if r.checkpoint
        ]
        over = {n for n, decision in decisions.items() if decision.kind != "continue"}
        over |= {number for number in ended if trials[number].idle}
        events += [self._completed(number, last) for number in ended if number not in over]
        return events, decisions

    def _completed(self, number: int, last: dict[int, int]) -> Moved:
        """The event of a trial whose own loop ended."""
        reason = self.completion_reason(number, last.get(number))
        return Moved(event="completed", number=number, of=self.config.search.epochs, reason=reason)

    def completion_reason(self, number: int, epoch: int | None = None) -> str:
        """Why a trial whose own loop ended is complete.

        Args:
            epoch: its last epoch; None: the last that is recorded.
        """
        epochs, most = epoch or self.state.trials[number].epoch, self.config.search.epochs
        if epochs < most:
            left = self.config.search.unit.count(most - epochs)
            return f"its own loop ended there, {left} before the last that a trial gets"
        return complete_reason(self.config.search)

    def begin(self, figures: Mapping[int, dict[str, float]]) -> list[Event]:
        """The events of the trials that end before their first epoch.

        Args:
            figures: by the number of the trial, the figures of its configuration that are known.
        """
        decisions = {number: decide_before(own, self.config.search) for number, own in figures.items()}
        return [
            Moved(event="infeasible", number=number, reason=decision.reason, figures=dict(figures[number]))
            for number, decision in decisions.items()
            if decision.kind == "stop" and not self.state.trials[number].idle
        ]

    def decide(self, results: Sequence[TrialResult]) -> dict[int, Decision]:
        """The decisions on new epochs of trials that report together.

        Returns:
            A decision by trial number, at the trial's last epoch.
        """
        # All are added before one is judged, as trials that report together are compared with each other. Applying the
        # result event adds the same loss again.
        for r in results:
            if not r.diverged and not infeasible_for_good(self.config.search.outcome_limits, [r.metrics]):
                self._compare(self.state.trials[r.number], r.epoch, r.metrics)
        return {number: self._decide([r for r in results if r.number == number])
                for number in dict.fromkeys(r.number for r in results)}  # fmt: skip

    def _decide(self, results: Sequence[TrialResult]) -> Decision:
        """The decision on a trial after its new epochs, which the state does not have yet."""
        trial = self.state.trials[results[0].number]
        trial = replace(trial, curve=trial.curve | {r.epoch: r.metrics for r in results})
        decision = decide(trial, results[-1], self.config.search, self.ends_itself, self._by_rank)
        by = trial.held_by or self.state.paused_by
        if decision.kind == "continue" and by and trial.epoch < self.config.search.epochs:
            return Decision("pause", self.state.by_request(by), request=by)
        return decision

    def _by_rank(self, trial: Trial) -> Decision:
        """The scheduler's decision. A rerun, and a trial with the configuration of the priors, always continue."""
        if trial.rerun_of is not None:
            return CONTINUE
        decision = self.scheduler.decide(self._view(trial.number).as_compared_with(trial), trial)
        if trial.number in self._experts and decision.reason:
            return go_on(f"{decision.reason}; it is the expert's configuration, so it always continues")
        return decision

    @property
    def is_out_of_epochs(self) -> bool:
        """Whether the trials have trained `search.epoch_budget` epochs together."""
        budget = self.config.search.epoch_budget
        return budget is not None and sum(t.epoch for t in self.state.trials.values()) >= budget

    @property
    def is_ending_itself(self) -> bool:
        """Whether a trial with its own loop has trained its last epoch and has not come to its end."""
        return self.ends_itself and any(t.epoch >= self.config.search.epochs for t in self.state.unfinished())

    @property
    def limit(self) -> LimitReached | None:
        """The recorded limit that has ended the trials; None while they may go on."""
        return in_force(self.config, self.state)

    def reach_limit(self, reserves: bool = True) -> list[Event]:
        """The event of a limit that the results have reached; no event if it is recorded. See `limits.reached`."""
        event = reached(self.config, self.state, reserves)
        return [event] if event else []

    # Requests

    def stops(self) -> list[Event]:
        """The events of the trials that a request stops and that are not over."""
        stopped = [t for t in self.state.trials.values() if t.stopped_by and not t.over]
        return [self._moved("stopped_early", t.number, str(t.stopped_by)) for t in stopped]

    def pauses(self, waiting: Iterable[Trial]) -> list[Event]:
        """The events of the trials among `waiting` that a request keeps paused. No worker trains them."""
        held = [t for t in waiting if t.held_by and not t.idle and not t.owes_epoch]
        return [self._moved("paused", t.number, str(t.held_by)) for t in held]

    @property
    def ends_now(self) -> bool:
        """Whether a request ends the search, and every trial has finished its epoch."""
        return self.state.stopped_by is not None and not any(t.owes_epoch for t in self.state.trials.values())

    def is_ending(self, number: int) -> bool:
        """Whether a request ends the search, and this trial has finished its epoch."""
        return self.state.stopped_by is not None and not self.state.trials[number].owes_epoch

    def _moved(self, kind: Literal["stopped_early", "paused"], number: int, request: str) -> Moved:
        return Moved(event=kind, number=number, reason=self.state.by_request(request), request=request)

    # Failures

    def fail(self, number: int, cause: Failure, traceback: str) -> Retried | Failed:
        """The event of a trial that ended with an error: it is tried again, or has failed for good.

        A trial that raises the same exception as the trial before it is not tried again; otherwise see `may_retry`.
        """
        trial = self.state.trials[number]
        if may_retry(trial, cause, self.config.search) and not self._same_failures(cause, traceback):
            parts = 2 if cause == "memory" and not self.ends_itself else trial.micro_batches
            return Retried(event="retry", number=number, why=cause, traceback=traceback, micro_batches=parts)
        return Failed(event="failed", number=number, why=cause, traceback=traceback)

    def _same_failures(self, cause: Failure, traceback: str) -> int:
        """The number of consecutive failed trials, up to now, whose error has the same line and message."""
        row = self.state.failed_in_a_row if cause == "error" else []
        return sum(sign(other) == sign(traceback) for other in row)

    def is_hopeless(self, event: Failed) -> bool:
        """Whether the search should end after this failure, which was applied.

        It ends after `search.max_failed_in_a_row` failures. If no trial has a result, it also ends after
        `SAME_FAILURES` failures of the same kind, and after a mistake in the training, which every trial would repeat.
        """
        if len(self.state.failed_in_a_row) >= self.config.search.max_failed_in_a_row:
            return True
        repeats = event["why"] == "mistake" or (
            event["why"] == "error" and self._same_failures("error", event["traceback"]) >= SAME_FAILURES
        )
        return repeats and not any(trial.epoch for trial in self.state.trials.values())

    # More trials or epochs

    def reopen(self) -> list[Event]:
        """The events that reopen trials of a search that was given more trials or epochs.

        Complete trials continue to the new number of epochs, except those whose own loop ended before the old number:
        it would end there again. Trials that were still paused when the search ended are paused again.
        """
        trials, search = self.state.trials.values(), self.config.search
        complete = [t for t in trials if t.outcome == "completed" and not t.ended_itself]
        more = [t for t in complete if t.epoch < search.epochs]
        again = [t for t in trials if t.outcome == "stopped_early" and self._waited(t)]
        if not more and len(trials) >= self.total:
            again = []
        return [
            *(Moved(event="reopened", number=t.number, reason="the search was given more epochs") for t in more),
            *(Moved(event="paused", number=t.number, reason="the search was given more") for t in again),
        ]

    def _waited(self, trial: Trial) -> bool:
        decided = self.scheduler.decides(trial.number, trial.epoch) and trial.number not in self._experts
        if trial.stopped_by:
            return False
        return decided and self.scheduler.decide(self._view(trial.number), trial).kind == "pause"

    # Views

    def _losses(self, metrics: dict[str, float]) -> tuple[float, ...]:
        """The losses of an epoch by which trials are compared: an epoch beyond a limit follows all others."""
        limits = self.config.search.outcome_limits
        return tuple(ranked_last(limits, metrics, loss) for loss in losses_of(metrics, self.state.objectives))

    def _view(self, number: int) -> _View:
        return self._views[self._turn(number)]

    def _turn(self, number: int) -> int:
        """The index of a trial's balanced value. The values take turns, but a request may give a trial any value."""
        trial = self.state.trials.get(number)
        if trial is not None and self.config.turns is not None:
            name, values = self.config.turns
            if (value := trial.params.get(name)) in values:
                return values.index(value)
        return number % len(self._views)

    def rungs(self) -> Losses:
        """Epoch of each rung -> trial number -> loss; with several objectives the loss of the first.

        Trials are compared by other numbers if there are limits on outcomes or several objectives.
        """
        rungs, trials = merge_rungs(map(self.scheduler.rungs, self._views)), self.state.trials
        return {epoch: {n: self.objective.val_loss(trials[n].curve[epoch]) for n in rung if epoch in trials[n].curve}
                for epoch, rung in rungs.items()}  # fmt: skip


class _View:
    """The trials of one balanced value; see `schedulers.base.View`."""

    def __init__(self, study: Study, turn: int) -> None:
        self._study, self._turn = study, turn
        self.losses = Standings()
        self.unit = study.config.search.unit

    def as_compared_with(self, trial: Trial) -> _View:
        """The view in which a trial is judged. In a round the places of several objectives must not depend on the
        trials of the same round: which of them have reported depends on their speed."""
        before = self.before(trial)
        if math.isinf(before) or len(self._study.state.objectives) == 1:
            return self
        view = _View(self._study, self._turn)
        view.losses = self.losses.among(lambda number: number < before or number == trial.number)
        return view

    def _has(self, number: int) -> bool:
        return self._study._turn(number) == self._turn

    def loss(self, trial: Trial) -> float:
        if len(self._study.state.objectives) == 1:
            return self._study._losses(trial.curve[trial.epoch])[0]
        return self.losses[trial.epoch][trial.number]

    def before(self, trial: Trial) -> float:
        return first_of_round(self._study.config, trial.number)

    def paused(self) -> dict[int, int]:
        return {n: epoch for n, epoch in self._study.state.paused().items() if self._has(n)}

    @property
    def is_last(self) -> bool:
        return not self._study.has_more and not any(self._has(t.number) for t in self._study.state.unfinished())

    def prefer(self, waiting: Sequence[int]) -> int | None:
        known = [number for number in waiting if number not in self._study._outside]
        return self._study.searcher.prefer(known) if known else None


def first_of_round(config: SearchConfig, number: int) -> float:
    """The number of the first trial of a trial's round; infinity if the search has no rounds."""
    search = config.search
    if not search.deterministic:
        return math.inf
    assert search.concurrency is not None  # set before the search began
    together = search.concurrency * search.fuse
    return number // together * together
