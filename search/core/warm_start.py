"""Starts a search from the results of earlier searches: `--from NAME` or `--from auto`."""

from __future__ import annotations

from collections import Counter

from search.core.config import SearchConfig
from search.core.events import EarlierTrial, WarmStarted
from search.core.registry import SEARCHERS
from search.core.replay import open_search, replay
from search.core.state import Trial
from search.core.store import Store, pass_over
from trainables import InputError, Objective, Params, get_task

#: The largest number of earlier winners that `--from auto` tries first.
WINNERS = 3


def from_all(store: Store, config: SearchConfig) -> tuple[WarmStarted | None, list[str]]:
    """The winners of the store's finished searches of this task, the newest first, whatever data they were made on.

    They are tried first, and nothing else is learned: what wins on one data set is often good on the next, while the
    values of other data say nothing here.

    Returns:
        The event, None where there is no such search, and lines for the user.
    """
    known: list[tuple[int, str, Params]] = []
    for name, record in store.records():
        if record.task != config.task:
            continue
        try:
            state, _ = replay(store.search(name))
        except InputError as error:
            pass_over(error)
            continue
        best = state.best()
        if state.status == "finished" and best is not None:
            known.append((record.created, name, best.params))
    winners: list[Params] = []
    names: list[str] = []
    for _, name, params in sorted(known, key=lambda one: -one[0]):
        if params not in winners and len(winners) < WINNERS:
            winners.append(params)
            names.append(name)
    if not winners:
        return None, [f"warm start: no finished search of {config.task} is in this store"]
    said = f"warm start: the best configurations of {', '.join(names)} are tried first"
    return {"event": "warm_start", "from": ", ".join(names), "trials": [], "first": winners}, [said]


def from_search(store: Store, name: str, config: SearchConfig, fingerprint: str) -> tuple[WarmStarted, list[str]]:
    """Reads the finished trials of search `name` that fit into this search's space.

    A trial fits if each of its hyperparameters that is searched here too has a value in this search's range.
    Hyperparameters that the earlier search did not have are left open.

    Returns:
        The event that tells the searcher of them, and has it try their best one first; and lines for the user.

    Raises:
        InputError: there is no such search, it is of another task, or nothing of it can be used.
    """
    place = f"--from {name}"
    if not SEARCHERS.get(config.search.searcher).learns:
        able = ", ".join(name for name in SEARCHERS.names() if SEARCHERS.get(name).learns)
        raise InputError(f"{place}: the {config.search.searcher} searcher learns nothing from trials; use {able}")
    folder, record, earlier = open_search(store, name)
    if earlier.task != config.task and not record.imported:
        raise InputError(f"{place}: a search of {earlier.task}, not of {config.task}")
    own, other = get_task(config.task).objective, record.objective
    if own.mode != other.mode:
        raise InputError(f"{place}: its {other.metric} is better where it is {other.mode}, not {own.mode}")
    state, _ = replay(folder)
    finished = [t for t in state.trials.values() if t.over and (t.can_win or t.outcome != "failed")]
    outside: Counter[str] = Counter()
    taken: list[EarlierTrial] = []
    for trial in finished:
        wrong = next(
            (
                p.name
                for p in config.space.parameters
                if p.searched and p.name in trial.params and p.exists(trial.params)
                and not p.allows(trial.params[p.name])
            ),
            None,
        )  # fmt: skip
        if wrong:
            outside[wrong] += 1
        else:
            metric = state.objective.key
            values = {str(e): m[metric] for e, m in trial.curve.items() if metric in m}
            taken.append({"params": trial.params, "outcome": trial.outcome, "values": values})
    reasons = ", ".join(f"{n} for {parameter}" for parameter, n in outside.items())
    left = f"; {sum(outside.values())} lie outside this space ({reasons})" if outside else ""
    if not taken:
        raise InputError(f"{place}: none of its {len(finished)} finished trials can be used{left}")
    said = [f"warm start: {len(taken)} of {len(finished)} finished trials of {name} taken{left}"]
    if record.fingerprint != fingerprint and not record.imported:
        said.append(f"warm start: {name} was made on other data (fingerprint {record.fingerprint})")
    best = state.best()
    first = [best.params] if best is not None else []
    return {"event": "warm_start", "from": name, "trials": taken, "first": first}, said


def as_trials(event: WarmStarted, objective: Objective) -> list[Trial]:
    """The trials of the event, numbered below zero, as `Searcher.learn` takes them."""
    trials = []
    for index, told in enumerate(event["trials"]):
        trial = Trial(-1 - index, told["params"], seed=0, outcome=told["outcome"])
        for epoch, value in told["values"].items():
            trial.take(int(epoch), {objective.key: value}, objective)
        trials.append(trial)
    return trials
