"""The search: proposals and decisions, each in the journal before it takes effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

from search.core.config import SearchConfig, parse_duration
from search.core.events import CheckpointWritten, Event, Failed, Moved, Notice, Outcome, Result, Retried
from search.core.journal import Journal
from search.core.pareto import measured
from search.core.schedulers.registry import make_scheduler
from search.core.searchers.registry import make_searcher
from search.core.seeds import trial_seed
from search.core.state import SearchState, Trial
from search.core.store import SearchFolder
from search.core.warm_start import as_trials
from search.runtime.failures import Failure, sign
from search.runtime.interrupts import recording
from trainables import SelfTrained, get_task
from trainables.base.storage import files_at

#: Why a search stops before its last trial.
Stop = Literal["interrupted", "time budget", "epoch budget", "disk full", "failures"]
#: Trials that fail in the same way, one after the other and none with a result, before the search stops. Two may have
#: the bad value of a hyperparameter in common.
ALIKE = 3
#: Called with every event after it is in the journal and the state, and with every notice.
Listener = Callable[[Event | Notice, SearchState], None]


class Search:
    """One search in this process: its journal, its state, its searcher and its scheduler.

    A live search and a replay run the same code over the same events, so both come to the same state.
    """

    def __init__(self, config: SearchConfig, folder: SearchFolder, journal: Journal | None = None) -> None:
        """Replays the journal, which is opened unless the command holds it already; raises InputError as `Journal`."""
        self.config, self.folder = config, folder
        self.task = get_task(config.task)
        self.objective = self.task.objective
        self.searcher, self.total = make_searcher(config, self.objective)
        self.scheduler = make_scheduler(config)
        self.state = SearchState(self.objective)
        #: Where checkpoints are kept.
        self.files = files_at(config.search.storage or str(folder.path))
        self.journal = journal or Journal(folder.journal)
        self._holds = journal is None
        self.listeners: list[Listener] = []
        self.stopping: Stop | None = None
        #: Whether the trials run their epochs themselves, and come to an end of their own.
        self.runs_itself = isinstance(self.task, SelfTrained)
        #: Whether no new trial begins, as the time that is left would not hold one.
        self.closed = False
        for event in self.journal.events:
            self.state.apply(event)
            if event["event"] == "trial":
                self.searcher.replay(self.state.trials[event["number"]])
            self._after(event)

    def record(self, *events: Event) -> None:
        """Writes events to the journal, then tells the state, the searcher, the scheduler and the listeners."""
        with recording():
            for event in self.journal.append(*events):
                self.state.apply(event)
                self._after(event)
                self.announce(event)

    def _after(self, event: Event) -> None:
        """Tells the searcher and the scheduler what an event means for them, live or replayed."""
        if event["event"] == "warm_start":
            self.searcher.learn(as_trials(event, self.objective), event.get("first", []))
        if event["event"] == "result" and event["outcome"] != "diverged":
            self.scheduler.record(event["number"], event["epoch"], self.objective.val_loss(event["metrics"]))
        # A trial that is stopped while it is paused was told when it was paused.
        match event["event"]:
            case "result" | "failed" | "timed_out" | "completed":
                trial = self.state.trials[event["number"]]
                if trial.outcome == "diverged":
                    self.scheduler.remove(trial.number)
                if trial.idle:
                    self.searcher.tell(trial)

    def reopen(self) -> None:
        """Reopens trials of a search that was given more trials or epochs.

        Complete trials go on to the new number of epochs, except those whose own loop ended before the old one: it
        would end there again. Trials that ended only because nothing was left to promote them wait again.
        """
        trials = self.state.trials.values()
        complete = [t for t in trials if t.outcome == "completed" and not t.ended_itself]
        more = [t.number for t in complete if t.epoch < self.config.search.epochs]
        self.record(*(Moved(event="reopened", number=number) for number in more))
        if more or len(trials) < self.total:
            stopped = [t for t in trials if t.outcome == "stopped_early" and self.scheduler.pauses(t.number, t.epoch)]
            self.record(*(Moved(event="paused", number=trial.number) for trial in stopped))

    @property
    def has_more(self) -> bool:
        """Whether new trials will come."""
        return len(self.state.trials) < self.total and not self.closed

    def promotable(self) -> int | None:
        """The number of the paused trial that goes on now, if one does."""
        left = None if self.has_more else [trial.number for trial in self.state.unfinished()]
        waiting = self.state.paused()
        promoted = self.scheduler.promoted(waiting, left, self.searcher.prefer)
        if promoted is None and self.closed and len(self.state.trials) < self.total:
            # Time is left for no new trial, but for some of those that wait: the furthest, and of them the best.
            losses = {n: self.objective.val_loss(self.state.trials[n].curve[epoch]) for n, epoch in waiting.items()}
            promoted = min(waiting, key=lambda n: (-waiting[n], losses[n], n), default=None)
        return promoted

    def propose(self) -> Trial | None:
        """The trial to train next: a promoted one, else a new one. None if there is none now, or it is stopping."""
        if not self.stopping and (promoted := self.promotable()) is not None:
            self.record({"event": "promoted", "number": promoted})
            return self.state.trials[promoted]
        number = len(self.state.trials)
        if not self.has_more or self.stopping:
            return None
        if first_of_round(self.config, number) == number and self.state.unfinished():
            return None
        params = self.searcher.ask(number)
        self.record({"event": "trial", "number": number, "params": params,
                     "seed": trial_seed(self.config.search.seed, number)})  # fmt: skip
        return self.state.trials[number]

    def report(self, results: list[dict[str, Any]], device: str, over: Sequence[int] = ()) -> set[int]:
        """Takes in epochs that trials report together, and decides on each trial's last one.

        Args:
            results: in the order of the epochs, each with `number`, `epoch`, `metrics`, `diverged` and `checkpoint`.
                The checkpoint (its name, bytes and digest) is None where the trial diverged, or another epoch's is
                kept. An epoch that is known already was trained again after a failure; its first record stands.
            device: the name of the device that trained them.
            over: the trials whose training came to its own end after these epochs.

        Returns:
            The numbers of the trials that stop or pause now.

        Raises:
            InputError: the search has an objective that the epochs do not measure.
        """
        new = [r for r in results if r["epoch"] not in self.state.trials[r["number"]].curve]
        for objective in self.config.objectives if new and not new[0]["diverged"] else ():
            measured(new[0]["metrics"], objective)
        # All are recorded before one is judged, as trials that report together are compared with each other.
        for result in new:
            if not result["diverged"]:
                self.scheduler.record(result["number"], result["epoch"], self.objective.val_loss(result["metrics"]))
        saved = [(r["number"], r["epoch"], r.pop("checkpoint")) for r in results]
        last = {r["number"]: r["epoch"] for r in new}
        outcomes = [self._outcome(r, new) if r["epoch"] == last[r["number"]] else None for r in new]
        ended = {r["number"] for r, outcome in zip(new, outcomes, strict=True) if outcome is not None}
        ended |= {number for number in over if self.state.trials[number].idle}
        self.record(
            *(
                Result(
                    event="result",
                    number=r["number"],
                    epoch=r["epoch"],
                    metrics=r["metrics"],
                    diverged=r["diverged"],
                    outcome=outcome,
                    device=device,
                )
                for r, outcome in zip(new, outcomes, strict=True)
            ),
            *(
                cast(CheckpointWritten, {"event": "checkpoint", "number": n, "epoch": epoch, **one})
                for n, epoch, one in saved
                if one
            ),
            *(
                Moved(event="completed", number=number, of=self.config.search.epochs)
                for number in over
                if number not in ended
            ),
        )
        budget = self.config.search.epoch_budget
        if budget is not None and sum(t.epoch for t in self.state.trials.values()) >= budget:
            self.stop("epoch budget")
        known = {r["number"]: self.state.trials[r["number"]] for r in results if r["epoch"] >= self._epoch(r)}
        return {number for number, trial in known.items() if trial.idle} | set(over)

    def _epoch(self, result: dict[str, Any]) -> int:
        return self.state.trials[result["number"]].epoch

    def _outcome(self, result: dict[str, Any], together: Sequence[dict[str, Any]]) -> Outcome | None:
        """What a trial's last epoch leads to.

        Args:
            together: all new epochs of the report.
        """
        if result["diverged"]:
            return "diverged"
        if result["epoch"] >= self.config.search.epochs:
            # What runs by itself is complete once it has come to its end: it may have a model to save.
            return None if self.runs_itself else "completed"
        loss, before = self.objective.val_loss(result["metrics"]), first_of_round(self.config, result["number"])
        limit = self.config.search.max_epoch_seconds
        slow = limit is not None and result["metrics"].get("epoch_seconds", 0.0) > 2 * limit
        if slow or self.scheduler.should_stop(result["number"], result["epoch"], loss, before):
            return "stopped_early"
        epochs = [one["metrics"] for one in together if one["number"] == result["number"]]
        if self.is_over_time(result["number"], sum(metrics["epoch_seconds"] for metrics in epochs)):
            return "timed_out"
        return "paused" if self.scheduler.pauses(result["number"], result["epoch"]) else None

    def is_over_time(self, number: int, seconds: float) -> bool:
        """Whether a trial has used up `trial_timeout` with its recorded epochs and these seconds."""
        limit = self.config.search.trial_timeout
        return limit is not None and self.state.trials[number].seconds + seconds > parse_duration(limit)

    def fail(self, number: int, why: Failure, traceback: str) -> bool:
        """Takes in that a trial, which trained by itself, ended with an error.

        Each cause has its own number of retries, counted since the trial's last new epoch.

        Returns:
            Whether the trial is taken up again.
        """
        trial, search = self.state.trials[number], self.config.search
        others = search.max_lost_workers  # what is no fault of the trial
        allowed = {"memory": 1, "lost": others, "crowded": others, "mistake": 0}.get(why, search.max_failures)
        again = trial.retries.count(why) < allowed and not (why == "memory" and trial.micro_batches > 1)
        alike = [one for one in self.state.failed_in_a_row if why == "error" and sign(one) == sign(traceback)]
        if again and not alike:  # what failed in the same way for the trial before fails again
            parts = 2 if why == "memory" and not self.runs_itself else trial.micro_batches
            self.record(Retried(event="retry", number=number, why=why, traceback=traceback, micro_batches=parts))
        else:
            self.record(Failed(event="failed", number=number, why=why, traceback=traceback))
            # Every other trial would make the same mistake, if none came further.
            hopeless = why == "mistake" or len(alike) + 1 >= ALIKE
            hopeless = hopeless and not any(one.epoch for one in self.state.trials.values())
            if not self.stopping and (hopeless or len(self.state.failed_in_a_row) >= search.max_failed_in_a_row):
                self.stop("failures")
        return again and not alike

    def give_up(self, *numbers: int) -> None:
        """Ends these paused trials."""
        self.record(*(Moved(event="stopped_early", number=number) for number in numbers))

    def stop(self, why: Stop) -> None:
        """Stops the search: no new trials begin, and running ones finish their epoch."""
        if self.stopping != "interrupted":
            self.stopping = why
            self.announce({"event": "stopping", "why": why})

    @property
    def cut_off(self) -> bool:
        """Whether it was stopped by something other than a budget; no final training follows then."""
        return self.stopping in ("interrupted", "disk full", "failures")

    def announce(self, event: Event | Notice) -> None:
        """Tells the listeners of an event that is recorded, or of a notice."""
        for listener in self.listeners:
            listener(event, self.state)

    def end(self, status: str) -> None:
        """Ends the session: trials that still run are interrupted, the rungs are recorded, and the journal is closed if
        the search opened it."""
        if not self.journal.refused:
            running = [trial.number for trial in self.state.unfinished() if trial.outcome is None]
            with suppress(OSError):  # the journal keeps the error for the session, which tells the user
                self.record(
                    *(Moved(event="interrupted", number=number) for number in running),
                    {"event": "ended", "status": status, "rungs": self.scheduler.rungs()},
                )
        if self._holds:
            self.journal.close()


def first_of_round(config: SearchConfig, number: int) -> float:
    """The number of the first trial of a trial's round; infinity where the search has no rounds."""
    search = config.search
    if not search.deterministic:
        return math.inf
    assert search.concurrency is not None  # settled before the search began
    together = search.concurrency * search.fuse
    return number // together * together
