"""Says each decision on a trial in one sentence, with the figures that it was made from.

The journal holds what happened; why it happened is worked out again from it, by the searcher and the scheduler
themselves.
"""

from __future__ import annotations

from itertools import groupby

from search.core.config import SearchConfig
from search.core.events import Event, Moved, Result
from search.core.journal import read_events
from search.core.readable import figure
from search.core.readable import value as shown
from search.core.replay import open_search
from search.core.schedulers.base import Scheduler
from search.core.schedulers.registry import make_scheduler
from search.core.searchers.registry import Searcher, make_searcher
from search.core.state import SearchState
from search.core.store import Store
from search.core.warm_start import as_trials
from search.runtime.failures import failure_in_a_line
from search.runtime.search import first_of_round
from trainables import InputError, Objective


def why(store: Store, name: str, number: int) -> list[str]:
    """The story of a trial, a line a decision.

    Raises:
        InputError: there is no such search or trial.
    """
    folder, record, config = open_search(store, name)
    events = list(read_events(folder.journal))
    told = _Story(config, record.objective, number, record.imported)
    # Fused trials report together, in one write of the journal, and are recorded before one of them is judged. Others
    # may have reported in the same millisecond, one after the other.
    fused = config.search.fuse > 1
    for _, group in groupby(events, key=lambda e: (e["event"] == "result", e.get("time")) if fused else id(e)):
        told.take(list(group))
    if number not in told.state.trials:
        there = f"there are 0 to {len(told.state.trials) - 1}" if told.state.trials else "there is none yet"
        raise InputError(f"{name}: no trial {number}; {there}")
    return [*told.lines, *told.end()]


