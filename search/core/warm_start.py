"""Starts a search from the results of earlier searches: `--from NAME` or `--from auto`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from search.core.config import SearchConfig
from search.core.events import EarlierTrial, WarmStarted
from search.core.feasibility import OutcomeLimit, infeasible
from search.core.pareto import measured
from search.core.registry import SEARCHERS
from search.core.replay import open_search, replay
from search.core.space import Space
from search.core.state import Trial
from search.core.store import Store, pass_over
from trainables import InputError, Objective, Params, get_task

#: The largest number of earlier winners that `--from auto` tries first. Other numbers were not measured.
WINNERS = 3


def from_all(store: Store, config: SearchConfig) -> tuple[WarmStarted | None, list[str]]:
    """Collects the best configurations of the finished searches of this task, for `--from auto`.

    The search tries them first. The searcher learns no losses from them: the searches may have had other data, where a
    loss means something else. A configuration that is best on one data set is often good on another.

    Returns:
        The event, or None if there is no finished search; and lines for the user.
    """
    best: list[tuple[int, str, Params]] = []
    for name, record in store.records():
        if record.task != config.task:
            continue
        try:
            state, _ = replay(store.search(name))
        except InputError as error:
            pass_over(error)
            continue
        if state.status == "finished" and (trial := state.best()) is not None:
            best.append((record.created, name, trial.params))
    winners: list[Params] = []
    names: list[str] = []
    for _, name, params in sorted(best, key=lambda winner: -winner[0]):
        if params not in winners and len(winners) < WINNERS:
            winners.append(params)
            names.append(name)
    if not winners:
        return None, [f"warm start: no finished search of {config.task} is in this store"]
    line = f"warm start: the best configurations of {', '.join(names)} are tried first"
    return {"event": "warm_start", "from": ", ".join(names), "trials": [], "first": winners}, [line]


def from_search(store: Store, name: str, config: SearchConfig, fingerprint: str) -> tuple[WarmStarted, list[str]]:
    """Reads the trials of the search `name` that are over, for `--from NAME`.

    A trial is left out if a value of it lies outside the range of this search. A hyperparameter that the earlier search
    did not have stays open.

    Returns:
        The event, with the trials for the searcher and the best configuration, which is tried first; and lines for the
        user.

    Raises:
        InputError: there is no search of this name, or it has another task. None of its trials can be used, or
            they did not measure an objective of this search.
    """
    place = f"--from {name}"
    if not SEARCHERS.get(config.search.searcher).learns:
        able = ", ".join(name for name in SEARCHERS.names() if SEARCHERS.get(name).learns)
        raise InputError(f"{place}: the {config.search.searcher} searcher learns nothing from trials; use {able}")
    folder, record, earlier = open_search(store, name)
    if earlier.task != config.task and not record.elsewhere:
        raise InputError(f"{place}: a search of {earlier.task}, not of {config.task}")
    own, other = get_task(config.task).objective, record.objective
    if own.mode != other.mode:
        raise InputError(f"{place}: its {other.metric} is better where it is {other.mode}, not {own.mode}")
    state, _ = replay(folder)
    over = [t for t in state.trials.values() if t.over and (t.can_win or t.outcome != "failed")]
    misfits = {trial.number: _misfit(trial, config.space) for trial in over}
    outside = Counter(parameter for parameter in misfits.values() if parameter)
    reasons = ", ".join(f"{count} for {parameter}" for parameter, count in outside.items())
    left_out = f"; {outside.total()} lie outside this space ({reasons})" if outside else ""
    limits = config.search.outcome_limits
    trials = [_earlier(trial, state.objective, config) for trial in over if not misfits[trial.number]]
    if not trials:
        raise InputError(f"{place}: none of its {len(over)} finished trials can be used{left_out}")
    lines = [f"warm start: {len(trials)} of {len(over)} finished trials of {name} taken{left_out}"]
    if record.fingerprint != fingerprint and not record.elsewhere:
        lines.append(f"warm start: {name} was made on other data (fingerprint {record.fingerprint})")
    within = (trial.params for trial in state.ranked() if not infeasible(limits, _figures(trial, limits)))
    first = list(islice(within, 1))
    return {"event": "warm_start", "from": name, "trials": trials, "first": first}, lines


def _earlier(trial: Trial, objective: Objective, config: SearchConfig) -> EarlierTrial:
    """A trial of an earlier search, with what this search compares; raises InputError as `measured`."""
    epochs = {str(epoch): metrics for epoch, metrics in trial.curve.items() if objective.key in metrics}
    values = {epoch: metrics[objective.key] for epoch, metrics in epochs.items()}
    earlier = EarlierTrial(params=trial.params, outcome=trial.outcome, values=values)
    if further := config.objectives[1:]:
        earlier["others"] = {epoch: {o.metric: measured(m, o) for o in further} for epoch, m in epochs.items()}
    if figures := _figures(trial, config.search.outcome_limits):
        earlier["figures"] = figures
    return earlier


def _figures(trial: Trial, limits: Sequence[OutcomeLimit]) -> dict[str, float]:
    """The limited metrics of a trial, as far as they are known."""
    return {limit.metric: value for limit in limits if (value := limit.value(trial.judged)) is not None}


def _misfit(trial: Trial, space: Space) -> str | None:
    """The first hyperparameter of the trial whose value lies outside its range in the space."""
    for parameter in space.parameters:
        given = parameter.searched and parameter.name in trial.params and parameter.exists(trial.params)
        if given and not parameter.allows(trial.params[parameter.name]):
            return parameter.name
    return None


def as_trials(event: WarmStarted, objective: Objective, limits: Sequence[OutcomeLimit] = ()) -> list[Trial]:
    """The earlier trials of the event for `Searcher.learn`, numbered -1, -2 and so on."""
    trials = []
    for index, earlier in enumerate(event["trials"]):
        trial = Trial(-1 - index, earlier["params"], seed=0, outcome=earlier["outcome"])
        trial.figures = earlier.get("figures", {})
        beyond = infeasible(limits, trial.figures)
        for epoch, value in earlier["values"].items():
            if beyond:
                trial.infeasible[int(epoch)] = beyond
            others = earlier.get("others", {}).get(epoch, {})
            trial.take(int(epoch), {**trial.figures, objective.key: value, **others}, objective)
        trials.append(trial)
    return trials
