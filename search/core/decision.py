"""Decides after an epoch whether a trial continues, pauses or stops, and gives the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from search.core.config import parse_duration
from search.core.events import Outcome, Result
from search.core.feasibility import infeasible_for_good
from search.core.settings import SearchSection
from search.core.state import Trial

#: Stop a trial whose epoch took more than this many times `search.max_epoch_seconds`. Not measured; by arithmetic, with
#: the limit that `TimePlan` sets, all epochs of such a trial would take 2 * 1.5 * 0.3 = 0.9 of the time budget.
SLOW = 2

Kind = Literal["continue", "pause", "stop"]


class TrialResult(NamedTuple):
    """An epoch of a trial.

    Attributes:
        number, epoch: of the trial.
        metrics: by name; without the objective if the epoch diverged.
        diverged: why the epoch's figures are not finite; None where they are.
        checkpoint: `name`, `bytes` and `digest` of the trial's state; None if it is not kept.
    """

    number: int
    epoch: int
    metrics: dict[str, float]
    diverged: str | None = None
    checkpoint: dict[str, Any] | None = None

    @classmethod
    def of(cls, event: Result) -> TrialResult:
        """The epoch of a `result` event."""
        return cls(event["number"], event["epoch"], event["metrics"], event["diverged"])


class Decision(NamedTuple):
    """Whether a trial continues, pauses or stops.

    Attributes:
        kind: `continue`, `pause` or `stop`.
        reason: words and figures for a person, such as `3rd of 8 at epoch 5; the best 3 continue`. The journal
            has it too. Empty if the trial continues because no rule compares trials at this epoch.
        ends_as: the outcome of a trial that stops, such as `completed` or `diverged`.
        request: the id of the request that pauses the trial; None if a rule decided.

    >>> search.Decision("stop", "3rd of 3 at epoch 5; the best trial continues").outcome
    'stopped_early'
    """

    kind: Kind
    reason: str = ""
    ends_as: Outcome = "stopped_early"
    request: str | None = None

    @classmethod
    def of(cls, event: Result) -> Decision:
        """The decision in a `result` event."""
        outcome, reason = event["outcome"], event["diverged"] or event.get("reason", "")
        if outcome is None:
            return cls("continue", reason)
        return cls("pause", reason) if outcome == "paused" else cls("stop", reason, outcome)

    @property
    def outcome(self) -> Outcome | None:
        """The outcome for the `result` event; None if the trial continues."""
        return {"continue": None, "pause": "paused", "stop": self.ends_as}[self.kind]


#: The decision of a rule that does not compare trials at this epoch.
CONTINUE = Decision("continue")


def go_on(reason: str) -> Decision:
    """The trial continues."""
    return Decision("continue", reason)


def pause(reason: str) -> Decision:
    """The trial waits until it is promoted."""
    return Decision("pause", reason)


def stop(reason: str, ends_as: Outcome = "stopped_early") -> Decision:
    """The trial ends with the outcome `ends_as`."""
    return Decision("stop", reason, ends_as)


def decide(
    trial: Trial, last: TrialResult, search: SearchSection, ends_itself: bool, by_rank: Callable[[Trial], Decision]
) -> Decision:
    """The decision on a trial after new epochs. No other place ends a trial because of an epoch.

    The first rule that ends the trial decides:

    1. the last epoch diverged
    2. a figure of the configuration is beyond its limit (`search.limits`)
    3. it was the last epoch that a trial gets (`search.epochs`)
    4. it took more than `SLOW` times `search.max_epoch_seconds`
    5. the scheduler stops the trial
    6. the trial is over its time (`search.trial_timeout`)

    Otherwise the scheduler decides whether the trial continues or pauses.

    Args:
        trial: with the new epochs.
        last: the last of the new epochs.
        ends_itself: whether trials run their own loop, which ends by itself after its last epoch.
        by_rank: the scheduler's decision.
    """
    if last.diverged:
        return stop(last.diverged, "diverged")
    if reason := infeasible_for_good(search.outcome_limits, trial.curve.values()):
        return stop(reason, "infeasible")
    if last.epoch >= search.epochs:
        # A user's own loop may have a model to save after its last epoch.
        return CONTINUE if ends_itself else stop(complete_reason(search), "completed")
    seconds, limit = last.metrics.get("epoch_seconds", 0.0), search.max_epoch_seconds
    if limit is not None and seconds > SLOW * limit:
        return stop(f"the epoch took {seconds:.3g} s, more than {SLOW} times the {limit:.3g} s that fit the budget")
    ranked = by_rank(trial)
    if ranked.kind != "stop" and is_over_time(trial, search):
        return stop(timeout_reason(search), "timed_out")
    return ranked


def decide_before(figures: dict[str, float], search: SearchSection) -> Decision:
    """The decision on a trial before its first epoch, by the figures of its configuration."""
    reason = infeasible_for_good(search.outcome_limits, [figures])
    return stop(reason, "infeasible") if reason else CONTINUE


def complete_reason(search: SearchSection) -> str:
    """The reason for ending a trial after its last epoch."""
    return f"{search.unit.count(search.epochs)} are the most that a trial gets"


def is_over_time(trial: Trial, search: SearchSection, more: float = 0.0) -> bool:
    """Whether the epochs of a trial and `more` seconds together exceed `search.trial_timeout`."""
    return search.trial_timeout is not None and trial.seconds + more > parse_duration(search.trial_timeout)


def timeout_reason(search: SearchSection) -> str:
    """The reason for ending a trial that is over its time."""
    return f"trial_timeout is {search.trial_timeout}"
