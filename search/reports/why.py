"""Explains each decision on a trial in one line, with the figures behind it.

The journal holds the reason of each decision. Older journals have no reasons: `Study` then decides again on the same
events.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.core.decision import TrialResult, timeout_reason
from search.core.events import Event, Proposed, Result
from search.core.failures import failure_in_a_line
from search.core.journal import read_events
from search.core.readable import figure
from search.core.readable import value as shown
from search.core.replay import open_search
from search.core.store import Store
from search.core.study import Study, reported_together
from search.reports.summary import check_trial
from trainables import LOOP_TASK

#: The line for an event. `{at}` is the trial's last epoch, `{reason}` the event's reason.
_LINES = {
    "promoted": "promoted from {at}: {reason}",
    "stopped_early": "stopped, not continued: {reason}",
    "reopened": "continues: {reason}",
    "paused": "paused again: {reason}",
    "completed": "{at}: complete; {reason}",
    "interrupted": "interrupted with the search; it continues from its checkpoint when the search is resumed",
    "timed_out": "out of time inside an epoch: {reason}",
    "infeasible": "infeasible, stopped before its first epoch: {reason}",
}
#: The reason of an event in a journal without reasons.
_REASONS = {
    "stopped_early": "it was not promoted before the search ended, or the time left was too short",
    "reopened": "the search was given more epochs",
    "paused": "the search was given more",
}
#: The decision on an epoch, by its outcome.
_DECISIONS = {
    None: "continues", "paused": "paused", "completed": "complete", "stopped_early": "stopped",
    "timed_out": "out of time", "infeasible": "infeasible",
}  # fmt: skip


def why(store: Store, name: str, number: int) -> list[str]:
    """The decisions on a trial, a line for each.

    Raises:
        InputError: there is no such search or trial.
    """
    folder, record, config = open_search(store, name)
    ends_itself = (record.offered or "").startswith(LOOP_TASK) and not record.asked
    study = Study(config, record.objective, ends_itself=ends_itself)
    story = _Story(study, number, record.imported)
    for together in reported_together(config, read_events(folder.journal)):
        story.take(together)
    check_trial(study.state, name, number)
    return [*story.lines, *story.end()]


class _Story:
    """The lines on one trial, up to an event."""

    def __init__(self, study: Study, number: int, imported: str | None) -> None:
        """
        Args:
            imported: the source of an imported search, whose decisions have no known reasons.
        """
        self.study, self.number, self.imported = study, number, imported
        self.metric = study.objective.key
        self.lines: list[str] = []

    def take(self, events: Sequence[Event]) -> None:
        """Takes in events that were written together."""
        decided = self._decided_again(events)
        for event in events:
            reason = event.get("reason") or ("" if self.imported else self._reason(event, decided))
            self.study.apply(event)
            if event.get("number") == self.number:
                self._add(event, str(reason))

    def _decided_again(self, events: Sequence[Event]) -> dict[int, str]:
        """The reasons of the decisions on results that have no reason in the journal, by trial."""
        results = [e for e in events if e["event"] == "result" and "reason" not in e]
        if self.imported or not any(e["number"] == self.number for e in results):
            return {}
        decisions = self.study.decide([TrialResult.of(event) for event in results])
        return {number: decision.reason for number, decision in decisions.items()}

    def _reason(self, event: Event, decided: dict[int, str]) -> str:
        """The reason of a decision that has no reason in the journal."""
        if event.get("number") != self.number:
            return ""
        match event["event"]:
            case "result":
                return decided.get(self.number, "")
            case "trial":
                return self._proposed_again(event)
            case "promoted":
                return self.study.promotion_reason(self.number)
            case "completed":
                return self.study.completion_reason(self.number)
            case "timed_out":
                return timeout_reason(self.study.config.search)
            case other:
                return _REASONS.get(other, "")

    def _proposed_again(self, event: Proposed) -> str:
        again = self.study.searcher.ask(self.number)
        reason = self.study.proposal_reason()
        self.study.searcher.withdraw(self.number)
        if again == event["params"]:
            return reason
        return f"{reason}; the settings have changed since, and would propose something else now"

    def _add(self, event: Event, reason: str) -> None:
        match event["event"]:
            case "trial":
                values = ", ".join(f"{k} {shown(v)}" for k, v in event["params"].items() if v is not None)
                unknown = f"imported from {self.imported}, which does not say why it was proposed"
                self.lines += [unknown if self.imported else f"proposed: {reason}", f"  {values}"]
            case "result":
                self._add_result(event, reason)
            case "retry":
                reason = failure_in_a_line(event["traceback"])
                self.lines.append(f"failed and was retried ({event['why']}): {reason}")
            case "failed":
                self.lines.append(f"failed for good ({event['why']}): {failure_in_a_line(event['traceback'])}")
            case kind if kind in _LINES:
                at = self.study.config.search.unit.at(self.study.state.trials[self.number].epoch)
                self.lines.append(_LINES[kind].format(at=at, reason=reason))

    def _add_result(self, event: Result, reason: str) -> None:
        at, outcome = self.study.config.search.unit.at(event["epoch"]), event["outcome"]
        if outcome == "diverged":
            self.lines.append(f"{at}: ended, as {event['diverged']}")
            return
        if outcome != "infeasible" and (beyond := event.get("infeasible")):
            reason = f"{reason}{'; ' if reason else ''}infeasible here, as {beyond}"
        if outcome is None and not reason:
            return
        line = f"{at}: {_DECISIONS[outcome]}; {self.metric} {figure(event['metrics'][self.metric])}"
        self.lines.append(f"{line}; {reason}" if reason else line)

    def end(self) -> list[str]:
        """Lines on the outcome and the rank of the trial."""
        state = self.study.state
        trial, ranked = state.trials[self.number], state.ranked()
        if not trial.can_win and (trial.infeasible or trial.outcome == "infeasible"):
            return [f"in the end: {trial.outcome or 'running'}; never within all limits, so it cannot be the best"]
        if trial.rerun_of is not None:
            value = f"; best {self.metric} {figure(trial.best_value)}" if trial.has_value else ""
            return [f"in the end: {trial.outcome or 'running'}{value}; it counts for trial {trial.rerun_of}"]
        if not trial.can_win:
            return [f"in the end: {trial.outcome or 'running'}, without a result that counts"]
        place, unit = 1 + ranked.index(trial), self.study.config.search.unit
        line = (
            f"in the end: {trial.outcome or 'running'}; best {self.metric} {figure(trial.best_value)} at "
            f"{unit.at(trial.best_epoch)}, place {place} of {len(ranked)}"
        )
        if place > 1:
            line += f" (the best is trial {ranked[0].number}, {figure(ranked[0].best_value)})"
        chosen = state.final
        if chosen is not None and chosen.trial == self.number:
            how = "trained again on train and validation" if chosen.merged else "its own model taken as it is"
            return [line, f"the search's model is of this trial: {how}, {unit.count(chosen.epochs)}"]
        return [line]
