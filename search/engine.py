"""A search: what is proposed and decided, every bit of it in the journal before it takes effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from search.config import SearchConfig, parse_duration
from search.failures import Failure
from search.front import measured
from search.journal import Event, Journal
from search.schedulers import make_scheduler
from search.searchers import make_searcher, trial_seed
from search.state import SearchState, Trial
from search.store import SearchFolder
from search.warm_start import as_trials
from trainables import get_task
from trainables.storage import files_at

#: Why a search stops before its last trial.
Stop = Literal["interrupted", "time budget", "epoch budget", "disk full", "failures"]
#: Told of every event; of those of the journal after they are in the state.
Listener = Callable[[Event, SearchState], None]


class Search:
    """One search in this process: its journal, the state it adds up to, and what proposes and decides.

    Live and after a kill the same code runs over the same events, so both come to the same state.
    """

    def __init__(self, config: SearchConfig, folder: SearchFolder) -> None:
        """Opens the journal and replays what it holds; raises InputError as `Journal` does."""
        self.config, self.folder = config, folder
        self.objective = get_task(config.task).objective
        self.searcher, self.total = make_searcher(config, self.objective)
        self.scheduler = make_scheduler(config)
        self.state = SearchState(self.objective)
        #: Where checkpoints are.
        self.files = files_at(config.search.storage or str(folder.path))
        self.journal = Journal(folder.journal)
        self.listeners: list[Listener] = []
        self.stopping: Stop | None = None
        for event in self.journal.events:
            self.state.apply(event)
            if event["event"] == "trial":
                self.searcher.replay(self.state.trials[event["number"]])
            self._after(event)

    def record(self, *events: Event) -> None:
        """Journal, state, searcher, then everyone who listens."""
        for event in self.journal.append(*events):
            self.state.apply(event)
            self._after(event)
            self.announce(event)

    def _after(self, event: Event) -> None:
        """What an event means for the searcher and the rungs, live or replayed."""
        kind = event["event"]
        if kind == "warm_start":
            self.searcher.learn(as_trials(event, self.objective))
        if kind == "result" and event["outcome"] != "diverged":
            self.scheduler.record(event["number"], event["epoch"], self.objective.val_loss(event["metrics"]))
        if kind in ("result", "failed", "timed_out"):  # what is stopped while it is paused was told before
            trial = self.state.trials[event["number"]]
            if trial.outcome == "diverged":
                self.scheduler.remove(trial.number)
            if trial.idle:
                self.searcher.tell(trial)

    def reopen(self) -> None:
        """Where the search has been given more trials or epochs since: complete trials go on, and those that ended
        because nobody was left to promote them wait again."""
        trials = self.state.trials.values()
        more = [t.number for t in trials if t.outcome == "completed" and t.epoch < self.config.search.epochs]
        self.record(*({"event": "reopened", "number": number} for number in more))
        if more or len(trials) < self.total:
            stopped = [t for t in trials if t.outcome == "stopped_early" and self.scheduler.pauses(t.number, t.epoch)]
            self.record(*({"event": "paused", "number": trial.number} for trial in stopped))

    def promotable(self) -> int | None:
        """The paused trial that goes on now, if one does."""
        left = None if len(self.state.trials) < self.total else [trial.number for trial in self.state.unfinished()]
        return self.scheduler.promoted(self.state.paused(), left)

    def propose(self) -> Trial | None:
        """The trial to train next: one that is promoted, else a new one; None where there is none, or it is
        stopping."""
        if not self.stopping and (promoted := self.promotable()) is not None:
            self.record({"event": "promoted", "number": promoted})
            return self.state.trials[promoted]
        number = len(self.state.trials)
        if number >= self.total or self.stopping:
            return None
        if first_of_round(self.config, number) == number and self.state.unfinished():
            return None
        params = self.searcher.ask(number)
        self.record({"event": "trial", "number": number, "params": params,
                     "seed": trial_seed(self.config.search.seed, number)})  # fmt: skip
        return self.state.trials[number]

    def report(self, results: list[dict[str, Any]], device: str) -> set[int]:
        """Takes in epochs that trials ended together, in their order, after the last of which a trial may have to
        stop; returns the numbers of those that are to stop or pause.

        A result's `checkpoint` (name and bytes) is None where the trial diverged, or another epoch's is kept.

        An epoch that is known already was trained again after a failure: its first record stands.
        """
        new = [r for r in results if r["epoch"] not in self.state.trials[r["number"]].curve]
        for objective in self.config.objectives if new and not new[0]["diverged"] else ():
            measured(new[0]["metrics"], objective)  # or the user named what no epoch measures
        for result in new:  # before anyone is judged: those who report together are compared with each other
            if not result["diverged"]:
                self.scheduler.record(result["number"], result["epoch"], self.objective.val_loss(result["metrics"]))
        saved = [(r["number"], r["epoch"], r.pop("checkpoint")) for r in results]
        last = {r["number"]: r["epoch"] for r in new}
        outcomes = [self._outcome(r, new) if r["epoch"] == last[r["number"]] else None for r in new]
        self.record(
            *({"event": "result", **r, "outcome": o, "device": device} for r, o in zip(new, outcomes, strict=True)),
            *({"event": "checkpoint", "number": n, "epoch": epoch, **one} for n, epoch, one in saved if one),
        )
        budget = self.config.search.epoch_budget
        if budget is not None and sum(t.epoch for t in self.state.trials.values()) >= budget:
            self.stop("epoch budget")
        known = {r["number"]: self.state.trials[r["number"]] for r in results if r["epoch"] >= self._epoch(r)}
        return {number for number, trial in known.items() if trial.idle}

    def _epoch(self, result: dict[str, Any]) -> int:
        return self.state.trials[result["number"]].epoch

    def _outcome(self, result: dict[str, Any], together: Sequence[dict[str, Any]]) -> str | None:
        """What the last of a trial's epochs leads to, of those that are reported together."""
        if result["diverged"]:
            return "diverged"
        if result["epoch"] >= self.config.search.epochs:
            return "completed"
        loss, before = self.objective.val_loss(result["metrics"]), first_of_round(self.config, result["number"])
        if self.scheduler.should_stop(result["number"], result["epoch"], loss, before):
            return "stopped_early"
        epochs = [one["metrics"] for one in together if one["number"] == result["number"]]
        if self.is_over_time(result["number"], sum(metrics["epoch_seconds"] for metrics in epochs)):
            return "timed_out"
        return "paused" if self.scheduler.pauses(result["number"], result["epoch"]) else None

    def is_over_time(self, number: int, seconds: float) -> bool:
        """Whether a trial has used up its `trial_timeout` with these seconds beside the epochs that are recorded."""
        limit = self.config.search.trial_timeout
        return limit is not None and self.state.trials[number].seconds + seconds > parse_duration(limit)

    def fail(self, number: int, why: Failure, traceback: str) -> bool:
        """A trial ended with an error, alone; returns whether it is taken up again.

        Each cause is retried so often that it can be seen to stay: counted from the last epoch that ended.
        """
        trial, search = self.state.trials[number], self.config.search
        allowed = {"memory": 1, "lost": search.max_lost_workers}.get(why, search.max_failures)
        again = trial.retries.count(why) < allowed and not (why == "memory" and trial.micro_batches > 1)
        event = {"number": number, "why": why, "traceback": traceback}
        if again:
            parts = 2 if why == "memory" else trial.micro_batches
            self.record({"event": "retry", **event, "micro_batches": parts})
        else:
            self.record({"event": "failed", **event})
            if len(self.state.failed_in_a_row) >= search.max_failed_in_a_row:
                self.stop("failures")
        return again

    def give_up(self, *numbers: int) -> None:
        """These paused trials will not go on."""
        self.record(*({"event": "stopped_early", "number": number} for number in numbers))

    def stop(self, why: Stop) -> None:
        """No new trials; running ones finish their epoch."""
        if self.stopping != "interrupted":
            self.stopping = why
            self.announce({"event": "stopping", "why": why})

    @property
    def cut_off(self) -> bool:
        """Whether it was stopped by something other than a budget: then nothing is made of what there is."""
        return self.stopping in ("interrupted", "disk full", "failures")

    def announce(self, event: Event) -> None:
        """Tells the listeners; of itself for what changes no state and so is in no journal."""
        for listener in self.listeners:
            listener(event, self.state)

    def end(self, status: str) -> None:
        """Closes the session: what still ran is interrupted, and the rungs are told as they stand."""
        if not self.journal.refused:
            running = [trial.number for trial in self.state.unfinished() if trial.outcome is None]
            self.record(
                *({"event": "interrupted", "number": number} for number in running),
                {"event": "ended", "status": status, "rungs": self.scheduler.rungs()},
            )
        self.journal.close()


def first_of_round(config: SearchConfig, number: int) -> float:
    """The first trial of the round that this one is in; infinity where trials come without rounds."""
    search = config.search
    if not search.deterministic:
        return math.inf
    assert search.concurrency is not None  # settled before the search began
    together = search.concurrency * search.fuse
    return number // together * together