class _Story:
    """The search up to an event, and the lines on one of its trials."""

    def __init__(self, config: SearchConfig, objective: Objective, number: int, imported: str | None = None) -> None:
        """
        Args:
            imported: where another tool's search was read from; its decisions are not known.
        """
        self.config, self.number, self.imported = config, number, imported
        self.objective = objective
        self.metric = f"val_{self.objective.metric}"
        self.searcher: Searcher = make_searcher(config, self.objective)[0]
        self.scheduler: Scheduler = make_scheduler(config)
        self.state = SearchState(self.objective)
        self.lines: list[str] = []

    def take(self, events: list[Event]) -> None:
        """Takes in events that were written together."""
        for event in events:
            if event["event"] == "result" and event["outcome"] != "diverged":
                self.scheduler.record(event["number"], event["epoch"], self.objective.val_loss(event["metrics"]))
        for event in events:
            if event["event"] == "trial" and event["number"] == self.number:
                self._say_proposed(event["params"])
            self.state.apply(event)
            if event.get("number") == self.number:
                self._say(event)
            self._tell(event)

    def _tell(self, event: Event) -> None:
        """Tells the searcher and the scheduler, as the search did."""
        match event["event"]:
            case "warm_start":
                self.searcher.learn(as_trials(event, self.objective), event.get("first", []))
            case "trial" if event["number"] != self.number:
                self.searcher.replay(self.state.trials[event["number"]])
            case "result" | "failed" | "timed_out" | "completed":
                trial = self.state.trials[event["number"]]
                if trial.outcome == "diverged":
                    self.scheduler.remove(trial.number)
                if trial.idle:
                    self.searcher.tell(trial)

    def _say_proposed(self, params: dict[str, object]) -> None:
        values = ", ".join(f"{key} {shown(value)}" for key, value in params.items() if value is not None)
        if self.imported:
            self.lines += [f"imported from {self.imported}, which does not say why it was proposed", f"  {values}"]
            return
        again = self.searcher.ask(self.number)
        known = len([trial for trial in self.state.trials.values() if trial.idle])
        line = f"proposed after {known} of {len(self.state.trials)} trials were judged, from {self.searcher.source}"
        if again != params:
            line += "; the settings have changed since, and would propose something else now"
        self.lines += [line, f"  {values}"]

    def _say(self, event: Event) -> None:
        match event["event"]:
            case "result":
                self._say_result(event)
            case "promoted":
                trial = self.state.trials[self.number]
                self.lines.append(f"epoch {trial.epoch}: goes on; it is {self._standing(trial.epoch)} by now")
            case "stopped_early":
                self.lines.append("given up: no place became free, and the search ended or its time would not hold it")
            case "reopened":
                self.lines.append("goes on, as the search was given more epochs")
            case "paused":
                self.lines.append("waits again, as the search was given more")
            case "completed":
                self._say_completed(event)
            case "interrupted":
                self.lines.append("interrupted with the search; goes on from its checkpoint when that is resumed")
            case "timed_out":
                self.lines.append(f"ended inside an epoch: over its time (trial_timeout {self._timeout})")
            case "retry":
                why = failure_in_a_line(event["traceback"])
                self.lines.append(f"failed and was taken up again ({event['why']}): {why}")
            case "failed":
                self.lines.append(f"failed for good ({event['why']}): {failure_in_a_line(event['traceback'])}")

    def _say_result(self, event: Result) -> None:
        epoch, outcome = event["epoch"], event["outcome"]
        if outcome == "diverged":
            self.lines.append(f"epoch {epoch}: ended, as {event['diverged']}")
            return
        # After the last epoch nothing is decided, whatever the rule.
        last = epoch >= self.config.search.epochs
        decided = not last and not self.imported and self.scheduler.decides(self.number, epoch)
        if outcome is None and not decided:
            return
        line = f"epoch {epoch}: {self.metric} {figure(event['metrics'][self.metric])}"
        if outcome == "completed":
            because = "" if self.imported else f", as {epoch} epochs are the most that a trial gets"
            self.lines.append(f"{line}; complete{because}")
            return
        line += f"; {self._standing(epoch)}" if decided else ""
        ends = {"stopped_early": "stopped", "paused": "waits for its promotion", "timed_out": "out of its time"}
        limit, seconds = self.config.search.max_epoch_seconds, event["metrics"].get("epoch_seconds", 0.0)
        if outcome == "stopped_early" and limit is not None and seconds > 2 * limit:
            line += f"; the epoch took {seconds:.3g} s, more than twice the {limit:.3g} s that fit the budget"
        if outcome == "timed_out":
            line += f"; trial_timeout is {self._timeout}"
        self.lines.append(f"{line}: {ends[outcome] if outcome else 'goes on'}")

    def _say_completed(self, event: Moved) -> None:
        trial = self.state.trials[self.number]
        line = f"epoch {trial.epoch}: complete, as "
        if trial.ended_itself:
            line += f"its own loop ended there, {event['of'] - trial.epoch} epochs before the last that a trial gets"
        else:
            line += f"{trial.epoch} epochs are the most that a trial gets"
        self.lines.append(line)

    def _standing(self, epoch: int) -> str:
        loss = self.objective.loss(self.state.trials[self.number].curve[epoch][self.metric])
        return self.scheduler.standing(self.number, epoch, loss, first_of_round(self.config, self.number))

    @property
    def _timeout(self) -> str | None:
        return self.config.search.trial_timeout

    def end(self) -> list[str]:
        """How it stands in the end."""
        trial, ranked = self.state.trials[self.number], self.state.ranked()
        if not trial.can_win:
            return [f"in the end: {trial.outcome or 'running'}, without a result that counts"]
        place = 1 + ranked.index(trial)
        line = (
            f"in the end: {trial.outcome or 'running'}; best {self.metric} {figure(trial.best_value)} at epoch "
            f"{trial.best_epoch}, place {place} of {len(ranked)}"
        )
        if place > 1:
            line += f" (the best is trial {ranked[0].number}, {figure(ranked[0].best_value)})"
        chosen = self.state.final
        if chosen is not None and chosen.trial == self.number:
            how = "trained again on train and validation" if chosen.merged else "its own model taken as it is"
            return [line, f"the search's model is of this trial: {how}, {chosen.epochs} epochs"]
        return [line]
