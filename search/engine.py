"""A search: what is proposed and decided, every bit of it in the journal before it takes effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search.config import SearchConfig
from search.journal import Event, Journal, SearchState, Trial
from search.schedulers import make_scheduler
from search.searchers import make_searcher, trial_seed
from search.store import SearchFolder
from trainables import get_task

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
        self.journal = Journal(folder.journal)
        self.listeners: list[Listener] = []
        self.stopping: str | None = None
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
        if kind == "result" and event["outcome"] != "diverged":
            self.scheduler.record(event["number"], event["epoch"], self._loss(event["metrics"]))
        if kind in ("result", "failed"):
            trial = self.state.trials[event["number"]]
            if trial.outcome == "diverged":
                self.scheduler.remove(trial.number)
            if trial.over:
                self.searcher.tell(trial)

    def _loss(self, metrics: dict[str, float]) -> float:
        return self.objective.loss(metrics[f"val_{self.objective.metric}"])

    def propose(self) -> Trial | None:
        """The next new trial, or None when the search has them all or is stopping."""
        number = len(self.state.trials)
        if number >= self.total or self.stopping:
            return None
        params = self.searcher.ask(number)
        self.record({"event": "trial", "number": number, "params": params,
                     "seed": trial_seed(self.config.search.seed, number)})  # fmt: skip
        return self.state.trials[number]

    def report(self, results: list[dict[str, Any]], device: str) -> set[int]:
        """Takes in epochs that trials ended together; returns the numbers of those that are to stop.

        An epoch that is known already was trained again after a failure: its first record stands.
        """
        new = [r for r in results if r["epoch"] not in self.state.trials[r["number"]].curve]
        for result in new:  # before anyone is judged: those who report together are compared with each other
            if not result["diverged"]:
                self.scheduler.record(result["number"], result["epoch"], self._loss(result["metrics"]))
        self.record(
            *({"event": "result", **r, "outcome": self._outcome(r), "device": device} for r in new)
        )  # fmt: skip
        known = {r["number"]: self.state.trials[r["number"]] for r in results if r["epoch"] >= self._epoch(r)}
        return {number for number, trial in known.items() if trial.over}

    def _epoch(self, result: dict[str, Any]) -> int:
        return self.state.trials[result["number"]].epoch

    def _outcome(self, result: dict[str, Any]) -> str | None:
        if result["diverged"]:
            return "diverged"
        if result["epoch"] >= self.config.search.epochs:
            return "completed"
        stop = self.scheduler.should_stop(result["number"], result["epoch"], self._loss(result["metrics"]))
        return "stopped_early" if stop else None

    def fail(self, number: int, traceback: str) -> bool:
        """A trial raised, alone; returns whether it is taken up again."""
        again = self.state.trials[number].failures < self.config.search.max_failures
        self.record({"event": "retry" if again else "failed", "number": number, "traceback": traceback})
        return again

    def stop(self, why: str) -> None:
        """No new trials; running ones finish their epoch. `why` is `interrupted` or `time budget`."""
        if self.stopping != "interrupted":
            self.stopping = why
            self.announce({"event": "stopping", "why": why})

    def announce(self, event: Event) -> None:
        """Tells the listeners; of itself for what changes no state and so is in no journal."""
        for listener in self.listeners:
            listener(event, self.state)

    def end(self, status: str) -> None:
        """Closes the session: what still ran is interrupted, and the rungs are told as they stand."""
        for trial in self.state.unfinished():
            if trial.outcome is None:
                self.record({"event": "interrupted", "number": trial.number})
        self.record({"event": "ended", "status": status, "rungs": self.scheduler.rungs()})
        self.journal.close()
