"""The limits that end the trials of a search by their results.

These are a value that is reached, money that is spent, and an hour of search that is not worth it any more.

The final training follows, as at the end of a time budget. Each limit that is reached is an event of the journal before
anything acts on it. While the settings of this event stay the same, a resumed search trains no more trials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search.core.config import SearchConfig
from search.core.cost import cost
from search.core.events import Limit, LimitReached
from search.core.outlook import in_words, outlook
from search.core.readable import figure, value
from search.core.state import SearchState


def in_force(config: SearchConfig, state: SearchState) -> LimitReached | None:
    """The limit that has ended the trials; None if there is none, or if a setting that it depends on has changed."""
    recorded = (event for event in state.limits if event["settings"] == _settings(event["why"], config, state))
    return next(recorded, None)


def reached(config: SearchConfig, state: SearchState, reserves: bool = True) -> LimitReached | None:
    """The event of a limit that is reached and that the state has not recorded; None if there is none.

    A target, and a gain that is worth an hour, end a search once: a search that is given more trials trains them all.

    Args:
        reserves: whether a final training follows, whose cost counts as spent.
    """
    for why, reason_of in _REASONS.items():
        limit = getattr(config.search, _key(why))
        ended = any(event["why"] == why and event["settings"][_key(why)] == limit for event in state.limits)
        if limit is None or ended:
            continue
        if reason := reason_of(config, state, reserves):
            return LimitReached(event="limit", why=why, reason=reason, settings=_settings(why, config, state))
    return None


def spent(config: SearchConfig, state: SearchState) -> float:
    """The cost of all trials so far, by the prices of the configuration."""
    return sum(cost(trial, config.resources)["cost"] for trial in state.trials.values())


def reserved(config: SearchConfig, state: SearchState) -> float:
    """The cost that the final training will have: that of the best trial, for each seed; 0 without a best trial."""
    best = state.best()
    return 0.0 if best is None else config.search.retrain_seeds * cost(best, config.resources)["cost"]


def _key(why: Limit) -> str:
    """The setting of a limit in the section `search`."""
    return why.replace(" ", "_")


def _settings(why: Limit, config: SearchConfig, state: SearchState) -> dict[str, Any]:
    """The settings whose change lets the trials go on."""
    search = config.search
    own = {_key(why): getattr(search, _key(why))}
    if why == "cost budget":  # more trials cost more
        return own
    return own | {"trials": search.trials, "epochs": search.epochs, "added": state.added_in_all}


def _target(config: SearchConfig, state: SearchState, _: bool) -> str:
    target, best, objective = config.search.target, state.best(), state.objective
    if target is None or best is None or objective.better(target, best.best_value):
        return ""
    at = config.search.unit.at(best.best_epoch)
    return f"trial {best.number} has {objective.key} {figure(best.best_value)} at {at}; the target is {value(target)}"


def _cost_budget(config: SearchConfig, state: SearchState, reserves: bool) -> str:
    budget, used = config.search.cost_budget, spent(config, state)
    kept = reserved(config, state) if reserves else 0.0
    if budget is None or used + kept < budget:
        return ""
    final = f", and the final training will cost about {figure(kept)}" if kept else ""
    return f"the trials cost {figure(used)}{final}; the budget is {value(budget)}"


def _worth(config: SearchConfig, state: SearchState, _: bool) -> str:
    worth, expected = config.search.worth, outlook(state, config.search.seed)
    if worth is None or expected is None or expected.gain >= worth:
        return ""
    return f"{in_words(expected, state.objective)}; worth is {value(worth)}"


#: Why each limit is reached, in words and figures; an empty text while it is not.
_REASONS: dict[Limit, Callable[[SearchConfig, SearchState, bool], str]] = {
    "target": _target, "cost budget": _cost_budget, "worth": _worth,
}  # fmt: skip
